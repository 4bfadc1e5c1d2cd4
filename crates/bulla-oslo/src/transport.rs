//! The oslo carrier: a transport whose messages have oslo.messaging's bodies, on its exchanges and queues.

use std::sync::Arc;

use async_trait::async_trait;
use bulla_seal::{Detail, Parsed};
use bulla_transport::{
    Address, CallTag, Capabilities, ConsumeOptions, Consumer, Delivery, Inbox, Logins, Outbound,
    PublishError, ReplyName, Transport, TransportError, TransportEvent,
};
use bytes::Bytes;
use tokio::sync::broadcast;

use crate::ids::Ids;
use crate::queues::Queues;
use crate::wire::{self, Call, Id, Message, ReplyQueue, Sealed};

/// Carries frames as the native carrier does, in bodies that oslo.messaging's driver takes (section 19 of
/// `docs/protocol.md`), over another transport, whose queues it names.
///
/// A body that is not sealed is passed on as it is, to be refused, or to be judged as one of a peer that
/// does not seal. A payload that is such a body itself (it begins with `{`, and no frame does) goes out
/// as it is.
pub struct OsloTransport {
    shared: Arc<Shared>,
    events: broadcast::Sender<TransportEvent>,
}

struct Shared {
    inner: Arc<dyn Transport>,
    queues: Queues,
    max_frame: usize,
    ids: Ids,
}

impl OsloTransport {
    /// Over `inner`, for frames of at most `max_frame` bytes; `inner` has to take bodies of
    /// [`wire::max_body`].
    pub fn new(inner: Arc<dyn Transport>, queues: Queues, max_frame: usize) -> Self {
        let events = broadcast::Sender::new(256);
        let from = inner.events();
        let shared = Arc::new(Shared { inner, queues, max_frame, ids: Ids::default() });
        tokio::spawn(translate(from, events.clone(), max_frame));
        Self { shared, events }
    }

    /// The transport beneath, for what is in clear.
    pub fn inner(&self) -> &Arc<dyn Transport> {
        &self.shared.inner
    }

    /// Names and flags.
    pub fn queues(&self) -> &Queues {
        &self.shared.queues
    }
}

impl Shared {
    fn body(&self, to: &Address, message: &Outbound) -> Vec<u8> {
        let unique_id = self.ids.next();
        let Address::Reply { to, .. } = to else {
            let call = message.reply_hint.as_ref().and_then(|hint| self.call(hint));
            return wire::request(&message.payload, call.as_ref(), unique_id);
        };
        // Answers that no driver waits for, as to a request to join, name no call.
        let call = Id(to.call().map_or([0; 16], |tag| tag.id));
        wire::reply(&message.payload, self.is_last(&message.payload), call, unique_id)
    }

    fn call(&self, hint: &ReplyName) -> Option<Call> {
        let reply_queue = ReplyQueue::parse(hint.as_str())?;
        Some(Call { id: self.ids.next(), reply_queue, monitor: None })
    }

    /// Whether nothing comes after this reply: all but progress.
    fn is_last(&self, payload: &Bytes) -> bool {
        let parsed = Parsed::parse(payload.clone(), self.max_frame);
        !parsed.is_ok_and(|parsed| {
            matches!(parsed.header().detail, Detail::Reply { outcome, .. } if !outcome.is_final())
        })
    }

    /// What a delivery has in it, where it was consumed from.
    fn delivered(&self, mut delivery: Delivery, inbox: &Arc<Inbox>) -> Delivery {
        let reply = matches!(**inbox, Inbox::Reply { .. });
        delivery.inbox = Arc::clone(inbox);
        delivery.reply_hint = None;
        match wire::read(&delivery.payload, self.max_frame) {
            Ok(Message::Sealed(Sealed::Request(request))) if !reply => {
                delivery.payload = request.frame.into();
                delivery.reply_hint = request.call.as_ref().and_then(name_of);
            }
            Ok(Message::Sealed(Sealed::Reply(answer))) if reply => {
                delivery.payload = answer.frame.into();
            }
            _ => {}
        }
        delivery
    }
}

/// The name that a reply to this call goes to.
pub(crate) fn name_of(call: &Call) -> Option<ReplyName> {
    let alive_every = call.monitor.and_then(wire::Monitor::every);
    let queue = ReplyName::queue(call.reply_queue.as_str())?;
    Some(queue.for_call(CallTag { id: call.id.0, alive_every }))
}

/// Whether a payload is a body of its own, and no frame.
pub(crate) fn is_body(payload: &[u8]) -> bool {
    payload.first() == Some(&b'{')
}

/// Events of the transport beneath, with frames in place of bodies.
async fn translate(
    mut from: broadcast::Receiver<TransportEvent>,
    to: broadcast::Sender<TransportEvent>,
    max_frame: usize,
) {
    loop {
        let event = match from.recv().await {
            Ok(TransportEvent::Returned { address, payload }) => {
                let payload = match wire::read_sealed(&payload, max_frame) {
                    Ok(Sealed::Request(request)) => request.frame.into(),
                    Ok(Sealed::Reply(reply)) => reply.frame.into(),
                    Err(_) => payload,
                };
                TransportEvent::Returned { address, payload }
            }
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        // Nobody may be listening.
        let _ = to.send(event);
    }
}

#[async_trait]
impl Transport for OsloTransport {
    fn name(&self) -> &'static str {
        "oslo"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { max_message: self.shared.max_frame, ..self.shared.inner.capabilities() }
    }

    fn reply_name(&self, principal: &str, process: &str) -> Option<ReplyName> {
        let native = ReplyName::new(principal, process)?;
        ReplyName::queue(&format!("reply_{native}"))
    }

    async fn declare(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<(), TransportError> {
        let queue = Inbox::Foreign(self.shared.queues.inbox(inbox));
        self.shared.inner.declare(&queue, options).await
    }

    async fn publish(&self, to: &Address, mut message: Outbound) -> Result<(), PublishError> {
        let (size, limit) = (message.payload.len(), self.shared.max_frame);
        if size > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        if !is_body(&message.payload) {
            message.payload = self.shared.body(to, &message).into();
        }
        message.reply_hint = None;
        self.shared.inner.publish(&self.shared.queues.address(to), message).await
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let queue = Inbox::Foreign(self.shared.queues.inbox(inbox));
        let consumer = self.shared.inner.consume(&queue, options).await?;
        let (shared, inbox) = (Arc::clone(&self.shared), Arc::new(inbox.clone()));
        Ok(Box::new(OsloConsumer { consumer, shared, inbox, queue }))
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        self.shared.inner.delete(&Inbox::Foreign(self.shared.queues.inbox(inbox))).await
    }

    async fn consumers(&self, inbox: &Inbox) -> Result<u32, TransportError> {
        self.shared.inner.consumers(&Inbox::Foreign(self.shared.queues.inbox(inbox))).await
    }

    async fn waiting(&self, inbox: &Inbox) -> Result<u64, TransportError> {
        self.shared.inner.waiting(&Inbox::Foreign(self.shared.queues.inbox(inbox))).await
    }

    fn logins(&self) -> Option<&Logins> {
        self.shared.inner.logins()
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        self.events.subscribe()
    }

    async fn close(&self) {
        self.shared.inner.close().await;
    }
}

impl std::fmt::Debug for OsloTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OsloTransport({})", self.shared.inner.name())
    }
}

struct OsloConsumer {
    consumer: Box<dyn Consumer>,
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    queue: Inbox,
}

#[async_trait]
impl Consumer for OsloConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        let delivery = self.consumer.next().await?;
        Some(self.shared.delivered(delivery, &self.inbox))
    }

    async fn stop(&mut self) {
        self.consumer.stop().await;
        if self.queue.is_own() {
            // The broker drops it when nobody used it for long, should this fail.
            let _ = self.shared.inner.delete(&self.queue).await;
        }
    }
}
