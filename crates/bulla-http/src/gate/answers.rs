//! What is said to those who are let in, and to those who are not.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Admitted, Refused};
use crate::problem::Problem;
use crate::rate::Rate;

/// draft-ietf-httpapi-ratelimit-headers.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

impl Admitted {
    /// Says in the answer how often more its caller may ask.
    pub(crate) fn finish(left: Option<(Rate, u32)>, response: &mut Response) {
        let Some((rate, left)) = left else { return };
        let missing = f64::from(rate.burst.saturating_sub(left)) / rate.rate;
        let full = Duration::from_secs_f64(missing.clamp(0.0, 86_400.0));
        say(response, rate, left, full);
    }

    pub(crate) fn into_parts(self) -> (Request<Body>, Option<(Rate, u32)>) {
        (self.request, self.left)
    }
}

pub(super) fn say(response: &mut Response, rate: Rate, left: u32, until: Duration) {
    let policy = format!("\"identity\";q={};w={}", rate.burst, seconds(rate.window()));
    let now = format!("\"identity\";r={left};t={}", seconds(until));
    for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, now)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
}

/// Whole seconds, upwards.
fn seconds(of: Duration) -> u64 {
    of.as_secs() + u64::from(of.subsec_nanos() > 0)
}

pub(super) fn wait_for(problem: Problem, wait: Duration) -> Response {
    let wait = seconds(wait).max(1);
    let mut response = problem.with("retry_after_s", wait).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
    response
}

pub(super) fn shut_out(wait: Duration) -> Response {
    let problem = Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-failures",
        "Too many requests were not authenticated",
        "too many requests from this address were not authenticated; wait",
    );
    wait_for(problem, wait)
}

pub(super) fn refused(credential: &'static str, why: &'static str, detail: &str) -> Refused {
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "The request is not authenticated",
        detail,
    );
    Refused { credential, why, problem }
}

pub(super) fn unavailable(detail: &str) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "authentication-unavailable",
        "The request can't be authenticated now",
        detail,
    )
}
