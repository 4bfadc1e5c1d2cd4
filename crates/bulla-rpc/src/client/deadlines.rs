//! When waiting calls end: one timer for all calls of a client, so that a call that is answered in time
//! costs none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pending::Pending;

/// No call waits.
const NONE: u64 = u64::MAX;
/// Calls through which one looks without a rest after it.
const MANY: usize = 4096;
/// That rest: so much later a call may end, at the most.
const REST: Duration = Duration::from_millis(10);

/// The first deadline of all.
pub(super) struct Deadlines {
    begun: Instant,
    /// In milliseconds since `begun`, rounded up; or [`NONE`].
    first: AtomicU64,
    earlier: Notify,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { begun: Instant::now(), first: AtomicU64::new(NONE), earlier: Notify::new() }
    }
}

impl Deadlines {
    /// Takes note of one; whoever waits for the first hears of it if it is an earlier one.
    pub(super) fn add(&self, deadline: Instant) {
        let after = deadline.saturating_duration_since(self.begun).as_nanos().div_ceil(1_000_000);
        let after = u64::try_from(after).unwrap_or(NONE - 1);
        if after < self.first.load(Ordering::Acquire)
            && after < self.first.fetch_min(after, Ordering::AcqRel)
        {
            self.earlier.notify_one();
        }
    }

    /// They are looked through from here on: those that are left are added again.
    pub(super) fn begin(&self) {
        self.first.store(NONE, Ordering::Release);
    }

    fn first(&self) -> Option<Instant> {
        match self.first.load(Ordering::Acquire) {
            NONE => None,
            after => self.begun.checked_add(Duration::from_millis(after)),
        }
    }
}

/// Ends calls whose time is over, until `closed`.
pub(super) async fn watch(pending: Arc<Pending>, closed: CancellationToken) {
    let deadlines = &pending.deadlines;
    let mut ended = std::pin::pin!(closed.cancelled());
    loop {
        let first = deadlines.first();
        tokio::select! {
            biased;
            () = &mut ended => return,
            () = deadlines.earlier.notified() => continue,
            () = until(first) => {}
        }
        if pending.expire(Instant::now()) > MANY {
            tokio::time::sleep(REST).await;
        }
    }
}

async fn until(first: Option<Instant>) {
    match first {
        Some(first) => tokio::time::sleep_until(first).await,
        None => std::future::pending().await,
    }
}
