//! One queue of the in-memory bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::address::{Inbox, ReplyName};

/// A message as it waits.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) payload: Bytes,
    pub(super) reply_hint: Option<ReplyName>,
    pub(super) expires: Option<Instant>,
    pub(super) redelivered: bool,
}

impl Message {
    fn expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }
}

/// No limit set by the queue itself.
const NO_LIMIT: u64 = u64::MAX;

pub(super) struct Queue {
    pub(super) inbox: Arc<Inbox>,
    /// The transport that a reply queue belongs to.
    pub(super) owner: Option<u64>,
    capacity: usize,
    /// The queue's own time limit in milliseconds.
    limit: AtomicU64,
    ready: Mutex<VecDeque<Message>>,
    arrived: Notify,
    consumers: AtomicU32,
}

impl Queue {
    pub(super) fn new(inbox: Inbox, owner: Option<u64>, capacity: usize) -> Self {
        Self {
            inbox: Arc::new(inbox),
            owner,
            capacity,
            limit: AtomicU64::new(NO_LIMIT),
            ready: Mutex::new(VecDeque::new()),
            arrived: Notify::new(),
            consumers: AtomicU32::new(0),
        }
    }

    pub(super) fn consumers(&self) -> u32 {
        self.consumers.load(Ordering::Acquire)
    }

    /// Messages that wait, those whose time is over among them.
    pub(super) fn waiting(&self) -> u64 {
        self.ready.lock().len() as u64
    }

    pub(super) fn consumer_comes(&self) {
        self.consumers.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn consumer_goes(&self) {
        self.consumers.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn set_limit(&self, limit: Option<Duration>) {
        let limit = limit.and_then(|limit| u64::try_from(limit.as_millis()).ok());
        self.limit.store(limit.unwrap_or(NO_LIMIT), Ordering::Relaxed);
    }

    /// When a message that arrives now leaves again by itself.
    fn expiry(&self, ttl: Option<Duration>) -> Option<Instant> {
        let limit = match self.limit.load(Ordering::Relaxed) {
            NO_LIMIT => None,
            limit => Some(Duration::from_millis(limit)),
        };
        let ttl = match (ttl, limit) {
            (Some(ttl), Some(limit)) => ttl.min(limit),
            (ttl, limit) => ttl.or(limit)?,
        };
        Instant::now().checked_add(ttl)
    }

    /// Takes a message over; `false` when the queue is full.
    pub(super) fn push(&self, mut message: Message, ttl: Option<Duration>) -> bool {
        message.expires = self.expiry(ttl);
        let mut ready = self.ready.lock();
        if ready.len() >= self.capacity {
            drop_expired(&mut ready);
            if ready.len() >= self.capacity {
                return false;
            }
        }
        ready.push_back(message);
        drop(ready);
        self.arrived.notify_one();
        true
    }

    /// Takes a message back, to the front.
    pub(super) fn put_back(&self, mut message: Message) {
        message.redelivered = true;
        self.ready.lock().push_front(message);
        self.arrived.notify_one();
    }

    pub(super) fn pop(&self) -> Option<Message> {
        let mut ready = self.ready.lock();
        drop_expired(&mut ready);
        let message = ready.pop_front()?;
        let more = !ready.is_empty();
        drop(ready);
        if more {
            // Two arrivals may have woken one consumer only: pass it on.
            self.arrived.notify_one();
        }
        Some(message)
    }

    /// Waits until something may have arrived.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Passes on an arrival that somebody was woken for but did not take.
    pub(super) fn pass_on(&self) {
        if !self.ready.lock().is_empty() {
            self.arrived.notify_one();
        }
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> usize {
        let mut ready = self.ready.lock();
        drop_expired(&mut ready);
        ready.len()
    }
}

/// Expiry is lazy and at the head only, as on a broker.
fn drop_expired(ready: &mut VecDeque<Message>) {
    while ready.front().is_some_and(Message::expired) {
        ready.pop_front();
    }
}
