//! The record against chance: messages of all levels, an operator who raises, exemptions that
//! begin and end.

use bulla_seal::{Exemption, Kid, Level, Party, Principal, PrincipalKind};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Happening {
    Message { level: Level, method: usize },
    Raised(Level),
    Rehearsed(Level),
    RehearsalEnded,
    Sent(Level),
    Exempted { level: Level, method: usize, stranger: bool, life: u64 },
    Later(u64),
}

const METHODS: [&str; 2] = ["guest.resize", "ping"];

fn level() -> impl Strategy<Value = Level> {
    prop::sample::select(Level::ALL)
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (level(), 0..2usize).prop_map(|(level, method)| Happening::Message { level, method }),
        1 => level().prop_map(Happening::Raised),
        1 => level().prop_map(Happening::Rehearsed),
        1 => Just(Happening::RehearsalEnded),
        1 => level().prop_map(Happening::Sent),
        2 => (level(), 0..2usize, any::<bool>(), 1..30u64).prop_map(
            |(level, method, stranger, life)| Happening::Exempted { level, method, stranger, life }
        ),
        3 => (1..20u64).prop_map(Happening::Later),
    ]
}

fn peer(kind: PrincipalKind) -> Party {
    Party::new(Principal::new(kind, "p").unwrap(), 2)
}

/// Same name, other life.
fn stranger(kind: PrincipalKind) -> Party {
    Party { incarnation: 1, ..peer(kind) }
}

struct World {
    peer: Party,
    record: PeerRecord,
    /// The highest floor that there ever was, kept by hand.
    highest: Level,
    exemptions: Vec<Exemption>,
    now: u64,
}

impl World {
    fn new(kind: PrincipalKind) -> Self {
        let record = PeerRecord::new(kind, Level::Plaintext, Level::Plaintext);
        let peer = peer(kind);
        Self { peer, record, highest: Level::Plaintext, exemptions: vec![], now: 100 }
    }

    fn step(&mut self, event: Event) -> Action {
        let before = self.record;
        let (record, action) = step(before, event);
        assert!(record.accepts >= before.accepts, "a floor fell: {before:?} {event:?}");
        assert!(record.sends >= before.sends, "what is sent fell: {before:?} {event:?}");
        assert!(record.sends >= record.accepts, "{record:?}");
        assert!(record.target.is_none_or(|target| target > record.accepts), "{record:?}");
        assert_eq!(action == Action::Keep, record == before, "{action:?}");
        let rose = record.accepts > before.accepts;
        assert_eq!(action == Action::Raised { from: before.accepts }, rose);
        self.record = record;
        action
    }

    fn message(&mut self, level: Level, method: &str) {
        let judgement = judge(&self.record, &self.peer, method, level, &self.exemptions, self.now);
        let exempt = self.exemptions.iter().any(|e| {
            e.peer == self.peer
                && e.method == method
                && e.level <= level
                && e.not_before <= self.now
                && self.now < e.until
        });
        assert_eq!(judgement.accepts(), level >= self.highest || exempt, "{judgement:?}");
        if judgement.accepts() {
            let floor = lowest_passable(&self.record, &self.peer, &self.exemptions, self.now);
            assert!(level >= floor, "refused before it was opened");
            self.step(Event::Passed { level });
            if self.peer.principal.is_agent() {
                self.highest = self.highest.max(level);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Message { level, method } => self.message(level, METHODS[method]),
            Happening::Raised(to) => {
                self.step(Event::Raise { to });
                self.highest = self.highest.max(to);
            }
            Happening::Rehearsed(to) => drop(self.step(Event::Rehearse { to })),
            Happening::RehearsalEnded => drop(self.step(Event::EndRehearsal)),
            Happening::Sent(level) => drop(self.step(Event::Send { level })),
            Happening::Exempted { level, method, stranger: other, life } => {
                let kind = self.peer.principal.kind();
                self.exemptions.push(Exemption {
                    id: Kid([self.exemptions.len() as u8; 8]),
                    peer: if other { stranger(kind) } else { self.peer.clone() },
                    method: METHODS[method].to_owned(),
                    level,
                    not_before: self.now + 2,
                    until: self.now + 2 + life,
                });
            }
            Happening::Later(by) => self.now += by,
        }
        assert_eq!(self.record.accepts, self.highest);
    }
}

proptest! {
    #[test]
    fn nothing_below_a_raised_floor_is_accepted_without_a_live_exemption(
        agent in any::<bool>(),
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let kind = if agent { PrincipalKind::Agent } else { PrincipalKind::Component };
        let mut world = World::new(kind);
        happenings.into_iter().for_each(|happening| world.happen(happening));
    }

    #[test]
    fn the_order_of_messages_and_rises_does_not_matter_to_where_the_floor_ends(
        events in prop::collection::vec(level(), 1..10).prop_map(|levels| {
            levels.into_iter().map(|to| Event::Raise { to }).collect::<Vec<_>>()
        }).prop_shuffle(),
    ) {
        let start = PeerRecord::new(PrincipalKind::Agent, Level::Plaintext, Level::Plaintext);
        let run = |events: &[Event]| events.iter().fold(start, |r, e| step(r, *e).0);
        let mut backwards = events.clone();
        backwards.reverse();
        prop_assert_eq!(run(&events), run(&backwards));
    }
}

#[test]
fn a_rehearsed_rise_counts_and_refuses_nothing() {
    let component = peer(PrincipalKind::Component);
    let record = PeerRecord::new(PrincipalKind::Component, Level::Plaintext, Level::Sealed);
    assert!(record.is_dual());
    let (record, action) = step(record, Event::Rehearse { to: Level::Sealed });
    assert_eq!(action, Action::Changed);
    let judge = |level| judge(&record, &component, "ping", level, &[], 0);
    assert_eq!(judge(Level::Signed), Judgement::BelowTarget { target: Level::Sealed });
    assert_eq!(judge(Level::Sealed), Judgement::Accept);
    // A component's hosts move one by one: the first sealed message raises nothing.
    let (after, action) = step(record, Event::Passed { level: Level::Sealed });
    assert_eq!((after, action), (record, Action::Keep));
    let (record, _) = step(record, Event::Raise { to: Level::Sealed });
    assert_eq!((record.accepts, record.target), (Level::Sealed, None));
}

#[test]
fn of_two_exemptions_the_one_that_ends_last_is_named() {
    let agent = peer(PrincipalKind::Agent);
    let exemption = |id, until| Exemption {
        id: Kid([id; 8]),
        peer: agent.clone(),
        method: "ping".into(),
        level: Level::Signed,
        not_before: 0,
        until,
    };
    let record = PeerRecord::new(PrincipalKind::Agent, Level::Sealed, Level::Sealed);
    let both = [exemption(1, 50), exemption(2, 40)];
    let judge = |level, now| judge(&record, &agent, "ping", level, &both, now);
    assert_eq!(judge(Level::Signed, 10), Judgement::Exempt { id: Kid([1; 8]), until: 50 });
    assert_eq!(judge(Level::AesCbc, 10), Judgement::Refuse { floor: Level::Sealed });
    assert_eq!(judge(Level::Signed, 50), Judgement::Refuse { floor: Level::Sealed });
}
