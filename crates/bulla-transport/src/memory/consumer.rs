//! Taking messages from a queue of the in-memory bus.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_util::task::AtomicWaker;

use super::BusInner;
use super::queue::{Message, Queue};
use crate::address::Inbox;
use crate::transport::{Acker, Consumer, Delivery, Settle};

/// What a consumer and its deliveries share.
pub(super) struct Taken {
    queue: Arc<Queue>,
    /// Deliveries in hand at the most; 0 for no limit.
    prefetch: usize,
    in_hand: AtomicUsize,
    /// Of the consumer, while it waits: for room, or for the end.
    waker: AtomicWaker,
    closed: Arc<AtomicBool>,
}

impl Taken {
    fn has_room(&self) -> bool {
        self.prefetch == 0 || self.in_hand.load(Ordering::Acquire) < self.prefetch
    }

    fn release(&self) {
        if self.in_hand.fetch_sub(1, Ordering::AcqRel) == self.prefetch {
            self.waker.wake();
        }
    }

    /// Its transport is closed.
    pub(super) fn end(&self) {
        self.waker.wake();
    }
}

pub(super) struct MemoryConsumer {
    bus: Arc<BusInner>,
    /// Its number among all of the bus.
    id: u64,
    taken: Arc<Taken>,
    stopped: bool,
}

impl MemoryConsumer {
    pub(super) fn new(
        bus: Arc<BusInner>,
        queue: Arc<Queue>,
        prefetch: u16,
        closed: Arc<AtomicBool>,
    ) -> Self {
        queue.consumer_comes();
        let taken = Taken {
            queue,
            prefetch: usize::from(prefetch),
            in_hand: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
            closed,
        };
        let id = bus.consumers.fetch_add(1, Ordering::Relaxed);
        Self { bus, id, taken: Arc::new(taken), stopped: false }
    }

    pub(super) fn taken(&self) -> &Arc<Taken> {
        &self.taken
    }

    fn ended(&self) -> bool {
        self.stopped || self.taken.closed.load(Ordering::Acquire)
    }

    fn deliver(&self, message: Message) -> Delivery {
        let inbox = Arc::clone(&self.taken.queue.inbox);
        let redelivered = message.redelivered;
        let acker = if self.taken.queue.owner.is_some() {
            // Replies are taken without acknowledgement: the queue goes with the process.
            return Delivery {
                payload: message.payload,
                inbox,
                redelivered,
                reply_hint: message.reply_hint,
                acker: Acker::new(Nothing),
            };
        } else {
            self.taken.in_hand.fetch_add(1, Ordering::AcqRel);
            Acker::new(InHand { taken: Arc::clone(&self.taken), message: Some(message.clone()) })
        };
        Delivery {
            payload: message.payload,
            inbox,
            redelivered,
            reply_hint: message.reply_hint,
            acker,
        }
    }

    fn end(&mut self) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        self.taken.queue.consumer_goes();
        if matches!(*self.taken.queue.inbox, Inbox::Reply { .. }) {
            self.bus.table.remove(&self.taken.queue);
        }
        self.taken.queue.leave(self.id);
    }
}

impl MemoryConsumer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        // First: what changes from here on wakes it.
        self.taken.waker.register(cx.waker());
        if self.ended() {
            return Poll::Ready(None);
        }
        if !self.taken.has_room() {
            return Poll::Pending;
        }
        match self.taken.queue.pop(self.id, Some(cx.waker())) {
            Some(message) => Poll::Ready(Some(self.deliver(message))),
            None => Poll::Pending,
        }
    }
}

/// Gives up a consumer's place when whoever waited for it does no more.
struct Waiting<'a>(&'a mut MemoryConsumer);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.taken.queue.leave(self.0.id);
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    fn next_now(&mut self) -> Option<Delivery> {
        if self.ended() || !self.taken.has_room() {
            return None;
        }
        let message = self.taken.queue.pop(self.id, None)?;
        Some(self.deliver(message))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Option<Poll<Option<Delivery>>> {
        Some(self.poll(cx))
    }

    async fn next(&mut self) -> Option<Delivery> {
        let waiting = Waiting(self);
        poll_fn(|cx| waiting.0.poll(cx)).await
    }

    async fn stop(&mut self) {
        self.end();
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A delivery that needs no settling.
struct Nothing;

impl Settle for Nothing {
    fn ack(self: Box<Self>) {}
    fn put_back(self: Box<Self>) {}
}

/// A delivery that was not settled yet; it goes back when it is dropped.
struct InHand {
    taken: Arc<Taken>,
    message: Option<Message>,
}

impl Settle for InHand {
    fn ack(mut self: Box<Self>) {
        // Who closed its transport has lost its say, as with a broker.
        if !self.taken.closed.load(Ordering::Acquire) {
            self.message = None;
        }
    }

    fn put_back(self: Box<Self>) {
        // Dropping it does.
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.taken.queue.put_back(message);
        }
        self.taken.release();
    }
}
