//! Counts of what happened to messages, by stable names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bulla_seal::Refusal;
use parking_lot::Mutex;

use crate::error::CallError;
use crate::histogram::Histogram;

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
    /// What became of the methods that were run here, in the order of [`RanOutcome::ALL`].
    pub ran: [Counter; RanOutcome::ALL.len()],
    /// Messages that could not be judged just now and went back to their queue.
    pub retried: Counter,
    /// How long messages were here: from when one was taken from the bus until its reply was handed
    /// over and it was acknowledged.
    pub handling: Histogram,
    /// How long the claim store took to grant or refuse a claim, and to keep an outcome.
    pub claiming: Histogram,
    /// Claims and outcomes that the claim store could not keep.
    pub claim_errors: Counter,
    /// What became of the calls that were made here, in the order of [`CallOutcome::ALL`].
    pub calls: [Counter; CallOutcome::ALL.len()],
    /// How long those calls took, from when one was sent until its outcome was there.
    pub calling: Histogram,
    /// Casts, notifications and fanouts that the bus took over.
    pub sent: Counter,
    refused: Mutex<BTreeMap<&'static str, Refused>>,
}

/// What became of a method that was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RanOutcome {
    /// It returned a value.
    Value,
    /// It returned an error.
    Error,
    /// Its caller gave up, and it was stopped.
    Cancelled,
}

impl RanOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Value, Self::Error, Self::Cancelled];

    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The peer answered with a value.
    Value,
    /// The peer answered with an error.
    Error,
    /// No answer came in time.
    Timeout,
    /// Nobody takes messages there.
    Unroutable,
    /// It could not be sealed, sent or opened, or the client was closed.
    Failed,
    /// Its caller gave up.
    GivenUp,
}

impl CallOutcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Value, Self::Error, Self::Timeout, Self::Unroutable, Self::Failed, Self::GivenUp];

    pub(crate) fn of(error: &CallError) -> Self {
        match error {
            CallError::Remote(_) => Self::Error,
            CallError::Timeout { .. } => Self::Timeout,
            CallError::Unroutable { .. } => Self::Unroutable,
            _ => Self::Failed,
        }
    }

    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Unroutable => "unroutable",
            Self::Failed => "failed",
            Self::GivenUp => "given-up",
        }
    }
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
    pub(crate) fn ran(&self, outcome: RanOutcome) {
        self.executed.add(1);
        if let Some(counter) = self.ran.get(outcome as usize) {
            counter.add(1);
        }
    }

    pub(crate) fn called(&self, outcome: CallOutcome) {
        if let Some(counter) = self.calls.get(outcome as usize) {
            counter.add(1);
        }
    }

    /// Counts a refusal by its stable name.
    pub fn refuse(&self, name: &'static str) {
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
