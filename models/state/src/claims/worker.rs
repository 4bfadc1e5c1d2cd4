//! A worker: the receiving pipeline from the claim on, one step at a time.

use bulla_guard::claim::{self, Event};
use bulla_guard::{ClaimOutcome, Completed, Completion, Duplicate, Grant, Lost, Refused, Reply};
use bulla_seal::Digest;
use bytes::Bytes;

use super::model::{EXP, IAT, LEASE_MS, SKEW};
use super::{Claims, Envelope, Sealed, State, gate};

/// Where a worker is with the copy that it has in hand, unacknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Worker {
    /// It has none.
    Idle,
    /// Taken, not claimed.
    Taken(Envelope),
    /// Its method runs.
    Running(Envelope, Grant),
    /// It ran, and its reply is sealed.
    Ran(Envelope, Grant, u8),
    /// Somebody else's run is in doubt: the error is sealed and not stored.
    Doubt(Envelope, u8),
    /// What is to be sent is stored.
    Sending(Envelope, u8),
    /// Another runs it until then, in milliseconds.
    Held(Envelope, u64),
}

impl Worker {
    /// The copy in hand.
    pub fn in_hand(self) -> Option<Envelope> {
        match self {
            Self::Idle => None,
            Self::Taken(e)
            | Self::Running(e, _)
            | Self::Ran(e, ..)
            | Self::Doubt(e, _)
            | Self::Sending(e, _)
            | Self::Held(e, _) => Some(e),
        }
    }
}

/// What the worker does next, if anything can be done now.
pub(super) fn go_on(model: &Claims, state: &mut State, w: usize) -> Option<()> {
    let worker = *state.workers.get(w)?;
    let next = match worker {
        Worker::Idle => return None,
        Worker::Taken(envelope) => claim(model, state, w, envelope),
        Worker::Running(envelope, grant) => {
            Worker::Ran(envelope, grant, seal(state, envelope, false))
        }
        Worker::Ran(envelope, grant, reply) => complete(model, state, envelope, grant, reply),
        Worker::Doubt(envelope, reply) => doubt(model, state, envelope, reply),
        Worker::Sending(envelope, reply) => {
            let sent = (envelope, reply);
            if !state.sent.contains(&sent) {
                state.sent.push(sent);
                state.sent.sort_unstable();
            }
            Worker::Idle
        }
        Worker::Held(envelope, until_ms) if now_ms(state) >= until_ms => {
            state.put_back(envelope);
            Worker::Idle
        }
        Worker::Held(..) => return None,
    };
    *state.workers.get_mut(w)? = next;
    Some(())
}

/// A worker that still runs asks for more time.
pub(super) fn extend(model: &Claims, state: &mut State, w: usize) -> Option<()> {
    let Worker::Running(envelope, grant) = *state.workers.get(w)? else { return None };
    let until_ms = now_ms(state) + LEASE_MS;
    let next = match drive(model, state, Event::Extend { grant, until_ms }) {
        claim::Action::Extend(Ok(grant)) => Worker::Running(envelope, grant),
        claim::Action::Extend(Err(lost)) => gone(state, envelope, lost),
        _ => return None,
    };
    *state.workers.get_mut(w)? = next;
    Some(())
}

fn claim(model: &Claims, state: &mut State, w: usize, envelope: Envelope) -> Worker {
    // Step 6 of protocol section 9, then what a store asks before it makes an entry.
    let over = u64::from(state.now) > EXP + SKEW;
    if over || (state.record.is_none() && gate(state).judge(IAT, EXP).is_err()) {
        state.seen.refused = true;
        return Worker::Idle;
    }
    let event = Event::Claim {
        digest: envelope,
        worker: bulla_guard::Worker(w as u64),
        now_ms: now_ms(state),
        lease_ms: LEASE_MS,
        idempotent: model.declares_idempotent(w),
    };
    match drive(model, state, event) {
        claim::Action::Claim(ClaimOutcome::Granted(grant)) => {
            start(model, state, w, envelope, grant)
        }
        claim::Action::Claim(ClaimOutcome::Duplicate(duplicate)) => {
            duplicate_of(state, envelope, duplicate)
        }
        claim::Action::Claim(ClaimOutcome::Refused(refused)) => {
            state.seen.conflict |= refused == Refused::IdConflict;
            Worker::Idle
        }
        _ => Worker::Idle,
    }
}

pub(super) fn start(
    model: &Claims,
    state: &mut State,
    w: usize,
    envelope: Envelope,
    grant: Grant,
) -> Worker {
    state.careful |= !model.declares_idempotent(w);
    if let Some(runs) = state.runs.get_mut(usize::from(envelope)) {
        *runs += 1;
    }
    state.seen.taken_over |= grant.attempt > 1;
    Worker::Running(envelope, grant)
}

fn duplicate_of(state: &mut State, envelope: Envelope, duplicate: Duplicate) -> Worker {
    match duplicate {
        Duplicate::Held { until_ms } => Worker::Held(envelope, until_ms),
        Duplicate::Done { reply: Some(reply) } | Duplicate::InDoubt { error: Some(reply) } => {
            state.seen.answered_again = true;
            Worker::Sending(envelope, name_of(&reply))
        }
        Duplicate::InDoubt { error: None } => Worker::Doubt(envelope, seal(state, envelope, true)),
        Duplicate::Done { reply: None } => Worker::Idle,
    }
}

fn complete(
    model: &Claims,
    state: &mut State,
    envelope: Envelope,
    grant: Grant,
    reply: u8,
) -> Worker {
    let completion = Completion::Done { reply: Some(stored(reply)) };
    match drive(model, state, Event::Complete { grant, completion }) {
        claim::Action::Complete(Completed::Stored) => Worker::Sending(envelope, reply),
        claim::Action::Complete(Completed::Lost(lost)) => gone(state, envelope, lost),
        _ => Worker::Idle,
    }
}

/// The claim is not this worker's any more: who ended it answers, unless nobody did.
fn gone(state: &mut State, envelope: Envelope, lost: Lost) -> Worker {
    state.seen.lost = true;
    match lost {
        Lost::InDoubt => Worker::Doubt(envelope, seal(state, envelope, true)),
        _ => Worker::Idle,
    }
}

fn doubt(model: &Claims, state: &mut State, envelope: Envelope, reply: u8) -> Worker {
    match drive(model, state, Event::Answer(stored(reply))) {
        claim::Action::Answer(Some(reply)) => Worker::Sending(envelope, name_of(&reply)),
        _ => Worker::Idle,
    }
}

pub(super) fn drive(model: &Claims, state: &mut State, event: Event<Envelope>) -> claim::Action {
    let (record, action) = model.twin.step(state.record.take(), event);
    state.record = record;
    action
}

pub(super) fn now_ms(state: &State) -> u64 {
    u64::from(state.now) * 1000
}

fn seal(state: &mut State, of: Envelope, unknown: bool) -> u8 {
    state.sealed.push(Sealed { of, unknown });
    u8::try_from(state.sealed.len() - 1).unwrap_or(u8::MAX)
}

/// A sealed outcome as a store holds it: named by its place.
fn stored(reply: u8) -> Reply {
    Reply::with_digest(Digest([reply; 32]), Some(Bytes::new()))
}

fn name_of(reply: &Reply) -> u8 {
    reply.digest().0.first().copied().unwrap_or(u8::MAX)
}
