//! Connections that ask for nothing: when there is no place for another, the one that has waited
//! longest makes room. Whoever opens many and says nothing, or says it slowly, keeps nobody out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// All of a listener's, by how long they have waited.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    next: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

/// A connection's place.
#[derive(Clone)]
pub(crate) struct Place {
    line: Waiting,
    number: Arc<Mutex<Option<u64>>>,
    pushed_out: CancellationToken,
}

/// A connection has a request until this is dropped.
pub(crate) struct Serving(Place);

tokio::task_local! {
    /// The place of the connection that this task serves.
    pub(crate) static PLACE: Place;
}

impl Waiting {
    /// A connection that is new, and waits.
    pub(crate) fn enter(&self) -> Place {
        let place = Place {
            line: self.clone(),
            number: Arc::default(),
            pushed_out: CancellationToken::new(),
        };
        place.wait();
        place
    }

    /// Has the one that waited longest make room; whether there was one.
    pub(crate) fn push_out(&self) -> bool {
        match self.line().waiting.pop_first() {
            Some((_, place)) => {
                place.cancel();
                true
            }
            None => false,
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until this connection is to make room.
    pub(crate) async fn pushed_out(&self) {
        self.pushed_out.cancelled().await;
    }

    /// The connection has a request.
    pub(crate) fn serve(&self) -> Serving {
        self.leave();
        Serving(self.clone())
    }

    /// The connection ended.
    pub(crate) fn leave(&self) {
        if let Some(number) = self.number().take() {
            self.line.line().waiting.remove(&number);
        }
    }

    fn wait(&self) {
        let mut line = self.line.line();
        line.next += 1;
        let number = line.next;
        line.waiting.insert(number, self.pushed_out.clone());
        drop(line);
        *self.number() = Some(number);
    }

    fn number(&self) -> MutexGuard<'_, Option<u64>> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// A response's body: the request lasts as long as it.
pub(crate) struct Held {
    pub(crate) body: Body,
    pub(crate) _serving: Serving,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_longest_makes_room_and_who_is_served_does_not() {
        let line = Waiting::default();
        let (first, second, third) = (line.enter(), line.enter(), line.enter());
        let serving = first.serve();
        assert!(line.push_out());
        assert!(second.pushed_out.is_cancelled() && !first.pushed_out.is_cancelled());
        third.leave();
        assert!(!line.push_out(), "one is served and one is gone");
        drop(serving);
        assert!(line.push_out(), "its request ended: it waits again");
        assert!(first.pushed_out.is_cancelled() && !third.pushed_out.is_cancelled());
    }
}
