//! Ids that no two messages share. They protect nothing.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::Id;

/// Ids of messages that one process publishes: each is another, of this process or of any.
#[derive(Debug)]
pub struct Ids {
    process: u64,
    next: AtomicU64,
}

impl Default for Ids {
    fn default() -> Self {
        // Keyed with the machine's random numbers.
        Self { process: RandomState::new().hash_one(0), next: AtomicU64::new(0) }
    }
}

impl Ids {
    /// The next one.
    pub fn next(&self) -> Id {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Id((u128::from(self.process) << 64 | u128::from(n)).to_be_bytes())
    }
}
