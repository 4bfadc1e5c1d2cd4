//! Bulla's state machines under a model checker. The transition functions are not modelled: they
//! are those of `bulla_guard`, called as a store calls them. What is modelled is everything around
//! them: workers that compete, crash and stand still, a broker that redelivers, drops and replays,
//! a clock that goes on, an operator who moves a fleet from one level to the next.
//!
//! Each model has *twins*: the same with one rule of the machine broken in a wrapper. A twin that
//! the checker does not find out would mean that the property says nothing.

pub mod check;
pub mod claims;
pub mod floors;

pub use check::{Outcome, check, find};

/// How much of a model is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Seconds: with every test run.
    Small,
    /// Minutes.
    Full,
}
