//! Where keys of peers come from.

mod fixed;
mod lookups;
mod remote;
pub mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use bulla_seal::{GroupKey, GroupName, Kid, Party, Principal, Secret, SignedCredential};
use thiserror::Error;

pub use fixed::StaticDirectory;
pub use lookups::{LookupLimits, Lookups};
pub use remote::RemoteDirectory;

/// The key that this process shares with one peer (shared-key agents only).
#[derive(Debug, Clone)]
pub struct PairKey {
    /// Its name on the wire.
    pub kid: Kid,
    /// The key.
    pub key: Secret<32>,
    /// The peer.
    pub peer: Party,
    /// The pair epoch.
    pub epoch: u32,
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

    /// What was found of `peer` is no longer good, and must not answer the next question. For
    /// directories that keep what they found.
    fn expire(&self, peer: &Principal) {
        let _ = peer;
    }

    /// The control plane's newest credential, verified, as it came along with an answer of its. For
    /// directories that know it from a key file and never ask about it.
    fn learn(&self, credential: Arc<SignedCredential>) {
        let _ = credential;
    }

    /// The groups that this process should listen to.
    async fn groups(&self) -> Result<Vec<GroupName>, DirectoryError>;

    /// The groups that a peer is a member of, for policies that speak of groups; none of a peer that
    /// does not exist.
    async fn groups_of(&self, peer: &Principal) -> Result<Vec<GroupName>, DirectoryError> {
        Err(DirectoryError(format!("this directory does not know which groups {peer} is in")))
    }
}
