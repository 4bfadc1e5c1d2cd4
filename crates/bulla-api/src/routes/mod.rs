//! The routes: check shapes, hand on, answer.

mod access_keys;
mod agents;
mod components;
mod document;
mod groups;
mod journal;
mod messages;
mod peers;
mod policy;
mod status;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bulla_http::{method_not_allowed, no_such_route};

use crate::failure::CallFailure;
use crate::model::MAX_LIFETIME;
use crate::operation::{Operation, Shared, Table};
use crate::plane::ControlPlane;

pub use document::openapi;

type Plane = State<Shared>;
type Answer = Result<Response, CallFailure>;

/// The API over a control plane, to be served by a [`bulla_http::Listener`].
pub fn router(plane: Arc<dyn ControlPlane>) -> Router {
    table()
        .router(&plane)
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(plane)
}

/// Every operation of the API.
pub fn operations() -> Vec<Operation> {
    table().operations()
}

/// Each line is a route and its description.
fn table() -> Table {
    let table = Table::default();
    let table = messages::add(table);
    let table = agents::add(table);
    let table = components::add(table);
    let table = groups::add(table);
    let table = peers::add(table);
    let table = policy::add(table);
    let table = journal::add(table);
    let table = access_keys::add(table);
    let table = status::add(table);
    document::add(table)
}

pub(crate) fn reply(status: StatusCode, body: &impl serde::Serialize) -> Response {
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

fn ok(body: &impl serde::Serialize) -> Answer {
    Ok(reply(StatusCode::OK, body))
}

fn created(body: &impl serde::Serialize) -> Answer {
    Ok(reply(StatusCode::CREATED, body))
}

pub(crate) fn wants_events(headers: &HeaderMap) -> bool {
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

fn check_count(member: &str, count: usize, most: usize) -> Result<(), CallFailure> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    Err(bad_request(format!("`{member}` must name 1 to {most}")))
}

fn bad_request(why: String) -> CallFailure {
    CallFailure::BadRequest { why }
}
