//! The routes, and the way of one request.

mod claims;
mod home;
mod messages;
mod params;
mod queues;
mod share;

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
use params::Params;

/// Serves a service. Who asks is what the listener put into the request.
pub fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(serve).with_state(service)
}

/// What a path is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route<'p> {
    Versions,
    Home,
    Ping,
    Health,
    Queues,
    Queue(&'p str),
    Stats(&'p str),
    Purge(&'p str),
    Share(&'p str),
    Messages(&'p str),
    Message(&'p str, &'p str),
    Claims(&'p str),
    Claim(&'p str, &'p str),
}

impl<'p> Route<'p> {
    fn of(path: &'p str) -> Option<Self> {
        if path == "/" {
            return Some(Self::Versions);
        }
        let rest = path.strip_prefix("/v2/")?;
        let mut words = rest.split('/');
        let words = [words.next(), words.next(), words.next(), words.next(), words.next()];
        Some(match words {
            [Some(""), None, ..] => Self::Home,
            [Some("ping"), None, ..] => Self::Ping,
            [Some("health"), None, ..] => Self::Health,
            [Some("queues"), None, ..] => Self::Queues,
            [Some("queues"), Some(queue), None, ..] => Self::Queue(queue),
            [Some("queues"), Some(queue), Some(of), None, _] => match of {
                "stats" => Self::Stats(queue),
                "purge" => Self::Purge(queue),
                "share" => Self::Share(queue),
                "messages" => Self::Messages(queue),
                "claims" => Self::Claims(queue),
                _ => return None,
            },
            [Some("queues"), Some(queue), Some(of), Some(id), None] => match of {
                "messages" => Self::Message(queue, id),
                "claims" => Self::Claim(queue, id),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The methods that mean something here.
    fn methods(self) -> &'static str {
        match self {
            Self::Versions | Self::Home | Self::Health | Self::Queues | Self::Stats(_) => {
                "GET, OPTIONS"
            }
            Self::Ping => "GET, HEAD, OPTIONS",
            Self::Queue(_) => "DELETE, GET, HEAD, PATCH, PUT, OPTIONS",
            Self::Purge(_) | Self::Claims(_) => "POST, OPTIONS",
            Self::Share(_) => "DELETE, POST, OPTIONS",
            Self::Messages(_) => "DELETE, GET, POST, OPTIONS",
            Self::Message(..) => "DELETE, GET, OPTIONS",
            Self::Claim(..) => "DELETE, GET, PATCH, OPTIONS",
        }
    }

    /// What of a queue it is about.
    fn resource(self) -> &'static str {
        match self {
            Self::Versions | Self::Home | Self::Ping | Self::Health | Self::Queues => "",
            Self::Queue(_) => "queue",
            Self::Stats(_) => "stats",
            Self::Purge(_) => "purge",
            Self::Share(_) => "share",
            Self::Messages(_) => "messages",
            Self::Message(..) => "message",
            Self::Claims(_) => "claims",
            Self::Claim(..) => "claim",
        }
    }

    fn queue(self) -> Option<&'p str> {
        match self {
            Self::Versions | Self::Home | Self::Ping | Self::Health | Self::Queues => None,
            Self::Queue(queue)
            | Self::Stats(queue)
            | Self::Purge(queue)
            | Self::Share(queue)
            | Self::Messages(queue)
            | Self::Message(queue, _)
            | Self::Claims(queue)
            | Self::Claim(queue, _) => Some(queue),
        }
    }
}

/// A request whose caller may ask for it.
struct Asked<'a> {
    service: &'a Service,
    caller: &'a Caller,
    at: &'a Place,
    parts: &'a Parts,
    params: Params,
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

async fn answer(service: &Service, request: Request) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    // The path as it is looked up is the one that is granted: nothing is decoded in between.
    let path = parts.uri.path();
    let route = Route::of(path).ok_or_else(Fault::no_route)?;
    if !accepts_json(&parts.headers) {
        return Ok(json(StatusCode::NOT_ACCEPTABLE, String::new()));
    }
    let allow = route.methods();
    if !allow.split(", ").any(|method| method == parts.method.as_str()) {
        return Err(Fault::no_method(allow));
    }
    if parts.method == Method::OPTIONS {
        return Ok((StatusCode::OK, [(header::ALLOW, allow)]).into_response());
    }
    if route == Route::Versions {
        return Ok(home::versions());
    }
    let caller = Caller::of(&parts, route.queue(), service)?;
    let at = route.queue().map(|name| caller.place(name, service)).transpose()?;
    caller.check(&parts, (at.as_ref(), route.resource()), service).await?;
    let params = Params::of(&parts);
    let Some(at) = at else { return common(route, service, &caller, &params).await };
    let asked = Asked { service, caller: &caller, at: &at, parts: &parts, params };
    let body = async || read(&asked, body).await;
    match (route, parts.method.as_str()) {
        (Route::Queue(_), "PUT") => queues::create(&asked, body().await?).await,
        (Route::Queue(_), "PATCH") => queues::patch(&asked, body().await?).await,
        (Route::Queue(_), "DELETE") => queues::delete(&asked).await,
        (Route::Queue(_), "HEAD") => queues::head(&asked).await,
        (Route::Queue(_), _) => queues::get(&asked).await,
        (Route::Stats(_), _) => queues::stats(&asked).await,
        (Route::Purge(_), _) => queues::purge(&asked, body().await?).await,
        (Route::Share(_), "DELETE") => share::revoke(&asked).await,
        (Route::Share(_), _) => share::share(&asked, body().await?).await,
        (Route::Messages(_), "POST") => messages::post(&asked, body().await?).await,
        (Route::Messages(_), "DELETE") => messages::delete_many(&asked).await,
        (Route::Messages(_), _) => messages::list(&asked).await,
        (Route::Message(_, id), "DELETE") => messages::delete(&asked, id).await,
        (Route::Message(_, id), _) => messages::get(&asked, id).await,
        (Route::Claims(_), _) => claims::create(&asked, body().await?).await,
        (Route::Claim(_, id), "PATCH") => claims::renew(&asked, id, body().await?).await,
        (Route::Claim(_, id), "DELETE") => claims::release(&asked, id).await,
        (Route::Claim(_, id), _) => claims::get(&asked, id).await,
        _ => Err(Fault::no_route()),
    }
}

/// What is about no queue.
async fn common(
    route: Route<'_>,
    service: &Service,
    caller: &Caller,
    params: &Params,
) -> Result<Response, Fault> {
    match route {
        Route::Home => Ok(home::home()),
        Route::Ping => {
            service.store.ping().await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Route::Health => home::health(service, caller).await,
        Route::Queues => queues::list(service, caller, params).await,
        _ => Err(Fault::no_route()),
    }
}

/// Reads a body. One that is too large is refused as Zaqar does: with 400, which clients know.
async fn read(asked: &Asked<'_>, body: Body) -> Result<Bytes, Fault> {
    let headers = &asked.parts.headers;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let mut request = Request::new(body);
    if let Some(length) = headers.get(header::CONTENT_LENGTH) {
        request.headers_mut().insert(header::CONTENT_LENGTH, length.clone());
    }
    let limits = asked.parts.extensions.get::<bulla_http::Limits>().copied().unwrap_or_default();
    // Nothing is larger than what may be posted; each route says what it takes.
    let max_body = asked.service.limits.max_post + 1;
    request.extensions_mut().insert(bulla_http::Limits { max_body, ..limits });
    let bytes = bulla_http::whole_body(request).await.map_err(|problem| match problem.status {
        413 => {
            let max = asked.service.limits.max_post;
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

fn accepts_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let ranges = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    ranges.map(|range| range.split(';').next().unwrap_or_default().trim()).any(|range| {
        matches!(range, "*/*" | "application/*" | "application/json" | "application/json-home" | "")
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_whole() {
        assert_eq!(Route::of("/v2/"), Some(Route::Home));
        assert_eq!(Route::of("/v2/queues/q/messages/1"), Some(Route::Message("q", "1")));
        assert_eq!(Route::of("/v2/queues/q/claims"), Some(Route::Claims("q")));
        for bad in ["", "/v2", "/v2/nope", "/v2/queues/q/nope", "/v2/queues/q/messages/1/2", "/v1/"]
        {
            assert_eq!(Route::of(bad), None, "{bad}");
        }
    }
}
