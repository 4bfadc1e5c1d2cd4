//! Opening a connection.

use std::io;
use std::time::Duration;

use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::{Connection, ConnectionProperties, ErrorKind};

use super::options::RabbitOptions;
use crate::error::TransportError;

/// Marks an I/O error as one of the TLS handshake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Handshake(io::Error);

pub(super) async fn dial(options: &RabbitOptions) -> Result<Connection, TransportError> {
    let tls = options.tls()?;
    let limit = options.connect_timeout;
    let properties =
        ConnectionProperties::default().with_connection_name(options.name.as_str().into());
    let runtime =
        lapin::runtime::default_runtime().map_err(|error| unreachable(options, &error))?;
    let connecting = Connection::connector(
        options.dialled(),
        runtime,
        async move |uri, runtime| {
            let open = async {
                let address = (uri.authority.host.clone(), uri.authority.port);
                let address = runtime.to_socket_addrs(address);
                let stream = AsyncTcpStream::connect(&runtime, address).await?;
                let Some(tls) = &tls else { return Ok(stream) };
                let connector = RustlsConnector::from(tls.client.clone());
                stream
                    .into_rustls(&connector, &tls.server_name)
                    .await
                    .map_err(|error| io::Error::other(Handshake(error)))
            };
            let opened = tokio::time::timeout(limit, open).await;
            opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(Into::into)
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
