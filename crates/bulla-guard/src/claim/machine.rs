//! One claim's transitions (protocol section 7).

use bulla_seal::mutants::{Check, off};

use crate::key::Worker;
use crate::store::{ClaimOutcome, Completed, Completion, Duplicate, Grant, Lost, Refused, Reply};

/// A worker's right to run a message, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Who holds it.
    pub worker: Worker,
    /// When it ends, in Unix milliseconds; live while the clock is below it.
    pub until_ms: u64,
    /// Counts from 1; every take-over adds one.
    pub attempt: u32,
    /// Whether another worker may run the message again once the lease is over.
    pub idempotent: bool,
}

impl Lease {
    /// Whether the lease still runs at `now_ms`.
    pub fn is_live(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }

    fn is_held_by(&self, grant: &Grant) -> bool {
        (self.worker, self.attempt) == (grant.worker, grant.attempt)
    }

    fn grant(&self) -> Grant {
        Grant { worker: self.worker, attempt: self.attempt, until_ms: self.until_ms }
    }
}

/// Where a claim stands. An absent claim is `None` of [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// A worker runs it.
    Claimed(Lease),
    /// It ran, or was denied; the reply if it is of a kind that is answered.
    Done(Option<Reply>),
    /// It may or may not have run. The sealed error that says so, once somebody sealed it.
    InDoubt(Option<Reply>),
}

/// What is remembered of a message: the digest of its envelope, and where it stands.
///
/// `D` is the digest, or a store's own short form of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record<D> {
    /// SHA-256 of the envelope, to tell a duplicate from an id used twice.
    pub digest: D,
    /// Where it stands.
    pub state: State,
}

/// What happens to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<D> {
    /// A copy of the message arrived and passed every check.
    Claim {
        /// SHA-256 of its envelope.
        digest: D,
        /// Who would run it.
        worker: Worker,
        /// The clock, in Unix milliseconds.
        now_ms: u64,
        /// How long the worker may hold it, in milliseconds.
        lease_ms: u64,
        /// Whether its method is declared idempotent.
        idempotent: bool,
    },
    /// A worker finished.
    Complete {
        /// What it was granted.
        grant: Grant,
        /// How it ended.
        completion: Completion,
    },
    /// A worker needs more time.
    Extend {
        /// What it was granted.
        grant: Grant,
        /// The new end of the lease, in Unix milliseconds; never shortens it.
        until_ms: u64,
    },
    /// The sweeper came by. An idempotent claim goes to it if it can run it.
    Sweep {
        /// The clock, in Unix milliseconds.
        now_ms: u64,
        /// The sweeper and the length of its lease, if the store kept the envelope for it.
        runner: Option<(Worker, u64)>,
    },
    /// The error for a claim in doubt was sealed.
    Answer(Reply),
}

/// What the store tells whoever caused the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// To a claimer.
    Claim(ClaimOutcome),
    /// To a worker that finished.
    Complete(Completed),
    /// To a worker that asked for time: its new grant, or why it lost the claim.
    Extend(Result<Grant, Lost>),
    /// To the sweeper: nothing to do.
    Leave,
    /// To the sweeper: the claim is now in doubt.
    InDoubt,
    /// To the sweeper: run it.
    Run(Grant),
    /// To whoever sealed an error: what stands now. `None` if the claim is not in doubt.
    Answer(Option<Reply>),
}

/// The transition function. `None` is a message never seen.
pub fn step<D: PartialEq>(
    record: Option<Record<D>>,
    event: Event<D>,
) -> (Option<Record<D>>, Action) {
    match event {
        Event::Claim { digest, worker, now_ms, lease_ms, idempotent } => {
            let lease = |attempt, idempotent| Lease {
                worker,
                until_ms: now_ms.saturating_add(lease_ms),
                attempt,
                idempotent,
            };
            claim(record, digest, now_ms, idempotent, lease)
        }
        Event::Complete { grant, completion } => complete(record, &grant, completion),
        Event::Extend { grant, until_ms } => extend(record, &grant, until_ms),
        Event::Sweep { now_ms, runner } => sweep(record, now_ms, runner),
        Event::Answer(reply) => answer(record, reply),
    }
}

fn claim<D: PartialEq>(
    record: Option<Record<D>>,
    digest: D,
    now_ms: u64,
    idempotent: bool,
    lease: impl Fn(u32, bool) -> Lease,
) -> (Option<Record<D>>, Action) {
    let Some(record) = record else {
        let lease = lease(1, idempotent);
        let granted = ClaimOutcome::Granted(lease.grant());
        return (Some(Record { digest, state: State::Claimed(lease) }), Action::Claim(granted));
    };
    if off(Check::ClaimOnce) {
        let lease = lease(1, idempotent);
        let granted = ClaimOutcome::Granted(lease.grant());
        return (Some(Record { digest, state: State::Claimed(lease) }), Action::Claim(granted));
    }
    if record.digest != digest {
        let conflict = ClaimOutcome::Refused(Refused::IdConflict);
        return (Some(record), Action::Claim(conflict));
    }
    let (state, outcome) = match record.state {
        State::Claimed(held) if held.is_live(now_ms) => {
            (State::Claimed(held), Duplicate::Held { until_ms: held.until_ms }.into())
        }
        // Both declarations must agree: one made after the first run says nothing about it.
        State::Claimed(held) => match next_attempt(&held, idempotent) {
            Some(attempt) => {
                let lease = lease(attempt, true);
                (State::Claimed(lease), ClaimOutcome::Granted(lease.grant()))
            }
            None => (State::InDoubt(None), Duplicate::InDoubt { error: None }.into()),
        },
        State::Done(reply) => (State::Done(reply.clone()), Duplicate::Done { reply }.into()),
        State::InDoubt(error) => {
            (State::InDoubt(error.clone()), Duplicate::InDoubt { error }.into())
        }
    };
    (Some(Record { digest, state }), Action::Claim(outcome))
}

fn next_attempt(held: &Lease, idempotent: bool) -> Option<u32> {
    let may = (held.idempotent && idempotent) || off(Check::TakeOver);
    if may { held.attempt.checked_add(1) } else { None }
}

fn complete<D>(
    record: Option<Record<D>>,
    grant: &Grant,
    completion: Completion,
) -> (Option<Record<D>>, Action) {
    match holder(record, grant) {
        Ok((digest, _)) => {
            let state = match completion {
                Completion::Done { reply } => State::Done(reply),
                Completion::InDoubt { error } => State::InDoubt(error),
            };
            (Some(Record { digest, state }), Action::Complete(Completed::Stored))
        }
        Err((record, lost)) => (record, Action::Complete(Completed::Lost(lost))),
    }
}

fn extend<D>(
    record: Option<Record<D>>,
    grant: &Grant,
    until_ms: u64,
) -> (Option<Record<D>>, Action) {
    match holder(record, grant) {
        Ok((digest, lease)) => {
            let lease = Lease { until_ms: lease.until_ms.max(until_ms), ..lease };
            let state = State::Claimed(lease);
            (Some(Record { digest, state }), Action::Extend(Ok(lease.grant())))
        }
        Err((record, lost)) => (record, Action::Extend(Err(lost))),
    }
}

type NotHeld<D> = (Option<Record<D>>, Lost);

/// The compare of compare-and-set: the claim must be held under exactly this grant.
fn holder<D>(record: Option<Record<D>>, grant: &Grant) -> Result<(D, Lease), NotHeld<D>> {
    match record {
        Some(Record { digest, state: State::Claimed(lease) }) if lease.is_held_by(grant) => {
            Ok((digest, lease))
        }
        None => Err((None, Lost::Unknown)),
        Some(record) => {
            let lost = match record.state {
                State::Claimed(_) => Lost::TakenOver,
                State::Done(_) => Lost::Done,
                State::InDoubt(_) => Lost::InDoubt,
            };
            Err((Some(record), lost))
        }
    }
}

fn sweep<D>(
    record: Option<Record<D>>,
    now_ms: u64,
    runner: Option<(Worker, u64)>,
) -> (Option<Record<D>>, Action) {
    let (digest, held) = match record {
        Some(Record { digest, state: State::Claimed(held) }) if !held.is_live(now_ms) => {
            (digest, held)
        }
        other => return (other, Action::Leave),
    };
    let (state, action) = match (next_attempt(&held, true), runner) {
        (Some(attempt), Some((worker, lease_ms))) => {
            let until_ms = now_ms.saturating_add(lease_ms);
            let lease = Lease { worker, until_ms, attempt, idempotent: true };
            (State::Claimed(lease), Action::Run(lease.grant()))
        }
        // Without the envelope only a redelivery can run it again.
        (Some(_), None) => (State::Claimed(held), Action::Leave),
        (None, _) => (State::InDoubt(None), Action::InDoubt),
    };
    (Some(Record { digest, state }), action)
}

fn answer<D>(record: Option<Record<D>>, reply: Reply) -> (Option<Record<D>>, Action) {
    match record {
        Some(Record { digest, state: State::InDoubt(standing) }) => {
            let reply = standing.unwrap_or(reply);
            let state = State::InDoubt(Some(reply.clone()));
            (Some(Record { digest, state }), Action::Answer(Some(reply)))
        }
        other => (other, Action::Answer(None)),
    }
}
