//! What a store counts while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::store::{ClaimOutcome, Completed, Refused, Stats, Swept};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    granted: AtomicU64,
    taken_over: AtomicU64,
    duplicates: AtomicU64,
    in_doubt: AtomicU64,
    lost: AtomicU64,
    replies_dropped: AtomicU64,
    purged: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

impl Counters {
    pub(crate) fn claimed(&self, outcome: &ClaimOutcome) {
        match outcome {
            ClaimOutcome::Granted(grant) if grant.attempt == 1 => add(&self.granted, 1),
            ClaimOutcome::Granted(_) => add(&self.taken_over, 1),
            ClaimOutcome::Duplicate(_) => add(&self.duplicates, 1),
            ClaimOutcome::Refused(reason) => {
                if let Some(counter) = self.refused.get(*reason as usize) {
                    add(counter, 1);
                }
            }
        }
    }

    pub(crate) fn completed(&self, completed: Completed) {
        if matches!(completed, Completed::Lost(_)) {
            add(&self.lost, 1);
        }
    }

    /// A lease ran out and left a claim in doubt.
    pub(crate) fn fell_in_doubt(&self) {
        add(&self.in_doubt, 1);
    }

    pub(crate) fn reply_dropped(&self) {
        add(&self.replies_dropped, 1);
    }

    pub(crate) fn swept(&self, swept: &Swept) {
        add(&self.in_doubt, swept.in_doubt.len() as u64);
        add(&self.taken_over, swept.taken_over.len() as u64);
        add(&self.purged, swept.purged);
    }

    /// The counters; what the store holds is left at zero.
    pub(crate) fn read(&self) -> Stats {
        let mut refused = [0; Refused::ALL.len()];
        for (to, from) in refused.iter_mut().zip(&self.refused) {
            *to = from.load(Relaxed);
        }
        Stats {
            granted: self.granted.load(Relaxed),
            taken_over: self.taken_over.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            in_doubt: self.in_doubt.load(Relaxed),
            lost: self.lost.load(Relaxed),
            replies_dropped: self.replies_dropped.load(Relaxed),
            purged: self.purged.load(Relaxed),
            refused,
            ..Stats::default()
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}
