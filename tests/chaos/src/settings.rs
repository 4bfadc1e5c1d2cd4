//! What a worker process is told, on its standard input: addresses hold passwords.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One worker process.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) key_file: PathBuf,
    pub(crate) bus: String,
    pub(crate) claims: ClaimsAt,
    /// The folder of its record of executions.
    pub(crate) records: PathBuf,
    /// Whether queues are replicated.
    pub(crate) replicated: bool,
    pub(crate) lease_ms: u64,
    pub(crate) death: Option<Death>,
}

/// Which claim store the workers share.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum ClaimsAt {
    Redis(String),
    Postgres(String),
    /// Each its own, in memory, which it says is shared: what must be found out.
    Nowhere,
}

/// Where a worker kills itself, and at which passing.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Death {
    pub(crate) point: Point,
    pub(crate) passing: u64,
}

/// Points on a message's way through a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Point {
    /// The broker delivered it.
    Received,
    /// It passed every check and is about to be claimed.
    Claiming,
    /// The claim is granted.
    Claimed,
    /// It ran, and its record is on disk.
    Executed,
    /// Its outcome is in the claim store.
    Completed,
    /// Its reply was handed to the broker.
    Replied,
    /// It was acknowledged.
    Acknowledged,
}

impl Point {
    pub(crate) const ALL: [Self; 7] = [
        Self::Received,
        Self::Claiming,
        Self::Claimed,
        Self::Executed,
        Self::Completed,
        Self::Replied,
        Self::Acknowledged,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Claiming => "claiming",
            Self::Claimed => "claimed",
            Self::Executed => "executed",
            Self::Completed => "completed",
            Self::Replied => "replied",
            Self::Acknowledged => "acknowledged",
        }
    }
}
