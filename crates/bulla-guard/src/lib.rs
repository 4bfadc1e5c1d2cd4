//! What a receiver remembers, so that nothing runs twice.

mod cbor;
pub mod claim;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod counters;
mod key;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;

pub use claim::Limits;
pub use key::{ClaimKey, Scope, Worker};
pub use memory::{MemoryClaims, StoreOptions};
#[cfg(feature = "sqlite")]
pub use sqlite::{NewFile, SqliteClaims, SqliteOptions};
pub use store::{
    ClaimOutcome, ClaimRequest, ClaimStore, Completed, Completion, DEFAULT_SKEW_S, Duplicate,
    Expired, Grant, Lost, Refused, Reply, Stats, StoreError, SweepRequest, Swept,
};
