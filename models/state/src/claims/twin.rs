//! The machine, and machines with one rule broken.

use bulla_guard::Completed;
use bulla_guard::claim::{self, Event, Gate, Record, State};

use super::Envelope;

/// Which rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// None: the code itself.
    None,
    /// A lease that ended is taken over whatever the method.
    TakesOverAnything,
    /// The store forgets a claim when its lease ends.
    ForgetsClaims,
    /// Completion does not compare worker and attempt.
    BlindCompletion,
    /// Each "outcome unknown" is sealed and sent anew.
    SealsDoubtAnew,
    /// Any envelope under a known id is a duplicate.
    ComparesNoDigest,
    /// A lease never ends.
    EndlessLease,
    /// A message is acknowledged when it is claimed, before its outcome is stored.
    AcknowledgesEarly,
    /// What was purged may come again.
    PurgesWithoutMark,
    /// A lost store takes everything.
    TrustsALostStore,
    /// A lost store takes nothing ever again.
    BlindForEver,
}

impl Twin {
    /// [`claim::step`], or not quite.
    pub(super) fn step(
        self,
        record: Option<Record<Envelope>>,
        event: Event<Envelope>,
    ) -> (Option<Record<Envelope>>, claim::Action) {
        let (record, event) = match self {
            Self::TakesOverAnything => (record.map(idempotent), idempotent_event(event)),
            Self::ForgetsClaims => (forget(record, &event), event),
            Self::ComparesNoDigest => (as_asked(record, &event), event),
            Self::EndlessLease => (record, before_time(event)),
            Self::BlindCompletion => return blind_completion(record, event),
            Self::SealsDoubtAnew => (unanswered(record), event),
            _ => (record, event),
        };
        claim::step(record, event)
    }

    /// The claim is purged.
    pub(super) fn purge(self, gate: &mut Gate, exp: u64) {
        if self != Self::PurgesWithoutMark {
            gate.purged_exp = gate.purged_exp.max(exp);
        }
    }

    /// The store is lost.
    pub(super) fn lose(self, gate: &mut Gate, now_ms: u64, skew_s: u64) {
        match self {
            Self::TrustsALostStore => {}
            Self::BlindForEver => gate.blind_until = Some(u64::MAX),
            _ => gate.lose(now_ms, skew_s),
        }
    }
}

fn idempotent(record: Record<Envelope>) -> Record<Envelope> {
    let state = match record.state {
        State::Claimed(lease) => State::Claimed(claim::Lease { idempotent: true, ..lease }),
        other => other,
    };
    Record { state, ..record }
}

fn idempotent_event(event: Event<Envelope>) -> Event<Envelope> {
    match event {
        Event::Claim { digest, worker, now_ms, lease_ms, .. } => {
            Event::Claim { digest, worker, now_ms, lease_ms, idempotent: true }
        }
        other => other,
    }
}

fn forget(record: Option<Record<Envelope>>, event: &Event<Envelope>) -> Option<Record<Envelope>> {
    let Event::Claim { now_ms, .. } = event else { return record };
    record.filter(|record| match &record.state {
        State::Claimed(lease) => lease.is_live(*now_ms),
        _ => true,
    })
}

fn as_asked(record: Option<Record<Envelope>>, event: &Event<Envelope>) -> Option<Record<Envelope>> {
    match (record, event) {
        (Some(record), Event::Claim { digest, .. }) => Some(Record { digest: *digest, ..record }),
        (record, _) => record,
    }
}

fn before_time(event: Event<Envelope>) -> Event<Envelope> {
    match event {
        Event::Claim { digest, worker, lease_ms, idempotent, .. } => {
            Event::Claim { digest, worker, now_ms: 0, lease_ms, idempotent }
        }
        Event::Sweep { runner, .. } => Event::Sweep { now_ms: 0, runner },
        other => other,
    }
}

/// A claim that is in doubt or done is completed all the same.
fn blind_completion(
    record: Option<Record<Envelope>>,
    event: Event<Envelope>,
) -> (Option<Record<Envelope>>, claim::Action) {
    match (record, event) {
        (Some(record), Event::Complete { completion, .. }) => {
            let state = match completion {
                bulla_guard::Completion::Done { reply } => State::Done(reply),
                bulla_guard::Completion::InDoubt { error } => State::InDoubt(error),
            };
            (Some(Record { state, ..record }), claim::Action::Complete(Completed::Stored))
        }
        (record, event) => claim::step(record, event),
    }
}

fn unanswered(record: Option<Record<Envelope>>) -> Option<Record<Envelope>> {
    record.map(|record| match record.state {
        State::InDoubt(_) => Record { state: State::InDoubt(None), ..record },
        _ => record,
    })
}
