//! A queue service with Zaqar's v2 API.
//!
//! ```text
//! bulla_http::Listener ─► router ─► caller: project, rights ─► routes ─► Store
//! ```
//!
//! [`router`] serves a [`Service`]: queues of projects, messages with a time to live, and claims by
//! which competing consumers share them. What the listener found out about who asks is all that is
//! believed; every look-up is by project, queue and id together, so that somebody else's id is not
//! found. A [`Store`] keeps the messages; [`SqliteQueues`] is one in a file.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use bulla_queue::{Service, SqliteQueues, router};
//! # async fn serve(listener: bulla_http::Listener, now: u64) -> Result<(), bulla_queue::StoreError> {
//! let store = SqliteQueues::open("/var/lib/bulla/queue.db", now).await?;
//! let service = Arc::new(Service::new(Arc::new(store)));
//! listener.serve(router(service), tokio_util::sync::CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```

mod address;
mod arrivals;
mod caller;
#[cfg(feature = "conformance")]
pub mod conformance;
mod date;
mod fault;
mod grant;
mod hooks;
mod id;
mod json;
mod limits;
mod metadata;
mod name;
mod once;
mod open;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod quota;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod recent;
mod record;
#[cfg(feature = "redis")]
mod redis;
mod require;
mod rest;
mod retry;
mod routes;
mod service;
mod spread;
mod sqlite;
mod store;
mod subscription;

#[cfg(feature = "postgres")]
pub use self::postgres::{PostgresOptions, PostgresQueues};
#[cfg(feature = "redis")]
pub use self::redis::{RedisOptions, RedisQueues};
pub use caller::{AgentMay, AgentRule, PUBLIC};
pub use fault::Fault;
pub use grant::{GrantError, Grants, HEADERS as GRANT_HEADERS};
pub use hooks::Webhooks;
pub use id::Id;
pub use limits::Limits;
pub use metadata::{DeadLetter, Patch, PatchFault, Settings};
pub use name::{ClientId, Place};
pub use once::{Once, Posted};
pub use open::StoreAddress;
pub use pool::{Flavor, Pool};
pub use quota::Quota;
pub use record::{Before, NEVER, Record, RecordKind};
pub use require::Require;
pub use rest::{EncryptedQueues, Plain, RestKey};
pub use routes::{openapi, router};
pub use service::Service;
pub use spread::{Pool as StorePool, Progress, SPREAD_KEY, SpreadKey, SpreadQueues};
pub use sqlite::SqliteQueues;
pub use store::{
    Claim, ClaimTerms, Deletion, Doomed, Heard, Holding, Listed, Listing, Message, Metadata,
    Millis, NewMessage, Page, QueuePage, Stats, Store, StoreError,
};
