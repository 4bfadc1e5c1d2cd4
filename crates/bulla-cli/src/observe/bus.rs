//! What happens to the connection to the bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_transport::{Transport, TransportEvent};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// How the connection is, and how often it was lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct BusWatch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    problem: Mutex<Option<String>>,
    lost: AtomicU64,
    reconnected: AtomicU64,
    returned: AtomicU64,
}

impl BusWatch {
    /// Watches `transport` until `stop`.
    pub(crate) fn start(transport: &Arc<dyn Transport>, stop: &CancellationToken) -> Self {
        let (watch, stop) = (Self::default(), stop.clone());
        let (mut events, own) = (transport.events(), watch.clone());
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    event = events.recv() => event,
                };
                match event {
                    Ok(event) => own.note(event),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        watch
    }

    fn note(&self, event: TransportEvent) {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match event {
            TransportEvent::Lost { why } => {
                tracing::warn!(%why, "the bus is lost; reconnecting");
                count(&self.0.lost);
                *self.0.problem.lock() = Some(format!("connection lost: {why}"));
            }
            TransportEvent::Blocked { why } => {
                tracing::warn!(%why, "the broker asks to wait");
                *self.0.problem.lock() = Some(format!("the broker asks to wait: {why}"));
            }
            TransportEvent::Connected => {
                tracing::info!("the bus is back");
                count(&self.0.reconnected);
                *self.0.problem.lock() = None;
            }
            TransportEvent::Unblocked => {
                tracing::info!("the broker takes messages again");
                *self.0.problem.lock() = None;
            }
            TransportEvent::Returned { .. } => count(&self.0.returned),
        }
    }

    /// What is wrong with it, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.problem.lock().clone()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn reconnected(&self) -> u64 {
        self.0.reconnected.load(Ordering::Relaxed)
    }

    pub(crate) fn returned(&self) -> u64 {
        self.0.returned.load(Ordering::Relaxed)
    }
}
