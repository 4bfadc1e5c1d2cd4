//! What a keystore does on every database.

mod at_rest;
mod concurrency;
mod incarnations;
mod keystore;
mod revocation;
mod rotation;
mod schema;
