//! The life of a claim as plain functions of state and event: no I/O, no clock. Every store
//! drives these, and so can a model checker.
//!
//! ```text
//! absent ─claim─► claimed(worker, lease, attempt) ─complete─► done(reply)
//!                   │  ▲ └─lease over, idempotent: attempt + 1
//!                   │  └───────────────────────────┘
//!                   └─lease over, anything else─► in-doubt(error)
//! ```

mod gate;
mod machine;
#[cfg(test)]
mod tests;

pub use gate::{Admitted, Gate, Limits, Usage};
pub use machine::{Action, Event, Lease, Record, State, step};
