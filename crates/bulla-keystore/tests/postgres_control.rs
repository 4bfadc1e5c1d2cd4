//! The keystore on PostgreSQL, with the role of the control plane.
#![cfg(feature = "postgres")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;
/// What a control plane does.
mod suite {
    mod access_keys_of_users;
    mod concurrency;
    mod enrolment;
    mod floors;
    mod incarnations;
    mod kek;
    mod keystore;
    mod policies;
    mod revocation;
    mod rotation;
}

const DATABASE: common::Database = common::Database::Postgres;
/// Whether tests use the keystore with the control plane's role, and not as the tables' owner.
const AS_CONTROL: bool = true;
