//! The broker's hand at one party: it keeps back what the party sends, and sets flags on what the
//! party takes. Owning the broker is enough for all of it. It also writes down what a party sends,
//! so that the suite knows who answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bulla_transport::{
    Address, Capabilities, ConsumeOptions, Consumer, Delivery, Inbox, Outbound, PublishError,
    ReplyName, Transport, TransportError, TransportEvent,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::HONEST;
use crate::trouble::Trouble;

/// A message as it was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Where to.
    pub to: Address,
    /// The frame.
    pub payload: Bytes,
    /// Where notices may go.
    pub hint: Option<ReplyName>,
}

impl Sent {
    /// Whether it is an answer or a notice.
    pub fn is_reply(&self) -> bool {
        matches!(self.to, Address::Reply { .. })
    }
}

/// What is kept back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Requests.
    Requests,
    /// Answers and notices.
    Replies,
}

#[derive(Default)]
struct State {
    keep: Mutex<Option<Keep>>,
    kept: Mutex<Vec<Sent>>,
    sent: Mutex<Vec<Sent>>,
    flag: AtomicU8,
}

/// A party's transport, in the broker's hand.
pub struct Hand {
    inner: Arc<dyn Transport>,
    state: Arc<State>,
}

impl Hand {
    /// Around a real transport.
    pub fn new(inner: Arc<dyn Transport>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Keeps back what the party sends from now on.
    pub fn keep(&self, what: Keep) {
        *self.state.keep.lock() = Some(what);
    }

    /// Lets everything pass from now on, and gives out what was kept back.
    pub fn release(&self) -> Vec<Sent> {
        *self.state.keep.lock() = None;
        std::mem::take(&mut *self.state.kept.lock())
    }

    /// Waits until so many messages are kept back.
    pub async fn kept(&self, count: usize) -> Result<(), Trouble> {
        let begun = Instant::now();
        while self.state.kept.lock().len() < count {
            if begun.elapsed() > HONEST {
                return Err(Trouble::new("an honest party sent nothing"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// How many messages are kept back.
    pub fn held(&self) -> usize {
        self.state.kept.lock().len()
    }

    /// How many messages the party sent.
    pub fn count(&self) -> usize {
        self.state.sent.lock().len()
    }

    /// What the party sent after the first `from` messages.
    pub fn since(&self, from: usize) -> Vec<Sent> {
        self.state.sent.lock().iter().skip(from).cloned().collect()
    }

    /// Sets the broker's redelivered flag on all that the party takes from now on; `None` leaves
    /// it as it is.
    pub fn flag(&self, redelivered: Option<bool>) {
        let flag = redelivered.map_or(0, |flag| 1 + u8::from(flag));
        self.state.flag.store(flag, Ordering::SeqCst);
    }

    fn keeps(&self, to: &Address) -> bool {
        let reply = matches!(to, Address::Reply { .. });
        match *self.state.keep.lock() {
            Some(Keep::Requests) => !reply,
            Some(Keep::Replies) => reply,
            None => false,
        }
    }
}

struct Flagging {
    inner: Box<dyn Consumer>,
    state: Arc<State>,
}

#[async_trait]
impl Consumer for Flagging {
    async fn next(&mut self) -> Option<Delivery> {
        let mut delivery = self.inner.next().await?;
        match self.state.flag.load(Ordering::SeqCst) {
            1 => delivery.redelivered = false,
            2 => delivery.redelivered = true,
            _ => {}
        }
        Some(delivery)
    }

    async fn stop(&mut self) {
        self.inner.stop().await;
    }
}

#[async_trait]
impl Transport for Hand {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn declare(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<(), TransportError> {
        self.inner.declare(inbox, options).await
    }

    async fn publish(&self, to: &Address, message: Outbound) -> Result<(), PublishError> {
        let sent = Sent {
            to: to.clone(),
            payload: message.payload.clone(),
            hint: message.reply_hint.clone(),
        };
        self.state.sent.lock().push(sent.clone());
        if self.keeps(to) {
            self.state.kept.lock().push(sent);
            return Ok(());
        }
        self.inner.publish(to, message).await
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let inner = self.inner.consume(inbox, options).await?;
        Ok(Box::new(Flagging { inner, state: self.state.clone() }))
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        self.inner.delete(inbox).await
    }

    async fn consumers(&self, inbox: &Inbox) -> Result<u32, TransportError> {
        self.inner.consumers(inbox).await
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        self.inner.events()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
