//! What can keep the client from an answer.

use std::time::Duration;

use bulla_http::{AccessKeyError, CertError, DialError, Problem, TlsFault, TokenError};
use thiserror::Error;

use crate::failure::CallFailure;

/// A request had no success.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The control plane answered, and this is why it could not do what was asked.
    #[error(transparent)]
    Failed(#[from] CallFailure),
    /// The control plane did not take the request.
    #[error("{0}")]
    Refused(Problem),
    /// The control plane does not know who asks.
    #[error(
        "the control plane does not accept these credentials: {detail}; \
         use the operator's certificate or token file that was made for it (`bulla init`), an access \
         key of its own (`bulla access-key add`), or a token that is still good"
    )]
    Unauthorized {
        /// What it says.
        detail: String,
    },
    /// Nothing listens at the URL.
    #[error("nothing listens at {url}; is `bulla up` or `bulla serve` running?")]
    NotRunning {
        /// The URL.
        url: String,
    },
    /// The URL can't be reached, or TLS with it failed.
    #[error("{0}{hint}", hint = dial_hint(.0))]
    Unreachable(#[source] DialError),
    /// The server does not take this client's certificate.
    #[error(
        "{url} does not accept the operator's certificate ({why}); use the one that was made with the server's own (`bulla init`)"
    )]
    CertificateRefused {
        /// The URL.
        url: String,
        /// The alert that it sent.
        why: String,
    },
    /// The connection broke before the answer was complete. Whether the request was carried out
    /// is not known.
    #[error("the control plane hung up before its answer was complete: {why}")]
    Broken {
        /// The cause.
        why: String,
    },
    /// The control plane is connected and says nothing.
    #[error("the control plane said nothing for {} s", limit.as_secs())]
    Silent {
        /// How long was waited.
        limit: Duration,
    },
    /// What answers is no control plane of this version.
    #[error("what answers is no Bulla control plane of this version: {why}")]
    NotUs {
        /// How that shows.
        why: String,
    },
    /// The URL can't be used.
    #[error("{url:?} can't be used as the control plane's URL: {why}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The request has no JSON form.
    #[error("the request can't be written as JSON: {why}")]
    Unsendable {
        /// The cause.
        why: String,
    },
    /// A certificate or key can't be used.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// The token can't be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The access key can't be used.
    #[error(transparent)]
    AccessKey(#[from] AccessKeyError),
}

impl ClientError {
    pub(super) fn of_problem(problem: Problem) -> Self {
        if let Some(failure) = CallFailure::from_problem(&problem) {
            return Self::Failed(failure);
        }
        match problem.status {
            401 => Self::Unauthorized { detail: problem.detail },
            _ => Self::Refused(problem),
        }
    }

    pub(super) fn of_dial(url: &str, error: DialError) -> Self {
        match error {
            DialError::Refused { .. } => Self::NotRunning { url: url.to_owned() },
            other => Self::Unreachable(other),
        }
    }

    /// An error on an open connection. In TLS 1.3 that is also where the client learns that its
    /// certificate was refused.
    pub(super) fn of_connection(url: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        match TlsFault::find(error) {
            Some(TlsFault::ClientCertificateRefused { why }) => {
                Self::CertificateRefused { url: url.to_owned(), why }
            }
            Some(fault) => Self::Broken { why: fault.to_string() },
            None => Self::Broken { why: with_causes(error) },
        }
    }
}

fn dial_hint(error: &DialError) -> &'static str {
    match error {
        DialError::Tls { fault: TlsFault::UnknownServerCa, .. } => {
            "; is the CA file the one that was made with that server's certificate?"
        }
        DialError::Tls { fault: TlsFault::WrongServerName, .. } => {
            "; use a name that the certificate was made for, or have one made for this name"
        }
        DialError::Tls { fault: TlsFault::NotTls, .. } => {
            "; if it is a plain loopback listener, use http:// and its token file"
        }
        _ => "",
    }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
