//! What can happen, and what must hold.

use bulla_guard::floor::{Event, PeerRecord};
use bulla_seal::{Exemption, Kid, Level, Party, Principal, PrincipalKind};
use stateright::{Model, Property};

use super::{Exempted, Floors, Host, Known, State, Twin};

/// Nothing below the highest floor that there ever was is accepted, but for what a live
/// exemption names.
pub(super) const NOTHING_BELOW: &str = "nothing below a raised floor is accepted";
/// A host that works as it always did, or better, is heard.
pub(super) const NOT_LOCKED_OUT: &str = "no healthy host is locked out";
/// A host that was rolled back can be let in by the operator, for a while.
pub(super) const EXEMPTABLE: &str = "an exemption lets a rolled-back host in, and ends";
/// Floors do not fall, in memory or on disk.
pub(super) const RATCHET: &str = "no floor falls";

const METHODS: [&str; 2] = ["guest.resize", "ping"];
/// The method that exemptions name.
const EXEMPT: &str = "ping";

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A host can seal from now on.
    Upgrade(usize, usize),
    /// A host is put back to what it was.
    RollBack(usize, usize),
    /// A host sends a message; the broker keeps a copy.
    Send(usize, usize),
    /// A message arrives in a peer's name: replayed or, in plaintext, made up. The method is one
    /// that can be exempted, or not.
    Arrive(usize, Level, bool),
    /// The operator raises a component type, when all its hosts were seen to seal.
    Raise(usize),
    /// The operator rehearses.
    Rehearse(usize),
    /// The operator signs an exemption, for some time.
    Exempt(usize),
    /// The receiver is killed, and starts from what it stored.
    Crash,
    /// Time passes.
    Tick,
}

fn party(peer: usize, kind: PrincipalKind) -> Option<Party> {
    Principal::new(kind, &format!("p{peer}")).ok().map(|principal| Party::new(principal, 1))
}

impl State {
    fn exemptions(&self) -> Vec<Exemption> {
        let exemption = |exempted: &Exempted| {
            Some(Exemption {
                id: Kid([0; 8]),
                peer: party(exempted.peer, self.peers.get(exempted.peer)?.record.kind)?,
                method: EXEMPT.to_owned(),
                level: Level::Plaintext,
                not_before: 0,
                until: exempted.until.into(),
            })
        };
        self.exempted.iter().filter_map(exemption).collect()
    }

    /// By hand, and not by the code under test.
    fn is_exempt(&self, peer: usize, method: &str) -> bool {
        let live = |e: &Exempted| e.peer == peer && self.now < e.until;
        method == EXEMPT && self.exempted.iter().any(live)
    }
}

impl Floors {
    fn judge(&self, state: &State, peer: usize, level: Level, method: &str) -> bool {
        let Some(known) = state.peers.get(peer) else { return false };
        let Some(party) = party(peer, known.record.kind) else { return false };
        let exemptions = state.exemptions();
        let now = state.now.into();
        self.twin.judge(&known.record, &party, method, level, &exemptions, now).accepts()
    }

    /// An operator's or a message's event: stored first, then used.
    fn step(&self, state: &mut State, peer: usize, event: Event) -> Option<()> {
        let known = state.peers.get_mut(peer)?;
        known.record = self.twin.step(known.record, event);
        if self.twin != Twin::StoresLater {
            known.stored = known.record;
        }
        known.highest = known.highest.max(known.record.accepts);
        Some(())
    }

    fn arrive(&self, state: &mut State, peer: usize, level: Level, method: &str) -> Option<()> {
        let below = level < state.peers.get(peer)?.highest;
        if !self.judge(state, peer, level, method) {
            state.seen.0 = true;
            return Some(());
        }
        let exempt = state.is_exempt(peer, method);
        state.below |= below && !exempt;
        state.seen.1 |= below && exempt;
        self.step(state, peer, Event::Passed { level })
    }

    fn happen(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Upgrade(peer, host) => {
                state.peers.get_mut(peer)?.hosts.get_mut(host)?.level = Level::Sealed;
            }
            Action::RollBack(peer, host) => {
                state.rollbacks -= 1;
                let host = state.peers.get_mut(peer)?.hosts.get_mut(host)?;
                *host = Host { level: Level::Plaintext, rolled_back: true };
            }
            Action::Send(peer, host) => {
                let known = state.peers.get_mut(peer)?;
                let level = known.hosts.get(host)?.level;
                if !known.genuine.contains(&level) {
                    known.genuine.push(level);
                    known.genuine.sort_unstable();
                }
            }
            Action::Arrive(peer, level, exemptable) => {
                let [other, exempt] = METHODS;
                self.arrive(state, peer, level, if exemptable { exempt } else { other })?;
            }
            Action::Raise(peer) => self.step(state, peer, Event::Raise { to: Level::Sealed })?,
            Action::Rehearse(peer) => {
                self.step(state, peer, Event::Rehearse { to: Level::Sealed })?;
            }
            Action::Exempt(peer) => {
                state.exempted.push(Exempted { peer, until: state.now + 2 });
            }
            Action::Crash => {
                state.crashes -= 1;
                state.peers.iter_mut().for_each(|known| known.record = known.stored);
            }
            Action::Tick => state.now += 1,
        }
        Some(())
    }
}

impl Model for Floors {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let known = |hosts: &u8| {
            let kind = if *hosts > 1 { PrincipalKind::Component } else { PrincipalKind::Agent };
            // As a deployment starts that migrates: plaintext accepted, plaintext sent.
            let record = PeerRecord::new(kind, Level::Plaintext, Level::Plaintext);
            let host = Host { level: Level::Plaintext, rolled_back: false };
            Known {
                record,
                stored: record,
                highest: Level::Plaintext,
                genuine: vec![],
                hosts: vec![host; usize::from(*hosts)],
            }
        };
        vec![State {
            now: 0,
            peers: self.peers.iter().map(known).collect(),
            exempted: vec![],
            rollbacks: self.rollbacks,
            crashes: self.crashes,
            below: false,
            seen: (false, false),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (peer, known) in state.peers.iter().enumerate() {
            for (n, host) in known.hosts.iter().enumerate() {
                actions.push(Action::Send(peer, n));
                if host.level == Level::Plaintext && !host.rolled_back {
                    actions.push(Action::Upgrade(peer, n));
                }
                if host.level == Level::Sealed && state.rollbacks > 0 {
                    actions.push(Action::RollBack(peer, n));
                }
            }
            for exemptable in [false, true] {
                // Anyone can write plaintext; what is sealed was sealed by the peer.
                actions.push(Action::Arrive(peer, Level::Plaintext, exemptable));
                for level in known.genuine.iter().filter(|level| **level > Level::Plaintext) {
                    actions.push(Action::Arrive(peer, *level, exemptable));
                }
            }
            let component = known.record.kind == PrincipalKind::Component;
            if component && known.hosts.iter().all(|host| host.level == Level::Sealed) {
                actions.push(Action::Raise(peer));
            }
            actions.push(Action::Rehearse(peer));
            if state.exempted.len() < usize::from(self.exemptions) {
                actions.push(Action::Exempt(peer));
            }
        }
        if state.crashes > 0 {
            actions.push(Action::Crash);
        }
        if state.now < self.end {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.happen(&mut state, action)?;
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_BELOW, |_: &Self, state: &State| !state.below),
            Property::always(RATCHET, |_: &Self, state: &State| {
                state.peers.iter().all(|known| known.record.accepts == known.highest)
            }),
            Property::always(NOT_LOCKED_OUT, |model: &Self, state: &State| {
                each_host(state, |peer, host| {
                    let [method, _] = METHODS;
                    host.rolled_back || model.judge(state, peer, host.level, method)
                })
            }),
            Property::always(EXEMPTABLE, |model: &Self, state: &State| {
                each_host(state, |peer, host| {
                    let mut state = state.clone();
                    state.exempted.push(Exempted { peer, until: state.now + 2 });
                    model.judge(&state, peer, host.level, EXEMPT)
                })
            }),
            Property::sometimes("a floor refuses", |_: &Self, state: &State| state.seen.0),
            Property::sometimes("every floor rose", |_: &Self, state: &State| {
                state.peers.iter().all(|known| known.record.accepts == Level::Sealed)
            }),
            Property::sometimes("a rise is rehearsed", |_: &Self, state: &State| {
                state.peers.iter().any(|known| known.record.target.is_some())
            }),
        ]
        .into_iter()
        .chain((self.exemptions > 0).then(|| {
            let name = "an exemption lets something through";
            Property::sometimes(name, |_: &Self, state: &State| state.seen.1)
        }))
        .collect()
    }
}

fn each_host(state: &State, holds: impl Fn(usize, Host) -> bool) -> bool {
    let peers = state.peers.iter().enumerate();
    peers.into_iter().all(|(peer, known)| known.hosts.iter().all(|host| holds(peer, *host)))
}
