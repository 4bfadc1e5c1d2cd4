//! What can happen, and what must hold.

use bulla_guard::claim::{self, Event, Gate};
use stateright::{Model, Property};

use super::recovery::recovers;
use super::worker::{drive, extend, go_on, now_ms, start};
use super::{Claims, Envelope, Left, Seen, State, Twin, Worker, gate};

/// Issued then, in seconds.
pub(super) const IAT: u64 = 0;
/// Expires then.
pub(super) const EXP: u64 = 5;
/// Clocks differ by so much.
pub(super) const SKEW: u64 = 1;
/// How long a worker holds a message.
pub(super) const LEASE_MS: u64 = 2000;

/// A method that is not idempotent runs at most once; of two envelopes one at most ever runs.
pub(super) const ONCE: &str = "what is not idempotent never runs twice";
/// No envelope is answered with two different final outcomes.
pub(super) const ONE_OUTCOME: &str = "no caller gets two final outcomes";
/// What answers an envelope was made for it.
pub(super) const OWN: &str = "a caller gets the outcome of its own message";
/// Once the broker is honest, who waits is told, and the next message is taken.
pub(super) const RECOVERS: &str = "no healthy pair is stuck for ever";

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A worker takes a copy from the queue.
    Take(usize, Envelope),
    /// A worker does its next step.
    GoOn(usize),
    /// A worker that runs gets its lease extended.
    Extend(usize),
    /// A worker is killed, and starts anew.
    Crash(usize),
    /// The broker adds a copy of what it once saw.
    Replay(Envelope),
    /// The broker takes a copy away.
    Drop(Envelope),
    /// The sweeper comes by.
    Sweep,
    /// The sweeper comes by and may run what is left over.
    SweepAndRun(usize),
    /// The store forgets what is over.
    Purge,
    /// The store is lost.
    Lose,
    /// The clock is set back by the skew.
    SetBack,
    /// A second passes.
    Tick,
}

impl State {
    pub(super) fn put_back(&mut self, envelope: Envelope) {
        self.queue.push(envelope);
        self.queue.sort_unstable();
    }

    /// A worker takes a copy.
    pub(super) fn take(&mut self, w: usize, envelope: Envelope) -> Option<()> {
        let at = self.queue.iter().position(|waiting| *waiting == envelope)?;
        self.queue.remove(at);
        *self.workers.get_mut(w)? = Worker::Taken(envelope);
        Some(())
    }

    fn crash(&mut self, w: usize, twin: Twin) -> Option<()> {
        let worker = self.workers.get_mut(w)?;
        let acknowledged = twin == Twin::AcknowledgesEarly
            && matches!(worker, Worker::Running(..) | Worker::Ran(..));
        let in_hand = worker.in_hand()?;
        *worker = Worker::Idle;
        if !acknowledged {
            self.put_back(in_hand);
        }
        Some(())
    }

    /// Whether the claim may be forgotten.
    fn is_over(&self) -> bool {
        self.record.is_some() && Gate::is_over(EXP, SKEW, now_ms(self))
    }

    fn keep(&mut self, gate: Gate) {
        self.gate = (gate.purged_exp, gate.blind_until);
    }
}

impl Model for Claims {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Self { replays, drops, crashes, losses, set_backs, .. } = *self;
        vec![State {
            now: 0,
            record: None,
            gate: (0, None),
            queue: (0..self.envelopes).collect(),
            workers: vec![Worker::Idle; self.idempotent.len()],
            runs: [0; 2],
            careful: false,
            sealed: vec![],
            sent: vec![],
            left: Left { replays, drops, crashes, losses, set_backs },
            dropped: false,
            seen: Seen::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let left = state.left;
        let mut waiting = state.queue.clone();
        waiting.dedup();
        for (w, worker) in state.workers.iter().enumerate() {
            match worker {
                Worker::Idle => {
                    actions.extend(waiting.iter().map(|envelope| Action::Take(w, *envelope)));
                    if self.sweeper_runs {
                        actions.push(Action::SweepAndRun(w));
                    }
                    continue;
                }
                Worker::Running(_, grant) if grant.until_ms < now_ms(state) + LEASE_MS => {
                    actions.push(Action::Extend(w));
                }
                _ => {}
            }
            actions.push(Action::GoOn(w));
            if left.crashes > 0 {
                actions.push(Action::Crash(w));
            }
        }
        if left.replays > 0 {
            actions.extend((0..self.envelopes).map(Action::Replay));
        }
        if left.drops > 0 {
            actions.extend(waiting.into_iter().map(Action::Drop));
        }
        if left.losses > 0 {
            actions.push(Action::Lose);
        }
        if left.set_backs > 0 {
            actions.push(Action::SetBack);
        }
        if state.is_over() {
            actions.push(Action::Purge);
        }
        if state.now < self.end {
            actions.push(Action::Tick);
        }
        actions.push(Action::Sweep);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.happen(&mut state, action)?;
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(ONCE, |_: &Self, state: &State| {
                let ran = state.runs.iter().filter(|runs| **runs > 0).count();
                ran <= 1 && (!state.careful || state.runs.iter().all(|runs| *runs <= 1))
            }),
            Property::always(ONE_OUTCOME, |_: &Self, state: &State| {
                state.sent.windows(2).all(|two| match two {
                    [(a, _), (b, _)] => a != b,
                    _ => true,
                })
            }),
            Property::always(OWN, |_: &Self, state: &State| {
                let own = |(envelope, reply): &(Envelope, u8)| {
                    state.sealed.get(usize::from(*reply)).is_some_and(|s| s.of == *envelope)
                };
                state.sent.iter().all(own)
            }),
            Property::always(RECOVERS, recovers),
            Property::sometimes("a stored answer is sent again", |_: &Self, state: &State| {
                state.seen.answered_again
            }),
            Property::sometimes("a worker finds its claim lost", |_: &Self, state: &State| {
                state.seen.lost
            }),
            Property::sometimes("a replay is refused for its age", |_: &Self, state: &State| {
                state.seen.refused
            }),
        ];
        if self.idempotent.iter().all(|idempotent| *idempotent) {
            all.push(Property::sometimes("a run is taken over", |_: &Self, state: &State| {
                state.seen.taken_over
            }));
        } else {
            let unknown = |_: &Self, state: &State| {
                let unknown = |(_, reply): &(Envelope, u8)| {
                    state.sealed.get(usize::from(*reply)).is_some_and(|s| s.unknown)
                };
                state.sent.iter().any(unknown)
            };
            all.push(Property::sometimes("a caller hears that nobody knows", unknown));
        }
        if self.envelopes > 1 {
            all.push(Property::sometimes("an id conflict is seen", |_: &Self, state: &State| {
                state.seen.conflict
            }));
        }
        all
    }
}

impl Claims {
    pub(super) fn declares_idempotent(&self, w: usize) -> bool {
        self.idempotent.get(w).copied().unwrap_or_default()
    }

    fn happen(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Take(w, envelope) => state.take(w, envelope)?,
            Action::GoOn(w) => go_on(self, state, w)?,
            Action::Extend(w) => extend(self, state, w)?,
            Action::Crash(w) => {
                state.left.crashes -= 1;
                state.crash(w, self.twin)?;
            }
            Action::Replay(envelope) => {
                state.left.replays -= 1;
                state.put_back(envelope);
            }
            Action::Drop(envelope) => {
                state.left.drops -= 1;
                state.dropped = true;
                let at = state.queue.iter().position(|waiting| *waiting == envelope)?;
                state.queue.remove(at);
            }
            Action::Sweep => {
                let now_ms = now_ms(state);
                drive(self, state, Event::Sweep { now_ms, runner: None });
            }
            Action::SweepAndRun(w) => {
                let now_ms = now_ms(state);
                let envelope = state.record.as_ref()?.digest;
                let runner = Some((bulla_guard::Worker(w as u64), LEASE_MS));
                let event = Event::Sweep { now_ms, runner };
                if let claim::Action::Run(grant) = drive(self, state, event) {
                    *state.workers.get_mut(w)? = start(self, state, w, envelope, grant);
                }
            }
            Action::Purge => {
                let mut gate = gate(state);
                self.twin.purge(&mut gate, EXP);
                state.keep(gate);
                state.record = None;
            }
            Action::Lose => {
                state.left.losses -= 1;
                let mut gate = gate(state);
                self.twin.lose(&mut gate, now_ms(state), SKEW);
                state.keep(gate);
                state.record = None;
            }
            Action::SetBack => {
                state.left.set_backs -= 1;
                state.now = state.now.checked_sub(u8::try_from(SKEW).ok()?)?;
            }
            Action::Tick => state.now += 1,
        }
        Some(())
    }
}
