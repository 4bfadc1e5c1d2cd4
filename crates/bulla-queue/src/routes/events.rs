//! Messages as they come, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bulla_http::Stopping;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;

use super::messages::{base, room, write};
use super::{Asked, accepts};
use crate::id::Id;
use crate::name::Place;
use crate::service::{Service, now};
use crate::store::Page;

/// How often a silent stream shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a stream lasts: who comes again is asked anew who it is.
const LIFE: Duration = Duration::from_secs(600);
/// Messages that are read at a time.
const AT_ONCE: usize = 20;

pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    accepts(headers, &["text/event-stream"])
}

struct Following {
    service: Arc<Service>,
    at: Place,
    page: Page,
    ready: VecDeque<Event>,
    end: Instant,
}

/// What is there after the page's beginning, and what comes.
pub(super) fn stream(asked: &Asked<'_>, mut page: Page) -> Response {
    let last = asked.parts.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    if let Some(id) = last.and_then(Id::parse) {
        page.after = id.seq();
    }
    page.limit = AT_ONCE;
    let (service, at) = (Arc::clone(asked.service), asked.at.clone());
    let end = Instant::now() + LIFE;
    let following = Following { service, at, page, ready: VecDeque::new(), end };
    let events = stream::unfold(following, Following::step).map(Ok::<_, Infallible>);
    // A listener that stops ends it.
    let stopping = asked.parts.extensions.get::<Stopping>().cloned();
    let stopped = async move {
        match stopping {
            Some(stopping) => stopping.begun().await,
            None => std::future::pending().await,
        }
    };
    let events = events.take_until(stopped.boxed());
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

impl Following {
    async fn step(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let found = match self.service.list(&self.at, &self.page, left).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, "the store of the queue service failed");
                    return None;
                }
            };
            let (base, now) = (base(&self.at), now());
            for message in &found {
                let mut data = String::with_capacity(room(message));
                write(&mut data, &base, message, now);
                let event = Event::default().event("message").id(message.id.to_string());
                // A line's end in a body is between its parts, where a blank is as good.
                self.ready.push_back(event.data(data.replace(['\r', '\n'], " ")));
                self.page.after = message.id.seq();
            }
        }
    }
}
