//! One peer's transitions, and what its record says of a message.

use bulla_seal::{Exemption, Kid, Level, Party, PrincipalKind};

/// What is remembered of a peer's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerRecord {
    /// Whose it is: agents' records rise by themselves, those of component types do not, for
    /// several hosts share one.
    pub kind: PrincipalKind,
    /// The lowest level that is accepted.
    pub accepts: Level,
    /// The level that is sent to it. Above `accepts`, the peer is *dual*.
    pub sends: Level,
    /// A floor that is rehearsed: what is below it is counted and not refused.
    pub target: Option<Level>,
}

impl PeerRecord {
    /// A peer that nothing was heard of, in a deployment that demands `accepts` of everybody.
    pub fn new(kind: PrincipalKind, accepts: Level, sends: Level) -> Self {
        Self { kind, accepts, sends: sends.max(accepts), target: None }
    }

    /// Whether more is sent than is demanded.
    pub fn is_dual(&self) -> bool {
        self.sends > self.accepts
    }
}

/// What happens to a peer's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A message of this level came from the peer and passed step 8 of protocol section 9.
    Passed {
        /// The level that the message was opened at.
        level: Level,
    },
    /// The operator demands this level from now on.
    Raise {
        /// The new floor.
        to: Level,
    },
    /// The operator rehearses a rise.
    Rehearse {
        /// The floor that it would be.
        to: Level,
    },
    /// The operator ends the rehearsal.
    EndRehearsal,
    /// The operator has this level sent to the peer from now on.
    Send {
        /// The level.
        level: Level,
    },
}

/// What to do about it. The record is stored before anything is done with the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The record is as it was.
    Keep,
    /// The floor rose: store the record.
    Raised {
        /// The floor before.
        from: Level,
    },
    /// Something else of the record changed: store it.
    Changed,
}

/// The transition function.
pub fn step(record: PeerRecord, event: Event) -> (PeerRecord, Action) {
    let after = match event {
        Event::Passed { level } => match record.kind {
            PrincipalKind::Agent => raise(record, level),
            PrincipalKind::Component => record,
        },
        Event::Raise { to } => raise(record, to),
        Event::Rehearse { to } if to > record.accepts => PeerRecord { target: Some(to), ..record },
        Event::Rehearse { .. } => record,
        Event::EndRehearsal => PeerRecord { target: None, ..record },
        Event::Send { level } => PeerRecord { sends: record.sends.max(level), ..record },
    };
    let action = if after.accepts > record.accepts {
        Action::Raised { from: record.accepts }
    } else if after != record {
        Action::Changed
    } else {
        Action::Keep
    };
    (after, action)
}

/// Never lowers anything; a rehearsal that the floor has reached is over.
fn raise(record: PeerRecord, to: Level) -> PeerRecord {
    let accepts = record.accepts.max(to);
    PeerRecord {
        accepts,
        sends: record.sends.max(accepts),
        target: record.target.filter(|target| *target > accepts),
        ..record
    }
}

/// What a record says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Judgement {
    /// It is at the floor or above.
    Accept,
    /// It is at the floor, and below the one that is rehearsed: accept and count it.
    BelowTarget {
        /// The rehearsed floor.
        target: Level,
    },
    /// It is below the floor, and an exemption lets it through: accept, count and alarm.
    Exempt {
        /// Which exemption.
        id: Kid,
        /// When that ends, in Unix seconds.
        until: u64,
    },
    /// It is below the floor.
    Refuse {
        /// The floor.
        floor: Level,
    },
}

impl Judgement {
    /// Whether the message may go on.
    pub fn accepts(&self) -> bool {
        !matches!(self, Self::Refuse { .. })
    }
}

/// Judges a message of `level` for `method` (`namespace.method`) from `peer` at `now`, in Unix
/// seconds. `exemptions` may hold other peers' too.
pub fn judge(
    record: &PeerRecord,
    peer: &Party,
    method: &str,
    level: Level,
    exemptions: &[Exemption],
    now: u64,
) -> Judgement {
    if level >= record.accepts {
        return match record.target {
            Some(target) if level < target => Judgement::BelowTarget { target },
            _ => Judgement::Accept,
        };
    }
    let fits = |exemption: &&Exemption| {
        applies(exemption, peer, now) && exemption.method == method && level >= exemption.level
    };
    // Of several, the one that ends last: what is told is when this will be refused.
    match exemptions.iter().filter(fits).max_by_key(|exemption| exemption.until) {
        Some(exemption) => Judgement::Exempt { id: exemption.id, until: exemption.until },
        None => Judgement::Refuse { floor: record.accepts },
    }
}

/// The lowest level that a message from `peer` can have and still be accepted for some method:
/// for the check before a message is opened, when its method is not known yet.
pub fn lowest_passable(
    record: &PeerRecord,
    peer: &Party,
    exemptions: &[Exemption],
    now: u64,
) -> Level {
    let live = exemptions.iter().filter(|exemption| applies(exemption, peer, now));
    live.map(|exemption| exemption.level).fold(record.accepts, Level::min)
}

fn applies(exemption: &Exemption, peer: &Party, now: u64) -> bool {
    exemption.is_live(now) && exemption.peer == *peer
}
