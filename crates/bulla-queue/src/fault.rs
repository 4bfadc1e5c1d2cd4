//! What goes wrong, in Zaqar's words: a status, a title and a description.

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::store::StoreError;

/// A refusal. Clients take 400, 401, 403, 404, 409, 500 and 503 for errors and everything else for
/// success, so those are used where a standard's reader would expect another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    status: StatusCode,
    title: &'static str,
    description: Option<String>,
    allow: Option<&'static str>,
    location: Option<String>,
}

#[derive(Serialize)]
struct Shape<'a> {
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

impl Fault {
    fn new(status: StatusCode, title: &'static str, description: impl Into<String>) -> Self {
        Self { status, title, description: Some(description.into()), allow: None, location: None }
    }

    /// Something that can't be, by a name of its own.
    pub(crate) fn named(title: &'static str, description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, title, description)
    }

    /// A header, a parameter or a value that can't be.
    pub(crate) fn request(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid API request", description)
    }

    /// A body that can't be.
    pub(crate) fn body(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid request body", description)
    }

    /// A message that is not to be deleted: 400 or 403.
    pub(crate) fn delete(status: u16, description: impl Into<String>) -> Self {
        let status = if status == 403 { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
        Self::new(status, "Unable to delete", description)
    }

    pub(crate) fn not_found(description: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", description)
    }

    pub(crate) fn forbidden(description: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Not authorized", description)
    }

    pub(crate) fn conflict(description: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Resource conflict", description)
    }

    pub(crate) fn media_type(description: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "415 Unsupported Media Type", description)
    }

    /// Storage is away, or there is too much to do.
    pub(crate) fn unavailable(description: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service temporarily unavailable", description)
    }

    /// There is nothing at this path.
    pub(crate) fn no_route() -> Self {
        let (status, title) = (StatusCode::NOT_FOUND, "404 Not Found");
        Self { status, title, description: None, allow: None, location: None }
    }

    /// Not with this method; `allow` lists those that are.
    pub(crate) fn no_method(allow: &'static str) -> Self {
        let (status, title) = (StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed");
        Self { status, title, description: None, allow: Some(allow), location: None }
    }

    /// With where what it is about is.
    pub(crate) fn at(mut self, location: &str) -> Self {
        self.location = Some(location.to_owned());
        self
    }

    /// As an answer; one to HEAD has no body.
    pub(crate) fn answer(&self, to: &Method) -> Response {
        let mut response = self.clone().into_response();
        if to == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        response
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let shape = Shape { title: self.title, description: self.description.as_deref() };
        // Strings alone: nothing that JSON can't hold.
        let body = serde_json::to_vec(&shape).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(Ok(at)) = self.location.as_deref().map(HeaderValue::from_str) {
            headers.insert(header::LOCATION, at);
        }
        response
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store of the queue service failed");
        if matches!(error, StoreError::Unreadable { .. }) {
            return Self::unavailable(
                "What is stored can't be opened; the operator has to see to it.",
            );
        }
        Self::unavailable("The store can't be used now. Please try again in a few seconds.")
    }
}
