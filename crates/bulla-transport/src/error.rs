//! What can go wrong on the way. Everything here is local and unauthenticated: it says something
//! about the transport, never about what a peer did (protocol section 4).

use thiserror::Error;

/// A transport could not be reached or used.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The address of the bus can't be used as given.
    #[error("the bus address can't be used: {why}")]
    BadUrl {
        /// What is wrong with it; never holds the password.
        why: String,
    },
    /// The broker can't be reached.
    #[error("can't reach the broker at {address}: {why}")]
    Unreachable {
        /// Host and port, without credentials.
        address: String,
        /// The cause.
        why: String,
    },
    /// The broker refused the credentials, a name or an operation.
    #[error("the broker refused {what}: {why}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What the broker said.
        why: String,
    },
    /// TLS could not be set up.
    #[error("TLS to {address} failed: {why}")]
    Tls {
        /// Host and port.
        address: String,
        /// The cause.
        why: String,
    },
    /// The transport was closed.
    #[error("the transport is closed")]
    Closed,
    /// This transport can't do that at all.
    #[error("this transport has no {what}")]
    Unsupported {
        /// The missing capability.
        what: &'static str,
    },
}

/// A message was not taken over by the transport.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Nobody has declared a queue at that address (a mandatory message came back).
    #[error("no queue at {address}")]
    Unroutable {
        /// The routing key.
        address: String,
    },
    /// The connection was lost before the broker confirmed; the message may or may not be there.
    #[error("the connection was lost before the broker confirmed the message")]
    Unconfirmed,
    /// The broker said no (a full queue with reject-publish, for example).
    #[error("the broker did not take the message")]
    Rejected,
    /// Larger than the transport takes.
    #[error("{size} bytes are more than this transport's limit of {limit}")]
    TooLarge {
        /// Bytes given.
        size: usize,
        /// Bytes taken at the most.
        limit: usize,
    },
    /// The transport itself failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
}
