//! A fleet that moves from plaintext to sealed while somebody owns the broker.
//!
//! Agents and a component type with two hosts, each upgraded at some time, each perhaps rolled
//! back; the receiver's record of each peer; an operator who raises and exempts; a broker that
//! makes up plaintext and replays all that was ever sent. Records are stored before anything is
//! done with a message, and a receiver may crash at any time.

mod model;
mod twin;

use bulla_guard::floor::PeerRecord;
use bulla_seal::Level;

use crate::Size;

pub use model::Action;
pub use twin::Twin;

/// The model.
#[derive(Debug, Clone)]
pub struct Floors {
    /// How many hosts each peer has: agents one, component types more.
    pub peers: Vec<u8>,
    /// Exemptions that the operator may sign, over all.
    pub exemptions: u8,
    /// Hosts that may be rolled back to before they could seal.
    pub rollbacks: u8,
    /// Crashes of the receiver.
    pub crashes: u8,
    /// The last moment.
    pub end: u8,
    /// Which rule is broken.
    pub twin: Twin,
}

impl Floors {
    /// An agent and a component type with two hosts.
    pub fn new(size: Size) -> Self {
        let full = size == Size::Full;
        Self {
            peers: vec![1, 2],
            exemptions: if full { 2 } else { 1 },
            rollbacks: 1,
            crashes: u8::from(full),
            end: if full { 4 } else { 3 },
            twin: Twin::None,
        }
    }

    /// With a rule broken.
    #[must_use]
    pub fn with(self, twin: Twin) -> Self {
        Self { twin, ..self }
    }

    /// The models that must hold, by name.
    pub fn all(size: Size) -> Vec<(&'static str, Self)> {
        let base = Self::new(size);
        vec![
            ("floors, a migration", base.clone()),
            ("floors, with crashes", Self { crashes: 2, exemptions: 0, ..base }),
        ]
    }

    /// The twins that must be found out, each with the property that it breaks.
    pub fn twins(size: Size) -> Vec<(&'static str, Self)> {
        let base = Self::new(size);
        let twin = |twin| base.clone().with(twin);
        vec![
            (model::NOTHING_BELOW, twin(Twin::AcceptsAnything)),
            (model::NOTHING_BELOW, twin(Twin::FollowsTheMessage)),
            (model::NOTHING_BELOW, twin(Twin::ExemptsEveryMethod)),
            (model::NOTHING_BELOW, twin(Twin::ExemptsForEver)),
            (model::NOTHING_BELOW, Self { crashes: 1, ..twin(Twin::StoresLater) }),
            (model::NOT_LOCKED_OUT, twin(Twin::ComponentsRise)),
            (model::NOT_LOCKED_OUT, twin(Twin::RaisesOneStepMore)),
            (model::EXEMPTABLE, twin(Twin::IgnoresExemptions)),
        ]
    }
}

/// One host of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Host {
    /// What it sends.
    pub level: Level,
    /// Whether it was rolled back.
    pub rolled_back: bool,
}

/// A live or past exemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exempted {
    /// Which peer.
    pub peer: usize,
    /// The first moment after it.
    pub until: u8,
}

/// What is known of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Known {
    /// Its record, in use.
    pub record: PeerRecord,
    /// Its record, on disk.
    pub stored: PeerRecord,
    /// The highest floor that there ever was, kept by hand.
    pub highest: Level,
    /// Levels at which a genuine message exists, for the broker to replay.
    pub genuine: Vec<Level>,
    /// Its hosts.
    pub hosts: Vec<Host>,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The clock.
    pub now: u8,
    /// The peers.
    pub peers: Vec<Known>,
    /// Exemptions.
    pub exempted: Vec<Exempted>,
    /// What may still happen.
    pub rollbacks: u8,
    /// Crashes that may still happen.
    pub crashes: u8,
    /// A message below a raised floor was accepted, and nothing exempted it.
    pub below: bool,
    /// What should be possible, and happened: refused below the floor, let through by exemption.
    pub seen: (bool, bool),
}
