//! The attack suite: everything that somebody who owns the broker, or one agent's keys, may try
//! against a deployment, as rows with stable ids, and the oracle that tells whether any of it
//! worked.
//!
//! A row is played in a deployment of its own ([`World`]), on a real transport, for each key type
//! and each kind of message where it has a meaning ([`Cell`]). It holds only if the attack had no
//! effect *and* the expected refusal was counted *and* nothing was answered beyond what protocol
//! section 9 allows *and* honest calls still work.
//!
//! Each row names the checks that stand in its way. In the test build of the mutants those can be
//! switched off, and the attack must get through then: a row that can't fail proves nothing.

pub mod bus;
mod cell;
pub mod live;
mod page;
mod report;
mod row;
pub mod rows;
mod suite;
mod trouble;
pub mod wire;
pub mod world;

pub use bus::Bus;
pub use cell::{Cell, KeyType, Kind};
pub use page::page;
pub use report::{CellReport, LiveReport, Report, RowReport, Verdict};
pub use row::{Group, Row, Seen, Trial};
pub use rows::ROWS;
pub use suite::{Settings, play, run};
pub use trouble::Trouble;
pub use world::World;
