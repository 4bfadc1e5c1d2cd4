//! What a keystore does on every database.

mod access_keys;
mod access_keys_of_users;
mod at_rest;
mod concurrency;
mod enrolment;
mod floors;
mod incarnations;
mod kek;
mod keystore;
mod life;
mod policies;
mod revocation;
mod rights;
mod roots;
mod rotation;
mod schema;
