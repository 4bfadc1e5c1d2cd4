//! One queue of the in-memory bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
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

#[derive(Default)]
struct Ready {
    messages: VecDeque<Message>,
    /// Consumers that found nothing, by their ids, in the order in which they came.
    waiting: VecDeque<(u64, Waker)>,
}

impl Ready {
    /// Whom to wake for a message that is there: one consumer for each.
    fn next_to_wake(&mut self) -> Option<Waker> {
        if self.messages.is_empty() {
            return None;
        }
        self.waiting.pop_front().map(|(_, waker)| waker)
    }
}

pub(super) struct Queue {
    pub(super) inbox: Arc<Inbox>,
    /// The transport that a reply queue belongs to.
    pub(super) owner: Option<u64>,
    capacity: usize,
    /// The queue's own time limit in milliseconds.
    limit: AtomicU64,
    ready: Mutex<Ready>,
    consumers: AtomicU32,
}

impl Queue {
    pub(super) fn new(inbox: Inbox, owner: Option<u64>, capacity: usize) -> Self {
        Self {
            inbox: Arc::new(inbox),
            owner,
            capacity,
            limit: AtomicU64::new(NO_LIMIT),
            ready: Mutex::default(),
            consumers: AtomicU32::new(0),
        }
    }

    pub(super) fn consumers(&self) -> u32 {
        self.consumers.load(Ordering::Acquire)
    }

    /// Messages that wait, those whose time is over among them.
    pub(super) fn waiting(&self) -> u64 {
        self.ready.lock().messages.len() as u64
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
        if ready.messages.len() >= self.capacity {
            drop_expired(&mut ready.messages);
            if ready.messages.len() >= self.capacity {
                return false;
            }
        }
        ready.messages.push_back(message);
        let waker = ready.next_to_wake();
        drop(ready);
        wake(waker);
        true
    }

    /// Takes a message back, to the front.
    pub(super) fn put_back(&self, mut message: Message) {
        message.redelivered = true;
        let mut ready = self.ready.lock();
        ready.messages.push_front(message);
        let waker = ready.next_to_wake();
        drop(ready);
        wake(waker);
    }

    /// Takes a message for a consumer. If there is none and `waker` is given, the consumer waits.
    pub(super) fn pop(&self, consumer: u64, waker: Option<&Waker>) -> Option<Message> {
        let mut ready = self.ready.lock();
        drop_expired(&mut ready.messages);
        let Some(message) = ready.messages.pop_front() else {
            if let Some(waker) = waker {
                match ready.waiting.iter_mut().find(|(id, _)| *id == consumer) {
                    Some((_, known)) => known.clone_from(waker),
                    None => ready.waiting.push_back((consumer, waker.clone())),
                }
            }
            return None;
        };
        // It has something to do now: what arrives meanwhile is for others that wait.
        ready.waiting.retain(|(id, _)| *id != consumer);
        // Two arrivals may have woken one consumer only: pass it on.
        let waker = ready.next_to_wake();
        drop(ready);
        wake(waker);
        Some(message)
    }

    /// A consumer waits no more. An arrival that it was woken for and did not take is passed on.
    pub(super) fn leave(&self, consumer: u64) {
        let mut ready = self.ready.lock();
        ready.waiting.retain(|(id, _)| *id != consumer);
        let waker = ready.next_to_wake();
        drop(ready);
        wake(waker);
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> usize {
        let mut ready = self.ready.lock();
        drop_expired(&mut ready.messages);
        ready.messages.len()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Expiry is lazy and at the head only, as on a broker.
fn drop_expired(ready: &mut VecDeque<Message>) {
    while ready.front().is_some_and(Message::expired) {
        ready.pop_front();
    }
}
