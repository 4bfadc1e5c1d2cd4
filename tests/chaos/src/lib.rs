//! Numbered calls that must not run twice, over real servers that are killed, restarted and cut
//! off meanwhile, counted exactly.
//!
//! A caller, two worker processes that share a claim store, and a record of executions that is
//! none of Bulla's: each worker appends the number that it runs to a file of its own, and syncs
//! it. At the end the numbers in these files are compared with what the caller was told: no call
//! may have run twice, and none may be lost without its caller being told.

mod caller;
mod deployment;
mod dice;
mod faults;
mod fleet;
mod fuse;
mod progress;
mod report;
mod run;
mod settings;
mod tally;
mod worker;

pub use report::{Report, json, table};
pub use run::{Plan, Run};
pub use tally::Tally;
pub use worker::work;

/// Why a run could not be made. That a run went badly is in its [`Tally`].
pub type Failed = Box<dyn std::error::Error + Send + Sync>;
