//! The trait that every transport implements.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::broadcast;

use crate::address::{Address, Inbox, ReplyName};
use crate::error::{PublishError, TransportError};
use crate::login::Logins;

/// Largest frame that a transport takes unless it is told otherwise, in bytes: 16 MiB of content
/// and room for the seal around it.
pub const DEFAULT_MAX_MESSAGE: usize = (16 << 20) + (64 << 10);

/// What a transport can and can't do. A caller looks before it relies on something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Messages wait for a consumer that is away.
    pub durable: bool,
    /// Messages leave the queue when their time to live is over.
    pub ttl: bool,
    /// A consumer's unacknowledged messages are limited by prefetch.
    pub prefetch: bool,
    /// An unroutable message is reported to its sender.
    pub returns_unroutable: bool,
    /// A message that was not acknowledged comes back.
    pub redelivers: bool,
    /// How many consumers a queue has can be asked (see [`Transport::consumers`]).
    pub counts_consumers: bool,
    /// Largest message in bytes.
    pub max_message: usize,
}

/// A message on its way out. Nothing here but the payload is believed by a receiver.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The frame.
    pub payload: Bytes,
    /// How long it may wait in a queue; `None` for as long as the queue lets it.
    pub ttl: Option<Duration>,
    /// Where an `offer-needed` notice may be sent (protocol section 3): a hint, nothing more.
    pub reply_hint: Option<ReplyName>,
    /// Survives a restart of the broker (calls need not, casts should).
    pub persistent: bool,
    /// Ask to be told if no queue takes the message.
    pub mandatory: bool,
    /// Wait until the broker has taken responsibility for the message. A call need not: its
    /// reply is the better confirmation.
    pub confirm: bool,
}

impl Outbound {
    /// `payload`, with everything else off: not kept over a restart, not confirmed.
    pub fn new(payload: Bytes) -> Self {
        Self {
            payload,
            ttl: None,
            reply_hint: None,
            persistent: false,
            mandatory: false,
            confirm: false,
        }
    }
}

/// How to consume.
#[derive(Debug, Clone)]
pub struct ConsumeOptions {
    /// Unacknowledged messages at the most.
    pub prefetch: u16,
    /// The queue's own limit for how long messages wait; `None` for no limit.
    pub queue_ttl: Option<Duration>,
    /// Ask for a replicated queue where the broker has them (quorum queues on RabbitMQ).
    pub replicated: bool,
}

impl Default for ConsumeOptions {
    fn default() -> Self {
        Self { prefetch: 256, queue_ttl: None, replicated: false }
    }
}

/// A message that arrived. `redelivered` and everything else but the payload is the broker's
/// word, which is worth nothing.
pub struct Delivery {
    /// The frame.
    pub payload: Bytes,
    /// Where it was consumed from: the receiver's own knowledge, not the message's.
    pub inbox: Arc<Inbox>,
    /// The broker's claim that it delivered this before.
    pub redelivered: bool,
    /// The sender's hint, if it is a well-formed name.
    pub reply_hint: Option<ReplyName>,
    /// Settles the delivery.
    pub acker: Acker,
}

/// Settles one delivery. Both calls return at once; a transport gathers acknowledgements and
/// sends them in batches. A delivery that is dropped unsettled is put back (where the transport
/// redelivers), and so is what a process had in hand when it went away.
pub struct Acker(Box<dyn Settle>);

/// What a transport implements to have deliveries settled.
pub trait Settle: Send + Sync + 'static {
    /// The message is dealt with.
    fn ack(self: Box<Self>);
    /// Give the message back to the queue for somebody else or for later.
    fn put_back(self: Box<Self>);
}

impl Acker {
    /// Wraps a transport's own way to settle.
    pub fn new(settle: impl Settle) -> Self {
        Self(Box::new(settle))
    }

    /// The message is dealt with: done, in doubt or refused, and that is durable.
    pub fn ack(self) {
        self.0.ack();
    }

    /// Give the message back to the queue.
    pub fn put_back(self) {
        self.0.put_back();
    }
}

impl std::fmt::Debug for Acker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acker")
    }
}

/// A stream of deliveries from one inbox. It lives through reconnections.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery; `None` when the transport was closed or the consumer stopped.
    async fn next(&mut self) -> Option<Delivery>;
    /// A delivery that is here already. `None` says nothing: [`next`](Self::next) tells whether there
    /// is one. Asking this first saves a future for every message of a burst.
    fn next_now(&mut self) -> Option<Delivery> {
        None
    }
    /// What [`next`](Self::next) waits for, without a future for each delivery; `None` where only
    /// `next` can tell. A consumer that was asked so and has nothing keeps its place among those that
    /// wait: whoever asks no more drops it or stops it.
    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Option<Poll<Option<Delivery>>> {
        None
    }
    /// Take no more; deliveries in hand can still be settled.
    async fn stop(&mut self);
}

/// The next delivery, in the way that costs `consumer` least. To be dropped unfinished only if the consumer
/// is stopped then (see [`Consumer::poll_next`]).
pub async fn next_delivery(consumer: &mut dyn Consumer) -> Option<Delivery> {
    let polled = poll_fn(|cx| match consumer.poll_next(cx) {
        Some(polled) => polled.map(Some),
        None => Poll::Ready(None),
    });
    match polled.await {
        Some(delivery) => delivery,
        None => consumer.next().await,
    }
}

/// What happened to the connection. Local and unauthenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportEvent {
    /// Connected again after a loss; everything declared was declared again.
    Connected,
    /// The connection is gone; it is being restored in the background. Whoever waits for a reply
    /// should know: replies sent meanwhile to an exclusive reply inbox are lost with it.
    Lost {
        /// The cause, without secrets.
        why: String,
    },
    /// The broker asks publishers to wait (memory or disk alarm).
    Blocked {
        /// What the broker said.
        why: String,
    },
    /// The broker takes messages again.
    Unblocked,
    /// A mandatory message found no queue.
    Returned {
        /// Its routing key.
        address: String,
        /// The frame as it was sent.
        payload: Bytes,
    },
}

/// How bytes travel.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// A short name for people: `memory`, `rabbit`.
    fn name(&self) -> &'static str;

    /// What this transport can do.
    fn capabilities(&self) -> Capabilities;

    /// The name of a reply inbox of this transport, of `process` of the principal with the short form
    /// `principal`; `None` if that is no name.
    fn reply_name(&self, principal: &str, process: &str) -> Option<ReplyName> {
        ReplyName::new(principal, process)
    }

    /// Makes sure that an inbox's queue exists, so that messages wait there. Idempotent.
    async fn declare(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<(), TransportError>;

    /// Sends one message. With `confirm` it returns when the broker took it over; without, when
    /// it was handed to the connection. While the connection is down it waits for it, at most as
    /// long as the message's time to live (or 30 s), then fails: a message is never dropped
    /// without its sender being told.
    async fn publish(&self, to: &Address, message: Outbound) -> Result<(), PublishError>;

    /// Sends a message that has to wait for nothing: what [`publish`](Self::publish) would do, without
    /// a future. `None` if it would have to wait, or where a transport can't tell: nothing was done then,
    /// and `publish` does it.
    fn publish_now(&self, _to: &Address, _message: &Outbound) -> Option<Result<(), PublishError>> {
        None
    }

    /// Starts consuming from an inbox, declaring it first.
    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError>;

    /// Removes an inbox's queue with what waits in it, once nobody needs it again. One that is
    /// not there is as good.
    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError>;

    /// How many consumers an inbox's queue has, on all connections: the broker's word, which
    /// shows mistakes, not attacks. None if there is no such queue.
    ///
    /// # Errors
    /// [`TransportError::Unsupported`] unless [`Capabilities::counts_consumers`]; or the broker
    /// can't be asked.
    async fn consumers(&self, _inbox: &Inbox) -> Result<u32, TransportError> {
        Err(TransportError::Unsupported { what: "count of a queue's consumers" })
    }

    /// How many messages wait in an inbox's queue and are in nobody's hands: the broker's word. None if
    /// there is no such queue.
    ///
    /// # Errors
    /// [`TransportError::Unsupported`] where it can't be asked; or the broker does not say.
    async fn waiting(&self, _inbox: &Inbox) -> Result<u64, TransportError> {
        Err(TransportError::Unsupported { what: "count of a queue's messages" })
    }

    /// The logins with which it comes back after a loss; `None` if they can't be changed.
    fn logins(&self) -> Option<&Logins> {
        None
    }

    /// What happens to the connection from now on.
    fn events(&self) -> broadcast::Receiver<TransportEvent>;

    /// Sends what is still in hand (acknowledgements too) and closes.
    async fn close(&self);
}
