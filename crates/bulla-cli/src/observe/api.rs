//! The API's part: what is counted of its requests, the trace that each begins or goes on with, and the
//! same two pages behind its authentication.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bulla_rpc::histogram::Histogram;
use bulla_rpc::trace::{self, Parent, SpanKind, TraceContext};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::page::Page;
use super::table::{API_DURATION, API_IN_FLIGHT, API_REQUESTS};
use super::{Answer, Observer};

/// A path that no route has.
const OTHER: &str = "other";

/// How often a route answered, by method and status.
type Answers = BTreeMap<(&'static str, u16), u64>;

/// What was counted of requests.
#[derive(Debug, Default)]
pub(crate) struct ApiCounts {
    answered: Mutex<HashMap<String, Answers>>,
    took: Histogram,
    in_flight: AtomicU64,
}

impl ApiCounts {
    fn count(&self, route: &str, method: &'static str, status: u16) {
        let mut answered = self.answered.lock();
        let key = (method, status);
        if let Some(of_route) = answered.get_mut(route) {
            *of_route.entry(key).or_default() += 1;
            return;
        }
        answered.entry(route.to_owned()).or_default().insert(key, 1);
    }

    pub(crate) fn add(&self, page: &mut Page) {
        for (route, answers) in &*self.answered.lock() {
            for ((method, status), count) in answers {
                page.whole(API_REQUESTS, &[route, method, &status.to_string()], *count);
            }
        }
        page.durations(API_DURATION, self.took.read());
        page.whole(API_IN_FLIGHT, &[], self.in_flight.load(Ordering::Relaxed));
    }
}

/// One more in flight, until it is dropped.
struct InFlight<'a>(&'a AtomicU64);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The API with `/metrics` and `/readyz`, and each request counted.
pub(crate) fn observed(api: Router, observer: &Arc<Observer>) -> Router {
    let own = Router::new()
        .route("/metrics", get(|State(observer): State<Arc<Observer>>| page(observer, "/metrics")))
        .route("/readyz", get(|State(observer): State<Arc<Observer>>| page(observer, "/readyz")))
        .with_state(observer.clone());
    api.merge(own).layer(from_fn_with_state(observer.clone(), watch))
}

async fn page(observer: Arc<Observer>, path: &'static str) -> Response {
    match observer.answer(path).await {
        Some(answer) => answer.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = [(header::CONTENT_TYPE, self.kind), (header::CACHE_CONTROL, "no-store")];
        (status, headers, self.body).into_response()
    }
}

async fn watch(State(observer): State<Arc<Observer>>, request: Request, next: Next) -> Response {
    let counts = &observer.api;
    let _in_flight = InFlight::new(&counts.in_flight);
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(OTHER, MatchedPath::as_str);
    let method = method_name(request.method());
    let told = traceparent(request.headers());
    // Who asks has been authenticated.
    let parent = told.map_or(Parent::None, Parent::Trusted);
    let mut span =
        observer.endpoint().span(SpanKind::Server, parent, || format!("{method} {route}").into());
    let context = span.as_ref().map(trace::OpenSpan::context).or(told);
    let response = match context {
        Some(context) => trace::within(context, next.run(request)).await,
        None => next.run(request).await,
    };
    let status = response.status();
    counts.count(route, method, status.as_u16());
    counts.took.observe(begun.elapsed());
    if let Some(span) = &mut span {
        span.set("http.request.method", method);
        span.set("http.route", route);
        span.set("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            span.fail(status.as_str());
        }
    }
    match context {
        Some(context) => response.map(|body| Body::new(Traced { body, context })),
        None => response,
    }
}

/// An answer's body that goes on as part of its trace: calls with progress are made while it is read.
struct Traced {
    body: Body,
    context: TraceContext,
}

impl hyper::body::Body for Traced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        trace::enter(this.context, || Pin::new(&mut this.body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    // Two are none.
    if values.next().is_some() { None } else { TraceContext::parse(value) }
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
