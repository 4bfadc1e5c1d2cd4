//! Counts of what happened to messages, by stable names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_seal::Refusal;
use parking_lot::Mutex;

/// Counters of one endpoint, since it was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that were run.
    pub executed: Counter,
    /// Requests that were answered from a stored outcome.
    pub duplicates: Counter,
    /// Requests that the policy denied.
    pub denied: Counter,
    /// Replies that opened.
    pub replies: Counter,
    /// Offers whose encapsulation was opened.
    pub offers: Counter,
    /// `offer-needed` notices sent.
    pub notices: Counter,
    /// Fanouts missing in a signer's sequence for a group, less those that came late.
    pub gaps: Counter,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn refuse(&self, name: &'static str) {
        *self.refused.lock().entry(name).or_default() += 1;
    }

    /// How often `refusal` was given.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused_by_name(refusal.as_str())
    }

    /// How often the refusal with this stable name was given.
    pub fn refused_by_name(&self, name: &str) -> u64 {
        self.refused.lock().get(name).copied().unwrap_or_default()
    }

    /// All refusals so far, by name.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().clone()
    }
}
