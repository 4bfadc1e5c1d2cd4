//! From any state on: if the broker is honest and nobody crashes any more, is who waits told, and
//! is the next message taken? One honest way out of a state is enough.

use bulla_guard::claim::Event;

use super::model::{EXP, LEASE_MS, SKEW};
use super::worker::{go_on, now_ms};
use super::{Claims, Envelope, State, Worker, gate};

/// More than any honest way needs.
const STEPS: usize = 200;

/// Whether the state has such a way out.
pub(super) fn recovers(model: &Claims, state: &State) -> bool {
    is_told(model, state) && next_is_taken(model, state)
}

fn is_told(model: &Claims, state: &State) -> bool {
    // Of an id used twice, the envelope that was first has a claim to an answer.
    let envelope = state.record.as_ref().map_or(0, |record| record.digest);
    let mut state = state.clone();
    if is_excused(&state, envelope) {
        return true;
    }
    if state.dropped && !state.queue.contains(&envelope) {
        state.put_back(envelope);
    }
    for _ in 0..STEPS {
        if state.sent.iter().any(|(to, _)| *to == envelope) {
            return true;
        }
        if !all_go_on(model, &mut state, envelope) {
            if u64::from(state.now) > EXP + SKEW {
                return false;
            }
            state.now += 1;
        }
    }
    false
}

/// Too late for an answer, or refused because the store can't know.
fn is_excused(state: &State, envelope: Envelope) -> bool {
    let lease_s = LEASE_MS / 1000;
    let late = u64::from(state.now) + lease_s + 1 > EXP + SKEW;
    let blind = state.record.is_none() && gate(state).judge(0, EXP).is_err();
    // Both envelopes are there and neither is claimed: the other may come first.
    let in_hand = state.workers.iter().filter_map(|worker| worker.in_hand());
    let mut copies = state.queue.iter().copied().chain(in_hand);
    let contested = state.record.is_none() && copies.any(|other| other != envelope);
    late || blind || contested
}

fn all_go_on(model: &Claims, state: &mut State, envelope: Envelope) -> bool {
    let mut moved = false;
    for w in 0..state.workers.len() {
        if state.workers.get(w) == Some(&Worker::Idle) {
            let first = state.queue.iter().copied().find(|waiting| *waiting == envelope);
            moved |=
                first.or(state.queue.first().copied()).and_then(|e| state.take(w, e)).is_some();
        } else {
            moved |= go_on(model, state, w).is_some();
        }
    }
    moved
}

fn next_is_taken(model: &Claims, state: &State) -> bool {
    let mut later = state.clone();
    (0..=2 * SKEW + 2).any(|_| {
        let iat = u64::from(later.now);
        let event = Event::Claim {
            digest: 0,
            worker: bulla_guard::Worker(0),
            now_ms: now_ms(&later),
            lease_ms: LEASE_MS,
            idempotent: false,
        };
        later.now += 1;
        let granted = matches!(
            model.twin.step(None, event).1,
            bulla_guard::claim::Action::Claim(bulla_guard::ClaimOutcome::Granted(_))
        );
        gate(state).judge(iat, iat + EXP).is_ok() && granted
    })
}
