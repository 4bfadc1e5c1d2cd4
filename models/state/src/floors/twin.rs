//! The machine, and machines with one rule broken.

use bulla_guard::floor::{self, Event, Judgement, PeerRecord};
use bulla_seal::{Exemption, Level, Party, PrincipalKind};

/// Which rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// None: the code itself.
    None,
    /// Every level is accepted.
    AcceptsAnything,
    /// The floor is what the last message had.
    FollowsTheMessage,
    /// An exemption for one method lets all through.
    ExemptsEveryMethod,
    /// An exemption does not end.
    ExemptsForEver,
    /// Exemptions are not looked at.
    IgnoresExemptions,
    /// A record is used before it is stored.
    StoresLater,
    /// A component type's record rises with one of its hosts.
    ComponentsRise,
    /// A message raises the floor above its own level.
    RaisesOneStepMore,
}

impl Twin {
    /// [`floor::step`], or not quite.
    pub(super) fn step(self, record: PeerRecord, event: Event) -> PeerRecord {
        let kind = record.kind;
        let after = match (self, event) {
            (Self::ComponentsRise, _) => {
                let agent = PeerRecord { kind: PrincipalKind::Agent, ..record };
                PeerRecord { kind, ..floor::step(agent, event).0 }
            }
            (Self::RaisesOneStepMore, Event::Passed { level }) => {
                floor::step(record, Event::Passed { level: above(level) }).0
            }
            (Self::FollowsTheMessage, Event::Passed { level }) => {
                PeerRecord { accepts: level, ..record }
            }
            _ => floor::step(record, event).0,
        };
        debug_assert_eq!(after.kind, kind);
        after
    }

    /// [`floor::judge`], or not quite.
    pub(super) fn judge(
        self,
        record: &PeerRecord,
        peer: &Party,
        method: &str,
        level: Level,
        exemptions: &[Exemption],
        now: u64,
    ) -> Judgement {
        let altered = |change: &dyn Fn(&mut Exemption)| {
            let mut all = exemptions.to_vec();
            all.iter_mut().for_each(change);
            floor::judge(record, peer, method, level, &all, now)
        };
        match self {
            Self::AcceptsAnything | Self::FollowsTheMessage => Judgement::Accept,
            Self::ExemptsEveryMethod => altered(&|e| e.method = method.to_owned()),
            Self::ExemptsForEver => altered(&|e| e.until = u64::MAX),
            Self::IgnoresExemptions => floor::judge(record, peer, method, level, &[], now),
            _ => floor::judge(record, peer, method, level, exemptions, now),
        }
    }
}

fn above(level: Level) -> Level {
    Level::ALL.iter().copied().find(|other| *other > level).unwrap_or(level)
}
