//! Time as this crate asks for it, so that tests can pass their own.

use std::time::{SystemTime, UNIX_EPOCH};

use bulla_seal::UnixTime;

/// Tells the wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> UnixTime;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime::from_ns(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Milliseconds since the Unix epoch, as claim stores count.
pub(crate) fn millis(time: UnixTime) -> u64 {
    time.ns / 1_000_000
}
