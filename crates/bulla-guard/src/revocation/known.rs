//! The newest statement, and what earlier ones have proven.

use std::collections::BTreeMap;

use bulla_seal::mutants::{Check, off};
use bulla_seal::{Digest, GroupName, Kid, Lowest, Party, Principal, Refusal, Statement};

/// Kids that stay refused although the newest statement left them out, at the most.
pub const MAX_STICKY: usize = 65_536;

/// What a receiver knows of revocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Known {
    held: Option<Held>,
    /// Kids that count for nothing, and until when they have to be kept.
    revoked: BTreeMap<Kid, u64>,
    lowest: BTreeMap<Principal, Lowest>,
    groups: BTreeMap<GroupName, u32>,
}

/// The newest verified statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    /// Its epoch.
    pub epoch: u64,
    /// When it was made, in Unix seconds.
    pub issued_at: u64,
    /// First Unix second in which it is no longer current.
    pub not_after: u64,
    /// SHA-256 of it as signed.
    pub digest: Digest,
}

/// Whose key a message was made with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Names the credential or the pair key.
    pub kid: Kid,
    /// The holder.
    pub party: Party,
    /// What sort of key, and its epoch.
    pub key: SubjectKey,
}

/// A sort of key with its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectKey {
    /// A credential.
    Credential(u32),
    /// A pair key, which is an agent's.
    Pair(u32),
}

/// What came of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Applied {
    /// It is the newest: judge every cached session and credential again.
    Moved,
    /// It is the newest, but its issuer left out what an earlier one proved, which holds all the
    /// same: judge again, and alarm.
    MovedWithLoss,
    /// It is the one that is held.
    Same,
    /// It is older than the one that is held.
    Older,
    /// It has the epoch of the one that is held and says something else: alarm.
    Conflict,
}

impl Applied {
    /// Whether anything changed.
    pub fn moved(self) -> bool {
        matches!(self, Self::Moved | Self::MovedWithLoss)
    }
}

/// The transition function: takes in a *verified* `statement`, whose signed form has `digest`.
pub fn apply(known: Known, statement: &Statement, digest: Digest) -> (Known, Applied) {
    match &known.held {
        Some(_) if off(Check::StatementEpoch) => advance(Known::default(), statement, digest),
        Some(held) if statement.epoch < held.epoch => (known, Applied::Older),
        Some(held) if statement.epoch == held.epoch => {
            let applied = if held.digest == digest { Applied::Same } else { Applied::Conflict };
            (known, applied)
        }
        _ => advance(known, statement, digest),
    }
}

fn advance(mut known: Known, statement: &Statement, digest: Digest) -> (Known, Applied) {
    let new: BTreeMap<Kid, u64> =
        statement.revoked.iter().map(|revoked| (revoked.kid, revoked.until)).collect();
    // What is over at the statement's own time may go; what is not and was left out stays.
    known.revoked.retain(|kid, until| *until > statement.issued_at || new.contains_key(kid));
    let mut lost = known.revoked.keys().any(|kid| !new.contains_key(kid));
    for (kid, until) in new {
        let known = known.revoked.entry(kid).or_insert(until);
        *known = (*known).max(until);
    }
    // Who is left out here keeps what was proven: an issuer may drop a principal whose lower
    // credentials have all ended.
    for lowest in &statement.lowest {
        lost |= known.raise_lowest(lowest);
    }
    for (group, epoch) in &statement.groups {
        let known = known.groups.entry(group.clone()).or_insert(*epoch);
        lost |= *epoch < *known;
        *known = (*known).max(*epoch);
    }
    while known.revoked.len() > MAX_STICKY {
        known.forget_one_left_out(statement);
    }
    let issued_at = known.held.map_or(0, |held| held.issued_at).max(statement.issued_at);
    let Statement { epoch, not_after, .. } = *statement;
    known.held = Some(Held { epoch, issued_at, not_after, digest });
    (known, if lost { Applied::MovedWithLoss } else { Applied::Moved })
}

impl Known {
    /// The newest verified statement.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Its epoch; 0 without one.
    pub fn epoch(&self) -> u64 {
        self.held.map_or(0, |held| held.epoch)
    }

    /// Whether the statement that is held is current at `now`, with the skew of clocks, all in
    /// seconds. An agent acts on a component's message only while it is.
    pub fn is_current(&self, now: u64, skew: u64) -> bool {
        self.held.is_some_and(|held| now < held.not_after.saturating_add(skew))
    }

    /// An agent's time: its own clock's, but never before the newest statement was made. Seconds.
    pub fn time(&self, local: u64) -> u64 {
        self.held.map_or(local, |held| local.max(held.issued_at))
    }

    /// The epoch that `group` has to have; `None` if no statement named it.
    pub fn group_epoch(&self, group: &GroupName) -> Option<u32> {
        self.groups.get(group).copied()
    }

    /// Whether `kid` is revoked.
    pub fn is_revoked(&self, kid: &Kid) -> bool {
        self.revoked.contains_key(kid)
    }

    /// Judges a key (step 4 of protocol section 9, on every message).
    pub fn judge(&self, subject: &Subject) -> Result<(), Refusal> {
        if self.is_revoked(&subject.kid) {
            return Err(Refusal::Revoked);
        }
        let Some(lowest) = self.lowest.get(&subject.party.principal) else { return Ok(()) };
        let epoch = match subject.key {
            SubjectKey::Credential(epoch) => (epoch, lowest.credential_epoch),
            SubjectKey::Pair(epoch) => (epoch, lowest.pair_epoch),
        };
        let stale = subject.party.incarnation < lowest.incarnation
            || (subject.party.incarnation == lowest.incarnation && epoch.0 < epoch.1);
        if stale { Err(Refusal::EpochStale) } else { Ok(()) }
    }

    /// Takes in what is higher; whether anything was lower. Epochs belong to an incarnation, so a
    /// higher incarnation brings its own.
    fn raise_lowest(&mut self, new: &Lowest) -> bool {
        let Some(known) = self.lowest.get_mut(&new.principal) else {
            self.lowest.insert(new.principal.clone(), new.clone());
            return false;
        };
        if new.incarnation > known.incarnation {
            *known = new.clone();
            return false;
        }
        if new.incarnation < known.incarnation {
            return true;
        }
        let lost =
            new.credential_epoch < known.credential_epoch || new.pair_epoch < known.pair_epoch;
        known.credential_epoch = known.credential_epoch.max(new.credential_epoch);
        known.pair_epoch = known.pair_epoch.max(new.pair_epoch);
        lost
    }

    /// Bounds memory against an issuer that forgets: what it lists itself is never dropped.
    fn forget_one_left_out(&mut self, statement: &Statement) {
        let listed = |kid: &Kid| statement.revoked.binary_search_by_key(kid, |r| r.kid).is_ok();
        let soonest = self.revoked.iter().filter(|(kid, _)| !listed(kid)).min_by_key(|(_, u)| **u);
        if let Some(kid) = soonest.map(|(kid, _)| *kid) {
            self.revoked.remove(&kid);
        }
    }
}
