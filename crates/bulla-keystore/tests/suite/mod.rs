//! What a keystore does on every database.

mod at_rest;
mod concurrency;
mod enrolment;
mod floors;
mod incarnations;
mod kek;
mod keystore;
mod revocation;
mod rotation;
mod schema;
