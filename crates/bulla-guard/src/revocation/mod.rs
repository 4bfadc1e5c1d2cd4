//! What a receiver knows of revocation, as plain functions: no I/O, no clock (protocol section
//! 10).
//!
//! Only a verified statement moves it, and only upwards: whatever arrives, in whatever order,
//! epochs never fall and a revoked kid stays refused. Numbers in headers move nothing.

mod known;
#[cfg(test)]
mod tests;

pub use known::{Applied, Held, Known, MAX_STICKY, Subject, SubjectKey, apply};
