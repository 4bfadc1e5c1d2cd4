//! Extractors that answer bad input with a problem that says where it is bad.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use crate::limits::Limits;
use crate::problem::Problem;

/// A request body in JSON, read within the listener's [`Limits`].
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

/// The query string.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

/// What stands in the path where the route has a name in braces.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let body = whole_body(request).await?;
        serde_json::from_slice(&body).map(Self).map_err(|e| bad_json(&e))
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        query.map(|q| Self(q.0)).map_err(|e| {
            let detail = format!("the query string: {}", e.body_text());
            Problem::new(StatusCode::BAD_REQUEST, "bad-query", "The query string is wrong", detail)
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|e| {
            let detail = format!("the path: {}", e.body_text());
            Problem::new(StatusCode::BAD_REQUEST, "bad-path", "The path is wrong", detail)
        })
    }
}

/// A request's body, read within the listener's [`Limits`].
///
/// # Errors
/// It is too large, too slow, or broken off.
pub async fn whole_body(request: Request) -> Result<Bytes, Problem> {
    let limits = request.extensions().get::<Limits>().copied().unwrap_or_default();
    let reading = read_body(request, limits.max_body);
    tokio::time::timeout(limits.body, reading).await.map_err(|_| too_slow())?
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "The request body has the wrong content type",
        "the body must be JSON, with the header `Content-Type: application/json`",
    ))
}

async fn read_body(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let mut stream = request.into_body().into_data_stream();
    let mut body = BytesMut::new();
    let mut over = announced.is_some_and(|n| n > limit as u64);
    let mut discarded = 0_usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| broken_body(&e))?;
        over |= body.len().saturating_add(chunk.len()) > limit;
        if !over {
            body.extend_from_slice(&chunk);
            continue;
        }
        // Swallow a moderate excess: a client that is cut off in mid-sentence sees a reset
        // connection instead of the 413.
        discarded = discarded.saturating_add(chunk.len());
        if discarded > limit.saturating_mul(2) {
            break;
        }
    }
    if over { Err(Problem::too_large(limit)) } else { Ok(body.freeze()) }
}

fn too_slow() -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "body-too-slow",
        "The request body took too long",
        "the request body did not arrive in time",
    )
}

fn broken_body(error: &axum::Error) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "broken-body",
        "The request body is broken",
        format!("the request body could not be read: {error}"),
    )
}

fn bad_json(error: &serde_json::Error) -> Problem {
    let (name, title) = match error.classify() {
        serde_json::error::Category::Data => ("wrong-shape", "The JSON is not of the right shape"),
        _ => ("malformed-json", "The request body is not JSON"),
    };
    let detail = format!("the request body: {error}");
    Problem::new(StatusCode::BAD_REQUEST, name, title, detail)
        .with("line", error.line())
        .with("column", error.column())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        #[expect(dead_code, reason = "only its type matters")]
        number: u32,
    }

    async fn parse(body: impl Into<Body>, limits: Limits) -> Result<Json<Wanted>, Problem> {
        let mut request = Request::new(body.into());
        request.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        request.extensions_mut().insert(limits);
        Json::from_request(request, &()).await
    }

    #[tokio::test]
    async fn bad_json_is_located() {
        for (text, name, line, column) in [
            ("{\n  \"number\": }", "malformed-json", 2, 13),
            ("{\"number\": \"x\"}", "wrong-shape", 1, 14),
            ("{\"number\": 1,\n \"other\": 2}", "wrong-shape", 2, 8),
            ("", "malformed-json", 1, 0),
        ] {
            let problem = parse(text, Limits::default()).await.unwrap_err();
            assert_eq!(problem.status, 400);
            assert_eq!(problem.name(), Some(name), "{text}");
            assert_eq!(
                (&problem.extensions["line"], &problem.extensions["column"]),
                (&line.into(), &column.into()),
                "{text}: {}",
                problem.detail
            );
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_413() {
        let limits = Limits { max_body: 13, ..Limits::default() };
        assert!(parse("{\"number\": 1}", limits).await.is_ok());
        let problem = parse("{\"number\": 10}", limits).await.unwrap_err();
        assert_eq!((problem.status, problem.name()), (413, Some("body-too-large")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_408() {
        let limits = Limits { body: Duration::from_secs(3), ..Limits::default() };
        let endless =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>());
        assert_eq!(parse(endless, limits).await.unwrap_err().status, 408);
    }

    #[tokio::test]
    async fn another_content_type_is_415() {
        let request = Request::new(Body::from("{\"number\": 1}"));
        let problem = Json::<Wanted>::from_request(request, &()).await.unwrap_err();
        assert_eq!(problem.status, 415);
    }
}
