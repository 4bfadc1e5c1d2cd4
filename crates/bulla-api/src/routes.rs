//! The routes: check shapes, hand on, answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use bulla_http::{Identity, Json, Query, Stopping, method_not_allowed, no_such_route};
use tokio::sync::mpsc;

use crate::failure::CallFailure;
use crate::model::{CallAnswer, CallRequest, CastRequest, MAX_LIFETIME, MAX_PAGE, PageRequest};
use crate::peers::{ExemptRequest, RaiseRequest};
use crate::plane::{ControlPlane, PROGRESS_BUFFER};
use crate::sse;

type Plane = State<Arc<dyn ControlPlane>>;

/// The API over a control plane, to be served by a [`bulla_http::Listener`].
pub fn router(plane: Arc<dyn ControlPlane>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/v1/calls", post(call))
        .route("/v1/casts", post(cast))
        .route("/v1/fanouts", post(fanout))
        .route("/v1/agents", get(agents))
        .route("/v1/agents/{id}", get(agent))
        .route("/v1/components", get(components))
        .route("/v1/groups", get(groups))
        .route("/v1/peers", get(peers))
        .route("/v1/peers/floors", post(raise))
        .route("/v1/exemptions", post(exempt))
        .route("/v1/exemptions/{id}", delete(take_back))
        .route("/v1/status", get(status))
        .route("/v1/tap", get(tap))
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(plane)
}

async fn call(
    State(plane): Plane,
    by: Identity,
    headers: HeaderMap,
    Json(request): Json<CallRequest>,
) -> Result<Response, CallFailure> {
    check_message(&request.target, &["agent/", "component/"], &request.method)?;
    check_time("timeout_ms", request.timeout_ms)?;
    if wants_events(&headers) {
        return Ok(sse::call(plane, by, request));
    }
    let (progress, _) = mpsc::channel(PROGRESS_BUFFER);
    let value = plane.call(&by, request, progress).await?;
    Ok(reply(StatusCode::OK, &CallAnswer { value }))
}

async fn cast(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<CastRequest>,
) -> Result<Response, CallFailure> {
    check_message(&request.target, &["agent/", "component/"], &request.method)?;
    check_time("ttl_ms", request.ttl_ms)?;
    Ok(reply(StatusCode::ACCEPTED, &plane.cast(&by, request).await?))
}

async fn fanout(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<CastRequest>,
) -> Result<Response, CallFailure> {
    check_message(&request.target, &["group/"], &request.method)?;
    check_time("ttl_ms", request.ttl_ms)?;
    Ok(reply(StatusCode::ACCEPTED, &plane.fanout(&by, request).await?))
}

async fn agents(
    State(plane): Plane,
    Query(page): Query<PageRequest>,
) -> Result<Response, CallFailure> {
    if page.limit.is_some_and(|n| !(1..=MAX_PAGE).contains(&n)) {
        return Err(bad_request(format!("`limit` must be 1 to {MAX_PAGE}")));
    }
    Ok(reply(StatusCode::OK, &plane.agents(page).await?))
}

async fn agent(State(plane): Plane, Path(id): Path<String>) -> Result<Response, CallFailure> {
    Ok(reply(StatusCode::OK, &plane.agent(&id).await?))
}

async fn components(State(plane): Plane) -> Result<Response, CallFailure> {
    Ok(reply(StatusCode::OK, &plane.components().await?))
}

async fn groups(State(plane): Plane) -> Result<Response, CallFailure> {
    Ok(reply(StatusCode::OK, &plane.groups().await?))
}

async fn peers(State(plane): Plane) -> Result<Response, CallFailure> {
    Ok(reply(StatusCode::OK, &plane.peers().await?))
}

async fn raise(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<RaiseRequest>,
) -> Result<Response, CallFailure> {
    check_principal(&request.principal)?;
    Ok(reply(StatusCode::OK, &plane.raise(&by, request).await?))
}

async fn exempt(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<ExemptRequest>,
) -> Result<Response, CallFailure> {
    check_message(&request.principal, &["agent/", "component/"], &request.method)?;
    Ok(reply(StatusCode::CREATED, &plane.exempt(&by, request).await?))
}

async fn take_back(
    State(plane): Plane,
    by: Identity,
    Path(id): Path<String>,
) -> Result<Response, CallFailure> {
    Ok(reply(StatusCode::OK, &plane.take_back(&by, &id).await?))
}

async fn status(State(plane): Plane) -> Result<Response, CallFailure> {
    Ok(reply(StatusCode::OK, &plane.status().await?))
}

async fn health(State(plane): Plane) -> Result<Response, CallFailure> {
    let status = plane.status().await?;
    if status.bus.connected {
        return Ok(reply(StatusCode::OK, &status));
    }
    let why = status.bus.problem.unwrap_or_else(|| "not connected".to_owned());
    Err(CallFailure::BusDown { why: format!("{}: {why}", status.bus.address) })
}

async fn tap(
    State(plane): Plane,
    by: Identity,
    stopping: Stopping,
) -> Result<Response, CallFailure> {
    Ok(sse::tap(plane.tap(&by).await?, stopping))
}

fn reply(status: StatusCode, body: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => {
            let headers =
                [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (status, headers, body).into_response()
        }
        Err(e) => CallFailure::Internal { why: format!("the answer has no JSON form: {e}") }
            .into_response(),
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    accepted.any(|v| v.split(',').any(|kind| kind.trim().starts_with("text/event-stream")))
}

fn check_principal(principal: &str) -> Result<(), CallFailure> {
    check_message(principal, &["agent/", "component/"], "-")
}

fn check_message(target: &str, kinds: &[&str], method: &str) -> Result<(), CallFailure> {
    let named = kinds.iter().any(|k| target.strip_prefix(k).is_some_and(|name| !name.is_empty()));
    if !named {
        let forms: Vec<_> = kinds.iter().map(|kind| format!("`{kind}NAME`")).collect();
        return Err(bad_request(format!(
            "the target {target:?} is not of the form {}",
            forms.join(" or ")
        )));
    }
    if method.is_empty() {
        return Err(bad_request("the method's name is empty".to_owned()));
    }
    Ok(())
}

fn check_time(member: &str, ms: Option<u64>) -> Result<(), CallFailure> {
    let fits = |ms| (1..=MAX_LIFETIME.as_millis()).contains(&Duration::from_millis(ms).as_millis());
    if ms.is_none_or(fits) {
        return Ok(());
    }
    Err(bad_request(format!("`{member}` must be 1 to {} (24 hours)", MAX_LIFETIME.as_millis())))
}

fn bad_request(why: String) -> CallFailure {
    CallFailure::BadRequest { why }
}
