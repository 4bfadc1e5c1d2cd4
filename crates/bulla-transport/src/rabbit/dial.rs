//! Opening a connection.

use std::io;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::options::RabbitOptions;
use crate::amqp::{Connection, Credentials, DialError, Event, Hello, Stream};
use crate::error::TransportError;
use crate::login::{Login, Logins};
use crate::transport::DEFAULT_MAX_MESSAGE;

/// A connection, and what happens on it.
pub(super) type Dialled = (Connection, mpsc::Receiver<Event>);

/// Marks an I/O error as one of the TLS handshake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Handshake(io::Error);

// Not async: the client is compiled here, as this crate is optimised (docs/adr/0008).
#[inline(never)]
pub(super) fn dial(options: &RabbitOptions) -> BoxFuture<'_, Result<Dialled, TransportError>> {
    Box::pin(dialling(options))
}

/// With the first login that the broker takes.
async fn dialling(options: &RabbitOptions) -> Result<Dialled, TransportError> {
    let logins = options.logins.as_ref();
    let mut refused = None;
    for login in logins.map(Logins::newest_first).unwrap_or_default() {
        match dialling_as(options, Some(&login)).await {
            Ok(dialled) => {
                if let Some(logins) = logins {
                    logins.opened_with(&login);
                }
                return Ok(dialled);
            }
            Err(error @ TransportError::Refused { .. }) => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match refused {
        Some(error) => Err(error),
        None => dialling_as(options, None).await,
    }
}

async fn dialling_as(
    options: &RabbitOptions,
    login: Option<&Login>,
) -> Result<Dialled, TransportError> {
    let (uri, limit) = (&options.uri, options.connect_timeout);
    let mechanism = options.mechanism();
    let (user, password) = match login {
        Some(login) => (&login.user, &login.password),
        None => (&uri.user, &uri.password),
    };
    let hello = Hello {
        credentials: Credentials { mechanism, user: user.clone(), password: password.clone() },
        vhost: &uri.vhost,
        name: &options.name,
        heartbeat: uri.heartbeat.unwrap_or(0),
        frame_max: uri.frame_max,
    };
    let tls = options.tls()?;
    let connecting = async {
        let socket = Stream::connect(&uri.host, uri.port).await?;
        let stream = match tls {
            None => Stream::Plain(socket),
            Some(tls) => Stream::secure(socket, tls.client, tls.server_name)
                .await
                .map_err(|error| io::Error::other(Handshake(error)))?,
        };
        Connection::open(stream, &hello, options.max_message.max(DEFAULT_MAX_MESSAGE)).await
    };
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(dialled)) => Ok(dialled),
        Ok(Err(error)) => Err(failure(options, error)),
        Err(_) => Err(unreachable(options, &format!("no answer within {} s", limit.as_secs_f32()))),
    }
}

fn unreachable(options: &RabbitOptions, error: &dyn std::fmt::Display) -> TransportError {
    TransportError::Unreachable { address: options.address(), why: error.to_string() }
}

fn failure(options: &RabbitOptions, error: DialError) -> TransportError {
    match error {
        DialError::Io(io) if is_tls(&io) => TransportError::Tls {
            address: options.address(),
            why: format!("{io}; check the authority, the server name and the client certificate"),
        },
        DialError::Io(io) if options.is_tls() && is_end(&io) => {
            // The broker ends the connection right after a handshake that it did not like.
            TransportError::Tls {
                address: options.address(),
                why: "the broker ended the connection; it may want a client certificate".to_owned(),
            }
        }
        DialError::Refused { text } => TransportError::Refused {
            what: format!("the connection to {}", options.address()),
            why: text,
        },
        error => unreachable(options, &error),
    }
}

/// Whether the other side ended the connection; its reason may be lost on the way.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof
    )
}

/// Whether the cause is TLS: during the handshake, or an alert just after it.
fn is_tls(error: &io::Error) -> bool {
    let Some(inner) = error.get_ref() else { return false };
    inner.is::<Handshake>()
        || inner.is::<rustls::Error>()
        || inner.downcast_ref::<io::Error>().is_some_and(is_tls)
}
