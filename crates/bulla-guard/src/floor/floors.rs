//! What a process knows of its peers' floors: the records in use, over the store that keeps them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use bulla_seal::{Exemption, Level, Party, PrincipalKind};
use parking_lot::{Mutex, RwLock};

use super::census::Seen;
use super::store::unknown_peer;
use super::{
    Action, CensusRow, Event, FloorError, FloorStore, Judgement, PeerRecord, judge, lowest_passable,
};

/// Peers kept in memory; past it, those that nobody uses go.
const MAX_PEERS: usize = 50_000;

/// The floors of all peers, read through to a store.
pub struct Floors {
    store: Arc<dyn FloorStore>,
    peers: RwLock<HashMap<Party, Arc<Peer>>>,
    exemptions: RwLock<Arc<[Exemption]>>,
    generation: AtomicU64,
}

/// One peer in use. Keep it with the peer's sessions: what is asked on every message costs no
/// look-up then.
pub struct Peer {
    party: Party,
    /// The record's floor again, for the fast path.
    accepts: AtomicU8,
    /// Whether the record has a target.
    rehearses: AtomicU8,
    record: Mutex<PeerRecord>,
    seen: Mutex<Seen>,
}

impl Peer {
    fn new(party: Party, record: PeerRecord) -> Self {
        let peer = Self {
            party,
            accepts: AtomicU8::new(0),
            rehearses: AtomicU8::new(0),
            record: Mutex::new(record),
            seen: Mutex::default(),
        };
        peer.set(record);
        peer
    }

    /// Whose record.
    pub fn party(&self) -> &Party {
        &self.party
    }

    /// The record.
    pub fn record(&self) -> PeerRecord {
        *self.record.lock()
    }

    /// Takes over a record from the store. A floor that rose here meanwhile stays.
    fn set(&self, record: PeerRecord) {
        let mut own = self.record.lock();
        let accepts = own.accepts.max(record.accepts);
        *own = PeerRecord { accepts, sends: own.sends.max(record.sends), ..record };
        own.target = record.target.filter(|target| *target > accepts);
        self.accepts.store(accepts.to_wire(), Ordering::Release);
        self.rehearses.store(u8::from(own.target.is_some()), Ordering::Release);
    }

    /// Whether nothing is to be asked about a message of this level at a place that demands
    /// `least`: it is at both floors, and no rise is rehearsed.
    fn is_plain(&self, level: Level, least: Level) -> bool {
        level >= least
            && level.to_wire() >= self.accepts.load(Ordering::Acquire)
            && self.rehearses.load(Ordering::Acquire) == 0
    }

    /// Notes a message that was accepted.
    pub fn note(&self, method: &str, level: Level, now: u64, judgement: Judgement) {
        let below = matches!(judgement, Judgement::BelowTarget { .. } | Judgement::Exempt { .. });
        self.seen.lock().note(method, level, now, below);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({}, {:?})", self.party, self.record())
    }
}

impl Floors {
    /// The floors that `store` keeps. Exemptions are not known before the first
    /// [refresh](Self::refresh).
    pub fn new(store: Arc<dyn FloorStore>) -> Self {
        Self {
            store,
            peers: RwLock::default(),
            exemptions: RwLock::new(Arc::new([])),
            generation: AtomicU64::new(u64::MAX),
        }
    }

    /// Where they are kept.
    pub fn store(&self) -> &Arc<dyn FloorStore> {
        &self.store
    }

    /// A peer, from memory or the store.
    pub async fn peer(&self, party: &Party) -> Result<Arc<Peer>, FloorError> {
        if let Some(peer) = self.peers.read().get(party) {
            return Ok(peer.clone());
        }
        let record = self.store.record(party).await?.unwrap_or_else(|| unknown_peer(party));
        let mut peers = self.peers.write();
        if peers.len() >= MAX_PEERS {
            peers.retain(|_, peer| Arc::strong_count(peer) > 1 || !peer.seen.lock().is_clean());
        }
        let peer = || Arc::new(Peer::new(party.clone(), record));
        Ok(peers.entry(party.clone()).or_insert_with(peer).clone())
    }

    /// Whether nothing more is to be asked about a message of this level at a place that demands
    /// `least`.
    pub fn is_plain(&self, peer: &Peer, level: Level, least: Level) -> bool {
        peer.is_plain(level, least)
    }

    /// Whether a message of this level may be for some method that is let through, at a place
    /// that demands `least`: judged before it is opened, when its method is not known. `now` is
    /// in Unix seconds.
    pub fn may_pass(&self, peer: &Peer, level: Level, least: Level, now: u64) -> bool {
        peer.is_plain(level, least) || {
            let exemptions = self.exemptions.read().clone();
            level >= lowest_passable(&at_place(peer, least), &peer.party, &exemptions, now)
        }
    }

    /// Judges a message that was opened.
    pub fn judge(
        &self,
        peer: &Peer,
        method: &str,
        level: Level,
        least: Level,
        now: u64,
    ) -> Judgement {
        if peer.is_plain(level, least) {
            return Judgement::Accept;
        }
        let exemptions = self.exemptions.read().clone();
        judge(&at_place(peer, least), &peer.party, method, level, &exemptions, now)
    }

    /// Whether a message of this level that passes leaves the peer's floor as it is: it is there
    /// already, or the peer is no agent.
    pub fn stays(&self, peer: &Peer, level: Level) -> bool {
        level.to_wire() <= peer.accepts.load(Ordering::Acquire)
            || peer.party.principal.kind() != PrincipalKind::Agent
    }

    /// A message passed: an agent's floor rises to its level. When this returns, that is kept.
    pub async fn passed(&self, peer: &Peer, level: Level) -> Result<Action, FloorError> {
        if self.stays(peer, level) {
            return Ok(Action::Keep);
        }
        self.apply(peer, Event::Passed { level }).await
    }

    /// Anything else that happens to a peer's record.
    pub async fn apply(&self, peer: &Peer, event: Event) -> Result<Action, FloorError> {
        let (record, action) = self.store.apply(&peer.party, event).await?;
        peer.set(record);
        Ok(action)
    }

    /// Takes over what others wrote since, if anything; whether there was. `verify` gives an
    /// exemption that is signed as it should be.
    pub async fn refresh(
        &self,
        verify: impl Fn(&[u8]) -> Option<Exemption>,
    ) -> Result<bool, FloorError> {
        let generation = self.store.generation().await?;
        if self.generation.load(Ordering::Acquire) == generation {
            return Ok(false);
        }
        let signed = self.store.exemptions().await?;
        let exemptions: Vec<Exemption> = signed.iter().filter_map(|bytes| verify(bytes)).collect();
        *self.exemptions.write() = exemptions.into();
        let used: Vec<Arc<Peer>> = self.peers.read().values().cloned().collect();
        // One question where it costs less than many.
        if used.len() > 100 {
            for (party, record) in self.store.records().await? {
                if let Some(peer) = self.peers.read().get(&party) {
                    peer.set(record);
                }
            }
        } else {
            for peer in used {
                if let Some(record) = self.store.record(&peer.party).await? {
                    peer.set(record);
                }
            }
        }
        self.generation.store(generation, Ordering::Release);
        Ok(true)
    }

    /// The exemptions that are known, live or not.
    pub fn exemptions(&self) -> Arc<[Exemption]> {
        self.exemptions.read().clone()
    }

    /// Writes the census down; what fails to be written is kept for the next time.
    pub async fn flush(&self) -> Result<(), FloorError> {
        let used: Vec<Arc<Peer>> = self.peers.read().values().cloned().collect();
        let mut rows: Vec<CensusRow> = Vec::new();
        for peer in &used {
            peer.seen.lock().take(&peer.party, &mut rows);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let written = self.store.add_census(&rows).await;
        if written.is_err() {
            let peers = self.peers.read();
            for row in &rows {
                if let Some(peer) = peers.get(&row.peer) {
                    peer.seen.lock().put_back(row);
                }
            }
        }
        written
    }
}

/// The record as it counts at a place that demands `least` of everybody.
fn at_place(peer: &Peer, least: Level) -> PeerRecord {
    let record = peer.record();
    PeerRecord { accepts: record.accepts.max(least), ..record }
}

impl fmt::Debug for Floors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Floors({:?}, {} peers in use)", self.store, self.peers.read().len())
    }
}
