//! What a broker sees, for everybody to look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::address::Address;
use crate::transport::Outbound;

/// Messages that a slow listener may lag behind before it misses some.
const BACKLOG: usize = 4096;

/// One published message as a broker sees it.
#[derive(Debug, Clone)]
pub struct Tapped {
    /// When it was published.
    pub at: SystemTime,
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// Where the sender asks notices to be sent.
    pub reply_to: Option<String>,
    /// The frame.
    pub payload: Bytes,
}

/// A live stream of everything that is published.
#[derive(Debug)]
pub struct Tap {
    receiver: broadcast::Receiver<Tapped>,
    listeners: Arc<AtomicUsize>,
    missed: u64,
}

impl Tap {
    /// The next message; `None` when the bus is gone. A listener that is too slow misses
    /// messages, see [`Tap::missed`].
    pub async fn next(&mut self) -> Option<Tapped> {
        loop {
            match self.receiver.recv().await {
                Ok(tapped) => return Some(tapped),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.missed += missed,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Messages that this listener was too slow for.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bus's end: one relaxed load a message when nobody listens.
pub(super) struct TapSource {
    sender: broadcast::Sender<Tapped>,
    listeners: Arc<AtomicUsize>,
}

impl TapSource {
    pub(super) fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), listeners: Arc::default() }
    }

    pub(super) fn listen(&self) -> Tap {
        let receiver = self.sender.subscribe();
        self.listeners.fetch_add(1, Ordering::Relaxed);
        Tap { receiver, listeners: Arc::clone(&self.listeners), missed: 0 }
    }

    pub(super) fn show(&self, to: &Address, message: &Outbound) {
        if self.listeners.load(Ordering::Relaxed) == 0 {
            return;
        }
        // A listener that left meanwhile is no loss.
        let _ = self.sender.send(Tapped {
            at: SystemTime::now(),
            exchange: to.exchange_name(),
            routing_key: to.routing_key(),
            reply_to: message.reply_hint.as_ref().map(ToString::to_string),
            payload: message.payload.clone(),
        });
    }
}
