//! The keystore on a SQLite file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;
mod suite;

const DATABASE: common::Database = common::Database::Sqlite;
/// Whether tests use the keystore with the control plane's role, and not as the tables' owner.
const AS_CONTROL: bool = false;
