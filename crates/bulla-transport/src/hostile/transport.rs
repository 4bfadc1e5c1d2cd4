//! One party's way onto a hostile broker.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::HostileBroker;
use super::act::Act;
use super::consumer::{HostileConsumer, InHand};
use crate::address::{Address, Inbox};
use crate::error::{PublishError, TransportError};
use crate::memory::MemoryTransport;
use crate::transport::{
    Capabilities, ConsumeOptions, Consumer, Outbound, Transport, TransportEvent,
};

/// A [`Transport`] on a [`HostileBroker`].
pub struct HostileTransport {
    broker: HostileBroker,
    inner: MemoryTransport,
    name: Arc<str>,
    in_hand: Arc<InHand>,
    events: broadcast::Sender<TransportEvent>,
}

impl HostileTransport {
    pub(super) fn new(broker: HostileBroker, inner: MemoryTransport, name: &str) -> Self {
        let events = broadcast::Sender::new(16);
        Self { broker, inner, name: name.into(), in_hand: Arc::default(), events }
    }

    /// Tells the party something about its connection.
    pub fn tell(&self, event: TransportEvent) {
        self.broker.note(|_| format!("-- {} is told: {}", self.name, short(&event)));
        // A party that does not listen is not told.
        let _ = self.events.send(event);
    }

    /// The connection is lost and made anew: whatever the party had in hand goes back to the
    /// queues, and its word on it is void.
    pub fn reconnect(&self) {
        self.broker.note(|_| format!("-- {} is reconnected", self.name));
        self.in_hand.put_all_back();
        let _ = self.events.send(TransportEvent::Lost { why: "the broker says so".to_owned() });
        let _ = self.events.send(TransportEvent::Connected);
    }

    /// The party's process is gone, as with `kill -9`: its connection ends, and whatever it had
    /// in hand goes back to the queues. What the party still does changes nothing.
    pub async fn crash(&self) {
        self.broker.note(|_| format!("-- {} is gone", self.name));
        self.inner.close().await;
        self.in_hand.put_all_back();
    }
}

fn short(event: &TransportEvent) -> &'static str {
    match event {
        TransportEvent::Connected => "connected",
        TransportEvent::Lost { .. } => "lost",
        TransportEvent::Blocked { .. } => "blocked",
        TransportEvent::Unblocked => "unblocked",
        TransportEvent::Returned { .. } => "returned",
    }
}

#[async_trait]
impl Transport for HostileTransport {
    fn name(&self) -> &'static str {
        "hostile"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn declare(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<(), TransportError> {
        self.inner.declare(inbox, options).await
    }

    async fn publish(&self, to: &Address, message: Outbound) -> Result<(), PublishError> {
        let (sent, acts) = self.broker.decide(&self.name, to, &message);
        let mut told = Ok(());
        for act in acts {
            if act == Act::Pass && told.is_ok() {
                told = self.inner.publish(to, message.clone()).await;
            } else {
                self.broker.perform(&sent, act).await;
            }
        }
        self.broker.release().await;
        told
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let consumer = self.inner.consume(inbox, options).await?;
        self.broker.receiver_starts(&self.name, inbox).await;
        Ok(Box::new(HostileConsumer {
            broker: self.broker.clone(),
            name: self.name.clone(),
            in_hand: self.in_hand.clone(),
            inner: consumer,
        }))
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        self.inner.delete(inbox).await
    }

    async fn consumers(&self, inbox: &Inbox) -> Result<u32, TransportError> {
        self.inner.consumers(inbox).await
    }

    async fn waiting(&self, inbox: &Inbox) -> Result<u64, TransportError> {
        self.inner.waiting(inbox).await
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        self.events.subscribe()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

impl std::fmt::Debug for HostileTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostileTransport({})", self.name)
    }
}
