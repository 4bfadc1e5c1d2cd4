//! Call, cast, fanout: sealed RPC over any transport (protocol sections 3, 4, 6, 7 and 9).
//!
//! # What it is
//!
//! - [`Endpoint`]: one process as one principal on one bus: its [`Identity`], a [`Directory`] of
//!   peers' keys, a transport, a clock, and the sessions in both directions.
//! - [`Client`]: calls with a timeout, progress and cancellation; casts, notifications, fanouts.
//! - [`Server`] with a [`Router`]: async functions as methods, with namespaces and versions
//!   (oslo.messaging's rule), who may call them ([`Access`]) and what running them does
//!   ([`Effect`]).
//!
//! Every message goes through four steps, each of which takes what only the step before makes, so
//! that nothing unverified can reach a handler:
//!
//! ```text
//!  bytes ──► Open ──────────► Authorize ───────► Claim ─────────────► Dispatch ──► sealed reply
//!            frame, session,  method, version,   has not run before:  handler,
//!            times, seal,     policy (default    insert or compare    progress,
//!            where it came    deny)              in state that the    cancellation
//!            from                                broker can't write
//!              │                 │                  │
//!              ▼                 ▼                  ▼
//!            counted and       sealed denial,     held, answered again byte for byte,
//!            acknowledged      as an outcome      taken over, or "outcome unknown"
//!            away, unanswered
//! ```
//!
//! # What it is not
//!
//! It seals nothing itself (`bulla-seal` does), carries nothing (`bulla-transport`), and remembers
//! nothing of its own that must outlive the process (`bulla-guard`). It makes no order between
//! messages, and a timeout says nothing about what the peer did: a call that timed out may have
//! run, once.
//!
//! # Example
//!
//! ```
//! # use std::sync::Arc;
//! # use std::time::Duration;
//! # use bulla_seal::*;
//! use bulla_guard::{MemoryClaims, StoreOptions};
//! use bulla_rpc::*;
//! use bulla_transport::memory::MemoryBus;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut random = OsRandom::default();
//! # let now = SystemClock.now().secs();
//! # let valid = |days: u64| Validity { not_before: now - 60, not_after: now + days * 86_400 };
//! # let domain = TrustDomain::new("bulla.example")?;
//! # let root = SigningKey::generate(&mut random)?;
//! # let mut trust = TrustStore::new(domain.clone(), root.verifying_key());
//! # let issuer_key = SigningKey::generate(&mut random)?;
//! # let issuer = IssuerCredential {
//! #     kid: Kid([1; 8]), domain, right: IssuerRight::Components,
//! #     key: issuer_key.verifying_key(), validity: valid(2),
//! # };
//! # trust.add_issuer(&issuer.sign(&root))?;
//! # let issuer = Issuer::new(issuer_key, issuer)?;
//! # let control = Party::new(Principal::component("control")?, 1);
//! # let key = SigningKey::generate(&mut random)?;
//! # let own = issuer.issue(&Credential {
//! #     kid: Kid([2; 8]), party: control.clone(), epoch: 1, signing: Some(key.verifying_key()),
//! #     kem: None, suites: SuiteSet::all(), validity: valid(1), accepts: Level::Sealed,
//! #     sends: Level::Sealed, roles: vec![], instance: Some("host-1".into()),
//! # })?;
//! # let at_control = Arc::new(StaticDirectory::new());
//! # let at_agent = Arc::new(StaticDirectory::new());
//! # let (k, kid) = (Secret::generate(&mut random)?, Kid([3; 8]));
//! # let agent = Party::new(Principal::agent("db-1")?, 1);
//! # let pair = shared::pair_key(&k, &agent, &control.principal, 1);
//! # at_control.add_pair(PairKey { kid, key: pair, peer: agent.clone(), epoch: 1 });
//! # let agent = Identity::shared(trust.clone(), agent, k);
//! # at_agent.add_pair(agent.derive_pair(kid, &control.principal, 1).ok_or("no pair key")?);
//! # let control = Identity::pair(trust, key, Arc::new(own), vec![])?;
//! // `agent` and `control` are identities, each with a directory that knows the other's keys.
//! let bus = MemoryBus::new();
//! let endpoint = |identity, directory| {
//!     Endpoint::new(identity, directory, Arc::new(bus.transport()), EndpointOptions::default())
//! };
//!
//! let router = Router::new().method("add", |_, (a, b): (u32, u32)| async move { Ok(a + b) });
//! let claims = MemoryClaims::for_new_bus(StoreOptions::default());
//! let options = ServerOptions::new(Arc::new(claims));
//! let server = Server::start(endpoint(agent, at_agent)?, router, options).await?;
//!
//! let client = Client::new(endpoint(control, at_control)?);
//! let sum: u32 = client.call(&"agent/db-1".parse()?, "add", &(2, 3)).await?;
//! assert_eq!(sum, 5);
//! assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
//! # Ok(())
//! # }
//! ```

pub mod builtin;
pub mod client;
mod clock;
mod context;
mod counters;
pub mod directory;
mod endpoint;
pub mod enrol;
mod error;
pub mod histogram;
pub mod identity;
mod notice;
mod pipeline;
mod rate;
pub mod renewal;
mod roots;
mod router;
mod server;
mod sessions;
mod standing;
pub mod target;
pub mod trace;
mod unsealed;
pub mod value;

pub use client::{Client, Progress, Request};
pub use clock::{Clock, SystemClock};
pub use context::Context;
pub use counters::{CallOutcome, Counter, Counters, RanOutcome};
pub use directory::{
    Directory, DirectoryError, LookupLimits, Lookups, PairKey, PeerKeys, RemoteDirectory,
    StaticDirectory,
};
pub use endpoint::{Endpoint, EndpointOptions, JournalCalls, NamedGroup};
pub use error::{CallError, RemoteError, kinds};
pub use identity::{HttpKey, Identity, KeyFile, KeyFileError, ReceiveKey};
pub use notice::offer_needed;
pub use pipeline::{
    Authorization, Decision, DefaultRule, Difference, PolicyRule, Question, Taken, UNREADABLE,
};
pub use renewal::{RenewalError, Renewer};
pub use router::{Access, Effect, HandlerResult, Method, Router, Version};
pub use server::{Load, ServeError, Server, ServerOptions};
pub use target::Target;
pub use unsealed::{Unseal, Unsealed, UnsealedRequest};
