//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the same request with the same
//! key is served once, and its first answer given again.
//!
//! The first request goes on when its client hangs up: that is who will ask again.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bulla_http::{Identity, Problem, whole_body};
use bytes::Bytes;

use crate::admin::{Claimed, RequestKey, Turn};
use crate::failure::CallFailure;
use crate::operation::Shared;
use crate::routes::wants_events;

/// Longest key, in bytes.
pub(crate) const MAX_KEY: usize = 255;
/// After so many answers that nothing was done, the last one is given again for as long as it is kept.
const MAX_ATTEMPTS: u32 = 64;
/// Largest answer that is kept, in bytes: a value of 16 MiB as JSON, and room.
const MAX_ANSWER: usize = 64 << 20;

/// The header with the key.
pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was given before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Serves a request, once if it has a key.
pub(crate) async fn once(State(plane): State<Shared>, request: Request, next: Next) -> Response {
    match key(request.headers()) {
        Ok(None) => next.run(request).await,
        Ok(Some(key)) => match keyed(plane, key, request, next).await {
            Ok(response) | Err(response) => response,
        },
        Err(failure) => failure.into_response(),
    }
}

/// The key, with or without the quotes that RFC 9651 puts around a string.
fn key(headers: &HeaderMap) -> Result<Option<String>, CallFailure> {
    let bad = || CallFailure::BadRequest {
        why: format!(
            "`Idempotency-Key` must be one key of 1 to {MAX_KEY} printable ASCII characters \
             without blanks, quotes inside and backslashes, such as a UUID"
        ),
    };
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad())?;
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    let good =
        values.next().is_none() && (1..=MAX_KEY).contains(&bare.len()) && bare.bytes().all(plain);
    if good { Ok(Some(bare.to_owned())) } else { Err(bad()) }
}

async fn keyed(
    plane: Shared,
    key: String,
    request: Request,
    next: Next,
) -> Result<Response, Response> {
    if wants_events(request.headers()) {
        let why = "an Idempotency-Key can't go with an answer in events: ask for JSON".to_owned();
        return Err(CallFailure::BadRequest { why }.into_response());
    }
    let by = request.extensions().get::<Identity>().cloned();
    let by = by.ok_or_else(|| Problem::unauthorized().into_response())?;
    let (parts, body) = request.into_parts();
    let body = whole_body(Request::from_parts(parts.clone(), body))
        .await
        .map_err(IntoResponse::into_response)?;
    let digest = digest(&[
        parts.method.as_str().as_bytes(),
        parts.uri.path().as_bytes(),
        parts.uri.query().unwrap_or_default().as_bytes(),
        &body,
    ]);
    // The same name may come in by several ways.
    let by = format!("{:?} {by}", by.authenticator());
    let mut request_key = RequestKey { by, key, digest, attempt: 0 };
    let turn = loop {
        match plane.first_answer(&request_key).await.map_err(IntoResponse::into_response)? {
            Claimed::First(turn) => break turn,
            Claimed::Done(kept) if was_done(&kept) || request_key.attempt == MAX_ATTEMPTS => {
                return Ok(answer_again(&kept));
            }
            Claimed::Done(_) => request_key.attempt += 1,
        }
    };
    let request = Request::from_parts(parts, Body::from(body));
    let served = tokio::spawn(serve(turn, request, next)).await;
    let lost = |error: tokio::task::JoinError| {
        let why = format!("the request ended badly: {error}");
        CallFailure::Internal { why }.into_response()
    };
    served.map_err(lost)
}

/// Whether an answer stands for good. One that says that nothing was done, and that it may be tried
/// again, does not: who was told so comes back with the same key.
fn was_done(kept: &[u8]) -> bool {
    let status = kept.first_chunk::<2>().map(|status| u16::from_be_bytes(*status));
    !matches!(status, Some(401 | 403 | 404 | 408 | 429 | 503))
}

/// Serves the first request to its end, whoever is still there to hear of it.
async fn serve(mut turn: Box<dyn Turn>, request: Request, next: Next) -> Response {
    let mut serving = std::pin::pin!(next.run(request));
    let response = loop {
        let pause = turn.every().max(Duration::from_millis(100));
        match tokio::time::timeout(pause, serving.as_mut()).await {
            Ok(response) => break response,
            Err(_) => turn.go_on().await,
        }
    };
    let (parts, body) = response.into_parts();
    match to_bytes(body, MAX_ANSWER).await {
        Ok(body) => {
            turn.done(encode(parts.status, &parts.headers, &body)).await;
            Response::from_parts(parts, Body::from(body))
        }
        Err(error) => {
            let why = format!("the answer can't be kept: {error}");
            CallFailure::Internal { why }.into_response()
        }
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// Status, length of the content type, content type, body.
fn encode(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let length = u8::try_from(kind.len()).unwrap_or_default();
    let kind = kind.get(..length.into()).unwrap_or_default();
    [&status.as_u16().to_be_bytes(), &[length][..], kind, body].concat()
}

fn answer_again(kept: &[u8]) -> Response {
    let parts = || {
        let (status, rest) = kept.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first()?;
        let (kind, body) = rest.split_at_checked((*length).into())?;
        let status = StatusCode::from_u16(u16::from_be_bytes(*status)).ok()?;
        Some((status, HeaderValue::from_bytes(kind).ok()?, Bytes::copy_from_slice(body)))
    };
    let Some((status, kind, body)) = parts() else {
        let why = "the answer that was kept can't be read".to_owned();
        return CallFailure::OutcomeUnknown { why }.into_response();
    };
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Result<Option<String>, CallFailure> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY, HeaderValue::from_str(value).unwrap());
        }
        key(&headers)
    }

    #[test]
    fn keys_are_short_and_printable() {
        assert_eq!(of(&[]).unwrap(), None);
        for text in ["8e03978e-40d5", "\"8e03978e-40d5\""] {
            assert_eq!(of(&[text]).unwrap().unwrap(), "8e03978e-40d5");
        }
        let long = "x".repeat(256);
        for bad in [&[""][..], &["\"\""], &["a b"], &["a\"b"], &["a", "b"], &[&long]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parts_of_a_request_are_not_mixed_up() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(digest(&[b"ab", b"c"]), digest(&[b"ab", b"c"]));
    }

    #[test]
    fn who_was_told_that_nothing_was_done_may_come_again() {
        let kept = |status: StatusCode| encode(status, &HeaderMap::new(), b"{}");
        for failure in [
            CallFailure::Stopping,
            CallFailure::BusDown { why: String::new() },
            CallFailure::NobodyThere { target: String::new() },
            CallFailure::UnknownTarget { target: String::new() },
            CallFailure::Busy { why: String::new() },
            CallFailure::NotPermitted { why: String::new() },
        ] {
            assert!(!was_done(&kept(failure.into_response().status())));
        }
        let (target, timeout_ms) = (String::new(), 1);
        for failure in [
            CallFailure::Timeout { target: target.clone(), timeout_ms },
            CallFailure::Interrupted { target, why: String::new() },
            CallFailure::Internal { why: String::new() },
        ] {
            assert!(was_done(&kept(failure.into_response().status())));
        }
        assert!(was_done(&kept(StatusCode::ACCEPTED)) && was_done(&[]));
    }

    #[test]
    fn an_answer_is_given_again_as_it_was() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let kept = encode(StatusCode::ACCEPTED, &headers, b"{}");
        let again = answer_again(&kept);
        assert_eq!(again.status(), 202);
        assert_eq!(again.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(again.headers()[REPLAYED], "true");
        for cut in [0, 1, 2, 5] {
            assert_eq!(answer_again(&kept[..cut]).status(), 409);
        }
    }
}
