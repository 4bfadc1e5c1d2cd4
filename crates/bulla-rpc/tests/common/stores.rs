//! Claim stores as a simulation needs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bulla_guard::*;
use bulla_seal::Party;
use tokio::sync::Notify;

/// What one process sees of a store: nothing any more once the process is killed, and nothing
/// yet while it is stopped.
#[derive(Debug, Clone)]
pub struct Mortal {
    store: Arc<dyn ClaimStore>,
    dead: Arc<AtomicBool>,
    stopped: Arc<(AtomicBool, Notify)>,
}

impl Mortal {
    pub fn new(store: Arc<dyn ClaimStore>) -> Self {
        Self { store, dead: Arc::default(), stopped: Arc::default() }
    }

    pub fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub fn stop(&self, stop: bool) {
        self.stopped.0.store(stop, Ordering::SeqCst);
        self.stopped.1.notify_waiters();
    }

    async fn alive<T>(&self, value: impl Future<Output = T>) -> T {
        // Not a watch channel: that one wakes its waiters in a random order.
        let (stopped, changed) = &*self.stopped;
        while stopped.load(Ordering::SeqCst) {
            changed.notified().await;
        }
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let value = value.await;
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        value
    }
}

#[async_trait]
impl ClaimStore for Mortal {
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        self.alive(self.store.claim(request)).await
    }
    async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError> {
        self.alive(self.store.complete(key, grant, completion)).await
    }
    async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError> {
        self.alive(self.store.extend(key, grant, until_ms)).await
    }
    async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError> {
        self.alive(self.store.answer_in_doubt(key, error)).await
    }
    async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError> {
        self.alive(self.store.sweep(request)).await
    }
    async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError> {
        self.alive(self.store.declare_lost(now_ms)).await
    }
    async fn held_by(&self, sender: &Party) -> Result<u64, StoreError> {
        self.store.held_by(sender).await
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        self.store.stats().await
    }
    // The processes of a simulation do share it.
    fn is_shared(&self) -> bool {
        true
    }
}

/// A store that works in real time: virtual time stands still while it does.
#[derive(Debug)]
pub struct Patient<S>(pub S);

impl<S: ClaimStore + Clone + 'static> Patient<S> {
    /// A blocking task keeps tokio's paused clock from being moved on.
    async fn wait<T, F>(&self, op: impl FnOnce(S) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        let (store, runtime) = (self.0.clone(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || runtime.block_on(op(store))).await.unwrap()
    }
}

#[async_trait]
impl<S: ClaimStore + Clone + 'static> ClaimStore for Patient<S> {
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        self.wait(move |s| async move { s.claim(request).await }).await
    }
    async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError> {
        let key = key.clone();
        self.wait(move |s| async move { s.complete(&key, grant, completion).await }).await
    }
    async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError> {
        let key = key.clone();
        self.wait(move |s| async move { s.extend(&key, grant, until_ms).await }).await
    }
    async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError> {
        let key = key.clone();
        self.wait(move |s| async move { s.answer_in_doubt(&key, error).await }).await
    }
    async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError> {
        self.wait(move |s| async move { s.sweep(request).await }).await
    }
    async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError> {
        self.wait(move |s| async move { s.declare_lost(now_ms).await }).await
    }
    async fn held_by(&self, sender: &Party) -> Result<u64, StoreError> {
        let sender = sender.clone();
        self.wait(move |s| async move { s.held_by(&sender).await }).await
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        self.wait(move |s| async move { s.stats().await }).await
    }
    fn is_shared(&self) -> bool {
        self.0.is_shared()
    }
}

/// How a store can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It remembers nothing.
    Forgets,
    /// It hands every method to another worker when a lease ends.
    TakesOver,
    /// A worker that lost its claim may complete it all the same.
    LateCompletion,
}

/// A store with a fault, to show that the faults are found.
#[derive(Debug)]
pub struct Faulty {
    pub store: MemoryClaims,
    pub fault: Fault,
}

#[async_trait]
impl ClaimStore for Faulty {
    async fn claim(&self, mut request: ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        if self.fault == Fault::Forgets {
            let (worker, until_ms) = (request.worker, request.now_ms + request.lease_ms);
            return Ok(ClaimOutcome::Granted(Grant { worker, attempt: 1, until_ms }));
        }
        request.idempotent |= self.fault == Fault::TakesOver;
        self.store.claim(request).await
    }
    async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError> {
        let completed = self.store.complete(key, grant, completion).await?;
        Ok(if self.fault == Fault::TakesOver { completed } else { Completed::Stored })
    }
    async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError> {
        let extended = self.store.extend(key, grant, until_ms).await?;
        Ok(if self.fault == Fault::TakesOver { extended } else { Ok(grant) })
    }
    async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError> {
        self.store.answer_in_doubt(key, error).await
    }
    async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError> {
        self.store.sweep(request).await
    }
    async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError> {
        self.store.declare_lost(now_ms).await
    }
    async fn held_by(&self, sender: &Party) -> Result<u64, StoreError> {
        self.store.held_by(sender).await
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        self.store.stats().await
    }
    fn is_shared(&self) -> bool {
        true
    }
}
