//! What a caller is told.

use std::fmt;
use std::time::Duration;

use bulla_seal::{OfferError, RandomFailed, SealError};
use bulla_transport::{PublishError, TransportError};
use serde_json::Value;
use thiserror::Error;

use crate::value::ValueError;

/// A failure that the addressed peer reported under seal. Data: nothing here names code to load.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteError {
    /// A stable name, such as `NoSuchMethod`.
    pub kind: String,
    /// What happened, for people.
    pub message: String,
    /// More, if the peer gave more. Boxed: errors are small, and few have any.
    pub details: Option<Box<Value>>,
    /// Where in the peer's code, if it is allowed to tell.
    pub trace: Option<String>,
}

impl RemoteError {
    /// An error of `kind` with a message for people.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), details: None, trace: None }
    }

    /// With details.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for RemoteError {}

/// The kinds of error that Bulla itself makes at the far end.
pub mod kinds {
    /// The arguments are not what the method takes.
    pub const BAD_ARGUMENTS: &str = "BadArguments";
    /// The caller gave up and the method was stopped.
    pub const CANCELLED: &str = "Cancelled";
    /// The method failed in a way that it did not describe.
    pub const INTERNAL: &str = "InternalError";
    /// The request is malformed inside its seal.
    pub const MALFORMED: &str = "Malformed";
    /// No method of that name, namespace and version.
    pub const NO_SUCH_METHOD: &str = "NoSuchMethod";
    /// The journal can't take the call, and nothing may run that it does not have.
    pub const NOT_JOURNALLED: &str = "NotJournalled";
    /// The policy does not let the caller do that.
    pub const NOT_PERMITTED: &str = "NotPermitted";
    /// The method may or may not have run.
    pub const OUTCOME_UNKNOWN: &str = "OutcomeUnknown";
    /// The method ran; its result is no longer held.
    pub const RESULT_NOT_HELD: &str = "ResultNotHeld";
    /// The result is larger than a message may be.
    pub const RESULT_TOO_LARGE: &str = "ResultTooLarge";
    /// The method exists, but not in a compatible version.
    pub const UNSUPPORTED_VERSION: &str = "UnsupportedVersion";
}

/// Why a call, cast or fanout did not succeed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer answered with a sealed error.
    #[error("{0}")]
    Remote(#[from] RemoteError),
    /// No answer in time. A local event: it says nothing about what the peer did.
    #[error(
        "{target} did not answer within {after:?}; it may be away, or the bus is withholding messages"
    )]
    Timeout {
        /// Who was called.
        target: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// No queue at the peer's address. A local event.
    #[error("nobody has ever listened as {target} on this bus")]
    Unroutable {
        /// Who was called.
        target: String,
    },
    /// No such principal, or it can't be sealed to.
    #[error("{target} is not known: {why}")]
    UnknownTarget {
        /// Who was called.
        target: String,
        /// What is missing.
        why: String,
    },
    /// A statement of revocation says that its keys count no more.
    #[error("{target} is revoked ({refusal}): nothing is sent to it")]
    Revoked {
        /// Who was called.
        target: String,
        /// Revoked by name, or by an epoch.
        refusal: bulla_seal::Refusal,
    },
    /// The message would be larger than the limit.
    #[error(
        "the message has {size} bytes and the limit is {limit}; raise the limit on both ends or send less"
    )]
    TooLarge {
        /// Bytes of the frame.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The arguments or the result can't be (de)serialised.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The message could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No session with the peer could be opened.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The machine gives no random bytes.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// The bus did not take the message.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The bus can't be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// This call makes no sense (a call to a group, a timeout of more than a day).
    #[error("{0}")]
    Usage(String),
    /// The client was closed while waiting.
    #[error("the client was closed")]
    Closed,
}
