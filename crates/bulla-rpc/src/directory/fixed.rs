//! A directory with nothing to ask: what a key file gave, or a test.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bulla_seal::{GroupKey, GroupName, Kid, Principal, SignedCredential, TrustStore, UnixTime};
use parking_lot::RwLock;

use super::{Directory, DirectoryError, PairKey, PeerKeys};

/// What a key file holds: fixed peers, nothing to ask. Also the cache of what was learned.
#[derive(Debug, Default)]
pub struct StaticDirectory {
    entries: RwLock<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    peers: HashMap<Principal, PeerKeys>,
    credentials: HashMap<Principal, Arc<SignedCredential>>,
    kids: HashMap<Kid, PairKey>,
    groups: HashMap<GroupName, HashMap<u32, GroupKey>>,
}

impl StaticDirectory {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a peer's credential after verifying it as of `now`.
    pub fn add_credential(
        &self,
        trust: &TrustStore,
        credential: &[u8],
        now: UnixTime,
    ) -> Result<Arc<SignedCredential>, bulla_seal::Refusal> {
        let credential = Arc::new(trust.verify(credential, now)?);
        self.add_peer(credential.clone());
        Ok(credential)
    }

    /// Adds a verified credential with a KEM key.
    pub fn add_peer(&self, credential: Arc<SignedCredential>) {
        let principal = credential.party.principal.clone();
        let mut entries = self.entries.write();
        entries.credentials.insert(principal.clone(), credential.clone());
        entries.peers.insert(principal, PeerKeys::Pair(credential));
    }

    /// Adds a pair key.
    pub fn add_pair(&self, pair: PairKey) {
        let mut entries = self.entries.write();
        entries.kids.insert(pair.kid, pair.clone());
        entries.peers.insert(pair.peer.principal.clone(), PeerKeys::Shared(pair));
    }

    /// Adds a group's key.
    pub fn add_group_key(&self, key: GroupKey) {
        let mut entries = self.entries.write();
        entries.groups.entry(key.group.clone()).or_default().insert(key.epoch, key);
    }

    /// A peer's credential, also where a pair key is what it is sealed to with.
    pub fn credential(&self, peer: &Principal) -> Option<Arc<SignedCredential>> {
        self.entries.read().credentials.get(peer).cloned()
    }

    /// Every peer with how to seal to it.
    pub(super) fn peers(&self) -> Vec<(Principal, PeerKeys)> {
        self.entries.read().peers.iter().map(|(name, keys)| (name.clone(), keys.clone())).collect()
    }

    /// Forgets a peer, so that it is asked for again.
    pub fn forget(&self, peer: &Principal) {
        let mut entries = self.entries.write();
        entries.peers.remove(peer);
        entries.credentials.remove(peer);
    }
}

#[async_trait]
impl Directory for StaticDirectory {
    async fn peer(&self, peer: &Principal) -> Result<Option<PeerKeys>, DirectoryError> {
        Ok(self.entries.read().peers.get(peer).cloned())
    }

    async fn pair_by_kid(&self, kid: Kid) -> Result<Option<PairKey>, DirectoryError> {
        Ok(self.entries.read().kids.get(&kid).cloned())
    }

    async fn group_key(
        &self,
        group: &GroupName,
        epoch: Option<u32>,
    ) -> Result<Option<GroupKey>, DirectoryError> {
        let entries = self.entries.read();
        let Some(epochs) = entries.groups.get(group) else { return Ok(None) };
        Ok(match epoch {
            Some(epoch) => epochs.get(&epoch),
            None => epochs.values().max_by_key(|key| key.epoch),
        }
        .cloned())
    }

    async fn groups(&self) -> Result<Vec<GroupName>, DirectoryError> {
        Ok(self.entries.read().groups.keys().cloned().collect())
    }
}
