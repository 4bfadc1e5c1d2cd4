//! One message id, workers that compete for it, and a broker that replays.
//!
//! The message exists in one envelope, or in two if its sender is hostile and used the id twice.
//! Workers take copies from the queue, claim, run, seal, complete, send and acknowledge, and may
//! crash before each of these; the copies that they had in hand are redelivered then. The broker
//! may add a copy at any time, after an acknowledgement too, and may take copies away. Time goes
//! on by itself, so that leases end under live workers; the store may be swept, purged, or lost.

mod model;
mod recovery;
mod twin;
mod worker;

use bulla_guard::claim::{Gate, Record};

use crate::Size;

pub use model::Action;
pub use twin::Twin;
pub use worker::Worker;

/// Which of a message's envelopes.
pub type Envelope = u8;

/// The model: how many take part, and how often each thing may happen.
#[derive(Debug, Clone)]
pub struct Claims {
    /// Workers; each may declare the method idempotent or not.
    pub idempotent: Vec<bool>,
    /// Copies that the broker may add.
    pub replays: u8,
    /// Copies that it may take away.
    pub drops: u8,
    /// Crashes.
    pub crashes: u8,
    /// How often the store may be lost.
    pub losses: u8,
    /// How often the clock may be set back, by no more than what counts as a skew.
    pub set_backs: u8,
    /// Envelopes under one id.
    pub envelopes: u8,
    /// Whether the store keeps envelopes, so that the sweeper may run a message.
    pub sweeper_runs: bool,
    /// The last second.
    pub end: u8,
    /// Which rule is broken.
    pub twin: Twin,
}

impl Claims {
    /// Non-idempotent, two workers.
    pub fn new(size: Size) -> Self {
        let full = size == Size::Full;
        Self {
            idempotent: vec![false; 2],
            replays: if full { 2 } else { 1 },
            drops: 1,
            crashes: if full { 2 } else { 1 },
            losses: 0,
            set_backs: 1,
            envelopes: 1,
            sweeper_runs: false,
            end: if full { 9 } else { 8 },
            twin: Twin::None,
        }
    }

    /// Every worker declares the method idempotent.
    #[must_use]
    pub fn idempotent(self) -> Self {
        let idempotent = self.idempotent.iter().map(|_| true).collect();
        Self { idempotent, ..self }
    }

    /// With a rule broken.
    #[must_use]
    pub fn with(self, twin: Twin) -> Self {
        Self { twin, ..self }
    }

    /// The models that must hold, by name.
    pub fn all(size: Size) -> Vec<(&'static str, Self)> {
        let base = Self::new(size);
        // What makes more states of itself does so from a smaller beginning.
        let plain = Self { set_backs: 0, ..base.clone() };
        let twice = Self { envelopes: 2, replays: 1, drops: 0, ..plain.clone() };
        let swept = Self { sweeper_runs: true, ..twice.clone().idempotent() };
        let mut all = vec![
            ("claims, not idempotent", base.clone()),
            ("claims, idempotent", plain.clone().idempotent()),
            ("claims, declared both ways", Self { idempotent: vec![true, false], ..plain.clone() }),
            ("claims, an id used twice", twice),
            ("claims, a lost store", Self { losses: 1, drops: 0, ..plain.clone() }),
            ("claims, the sweeper runs what is left", Self { envelopes: 1, ..swept }),
        ];
        if size == Size::Full {
            let three = Self { idempotent: vec![false; 3], replays: 1, crashes: 1, ..plain };
            all.push(("claims, three workers", three));
        }
        all
    }

    /// The twins that must be found out, each with the property that it breaks.
    pub fn twins(size: Size) -> Vec<(&'static str, Self)> {
        let base = Self::new(size);
        let twin = |twin| base.clone().with(twin);
        vec![
            (model::ONCE, twin(Twin::TakesOverAnything)),
            (model::ONCE, twin(Twin::ForgetsClaims)),
            (model::ONE_OUTCOME, twin(Twin::BlindCompletion)),
            (model::ONE_OUTCOME, twin(Twin::SealsDoubtAnew)),
            (model::OWN, Self { envelopes: 2, ..twin(Twin::ComparesNoDigest) }),
            (model::RECOVERS, twin(Twin::EndlessLease)),
            (model::RECOVERS, twin(Twin::AcknowledgesEarly)),
            (model::ONCE, twin(Twin::PurgesWithoutMark)),
            (model::ONCE, Self { losses: 1, ..twin(Twin::TrustsALostStore) }),
            (model::RECOVERS, Self { losses: 1, ..twin(Twin::BlindForEver) }),
        ]
    }
}

/// A sealed outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sealed {
    /// The envelope that it answers.
    pub of: Envelope,
    /// Whether it says "outcome unknown".
    pub unknown: bool,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Seconds since the message was issued.
    pub now: u8,
    /// The store: the claim.
    pub record: Option<Record<Envelope>>,
    /// The store: the greatest expiry that it purged, and how long it is blind.
    pub gate: (u64, Option<u64>),
    /// Copies that wait, sorted.
    pub queue: Vec<Envelope>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// How often each envelope ran.
    pub runs: [u8; 2],
    /// Whether a worker ran it that had not declared its method idempotent.
    pub careful: bool,
    /// Outcomes that were sealed; they are named by their place.
    pub sealed: Vec<Sealed>,
    /// Final outcomes on the bus: to which envelope's sender, which.
    pub sent: Vec<(Envelope, u8)>,
    /// What the broker may still do.
    pub left: Left,
    /// Whether it took a copy away.
    pub dropped: bool,
    /// Things that should be possible, and happened.
    pub seen: Seen,
}

/// How often things may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as in `Claims`")]
pub struct Left {
    pub replays: u8,
    pub drops: u8,
    pub crashes: u8,
    pub losses: u8,
    pub set_backs: u8,
}

/// What happened on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs, reason = "each is a name for itself")]
pub struct Seen {
    pub taken_over: bool,
    pub answered_again: bool,
    pub lost: bool,
    pub conflict: bool,
    pub refused: bool,
}

fn gate(state: &State) -> Gate {
    Gate { purged_exp: state.gate.0, blind_until: state.gate.1 }
}
