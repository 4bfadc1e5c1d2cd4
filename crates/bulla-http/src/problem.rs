//! Problem details for HTTP APIs (RFC 9457).

use std::fmt;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Every problem type of ours begins with this.
pub const PROBLEM_PREFIX: &str = "urn:bulla:problem:";

/// The content type of a problem (RFC 9457 section 3).
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong with a request, for machines (`type`, extension members) and for people
/// (`title`, `detail`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable URN, such as `urn:bulla:problem:unknown-target`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What this type of problem is; the same for each occurrence.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// Members that belong to the type. Boxed: it is an error like others, and they are small.
    #[serde(flatten)]
    pub extensions: Box<Map<String, Value>>,
}

impl Problem {
    /// A problem of the type `urn:bulla:problem:<name>`.
    #[must_use]
    pub fn new(status: StatusCode, name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{PROBLEM_PREFIX}{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            extensions: Box::default(),
        }
    }

    /// Adds an extension member. The five standard members can't be replaced this way.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        if !matches!(member, "type" | "title" | "status" | "detail" | "instance") {
            self.extensions.insert(member.to_owned(), value.into());
        }
        self
    }

    /// The type's name without the common prefix; `None` if the type is not one of ours.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.kind.strip_prefix(PROBLEM_PREFIX)
    }

    /// 401: the request has no identity.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "The request is not authenticated",
            "every request needs a credential that is taken here: a client certificate that names its \
             operator, a signature with an access key (RFC 9421), `X-Auth-Token` with a token of \
             Keystone's or, on a plain loopback listener, `Authorization: Bearer` with the \
             listener's token",
        )
    }

    /// 413: the body is over the listener's limit.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "The request body is too large",
            format!("the request body is larger than the {limit} bytes that are accepted here"),
        )
        .with("limit", limit)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.title)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A map with string keys always has a JSON form.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The fallback of a router: 404 as a problem.
pub async fn no_such_route(uri: axum::http::Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-route",
        "There is no such resource",
        format!("there is nothing at {}", uri.path()),
    )
}

/// The fallback of a router for a known path and the wrong method: 405 as a problem.
pub async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "The resource has no such method",
        format!("{} does not take {method}", uri.path()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_members_stand_beside_the_standard_ones() {
        let problem = Problem::too_large(5).with("status", 200);
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:bulla:problem:body-too-large");
        assert_eq!(json["status"], 413);
        assert_eq!(json["limit"], 5);
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }

    #[test]
    fn the_response_says_what_it_is() {
        let response = Problem::unauthorized().into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_CONTENT_TYPE);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
}
