//! What all parts of a transport share: the way, and whether it is open.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::Way;
use super::settle::Settler;
use crate::error::TransportError;
use crate::transport::TransportEvent;

pub(super) struct Shared {
    pub(super) http: Way,
    pub(super) settler: Settler,
    pub(super) closing: CancellationToken,
    /// Those who take messages.
    pub(super) taking: TaskTracker,
    pub(super) events: broadcast::Sender<TransportEvent>,
    /// Reply queues, which go with the transport.
    pub(super) replies: Mutex<Vec<String>>,
    down: AtomicBool,
}

impl Shared {
    pub(super) fn new(http: Way) -> Self {
        Self {
            settler: Settler::start(http.clone()),
            http,
            closing: CancellationToken::new(),
            taking: TaskTracker::new(),
            events: broadcast::Sender::new(64),
            replies: Mutex::default(),
            down: AtomicBool::new(false),
        }
    }

    pub(super) fn is_up(&self) {
        if self.down.swap(false, Ordering::AcqRel) {
            // Nobody may listen.
            let _ = self.events.send(TransportEvent::Connected);
        }
    }

    pub(super) fn is_down(&self, error: &TransportError) {
        if !self.down.swap(true, Ordering::AcqRel) {
            tracing::warn!(%error, "the queue service is away");
            // Nobody may listen.
            let _ = self.events.send(TransportEvent::Lost { why: error.to_string() });
        }
    }

    pub(super) fn ensure_open(&self) -> Result<(), TransportError> {
        if self.closing.is_cancelled() { Err(TransportError::Closed) } else { Ok(()) }
    }
}
