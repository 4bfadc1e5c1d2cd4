//! Calls, casts, fanouts, and what the bus sees.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bulla_http::{Identity, Json, Stopping};
use tokio::sync::mpsc;

use super::{Answer, Plane, check_message, check_time, ok, reply, wants_events};
use crate::model::{CallAnswer, CallRequest, CastRequest, Sent, TapEvent};
use crate::operation::Table;
use crate::plane::PROGRESS_BUFFER;
use crate::sse;

pub(super) fn add(table: Table) -> Table {
    table
        .changes::<__path_call, _, _>(&[404, 413, 422, 502, 504], call)
        .changes::<__path_cast, _, _>(&[404, 413, 422, 502, 504], cast)
        .changes::<__path_fanout, _, _>(&[404, 413, 422, 502, 504], fanout)
        .tells::<__path_tap, _, _>(&[400], tap)
}

/// Calls a method and waits for its answer.
///
/// With `Accept: text/event-stream` the answer is a stream: `progress` events, then one `value` or
/// `problem`. Hanging up ends the waiting; what was sent is not taken back.
#[utoipa::path(post, path = "/v1/calls", operation_id = "call", tag = "messages",
    request_body = CallRequest,
    responses((status = 200, description = "What the method returned.", content(
        (CallAnswer = "application/json"), (String = "text/event-stream")))))]
pub(crate) async fn call(
    State(plane): Plane,
    by: Identity,
    headers: HeaderMap,
    Json(request): Json<CallRequest>,
) -> Answer {
    check_message(&request.target, &["agent/", "component/"], &request.method)?;
    check_time("timeout_ms", request.timeout_ms)?;
    if wants_events(&headers) {
        return Ok(sse::call(plane, by, request));
    }
    let (progress, _) = mpsc::channel(PROGRESS_BUFFER);
    let value = plane.call(&by, request, progress).await?;
    ok(&CallAnswer { value })
}

/// Sends a message that nobody answers to one receiver.
///
/// The answer comes when the bus has taken the message over.
#[utoipa::path(post, path = "/v1/casts", operation_id = "cast", tag = "messages",
    request_body = CastRequest,
    responses((status = 202, description = "The bus has it.", body = Sent)))]
pub(crate) async fn cast(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<CastRequest>,
) -> Answer {
    check_message(&request.target, &["agent/", "component/"], &request.method)?;
    check_time("ttl_ms", request.ttl_ms)?;
    Ok(reply(StatusCode::ACCEPTED, &plane.cast(&by, request).await?))
}

/// Sends a message that nobody answers to every member of a group.
#[utoipa::path(post, path = "/v1/fanouts", operation_id = "fanout", tag = "messages",
    request_body(content = CastRequest,
        example = json!({"target": "group/all", "namespace": "agent", "method": "ping"})),
    responses((status = 202, description = "The bus has it.", body = Sent)))]
pub(crate) async fn fanout(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<CastRequest>,
) -> Answer {
    check_message(&request.target, &["group/"], &request.method)?;
    check_time("ttl_ms", request.ttl_ms)?;
    Ok(reply(StatusCode::ACCEPTED, &plane.fanout(&by, request).await?))
}

/// Shows what the bus sees from now on.
///
/// Events `seen`, each with a message as it passed, and `missed` with a count where the reader was
/// too slow. Only on a bus in memory, or one whose broker lets itself be watched.
#[utoipa::path(get, path = "/v1/tap", operation_id = "tap", tag = "messages",
    responses((status = 200, description = "Events without end.",
        body = TapEvent, content_type = "text/event-stream")))]
pub(crate) async fn tap(State(plane): Plane, by: Identity, stopping: Stopping) -> Answer {
    Ok(sse::tap(plane.tap(&by).await?, stopping))
}
