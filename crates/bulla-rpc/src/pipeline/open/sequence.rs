//! The numbers of a signer's fanouts: a gap means that the broker withholds something.

use std::collections::BTreeSet;

/// Sequence numbers further apart than this are a new start of the signer, not a gap.
const NEW_START: u64 = 1_000_000;
/// Missing fanouts remembered for one signer and group.
const MAX_MISSING: usize = 1024;

/// What came of one signer's fanouts to one group.
pub(super) struct Sequence {
    last: u64,
    /// Below `last` and not here yet; the lowest are given up first.
    missing: BTreeSet<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    Next,
    Late,
    Gap(u64),
}

impl Sequence {
    /// A signer's first fanout that came: nothing before it counts as missing.
    pub(super) fn starting_at(sequence: u64) -> Self {
        Self { last: sequence, missing: BTreeSet::new() }
    }

    pub(super) fn note(&mut self, sequence: u64) -> Noted {
        if sequence <= self.last {
            return if self.missing.remove(&sequence) { Noted::Late } else { Noted::Next };
        }
        let gap = sequence - self.last - 1;
        let from = self.last.saturating_add(1).max(sequence.saturating_sub(MAX_MISSING as u64));
        self.last = sequence;
        if gap == 0 || gap >= NEW_START {
            return Noted::Next;
        }
        self.missing.extend(from..sequence);
        while self.missing.len() > MAX_MISSING {
            self.missing.pop_first();
        }
        Noted::Gap(gap)
    }
}
