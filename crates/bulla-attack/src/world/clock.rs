//! The machine's clock, put forward or back.

use std::sync::atomic::{AtomicI64, Ordering};

use bulla_rpc::{Clock, SystemClock};
use bulla_seal::UnixTime;

/// A clock that somebody else can set.
#[derive(Debug, Default)]
pub struct Shifted(AtomicI64);

impl Shifted {
    /// So many seconds off the machine's clock.
    pub fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Shifted {
    fn now(&self) -> UnixTime {
        let ns = self.0.load(Ordering::SeqCst).saturating_mul(1_000_000_000);
        let now = SystemClock.now().ns;
        UnixTime::from_ns(now.checked_add_signed(ns).unwrap_or(now))
    }
}
