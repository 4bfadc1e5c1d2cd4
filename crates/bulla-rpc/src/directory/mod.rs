//! Where keys of peers come from.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bulla_seal::{
    GroupKey, GroupName, Kid, Party, Principal, Secret, SignedCredential, TrustStore, UnixTime,
};
use parking_lot::RwLock;
use thiserror::Error;

/// The key that this process shares with one peer (shared-key agents only).
#[derive(Debug, Clone)]
pub struct PairKey {
    /// Its name on the wire.
    pub kid: Kid,
    /// The key.
    pub key: Secret<32>,
    /// The peer.
    pub peer: Party,
}

/// How to seal to a peer.
#[derive(Debug, Clone)]
pub enum PeerKeys {
    /// A verified credential with a KEM key.
    Pair(Arc<SignedCredential>),
    /// A pair key.
    Shared(PairKey),
}

/// The directory can't answer just now.
#[derive(Debug, Clone, Error)]
#[error("the directory can't be asked: {0}")]
pub struct DirectoryError(pub String);

/// Looks up peers' keys. What comes back for a key pair is a credential that was verified under
/// the root, so the directory itself need not be trusted for it.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// How to seal to `peer`; `None` if there is no such principal.
    async fn peer(&self, peer: &Principal) -> Result<Option<PeerKeys>, DirectoryError>;

    /// The pair key with this name; `None` if this process holds none.
    async fn pair_by_kid(&self, kid: Kid) -> Result<Option<PairKey>, DirectoryError>;

    /// A group's key: of `epoch`, or the newest. `None` if this process is no member.
    async fn group_key(
        &self,
        group: &GroupName,
        epoch: Option<u32>,
    ) -> Result<Option<GroupKey>, DirectoryError>;

    /// The groups that this process should listen to.
    async fn groups(&self) -> Result<Vec<GroupName>, DirectoryError>;
}

/// What a key file holds: fixed peers, nothing to ask. Also the cache of what was learned.
#[derive(Debug, Default)]
pub struct StaticDirectory {
    entries: RwLock<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    peers: HashMap<Principal, PeerKeys>,
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
        self.entries.write().peers.insert(principal, PeerKeys::Pair(credential));
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

    /// Forgets a peer, so that it is asked for again.
    pub fn forget(&self, peer: &Principal) {
        self.entries.write().peers.remove(peer);
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
