//! The floor of each peer as plain functions of state and event: no I/O, no clock (protocol
//! section 8).
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
//! [exemption]: bulla_seal::Exemption

mod machine;
#[cfg(test)]
mod tests;

pub use machine::{Action, Event, Judgement, PeerRecord, judge, lowest_passable, step};
