//! Dying at a named point, without a word, as under `kill -9`: wrappers around what a worker is
//! made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;
use bulla_guard::{
    ClaimKey, ClaimOutcome, ClaimRequest, ClaimStore, Completed, Completion, Grant, Lost, Reply,
    Stats, StoreError, SweepRequest, Swept,
};
use bulla_seal::Party;
use bulla_transport::{
    Acker, Address, Capabilities, ConsumeOptions, Consumer, Delivery, Inbox, Outbound,
    PublishError, Settle, Transport, TransportError, TransportEvent,
};
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::broadcast;

use crate::settings::{Death, Point};

/// Burns down with each passing of its point.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fuse(Option<Arc<(Point, AtomicU64)>>);

impl Fuse {
    pub(crate) fn new(death: Option<Death>) -> Self {
        Self(death.map(|death| Arc::new((death.point, AtomicU64::new(death.passing)))))
    }

    pub(crate) fn pass(&self, point: Point) {
        let Some(inner) = &self.0 else { return };
        if inner.0 == point && inner.1.fetch_sub(1, SeqCst) == 1 {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}

/// A claim store that is shared, or says so.
#[derive(Debug)]
pub(crate) struct FusedClaims {
    pub(crate) inner: Arc<dyn ClaimStore>,
    pub(crate) fuse: Fuse,
}

#[async_trait]
impl ClaimStore for FusedClaims {
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        self.fuse.pass(Point::Claiming);
        let outcome = self.inner.claim(request).await;
        if matches!(outcome, Ok(ClaimOutcome::Granted(_))) {
            self.fuse.pass(Point::Claimed);
        }
        outcome
    }

    async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError> {
        let completed = self.inner.complete(key, grant, completion).await;
        if completed == Ok(Completed::Stored) {
            self.fuse.pass(Point::Completed);
        }
        completed
    }

    async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError> {
        self.inner.extend(key, grant, until_ms).await
    }

    async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError> {
        self.inner.answer_in_doubt(key, error).await
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError> {
        self.inner.sweep(request).await
    }

    async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError> {
        self.inner.declare_lost(now_ms).await
    }

    async fn held_by(&self, sender: &Party) -> Result<u64, StoreError> {
        self.inner.held_by(sender).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.inner.stats().await
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// A transport with the points of receiving, replying and acknowledging.
pub(crate) struct FusedTransport<T> {
    pub(crate) inner: T,
    pub(crate) fuse: Fuse,
}

#[async_trait]
impl<T: Transport> Transport for FusedTransport<T> {
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
        let published = self.inner.publish(to, message).await;
        if published.is_ok() && matches!(to, Address::Reply { .. }) {
            self.fuse.pass(Point::Replied);
        }
        published
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let inner = self.inner.consume(inbox, options).await?;
        Ok(Box::new(FusedConsumer { inner, fuse: self.fuse.clone() }))
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        self.inner.delete(inbox).await
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        self.inner.events()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct FusedConsumer {
    inner: Box<dyn Consumer>,
    fuse: Fuse,
}

#[async_trait]
impl Consumer for FusedConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        let mut delivery = self.inner.next().await?;
        self.fuse.pass(Point::Received);
        let fuse = self.fuse.clone();
        delivery.acker = Acker::new(FusedAcker { inner: delivery.acker, fuse });
        Some(delivery)
    }

    async fn stop(&mut self) {
        self.inner.stop().await;
    }
}

struct FusedAcker {
    inner: Acker,
    fuse: Fuse,
}

impl Settle for FusedAcker {
    fn ack(self: Box<Self>) {
        let Self { inner, fuse } = *self;
        inner.ack();
        fuse.pass(Point::Acknowledged);
    }

    fn put_back(self: Box<Self>) {
        self.inner.put_back();
    }
}
