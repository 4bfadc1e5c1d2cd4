//! What a command that failed says, and its exit code.

use std::error::Error;
use std::fmt;

use bulla_api::{CallFailure, PolicyMistake};
use bulla_keystore::KeystoreError;
use bulla_seal::NameError;

/// Why a command failed, in a sentence or two that say what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    kind: Kind,
}

/// What sort of failure it is: for the exit code of a command, and the status of an answer.
#[derive(Debug)]
enum Kind {
    /// Something went wrong.
    Failed,
    /// A command was used wrongly.
    Usage,
    /// It can't be what is meant.
    Invalid,
    /// There is no such thing.
    Missing,
    /// What there is stands in the way.
    Conflict,
    /// A policy has mistakes.
    Mistakes(Vec<PolicyMistake>),
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Something went wrong: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Failed }
    }

    /// The command was used wrongly: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Usage }
    }

    /// What there is stands in the way: exit code 1.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: Kind::Conflict }
    }

    /// A policy has mistakes: exit code 1.
    pub(crate) fn mistakes(message: impl Into<String>, mistakes: Vec<PolicyMistake>) -> Self {
        Self { message: message.into(), kind: Kind::Mistakes(mistakes) }
    }

    pub(crate) fn code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    /// The error and what caused it, each said once.
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self { message, kind: Kind::of(&error) }
    }
}

impl Kind {
    /// The one place that decides which errors are whose.
    fn of(error: &(dyn Error + 'static)) -> Self {
        use KeystoreError as E;
        if error.is::<NameError>() {
            return Self::Invalid;
        }
        match error.downcast_ref::<KeystoreError>() {
            Some(
                E::UnknownPrincipal(_)
                | E::UnknownGroup(_)
                | E::UnknownPolicy { .. }
                | E::UnknownAccessKey { .. }
                | E::UnknownKid(_)
                | E::UnknownInstance { .. },
            ) => Self::Missing,
            Some(
                E::NameTaken(_)
                | E::GroupTaken(_)
                | E::GroupBuiltIn(_)
                | E::StillGood { .. }
                | E::NotJoined(_)
                | E::NoEarlierPolicy,
            ) => Self::Conflict,
            Some(
                E::Name(_)
                | E::NotAUser { .. }
                | E::AccessKeyEnd
                | E::TokenLifetime { .. }
                | E::NoKemSuite
                | E::Role { .. }
                | E::PolicyTooLarge { .. },
            ) => Self::Invalid,
            _ => Self::Failed,
        }
    }
}

/// What who asked over the API hears of it.
impl From<Failure> for CallFailure {
    fn from(failure: Failure) -> Self {
        let why = failure.message;
        match failure.kind {
            Kind::Failed => Self::Internal { why },
            Kind::Usage | Kind::Invalid => Self::BadRequest { why },
            Kind::Missing => Self::NotFound { why },
            Kind::Conflict => Self::Conflict { why },
            Kind::Mistakes(mistakes) => Self::PolicyRefused { mistakes },
        }
    }
}
