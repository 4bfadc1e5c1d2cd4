//! What a request to the control plane ends in when it does not succeed.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bulla_http::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::policies::PolicyMistake;

/// Why a request came to nothing. Whatever stands in one reaches the operator who asked: no
/// secret and nothing of another conversation belongs here.
#[derive(Debug, Clone, PartialEq, Error, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CallFailure {
    /// The peer's own, sealed answer: the method failed or was refused there.
    #[error("{target} answered with {error}: {message}")]
    Remote {
        /// Who answered.
        target: String,
        /// The type of the error, as the peer names it.
        error: String,
        /// The peer's message.
        message: String,
        /// What else the peer says; boxed, for few say anything.
        #[serde(default, skip_serializing_if = "is_null")]
        details: Box<Value>,
    },
    /// No answer in time. Whether the method ran is not known.
    #[error("no answer from {target} within {} s; it may be away or busy, and may yet have done what was asked", seconds(*timeout_ms))]
    Timeout {
        /// Who was asked.
        target: String,
        /// How long was waited, in milliseconds.
        timeout_ms: u64,
    },
    /// Nobody has ever declared a queue there: the receiver was added but has not run yet.
    #[error(
        "nobody listens for {target}; start it (an agent with `bulla agent run`) and try again"
    )]
    NobodyThere {
        /// Who was asked.
        target: String,
    },
    /// There is no such agent, component or group.
    #[error("there is no {target}; `bulla agent list` and `bulla component list` show who exists")]
    UnknownTarget {
        /// The name.
        target: String,
    },
    /// There is nothing of that name.
    #[error("{why}")]
    NotFound {
        /// What there is not, and where to look.
        why: String,
    },
    /// What there is stands in the way.
    #[error("{why}")]
    Conflict {
        /// What, and what to do.
        why: String,
    },
    /// The policy can't be activated.
    #[error("the policy has mistakes: {}", first(mistakes))]
    PolicyRefused {
        /// All of them.
        mistakes: Vec<PolicyMistake>,
    },
    /// The idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request: take a new key for each request")]
    KeyReused,
    /// The first request with this idempotency key has not ended.
    #[error("the first request with this Idempotency-Key is still under way; try again shortly")]
    KeyInUse,
    /// The process that served the first request with this idempotency key was lost, or its answer
    /// is not kept.
    #[error(
        "what became of the first request with this Idempotency-Key is not known here ({why}); \
         look before asking again with a new key"
    )]
    OutcomeUnknown {
        /// How that came.
        why: String,
    },
    /// The message is over the limit.
    #[error("the message has {size} bytes, and {limit} is the limit")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The request can't be what is meant.
    #[error("{why}")]
    BadRequest {
        /// What is wrong with it.
        why: String,
    },
    /// The operator or this control plane may not do that.
    #[error("not permitted: {why}")]
    NotPermitted {
        /// By which rule.
        why: String,
    },
    /// The policy does not let who asked do that.
    #[error("the policy does not allow this (rule {rule})")]
    Denied {
        /// The id of the rule that says so.
        rule: String,
    },
    /// Too much at a time.
    #[error("too much at a time: {why}; try again shortly")]
    Busy {
        /// Of what.
        why: String,
    },
    /// The bus can't be reached; nothing was sent.
    #[error("the bus is down, nothing was sent: {why}")]
    BusDown {
        /// What is known of the cause.
        why: String,
    },
    /// The bus was lost while the answer was awaited. Whether the method ran is not known.
    #[error(
        "the bus was lost while waiting for {target}, which may have done what was asked: {why}"
    )]
    Interrupted {
        /// Who was asked.
        target: String,
        /// What is known of the cause.
        why: String,
    },
    /// The control plane is shutting down; nothing was sent.
    #[error("the control plane is shutting down, nothing was sent")]
    Stopping,
    /// A fault of the control plane.
    #[error("the control plane failed: {why}")]
    Internal {
        /// What is known of the cause.
        why: String,
    },
}

impl CallFailure {
    /// The one place that decides status and title; the type is the variant's name.
    fn classify(&self) -> (StatusCode, &'static str) {
        use CallFailure as F;
        match self {
            F::BadRequest { .. } => (StatusCode::BAD_REQUEST, "The request can't be served"),
            F::NotPermitted { .. } => (StatusCode::FORBIDDEN, "Not permitted"),
            F::Denied { .. } => (StatusCode::FORBIDDEN, "The policy does not allow it"),
            F::UnknownTarget { .. } => (StatusCode::NOT_FOUND, "There is no such target"),
            F::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "The message is too large"),
            F::NotFound { .. } => (StatusCode::NOT_FOUND, "There is no such thing"),
            F::Conflict { .. } => (StatusCode::CONFLICT, "Something stands in the way"),
            F::PolicyRefused { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "The policy has mistakes")
            }
            F::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "The key was used before"),
            F::KeyInUse => (StatusCode::CONFLICT, "The first request is under way"),
            F::OutcomeUnknown { .. } => (StatusCode::CONFLICT, "The outcome is unknown"),
            F::Remote { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "The method failed"),
            F::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "Too much at a time"),
            F::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "The control plane failed"),
            F::Interrupted { .. } => (StatusCode::BAD_GATEWAY, "The bus was lost"),
            F::BusDown { .. } => (StatusCode::SERVICE_UNAVAILABLE, "The bus is down"),
            F::NobodyThere { .. } => (StatusCode::SERVICE_UNAVAILABLE, "Nobody listens there"),
            F::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "The control plane is stopping"),
            F::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "No answer in time"),
        }
    }

    /// The failure as problem details: the variant's name is the type, its fields are the
    /// extension members.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let (status, title) = self.classify();
        let mut members = match serde_json::to_value(self) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        let name = members.remove("name");
        let name = name.as_ref().and_then(Value::as_str).unwrap_or("internal");
        let mut problem = Problem::new(status, name, title, self.to_string());
        *problem.extensions = members;
        problem
    }

    /// The failure that a problem was made from; `None` if it was made from something else.
    #[must_use]
    pub fn from_problem(problem: &Problem) -> Option<Self> {
        let mut members = Map::clone(&problem.extensions);
        members.insert("name".into(), problem.name()?.into());
        serde_json::from_value(Value::Object(members)).ok()
    }
}

impl IntoResponse for CallFailure {
    fn into_response(self) -> Response {
        if let Self::Internal { why } = &self {
            tracing::error!(why, "a request failed");
        }
        self.to_problem().into_response()
    }
}

#[expect(clippy::borrowed_box, reason = "what serde calls it with")]
fn is_null(details: &Box<Value>) -> bool {
    details.is_null()
}

fn first(mistakes: &[PolicyMistake]) -> String {
    let Some(mistake) = mistakes.first() else { return "none is named".to_owned() };
    let line = mistake.line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let more = match mistakes.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    format!("{line}{}{more}", mistake.message)
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_is_stable_and_complete() {
        let failure = CallFailure::Timeout { target: "agent/db-1".into(), timeout_ms: 1500 };
        assert_eq!(
            serde_json::to_value(failure.to_problem()).unwrap(),
            json!({
                "type": "urn:bulla:problem:timeout",
                "title": "No answer in time",
                "status": 504,
                "detail": "no answer from agent/db-1 within 1.5 s; it may be away or busy, \
                           and may yet have done what was asked",
                "target": "agent/db-1",
                "timeout_ms": 1500,
            })
        );
    }

    #[test]
    fn other_problems_are_no_failures() {
        assert_eq!(CallFailure::from_problem(&Problem::unauthorized()), None);
        assert_eq!(CallFailure::from_problem(&Problem::too_large(1)), None);
        let mut foreign = CallFailure::Stopping.to_problem();
        foreign.kind = "about:blank".into();
        assert_eq!(CallFailure::from_problem(&foreign), None);
    }
}
