//! Counts of what happened to messages, by stable names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
    /// Messages below their sender's floor that an exemption let through.
    pub exempted: Counter,
    /// Messages below a floor that is rehearsed.
    pub below_target: Counter,
    refused: Mutex<BTreeMap<&'static str, Refused>>,
}

/// How often a refusal was given, and when it was last told.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    told: Option<Instant>,
    told_count: u64,
}

/// Refusals of what nobody vouches for are told this often, of each name: a flood must not fill a
/// disk.
const TELL_EVERY: Duration = Duration::from_secs(1);

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
        self.refused.lock().entry(name).or_default().count += 1;
    }

    /// Counts a refusal; how many of its name there were since one was told, if this is to be.
    pub(crate) fn refuse_sampled(&self, name: &'static str) -> Option<u64> {
        let mut refused = self.refused.lock();
        let refused = refused.entry(name).or_default();
        refused.count += 1;
        let now = Instant::now();
        if refused.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return None;
        }
        refused.told = Some(now);
        Some(refused.count - std::mem::replace(&mut refused.told_count, refused.count))
    }

    /// How often `refusal` was given.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused_by_name(refusal.as_str())
    }

    /// How often the refusal with this stable name was given.
    pub fn refused_by_name(&self, name: &str) -> u64 {
        self.refused.lock().get(name).map_or(0, |refused| refused.count)
    }

    /// All refusals so far, by name.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().iter().map(|(name, refused)| (*name, refused.count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_whole_and_told_now_and_then() {
        let counters = Counters::default();
        let told = (0..10_000).filter_map(|_| counters.refuse_sampled("malformed")).count();
        // Once, and once more for each second that this took.
        assert!((1..100).contains(&told), "{told}");
        assert_eq!(counters.refused_by_name("malformed"), 10_000);
        assert_eq!(counters.refuse_sampled("expired"), Some(1), "another name is told");
    }
}
