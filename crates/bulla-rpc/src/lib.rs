//! Call, cast, fanout.
#![allow(missing_docs, reason = "being written")]
pub mod builtin;
pub mod client;
mod clock;
mod context;
mod counters;
pub mod directory;
mod endpoint;
mod error;
pub mod identity;
mod notice;
mod pipeline;
mod rate;
mod router;
mod server;
mod sessions;
pub mod target;
pub mod value;

pub use client::{Client, Progress, Reply, Request};
pub use clock::{Clock, SystemClock};
pub use context::Context;
pub use counters::{Counter, Counters};
pub use directory::{
    Directory, DirectoryError, LookupLimits, Lookups, PairKey, PeerKeys, RemoteDirectory,
    StaticDirectory,
};
pub use endpoint::{Endpoint, EndpointOptions};
pub use error::{CallError, RemoteError, kinds};
pub use identity::{Identity, KeyFile, KeyFileError, ReceiveKey};
pub use pipeline::{Authorization, Decision, DefaultRule};
pub use router::{Access, Effect, HandlerResult, Method, Router, Version};
pub use server::{ServeError, Server, ServerOptions};
pub use target::Target;
