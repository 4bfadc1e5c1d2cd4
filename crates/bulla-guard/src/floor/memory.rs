//! Floors that are forgotten with the process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use async_trait::async_trait;
use bulla_seal::{Kid, Level, Party, SignedExemption};
use bytes::Bytes;
use parking_lot::Mutex;

use super::store::unknown_peer;
use super::{Action, CensusRow, Event, FloorError, FloorStore, PeerRecord, step};

/// Records in memory. After a restart every peer is as if nothing was heard of it, and what
/// protects it is the level that the receiver demands of everybody.
#[derive(Default)]
pub struct MemoryFloors(Mutex<State>);

#[derive(Default)]
struct State {
    generation: u64,
    records: HashMap<Party, PeerRecord>,
    exemptions: BTreeMap<Kid, Bytes>,
    census: BTreeMap<(Party, String, Level), CensusRow>,
}

impl MemoryFloors {
    /// Knows nobody yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for MemoryFloors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryFloors({} peers)", self.0.lock().records.len())
    }
}

#[async_trait]
impl FloorStore for MemoryFloors {
    async fn record(&self, peer: &Party) -> Result<Option<PeerRecord>, FloorError> {
        Ok(self.0.lock().records.get(peer).copied())
    }

    async fn apply(&self, peer: &Party, event: Event) -> Result<(PeerRecord, Action), FloorError> {
        let mut state = self.0.lock();
        let record = state.records.get(peer).copied().unwrap_or_else(|| unknown_peer(peer));
        let (record, action) = step(record, event);
        if action != Action::Keep {
            state.records.insert(peer.clone(), record);
            state.generation += 1;
        }
        Ok((record, action))
    }

    async fn records(&self) -> Result<Vec<(Party, PeerRecord)>, FloorError> {
        let state = self.0.lock();
        Ok(state.records.iter().map(|(peer, record)| (peer.clone(), *record)).collect())
    }

    async fn exemptions(&self) -> Result<Vec<Bytes>, FloorError> {
        Ok(self.0.lock().exemptions.values().cloned().collect())
    }

    async fn add_exemption(&self, exemption: &SignedExemption) -> Result<(), FloorError> {
        let mut state = self.0.lock();
        state.exemptions.insert(exemption.id, exemption.as_bytes().clone());
        state.generation += 1;
        Ok(())
    }

    async fn remove_exemption(&self, id: Kid) -> Result<bool, FloorError> {
        let mut state = self.0.lock();
        let was_there = state.exemptions.remove(&id).is_some();
        state.generation += u64::from(was_there);
        Ok(was_there)
    }

    async fn generation(&self) -> Result<u64, FloorError> {
        Ok(self.0.lock().generation)
    }

    async fn add_census(&self, rows: &[CensusRow]) -> Result<(), FloorError> {
        let mut state = self.0.lock();
        for row in rows {
            let key = (row.peer.clone(), row.method.clone(), row.level);
            match state.census.get_mut(&key) {
                Some(known) => known.add(row),
                None => drop(state.census.insert(key, row.clone())),
            }
        }
        Ok(())
    }

    async fn census(&self) -> Result<Vec<CensusRow>, FloorError> {
        Ok(self.0.lock().census.values().cloned().collect())
    }
}
