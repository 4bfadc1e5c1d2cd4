//! What a receiver remembers, so that nothing runs twice.
//!
//! To a receiver, a broker's redelivery and an attacker's replay are the same bytes, and the
//! flag that would tell them apart is the attacker's to set. So they are not told apart: accepting
//! a message is a *claim* in state that the broker cannot write (protocol section 7). The first
//! copy is granted to one worker; every other copy is held, answered again byte for byte, taken
//! over, or refused.
//!
//! # What it is
//!
//! - [`claim`]: the state machine as plain functions of state and event. No I/O, no clock; the
//!   stores only persist what it decides.
//! - [`ClaimStore`]: the trait that a receiving pipeline is written against.
//! - [`MemoryClaims`]: forgets with its process, and therefore refuses what was issued before it
//!   started.
//! - [`LogClaims`]: the same with a log in a file; survives a kill without waiting for the disk,
//!   and after its machine went down refuses what it may have forgotten.
#![cfg_attr(
    feature = "sqlite",
    doc = "- [`SqliteClaims`]: a file, on disk before a claim or completion returns; survives a kill."
)]
#![cfg_attr(
    feature = "redis",
    doc = "- [`RedisClaims`]: shared by hosts, one round trip a claim, by Redis's clock."
)]
#![cfg_attr(
    any(feature = "mariadb", feature = "postgres"),
    doc = "- [`SqlClaims`]: shared by hosts in PostgreSQL or MariaDB, by the database's clock."
)]
//! - `conformance` (feature of that name): what every store must do.
//!
//! # What it is not
//!
//! It verifies nothing: sender, id, digest, `iat` and `exp` of a [`ClaimRequest`] must come from a
//! message that was opened and authorised (protocol section 9, steps 1 to 9). It seals nothing:
//! replies come in sealed and go out as they came. Memory, log and SQLite are not shared between machines:
//! several consumers of one queue on several machines need a store that is
//! ([`ClaimStore::is_shared`]), behind the features `redis`, `postgres` and `mariadb`.
//!
//! # Times
//!
//! Fields that end in `_ms` are Unix milliseconds (or milliseconds), `iat`, `exp` and what ends
//! in `_s` are Unix seconds (or seconds), as in the header of a message.
//!
//! # Example
//!
//! ```
//! use bulla_guard::*;
//! use bulla_seal::{Digest, MessageId, Party, Principal};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The in-memory bus was born with this process, so nothing can have been received before.
//! let store = MemoryClaims::for_new_bus(StoreOptions::default());
//!
//! let me = Party::new(Principal::agent("db-1")?, 1);
//! let sender = Party::new(Principal::component("control")?, 1);
//! let key = ClaimKey::new(Scope::server(&me, "guestagent", "db-1"), sender, MessageId([7; 16]));
//! let request = ClaimRequest {
//!     key: key.clone(),
//!     digest: Digest([1; 32]), // of the envelope
//!     iat: 1_800_000_000,
//!     exp: 1_800_000_060,
//!     idempotent: false,
//!     worker: Worker(0x5eed), // random, new at every start
//!     now_ms: 1_800_000_000_000,
//!     lease_ms: 60_000,
//!     envelope: None,
//! };
//!
//! let ClaimOutcome::Granted(grant) = store.claim(request.clone()).await? else {
//!     unreachable!("the first copy is granted");
//! };
//! // ... run the method, seal its reply, and only then:
//! let reply = Reply::new("sealed".into());
//! let completion = Completion::Done { reply: Some(reply.clone()) };
//! assert_eq!(store.complete(&key, grant, completion).await?, Completed::Stored);
//!
//! // Every later copy gets the same bytes, and nothing runs.
//! assert_eq!(
//!     store.claim(request).await?,
//!     ClaimOutcome::Duplicate(Duplicate::Done { reply: Some(reply) })
//! );
//! # Ok(())
//! # }
//! ```
//!
//! # How a pipeline uses it
//!
//! | answer | run | send | acknowledge |
//! |---|---|---|---|
//! | [`ClaimOutcome::Granted`] | yes, and [extend](ClaimStore::extend) the lease while it runs | the reply, after [`Completed::Stored`]; nothing after [`Completed::Lost`] | then |
//! | [`Duplicate::Held`] | no | nothing | no: ask again when the lease ends |
//! | [`Duplicate::Done`] | no | the stored reply; without its bytes a sealed "done, result not held"; nothing for a cast | yes |
//! | [`Duplicate::InDoubt`] | no | the stored error; if none, seal one and send what [`ClaimStore::answer_in_doubt`] returns | yes |
//! | [`ClaimOutcome::Refused`] | no | nothing; count [`Refused::as_str`] | yes |
//! | [`StoreError`] | no | nothing | no |
//!
//! A policy denial of a method that is not read-only is a claim like any other, completed with
//! the sealed denial. A claim whose future is dropped before it returns may have been granted: it
//! ends as any claim whose worker was lost.

#[cfg(feature = "address")]
mod address;
#[cfg(feature = "sqlx")]
mod batch;
mod cbor;
pub mod claim;
mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod counters;
pub mod floor;
#[cfg(any(feature = "redis", feature = "sqlx"))]
#[doc(hidden)]
pub mod fuzzing;
mod key;
mod log;
mod memory;
#[cfg(feature = "redis")]
mod redis;
pub mod revocation;
#[cfg(any(feature = "mariadb", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;

#[cfg(feature = "address")]
pub use address::demanding_tls;
pub use claim::Limits;
pub use clock::ClockWatch;
pub use key::{ClaimKey, Scope, Worker};
pub use log::{LogClaims, LogOptions, WINDOW_MS};
pub use memory::MemoryClaims;
#[cfg(feature = "redis")]
pub use redis::{RedisClaims, RedisOptions};
#[cfg(any(feature = "mariadb", feature = "postgres"))]
pub use sql::{SqlClaims, SqlOptions};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteClaims, SqliteOptions};
pub use store::{
    ClaimOutcome, ClaimRequest, ClaimStore, Completed, Completion, DEFAULT_SKEW_S, Duplicate,
    Expired, Grant, Lost, NewStore, Refused, Reply, Stats, StoreError, StoreOptions, SweepRequest,
    Swept,
};
