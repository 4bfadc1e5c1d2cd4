//! What can go wrong.

use std::io;
use std::sync::Arc;

use thiserror::Error;

/// An operation on a connection that was open once.
#[derive(Debug, Clone, Error)]
pub(crate) enum AmqpError {
    /// The broker said no: the channel is closed, the connection stays.
    #[error("{text}")]
    Refused {
        /// The reply code: 403, 404, 405, 406 …
        code: u16,
        /// What the broker said.
        text: Arc<str>,
    },
    /// The connection, or the channel, is gone.
    #[error("{0}")]
    Lost(Arc<str>),
    /// A name of more than 255 bytes.
    #[error("a name of more than 255 bytes")]
    NameTooLong,
}

/// A connection that was not opened.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    /// The socket failed, TLS included.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The broker refused us: user, virtual host, mechanism.
    #[error("{text}")]
    Refused {
        /// What the broker said.
        text: String,
    },
    /// It ended the connection for a reason of its own.
    #[error("{text}")]
    Ended {
        /// What the broker said.
        text: String,
    },
    /// What is there does not speak AMQP 0-9-1.
    #[error("it does not speak AMQP 0-9-1: {0}")]
    Protocol(#[from] Malformed),
}

/// Bytes that are not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);
