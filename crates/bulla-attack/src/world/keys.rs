//! Where the parties of a world look up each other's keys, and how often they ask.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bulla_rpc::{Directory, DirectoryError, PairKey, PeerKeys, StaticDirectory};
use bulla_seal::{GroupKey, GroupName, Kid, Principal};
use parking_lot::Mutex;

/// One party's directory: what it was given, and counts of what it was asked.
#[derive(Debug, Default)]
pub struct Keys {
    known: StaticDirectory,
    pairs: Mutex<Vec<PairKey>>,
    removed: Mutex<HashSet<Kid>>,
    lookups: AtomicU64,
}

impl Keys {
    /// What it knows.
    pub fn known(&self) -> &StaticDirectory {
        &self.known
    }

    /// Takes a pair key away: its agent is gone.
    pub fn remove(&self, kid: Kid) {
        self.removed.lock().insert(kid);
    }

    /// Where every agent has the same key, any will do.
    #[cfg(bulla_mutants)]
    fn any(&self, kid: Kid) -> Option<PairKey> {
        use bulla_seal::mutants::{Check, off};
        let any = self.pairs.lock().first().cloned()?;
        off(Check::KeyPerAgent).then_some(PairKey { kid, ..any })
    }

    /// The key ids of its pair keys.
    pub fn kids(&self) -> Vec<Kid> {
        self.pairs.lock().iter().map(|pair| pair.kid).collect()
    }

    /// Adds a pair key.
    pub fn add_pair(&self, pair: PairKey) {
        self.pairs.lock().push(pair.clone());
        self.known.add_pair(pair);
    }

    /// How often a key id was looked up.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Directory for Keys {
    async fn peer(&self, peer: &Principal) -> Result<Option<PeerKeys>, DirectoryError> {
        self.known.peer(peer).await
    }

    async fn pair_by_kid(&self, kid: Kid) -> Result<Option<PairKey>, DirectoryError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        if self.removed.lock().contains(&kid) {
            return Ok(None);
        }
        let found = self.known.pair_by_kid(kid).await?;
        #[cfg(bulla_mutants)]
        if found.is_none() {
            return Ok(self.any(kid));
        }
        Ok(found)
    }

    async fn group_key(
        &self,
        group: &GroupName,
        epoch: Option<u32>,
    ) -> Result<Option<GroupKey>, DirectoryError> {
        self.known.group_key(group, epoch).await
    }

    async fn groups(&self) -> Result<Vec<GroupName>, DirectoryError> {
        self.known.groups().await
    }
}
