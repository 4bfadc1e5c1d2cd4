//! Ids that no two messages share. They protect nothing.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::Id;

/// Of one process.
pub(crate) struct Ids {
    process: u64,
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Self {
        // Keyed with the machine's random numbers.
        Self { process: RandomState::new().hash_one(0), next: AtomicU64::new(0) }
    }

    pub(crate) fn next(&self) -> Id {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Id((u128::from(self.process) << 64 | u128::from(n)).to_be_bytes())
    }
}
