//! The machine against chance: several workers that crash, a clock that runs, a message that is
//! delivered again and again.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::key::Worker;
use crate::store::{ClaimOutcome, Completed, Completion, Duplicate, Grant, Reply};
use bulla_seal::Digest;

const WORKERS: u64 = 4;
const LEASE_MS: u64 = 100;

/// What may happen next; workers are numbers below [`WORKERS`].
#[derive(Debug, Clone)]
enum Happening {
    Delivered {
        to: u64,
        idempotent: bool,
    },
    Forged {
        to: u64,
    },
    Finished {
        by: u64,
        in_doubt: bool,
    },
    Extended {
        by: u64,
        by_ms: u64,
    },
    /// The worker forgets what it ran, as after a kill.
    Crashed {
        who: u64,
    },
    Swept {
        by: u64,
        with_envelope: bool,
    },
    ErrorSealed,
    Later {
        by_ms: u64,
    },
}

fn happening(idempotent: bool) -> impl Strategy<Value = Happening> {
    let worker = 0..WORKERS;
    prop_oneof![
        4 => worker.clone().prop_map(move |to| Happening::Delivered { to, idempotent }),
        1 => worker.clone().prop_map(|to| Happening::Forged { to }),
        3 => (worker.clone(), prop::bool::weighted(0.1))
            .prop_map(|(by, in_doubt)| Happening::Finished { by, in_doubt }),
        1 => (worker.clone(), 0..2 * LEASE_MS)
            .prop_map(|(by, by_ms)| Happening::Extended { by, by_ms }),
        1 => worker.clone().prop_map(|who| Happening::Crashed { who }),
        1 => (worker.clone(), any::<bool>())
            .prop_map(|(by, with_envelope)| Happening::Swept { by, with_envelope }),
        1 => Just(Happening::ErrorSealed),
        3 => (0..LEASE_MS).prop_map(|by_ms| Happening::Later { by_ms }),
    ]
}

/// The world around one claim, and what must be true of it.
#[derive(Default)]
struct World {
    record: Option<Record<Digest>>,
    now_ms: u64,
    running: [Option<Grant>; WORKERS as usize],
    runs: u32,
    serial: u8,
    /// The final answer that anybody was told of.
    told: Option<State>,
}

const GENUINE: Digest = Digest([1; 32]);

impl World {
    fn step(&mut self, event: Event<Digest>) -> Action {
        let (record, action) = step(self.record.take(), event);
        self.record = record;
        action
    }

    fn fresh_reply(&mut self) -> Reply {
        self.serial += 1;
        Reply::new(Bytes::from(vec![self.serial]))
    }

    fn granted(&mut self, worker: u64, grant: Grant) {
        self.runs += 1;
        assert_eq!(grant.attempt, self.runs, "attempts count the runs");
        self.running[worker as usize] = Some(grant);
    }

    fn told(&mut self, told: State) {
        match &self.told {
            // "In doubt, no error yet" may become "in doubt, this error".
            Some(State::InDoubt(None)) => assert!(matches!(told, State::InDoubt(_))),
            Some(before) => assert_eq!(before, &told, "one final outcome"),
            None => {}
        }
        self.told = Some(told);
    }

    fn claim(&mut self, worker: u64, digest: Digest, idempotent: bool) {
        let now_ms = self.now_ms;
        let lease_ms = LEASE_MS;
        let event = Event::Claim { digest, worker: Worker(worker), now_ms, lease_ms, idempotent };
        let Action::Claim(outcome) = self.step(event) else { panic!("not a claim's answer") };
        match outcome {
            ClaimOutcome::Granted(grant) => {
                assert!(self.told.is_none(), "nothing runs after a final outcome");
                self.granted(worker, grant);
            }
            ClaimOutcome::Duplicate(Duplicate::Held { until_ms }) => {
                assert!(self.now_ms < until_ms);
            }
            ClaimOutcome::Duplicate(Duplicate::Done { reply }) => self.told(State::Done(reply)),
            ClaimOutcome::Duplicate(Duplicate::InDoubt { error }) => {
                self.told(State::InDoubt(error));
            }
            ClaimOutcome::Refused(_) => assert_ne!(digest, GENUINE),
        }
    }

    fn finish(&mut self, worker: u64, in_doubt: bool) {
        let Some(grant) = self.running[worker as usize].take() else { return };
        let reply = Some(self.fresh_reply());
        let (completion, state) = if in_doubt {
            (Completion::InDoubt { error: reply.clone() }, State::InDoubt(reply))
        } else {
            (Completion::Done { reply: reply.clone() }, State::Done(reply))
        };
        if let Action::Complete(Completed::Stored) =
            self.step(Event::Complete { grant, completion })
        {
            assert_eq!(grant.attempt, self.runs, "only the last attempt decides");
            self.told(state);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Delivered { to, idempotent } => self.claim(to, GENUINE, idempotent),
            // Forged copies that pass every earlier check come from the sender itself.
            Happening::Forged { to } if self.record.is_some() => {
                let before = self.record.clone();
                self.claim(to, Digest([2; 32]), true);
                assert_eq!(self.record, before, "a conflict changes nothing");
            }
            Happening::Forged { .. } => {}
            Happening::Finished { by, in_doubt } => self.finish(by, in_doubt),
            Happening::Extended { by, by_ms } => {
                if let Some(grant) = self.running[by as usize] {
                    let until_ms = self.now_ms + by_ms;
                    self.step(Event::Extend { grant, until_ms });
                }
            }
            Happening::Crashed { who } => self.running[who as usize] = None,
            Happening::Swept { by, with_envelope } => {
                let runner = with_envelope.then_some((Worker(by), LEASE_MS));
                match self.step(Event::Sweep { now_ms: self.now_ms, runner }) {
                    Action::Run(grant) => self.granted(by, grant),
                    Action::InDoubt => self.told(State::InDoubt(None)),
                    action => assert_eq!(action, Action::Leave),
                }
            }
            Happening::ErrorSealed => {
                let error = self.fresh_reply();
                if let Action::Answer(Some(standing)) = self.step(Event::Answer(error)) {
                    self.told(State::InDoubt(Some(standing)));
                }
            }
            Happening::Later { by_ms } => self.now_ms += by_ms,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_else_runs_twice(happenings in prop::collection::vec(happening(false), 1..60)) {
        let mut world = World::default();
        for happening in happenings {
            world.happen(happening);
            prop_assert!(world.runs <= 1, "a method that is not idempotent ran twice");
        }
    }

    #[test]
    fn idempotent_methods_have_one_outcome(
        happenings in prop::collection::vec(happening(true), 1..60),
    ) {
        let mut world = World::default();
        for happening in happenings {
            world.happen(happening);
            let running = world.record.as_ref().is_some_and(|r| matches!(r.state, State::Claimed(_)));
            prop_assert!(!running || world.told.is_none(), "a final outcome was taken back");
        }
    }
}
