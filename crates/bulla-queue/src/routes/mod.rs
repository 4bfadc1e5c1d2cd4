//! The routes, and the way of one request.

mod claims;
mod events;
mod home;
mod messages;
mod once;
mod openapi;
mod params;
mod pools;
mod queues;
mod schemas;
mod share;
mod subscriptions;
mod table;

use std::sync::Arc;

use aws_lc_rs::rand;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::caller::Caller;
use crate::fault::Fault;
use crate::name::Place;
use crate::service::Service;
use events::wants_events;
use params::Params;
use table::{Found, Op};

pub use openapi::openapi;

/// Serves a service. Who asks is what the listener put into the request.
pub fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(serve).with_state(service)
}

/// A request about a queue, whose caller may ask for it.
struct Asked<'a> {
    service: &'a Arc<Service>,
    caller: &'a Caller,
    at: &'a Place,
    parts: &'a Parts,
    params: Params,
}

/// A request about no queue.
struct Common<'a> {
    service: &'a Service,
    caller: &'a Caller,
    /// What it names: a pool, a flavor.
    name: &'a str,
    params: Params,
}

impl Common<'_> {
    /// For operators alone.
    fn operators(&self) -> Result<(), Fault> {
        let denied = || Fault::forbidden("You are not authorized to complete this action.");
        if self.caller.is_operator() { Ok(()) } else { Err(denied()) }
    }

    /// For whoever may do more than single things in single queues.
    fn unconfined(&self) -> Result<(), Fault> {
        if self.caller.is_confined() { Err(Fault::no_route()) } else { Ok(()) }
    }
}

async fn serve(State(service): State<Arc<Service>>, request: Request) -> Response {
    let method = request.method().clone();
    let mut response = match answer(&service, request).await {
        Ok(response) => response,
        Err(fault) => fault.answer(&method),
    };
    let mut bytes = [0; 16];
    // An id of zeros says nothing wrong.
    let _ = rand::fill(&mut bytes);
    if let Ok(id) = HeaderValue::from_str(&format!("req-{}", hex::encode(bytes))) {
        let name = HeaderName::from_static("x-openstack-request-id");
        response.headers_mut().insert(name, id);
    }
    response
}

async fn answer(service: &Arc<Service>, request: Request) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    // The path as it is looked up is the one that is granted: nothing is decoded in between.
    let path = parts.uri.path();
    let found = Found::at(path).ok_or_else(Fault::no_route)?;
    let operation = found.operation(parts.method.as_str());
    let op = operation.map(|operation| operation.op);
    let events = op == Some(Op::ListMessages) && wants_events(&parts.headers);
    if !events && !accepts(&parts.headers, JSON) {
        return Ok(json(StatusCode::NOT_ACCEPTABLE, String::new()));
    }
    if parts.method == Method::OPTIONS {
        return Ok((StatusCode::OK, [(header::ALLOW, found.allow)]).into_response());
    }
    let op = op.ok_or_else(|| Fault::no_method(found.allow))?;
    match op {
        Op::Versions => return Ok(home::versions()),
        Op::Describe => return Ok(openapi::document()),
        _ => {}
    }
    // Topics are nobody's by a rule: those are about queues.
    let queue = found.queue().filter(|_| !found.is_topic);
    let caller = Caller::of(&parts, queue, service)?;
    let at = found.queue().map(|name| caller.place(name, found.is_topic, service)).transpose()?;
    caller.check(&parts, (at.as_ref(), found.route.resource), service).await?;
    let params = Params::of(&parts);
    let body = async || Box::pin(read(&parts, service, body)).await;
    let Some(at) = at else {
        let asked = Common { service, caller: &caller, name: found.name, params };
        return Box::pin(common((op, found.is_topic), &asked, body)).await;
    };
    let asked = Asked { service, caller: &caller, at: &at, parts: &parts, params };
    about_queue(op, found.id, &asked, body).await
}

/// What is about a queue. Each in a box of its own: one that waits holds no room for what it is not.
async fn about_queue(
    op: Op,
    id: &str,
    asked: &Asked<'_>,
    body: impl AsyncFnOnce() -> Result<Bytes, Fault>,
) -> Result<Response, Fault> {
    match op {
        Op::CreateQueue => Box::pin(queues::create(asked, body().await?)).await,
        Op::PatchQueue => Box::pin(queues::patch(asked, body().await?)).await,
        Op::DeleteQueue => Box::pin(queues::delete(asked)).await,
        Op::SeeQueue => Box::pin(queues::head(asked)).await,
        Op::GetQueue => Box::pin(queues::get(asked)).await,
        Op::Stats => Box::pin(queues::stats(asked)).await,
        Op::Purge => Box::pin(queues::purge(asked, body().await?)).await,
        Op::RevokeShares => Box::pin(share::revoke(asked)).await,
        Op::Share => Box::pin(share::share(asked, body().await?)).await,
        Op::PostMessages => Box::pin(messages::post(asked, body().await?)).await,
        Op::DeleteMessages => Box::pin(messages::delete_many(asked)).await,
        Op::ListMessages => Box::pin(messages::list(asked)).await,
        Op::DeleteMessage => Box::pin(messages::delete(asked, id)).await,
        Op::GetMessage => Box::pin(messages::get(asked, id)).await,
        Op::Claim => Box::pin(claims::create(asked, body().await?)).await,
        Op::Renew => Box::pin(claims::renew(asked, id, body().await?)).await,
        Op::Release => Box::pin(claims::release(asked, id)).await,
        Op::GetClaim => Box::pin(claims::get(asked, id)).await,
        Op::Subscribe => Box::pin(subscriptions::create(asked, body().await?)).await,
        Op::ListSubscriptions => Box::pin(subscriptions::list(asked)).await,
        Op::GetSubscription => Box::pin(subscriptions::get(asked, id)).await,
        Op::ChangeSubscription => Box::pin(subscriptions::change(asked, id, body().await?)).await,
        Op::Unsubscribe => Box::pin(subscriptions::remove(asked, id)).await,
        Op::ConfirmSubscription => Box::pin(subscriptions::confirm(asked, id, body().await?)).await,
        _ => Err(Fault::no_route()),
    }
}

/// What is about no queue.
async fn common(
    (op, is_topic): (Op, bool),
    asked: &Common<'_>,
    body: impl AsyncFnOnce() -> Result<Bytes, Fault>,
) -> Result<Response, Fault> {
    match op {
        Op::Home => Ok(home::home()),
        Op::Ping => {
            asked.service.store.ping().await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Op::Health => home::health(asked).await,
        Op::ListQueues => {
            queues::list(asked.service, (asked.caller, is_topic), &asked.params).await
        }
        Op::ListPools => pools::list(asked).await,
        Op::PutPool => pools::put(asked, body().await?).await,
        Op::GetPool => pools::get(asked).await,
        Op::ChangePool => pools::change(asked, body().await?).await,
        Op::RemovePool => pools::remove(asked).await,
        Op::ListFlavors => pools::list_flavors(asked).await,
        Op::PutFlavor => pools::put_flavor(asked, body().await?).await,
        Op::GetFlavor => pools::get_flavor(asked).await,
        Op::ChangeFlavor => pools::change_flavor(asked, body().await?).await,
        Op::RemoveFlavor => pools::remove_flavor(asked).await,
        _ => Err(Fault::no_route()),
    }
}

/// Reads a body. One that is too large is refused as Zaqar does: with 400, which clients know.
async fn read(parts: &Parts, service: &Service, body: Body) -> Result<Bytes, Fault> {
    let headers = &parts.headers;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let mut request = Request::new(body);
    if let Some(length) = headers.get(header::CONTENT_LENGTH) {
        request.headers_mut().insert(header::CONTENT_LENGTH, length.clone());
    }
    let limits = parts.extensions.get::<bulla_http::Limits>().copied().unwrap_or_default();
    // Nothing is larger than what may be posted; each route says what it takes.
    let max_body = service.limits.max_post + 1;
    request.extensions_mut().insert(bulla_http::Limits { max_body, ..limits });
    let bytes = bulla_http::whole_body(request).await.map_err(|problem| match problem.status {
        413 => {
            let max = service.limits.max_post;
            Fault::request(format!("Message collection size is too large. Max size {max}"))
        }
        _ => Fault::body("Request body could not be read."),
    })?;
    let form = kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    if form && !bytes.is_empty() {
        return Err(Fault::named(
            "Invalid Content-Type",
            "Endpoint does not accept `application/x-www-form-urlencoded` content; currently \
             supported media type is `application/json`; specify proper client-side media type \
             with the \"Content-Type\" header.",
        ));
    }
    Ok(bytes)
}

/// Media types that answers have, and what stands for them.
const JSON: &[&str] = &["*/*", "application/*", "application/json", "application/json-home", ""];

/// Whether what is asked for is one of these; whoever says nothing takes JSON.
fn accepts(headers: &HeaderMap, kinds: &[&str]) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return kinds == JSON;
    }
    let ranges = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    let mut ranges = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
    ranges.any(|range| kinds.contains(&range))
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn empty() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn located(status: StatusCode, at: &str, body: Option<String>) -> Result<Response, Fault> {
    let location = HeaderValue::from_str(at).map_err(|_| Fault::no_route())?;
    let mut response = match body {
        Some(body) => json(status, body),
        None if status == StatusCode::CREATED => json(status, String::new()),
        None => status.into_response(),
    };
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}
