//! Enrolment over the bus (protocol section 10), both ends: an agent with a join file asks
//! ([`join`]), and the control plane answers ([`EnrolServer`]).
//!
//! This is the one door that a stranger may knock at. A request is a message of its own kind, on a
//! topic of its own, and has no part in sessions: `bulla_seal::enrol` says what is in it. What is
//! not in order is counted and not answered, like everywhere.

mod gate;
mod join;
mod serve;

pub use join::{JoinError, join};
pub use serve::{EnrolServer, Enroller, Refused, Verdict};

/// The topic of requests to join.
pub const TOPIC: &str = "enrol.control";
