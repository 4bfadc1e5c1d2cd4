//! A bus inside the process, with the manners of a broker: competing consumers, a queue for each
//! member of a fanout, redelivery, expiry, unroutable messages. Several parties share it, each
//! with a transport of its own, and [`MemoryBus::tap`] shows what a broker would see.

mod consumer;
mod queue;
mod table;
mod tap;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::broadcast;

pub use tap::{Tap, Tapped};

use crate::address::{Address, Inbox};
use crate::error::{PublishError, TransportError};
use crate::transport::{
    Capabilities, ConsumeOptions, Consumer, DEFAULT_MAX_MESSAGE, Outbound, Transport,
    TransportEvent,
};
use consumer::{MemoryConsumer, Taken};
use queue::{Message, Queue};
use table::Table;
use tap::TapSource;

/// Messages that wait in one queue at the most, unless said otherwise.
const CAPACITY: usize = 100_000;

/// A bus; cheap to clone, all clones are the same bus.
#[derive(Clone)]
pub struct MemoryBus(Arc<BusInner>);

struct BusInner {
    table: Table,
    tap: TapSource,
    capacity: usize,
    max_message: usize,
    transports: AtomicU64,
    consumers: AtomicU64,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryBus")
    }
}

impl MemoryBus {
    /// A new, empty bus.
    pub fn new() -> Self {
        Self::with_limits(CAPACITY, DEFAULT_MAX_MESSAGE)
    }

    /// A new bus whose queues hold `capacity` messages of `max_message` bytes at the most.
    pub fn with_limits(capacity: usize, max_message: usize) -> Self {
        Self(Arc::new(BusInner {
            table: Table::new(),
            tap: TapSource::new(),
            capacity,
            max_message,
            transports: AtomicU64::new(0),
            consumers: AtomicU64::new(0),
        }))
    }

    /// One party's way onto the bus.
    pub fn transport(&self) -> MemoryTransport {
        MemoryTransport {
            bus: Arc::clone(&self.0),
            id: self.0.transports.fetch_add(1, Ordering::Relaxed),
            closed: Arc::default(),
            taking: Mutex::default(),
            events: broadcast::Sender::new(64),
            replies: Mutex::default(),
        }
    }

    /// Everything that is published from now on. Costs nothing while nobody listens.
    pub fn tap(&self) -> Tap {
        self.0.tap.listen()
    }

    /// How many messages wait in an inbox's queue; `None` if there is no such queue.
    pub fn waiting(&self, inbox: &Inbox) -> Option<usize> {
        self.0.table.get(inbox).map(|queue| queue.len())
    }
}

/// One party on a [`MemoryBus`]. Dropping it closes it.
pub struct MemoryTransport {
    bus: Arc<BusInner>,
    id: u64,
    closed: Arc<AtomicBool>,
    /// Consumers, to be told of the end.
    taking: Mutex<Vec<Weak<Taken>>>,
    events: broadcast::Sender<TransportEvent>,
    /// Reply queues go with the transport.
    replies: Mutex<Vec<Arc<Queue>>>,
}

impl std::fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryTransport({})", self.id)
    }
}

impl MemoryTransport {
    fn ensure_open(&self) -> Result<(), TransportError> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(TransportError::Closed),
            false => Ok(()),
        }
    }

    fn queue(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<Arc<Queue>, TransportError> {
        self.ensure_open()?;
        let exclusive = inbox.is_own();
        let owner = exclusive.then_some(self.id);
        let make = || Queue::new(inbox.clone(), owner, self.bus.capacity);
        let queue = self.bus.table.get_or_make(inbox, make);
        if queue.owner != owner {
            return Err(TransportError::Refused {
                what: format!("the queue {}", inbox.queue_name()),
                why: "it belongs to another process; choose another process name".to_owned(),
            });
        }
        queue.set_limit(options.queue_ttl);
        if exclusive {
            let mut replies = self.replies.lock();
            if !replies.iter().any(|known| Arc::ptr_eq(known, &queue)) {
                replies.push(Arc::clone(&queue));
            }
        }
        Ok(queue)
    }

    fn send(&self, to: &Address, message: &Outbound) -> Result<(), PublishError> {
        self.ensure_open()?;
        let (size, limit) = (message.payload.len(), self.bus.max_message);
        if size > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        self.bus.tap.show(to, message);
        if let Address::Fanout { exchange, topic } = to {
            return self.fan_out(to, &self.bus.table.members(exchange, topic), message);
        }
        if let Address::Foreign { exchange: Some(exchange), .. } = to
            && exchange.fanout
        {
            return self.fan_out(to, &self.bus.table.members(&exchange.name, ""), message);
        }
        let Some(queue) = self.bus.table.route(to) else {
            return unroutable(to, message);
        };
        if queue.push(waiting(message), message.ttl) { Ok(()) } else { Err(PublishError::Rejected) }
    }

    fn fan_out(
        &self,
        to: &Address,
        members: &[Arc<Queue>],
        message: &Outbound,
    ) -> Result<(), PublishError> {
        if members.is_empty() {
            return unroutable(to, message);
        }
        let taken =
            members.iter().filter(|queue| queue.push(waiting(message), message.ttl)).count();
        if taken == members.len() { Ok(()) } else { Err(PublishError::Rejected) }
    }

    fn shut(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        for taken in self.taking.lock().drain(..).filter_map(|taken| taken.upgrade()) {
            taken.end();
        }
        for queue in self.replies.lock().drain(..) {
            self.bus.table.remove(&queue);
        }
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            ttl: true,
            prefetch: true,
            returns_unroutable: true,
            redelivers: true,
            counts_consumers: true,
            max_message: self.bus.max_message,
        }
    }

    async fn declare(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<(), TransportError> {
        self.queue(inbox, options).map(drop)
    }

    async fn publish(&self, to: &Address, message: Outbound) -> Result<(), PublishError> {
        self.send(to, &message)
    }

    fn publish_now(&self, to: &Address, message: &Outbound) -> Option<Result<(), PublishError>> {
        Some(self.send(to, message))
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let queue = self.queue(inbox, options)?;
        let (bus, closed) = (Arc::clone(&self.bus), Arc::clone(&self.closed));
        let consumer = MemoryConsumer::new(bus, queue, options.prefetch, closed);
        let mut taking = self.taking.lock();
        taking.retain(|taken| taken.strong_count() > 0);
        taking.push(Arc::downgrade(consumer.taken()));
        drop(taking);
        Ok(Box::new(consumer))
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        self.ensure_open()?;
        if let Some(queue) = self.bus.table.get(inbox) {
            self.bus.table.remove(&queue);
        }
        Ok(())
    }

    async fn consumers(&self, inbox: &Inbox) -> Result<u32, TransportError> {
        self.ensure_open()?;
        Ok(self.bus.table.get(inbox).map_or(0, |queue| queue.consumers()))
    }

    async fn waiting(&self, inbox: &Inbox) -> Result<u64, TransportError> {
        self.ensure_open()?;
        Ok(self.bus.table.get(inbox).map_or(0, |queue| queue.waiting()))
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        self.events.subscribe()
    }

    async fn close(&self) {
        self.shut();
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.shut();
    }
}

fn waiting(message: &Outbound) -> Message {
    Message {
        payload: message.payload.clone(),
        reply_hint: message.reply_hint.clone(),
        expires: None,
        redelivered: false,
    }
}

/// Without `mandatory` a message that no queue takes is gone, as with AMQP.
fn unroutable(to: &Address, message: &Outbound) -> Result<(), PublishError> {
    if message.mandatory {
        return Err(PublishError::Unroutable { address: to.routing_key() });
    }
    Ok(())
}
