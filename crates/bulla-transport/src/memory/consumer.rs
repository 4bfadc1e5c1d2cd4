//! Taking messages from a queue of the in-memory bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use super::BusInner;
use super::queue::{Message, Queue};
use crate::address::Inbox;
use crate::transport::{Acker, Consumer, Delivery, Settle};

/// What a consumer and its deliveries share.
struct Taken {
    queue: Arc<Queue>,
    /// Deliveries in hand at the most; 0 for no limit.
    prefetch: usize,
    in_hand: AtomicUsize,
    settled: Notify,
    closed: Arc<AtomicBool>,
}

impl Taken {
    fn has_room(&self) -> bool {
        self.prefetch == 0 || self.in_hand.load(Ordering::Acquire) < self.prefetch
    }

    fn release(&self) {
        if self.in_hand.fetch_sub(1, Ordering::AcqRel) == self.prefetch {
            self.settled.notify_one();
        }
    }
}

pub(super) struct MemoryConsumer {
    bus: Arc<BusInner>,
    taken: Arc<Taken>,
    closing: watch::Receiver<bool>,
    stopped: bool,
}

impl MemoryConsumer {
    pub(super) fn new(
        bus: Arc<BusInner>,
        queue: Arc<Queue>,
        prefetch: u16,
        closed: Arc<AtomicBool>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        queue.consumer_comes();
        let taken = Taken {
            queue,
            prefetch: usize::from(prefetch),
            in_hand: AtomicUsize::new(0),
            settled: Notify::new(),
            closed,
        };
        Self { bus, taken: Arc::new(taken), closing, stopped: false }
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
        } else {
            self.taken.queue.pass_on();
        }
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    fn next_now(&mut self) -> Option<Delivery> {
        if self.ended() || !self.taken.has_room() {
            return None;
        }
        let message = self.taken.queue.pop()?;
        Some(self.deliver(message))
    }

    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if self.ended() {
                return None;
            }
            let room = self.taken.has_room();
            if room && let Some(message) = self.taken.queue.pop() {
                return Some(self.deliver(message));
            }
            let taken = Arc::clone(&self.taken);
            tokio::select! {
                () = taken.queue.arrival(), if room => {}
                () = taken.settled.notified(), if !room => {}
                // An error means that the transport is gone, which `ended` tells.
                _ = self.closing.changed() => {}
            }
        }
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
