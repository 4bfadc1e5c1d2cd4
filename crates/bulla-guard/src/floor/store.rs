//! Where records, exemptions and the census are kept.

use std::fmt;

use async_trait::async_trait;
use bulla_seal::{Kid, Level, Party, SignedExemption};
use bytes::Bytes;
use thiserror::Error;

use super::{Action, Event, PeerRecord};

/// Floors could not be read or written. Nothing is accepted on the strength of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the store of floors {place} failed: {why}; no message is acted on until it works again")]
pub struct FloorError {
    /// A file, a database.
    pub place: String,
    /// What the system said.
    pub why: String,
}

/// What was seen of one peer, method and level, since the row was made or last taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CensusRow {
    /// Whose messages.
    pub peer: Party,
    /// `namespace.method`; [`OTHER_METHODS`](super::OTHER_METHODS) for what had no row of its own.
    pub method: String,
    /// Their level.
    pub level: Level,
    /// How many were accepted.
    pub count: u64,
    /// When the last came, in Unix seconds.
    pub last: u64,
    /// How many of them were below a rehearsed floor, or let through by an exemption.
    pub below: u64,
    /// When the last of those came, in Unix seconds; 0 for never.
    pub last_below: u64,
}

impl CensusRow {
    /// Adds what was seen later, or elsewhere, of the same.
    pub fn add(&mut self, more: &Self) {
        self.count = self.count.saturating_add(more.count);
        self.last = self.last.max(more.last);
        self.below = self.below.saturating_add(more.below);
        self.last_below = self.last_below.max(more.last_below);
    }
}

/// Keeps what a receiver knows of its peers' levels. Several processes may share one: what one
/// raises counts for all.
#[async_trait]
pub trait FloorStore: Send + Sync + fmt::Debug + 'static {
    /// A peer's record; `None` if nothing was heard of it.
    async fn record(&self, peer: &Party) -> Result<Option<PeerRecord>, FloorError>;

    /// Reads, [steps](super::step) and writes a record as one; what it returns is kept.
    async fn apply(&self, peer: &Party, event: Event) -> Result<(PeerRecord, Action), FloorError>;

    /// Every record.
    async fn records(&self) -> Result<Vec<(Party, PeerRecord)>, FloorError>;

    /// Every exemption as signed. Who reads them verifies them.
    async fn exemptions(&self) -> Result<Vec<Bytes>, FloorError>;

    /// Keeps an exemption.
    async fn add_exemption(&self, exemption: &SignedExemption) -> Result<(), FloorError>;

    /// Takes an exemption back; whether it was there.
    async fn remove_exemption(&self, id: Kid) -> Result<bool, FloorError>;

    /// Another number whenever records or exemptions changed, by whomever.
    async fn generation(&self) -> Result<u64, FloorError>;

    /// Adds to the census.
    async fn add_census(&self, rows: &[CensusRow]) -> Result<(), FloorError>;

    /// The census.
    async fn census(&self) -> Result<Vec<CensusRow>, FloorError>;
}

/// A record before anything was heard of its peer: what demands more is the receiver's own
/// setting, and that it *sends* sealed is the default of the deployment.
pub fn unknown_peer(peer: &Party) -> PeerRecord {
    PeerRecord::new(peer.principal.kind(), Level::Plaintext, Level::Sealed)
}
