//! Whether a store takes a message that it has never seen.

use bulla_seal::mutants::{Check, off};

use crate::store::Refused;

/// How much a store may hold.
///
/// Each of at most [`senders`](Self::senders) senders has [`per_sender`](Self::per_sender) places
/// of its own, and all of them share [`shared`](Self::shared) more: one that floods the store
/// uses up what is shared, never another's own places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many senders may have ids in the store at one time.
    pub senders: u64,
    /// Ids that each sender may have for certain.
    pub per_sender: u64,
    /// Ids that all senders together may have beyond their own places.
    pub shared: u64,
    /// Bytes of stored replies; past it only the digest of a reply is kept.
    pub reply_bytes: u64,
}

impl Default for Limits {
    /// 10,000 senders with 256 places each, 4,000,000 shared places, 64 MiB of replies.
    fn default() -> Self {
        Self { senders: 10_000, per_sender: 256, shared: 4_000_000, reply_bytes: 64 << 20 }
    }
}

impl Limits {
    /// The greatest number of ids: the sum of all quotas.
    pub fn capacity(&self) -> u64 {
        self.senders.saturating_mul(self.per_sender).saturating_add(self.shared)
    }

    /// Whether a sender with `own` ids may have one more, where `usage` is what all have.
    pub fn admit(&self, own: u64, usage: Usage) -> Result<Admitted, Refused> {
        if off(Check::SenderQuota) {
            return Ok(Admitted { shared: false });
        }
        if own == 0 && usage.senders >= self.senders {
            return Err(Refused::StoreFull);
        }
        if own < self.per_sender {
            return Ok(Admitted { shared: false });
        }
        if usage.shared < self.shared {
            return Ok(Admitted { shared: true });
        }
        Err(Refused::SenderQuota)
    }

    /// Whether giving back one of `own` ids frees a shared place.
    pub fn frees_shared(&self, own: u64) -> bool {
        own > self.per_sender
    }
}

/// What is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Senders with at least one id.
    pub senders: u64,
    /// Shared places taken.
    pub shared: u64,
}

/// A place was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Whether it is one of the shared places.
    pub shared: bool,
}

/// What a store refuses because it may have known it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gate {
    /// The greatest `exp` that was ever purged, in Unix seconds; 0 if none was.
    pub purged_exp: u64,
    /// Everything with `iat` at or below is refused, in Unix seconds; `None` if nothing was lost.
    pub blind_until: Option<u64>,
}

impl Gate {
    /// Judges a message that is not in the store, by its authenticated times (Unix seconds).
    pub fn judge(&self, iat: u64, exp: u64) -> Result<(), Refused> {
        if exp <= self.purged_exp && !off(Check::PurgeMark) {
            return Err(Refused::Purged);
        }
        if self.blind_until.is_some_and(|until| iat <= until) && !off(Check::RestartGate) {
            return Err(Refused::BeforeStart);
        }
        Ok(())
    }

    /// The store knows nothing of what came before `now_ms`. Another's clock may be ahead by
    /// `skew_s`, so that much more is refused.
    pub fn lose(&mut self, now_ms: u64, skew_s: u64) {
        // Rounded up: a message sealed later in this same second may have been received before.
        let until = now_ms.div_ceil(1000).saturating_add(skew_s);
        self.blind_until = self.blind_until.max(Some(until));
    }

    /// Whether an id with this `exp` may be forgotten at `now_ms`.
    pub fn is_over(exp: u64, skew_s: u64, now_ms: u64) -> bool {
        exp.saturating_add(skew_s) < now_ms / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { senders: 2, per_sender: 3, shared: 1, reply_bytes: 0 };

    #[test]
    fn own_places_come_first_then_shared_ones() {
        let usage = |senders, shared| Usage { senders, shared };
        assert_eq!(LIMITS.capacity(), 7);
        assert_eq!(LIMITS.admit(2, usage(1, 1)), Ok(Admitted { shared: false }));
        assert_eq!(LIMITS.admit(3, usage(1, 0)), Ok(Admitted { shared: true }));
        assert_eq!(LIMITS.admit(3, usage(1, 1)), Err(Refused::SenderQuota));
        assert_eq!(LIMITS.admit(0, usage(1, 1)), Ok(Admitted { shared: false }));
        assert_eq!(LIMITS.admit(0, usage(2, 0)), Err(Refused::StoreFull));
        assert!(LIMITS.frees_shared(4) && !LIMITS.frees_shared(3));
    }

    #[test]
    fn what_may_have_been_known_is_refused() {
        let mut gate = Gate { purged_exp: 100, blind_until: None };
        assert_eq!(gate.judge(0, 100), Err(Refused::Purged));
        assert_eq!(gate.judge(0, 101), Ok(()));
        gate.lose(1_000_001, 120);
        assert_eq!(gate.judge(1121, 2000), Err(Refused::BeforeStart));
        assert_eq!(gate.judge(1122, 2000), Ok(()));
        gate.lose(500_000, 120);
        assert_eq!(gate.blind_until, Some(1121));
    }

    #[test]
    fn an_id_outlives_its_expiry_by_the_skew() {
        assert!(!Gate::is_over(1000, 120, 1_120_999));
        assert!(Gate::is_over(1000, 120, 1_121_000));
    }
}
