//! Floors of peers (protocol section 8): what is below one is refused, and nothing lowers it.
//!
//! Below everything are plain functions of state and event, without I/O or clock:
//!
//! ```text
//! plaintext < aes-cbc < signed < sealed
//!
//! agent:      accepts ──a message that passed step 8──► its level, if higher
//! any peer:   accepts ──the operator raises───────────► the level given, if higher
//! any peer:   target  ──the operator rehearses────────► what would be refused is counted
//! ```
//!
//! No event lowers a record. What is below it is refused, but for what a live [exemption] names:
//! signed by the operator, for one peer and one method, with an end.
//!
//! [`Floors`] is what a receiver asks on each message; a [`FloorStore`] keeps it: in memory, in a
//! file, or wherever the deployment has its tables.
//!
//! [exemption]: bulla_seal::Exemption

mod census;
mod floors;
mod machine;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;

pub use census::{MAX_METHODS, OTHER_METHODS};
pub use floors::{Floors, Peer};
pub use machine::{Action, Event, Judgement, PeerRecord, judge, lowest_passable, step};
pub use memory::MemoryFloors;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteFloors;
pub use store::{CensusRow, FloorError, FloorStore, unknown_peer};
