//! Opening a connection.

use std::io;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use tokio_rustls::TlsConnector;

use super::options::RabbitOptions;
use super::stream::{self, Stream};
use super::tls::TlsConfig;
use crate::error::TransportError;
use crate::login::Logins;

/// Marks an I/O error as one of the TLS handshake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Handshake(io::Error);

// Not async: the client library is compiled here, as this crate is optimised (docs/adr/0008).
#[inline(never)]
pub(super) fn dial(options: &RabbitOptions) -> BoxFuture<'_, Result<Connection, TransportError>> {
    Box::pin(dialling(options))
}

/// With the first login that the broker takes.
async fn dialling(options: &RabbitOptions) -> Result<Connection, TransportError> {
    let logins = options.logins.as_ref();
    let mut refused = None;
    for login in logins.map(Logins::newest_first).unwrap_or_default() {
        match dialling_as(options, options.dialled_as(&login)).await {
            Ok(connection) => {
                if let Some(logins) = logins {
                    logins.opened_with(&login);
                }
                return Ok(connection);
            }
            Err(error @ TransportError::Refused { .. }) => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match refused {
        Some(error) => Err(error),
        None => dialling_as(options, options.dialled()).await,
    }
}

async fn dialling_as(options: &RabbitOptions, uri: AMQPUri) -> Result<Connection, TransportError> {
    let tls = options.tls()?;
    let limit = options.connect_timeout;
    let properties =
        ConnectionProperties::default().with_connection_name(options.name.as_str().into());
    let connecting = Connection::connector(
        uri,
        stream::runtime(),
        async move |uri, _| {
            let open = open((uri.authority.host, uri.authority.port), tls.as_ref());
            let opened = tokio::time::timeout(limit, open).await;
            let opened = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            Ok(AsyncTcpStream::Plain(opened?))
        },
        properties,
    );
    // The greeting gets a moment of its own, so that the inner limit speaks first.
    match tokio::time::timeout(limit + Duration::from_secs(1), connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(failure(options, &error)),
        Err(_) => Err(TransportError::Unreachable {
            address: options.address(),
            why: format!("no answer within {} s", limit.as_secs_f32()),
        }),
    }
}

async fn open(address: (String, u16), tls: Option<&TlsConfig>) -> io::Result<Stream> {
    let stream = stream::connect(address).await?;
    let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
    let connector = TlsConnector::from(tls.client.clone());
    let secured = connector.connect(tls.server_name.clone(), stream).await;
    let secured = secured.map_err(|error| io::Error::other(Handshake(error)))?;
    Ok(Stream::Tls(Box::new(secured)))
}

fn unreachable(options: &RabbitOptions, error: &dyn std::fmt::Display) -> TransportError {
    TransportError::Unreachable { address: options.address(), why: error.to_string() }
}

fn failure(options: &RabbitOptions, error: &lapin::Error) -> TransportError {
    match error.kind() {
        ErrorKind::IOError(io) if is_tls(io) => TransportError::Tls {
            address: options.address(),
            why: format!("{io}; check the authority, the server name and the client certificate"),
        },
        ErrorKind::IOError(io) if options.is_tls() && is_end(io) => {
            // The broker ends the connection right after a handshake that it did not like.
            TransportError::Tls {
                address: options.address(),
                why: "the broker ended the connection; it may want a client certificate".to_owned(),
            }
        }
        ErrorKind::IOError(io) => unreachable(options, io),
        ErrorKind::ProtocolError(refusal) => TransportError::Refused {
            what: format!("the connection to {}", options.address()),
            why: refusal.get_message().to_string(),
        },
        _ => unreachable(options, error),
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
