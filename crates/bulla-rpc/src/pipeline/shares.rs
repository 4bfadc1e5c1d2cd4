//! A share of a component's workers for each agent: one that sends without end waits for itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulla_seal::Principal;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Messages of one agent that wait for its own share, for each that may run; more are refused.
const WAITING: usize = 4;
/// Agents remembered at the most; past it, those of whom nothing runs are forgotten.
const MAX_SENDERS: usize = 50_000;

/// One of a server's workers, which a message that only waits gives back.
#[derive(Debug)]
pub(crate) struct Slot {
    workers: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// `permit` is one of `workers`.
    pub(crate) fn new(workers: Arc<Semaphore>, permit: OwnedSemaphorePermit) -> Self {
        Self { workers, held: Some(permit) }
    }

    fn release(&mut self) {
        self.held = None;
    }

    async fn retake(&mut self) {
        // Closed only with the process.
        self.held = self.workers.clone().acquire_owned().await.ok();
    }
}

/// Who runs how much.
pub(crate) struct Shares {
    limit: usize,
    senders: Mutex<HashMap<Principal, Arc<Share>>>,
}

struct Share {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The right to run one message, until it is dropped.
pub(crate) struct Turn(Option<OwnedSemaphorePermit>);

impl Turn {
    /// For a sender without a limit.
    pub(crate) fn free() -> Self {
        Self(None)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl Shares {
    /// At most `limit` messages of one sender run at a time.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), senders: Mutex::default() }
    }

    /// The sender's turn, if it may run one more just now.
    pub(crate) fn turn_now(&self, sender: &Principal) -> Option<Turn> {
        let permit = self.share(sender).running.clone().try_acquire_owned().ok()?;
        Some(Turn(Some(permit)))
    }

    /// Waits for the sender's turn, without a worker; `None` if too many wait already.
    pub(crate) async fn turn(&self, sender: &Principal, slot: &mut Slot) -> Option<Turn> {
        let share = self.share(sender);
        if share.waiting.fetch_add(1, Ordering::Relaxed) >= self.limit * WAITING {
            share.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        slot.release();
        let permit = share.running.clone().acquire_owned().await.ok();
        share.waiting.fetch_sub(1, Ordering::Relaxed);
        slot.retake().await;
        permit.map(|permit| Turn(Some(permit)))
    }

    fn share(&self, sender: &Principal) -> Arc<Share> {
        let mut senders = self.senders.lock();
        if let Some(share) = senders.get(sender) {
            return share.clone();
        }
        if senders.len() >= MAX_SENDERS {
            senders.retain(|_, share| share.running.available_permits() < self.limit);
        }
        let share =
            Share { running: Arc::new(Semaphore::new(self.limit)), waiting: AtomicUsize::new(0) };
        senders.entry(sender.clone()).or_insert(Arc::new(share)).clone()
    }
}
