//! How far the calls are, so that faults fall among them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
pub(crate) struct Progress {
    ended: AtomicU64,
    over: AtomicBool,
}

impl Progress {
    pub(crate) fn one_more(&self) {
        self.ended.fetch_add(1, SeqCst);
    }

    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(SeqCst)
    }

    pub(crate) fn finish(&self) {
        self.over.store(true, SeqCst);
    }

    /// Waits until so many calls ended, or `patience` is over; false if no more calls are made.
    pub(crate) async fn reach(&self, calls: u64, patience: Duration) -> bool {
        let reached = async {
            while self.ended() < calls && !self.over.load(SeqCst) {
                tokio::time::sleep(TICK).await;
            }
        };
        let _ = tokio::time::timeout(patience, reached).await;
        !self.over.load(SeqCst)
    }
}
