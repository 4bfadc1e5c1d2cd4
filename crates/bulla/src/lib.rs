//! Sealed remote procedure calls over message brokers that nobody has to trust.
//!
//! A service or an agent gets a *key file* from its deployment's control plane (`bulla component
//! add`, `bulla agent add --key`). With it, it calls and serves over a broker that can read nothing of
//! what passes, and whose lies are noticed and not believed: every request and every reply is
//! sealed from one principal to another, and nothing that was replayed, altered, re-routed or
//! forged runs.
//!
//! # A service
//!
//! ```no_run
//! use bulla::{Connection, Context, Method, RemoteError, Router, ServeOptions};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Resize {
//!     volume: String,
//!     gigabytes: u64,
//! }
//!
//! async fn resize(context: Context, args: Resize) -> Result<u64, RemoteError> {
//!     // Who called is proven, not claimed.
//!     println!("{} resizes {}", context.sender(), args.volume);
//!     Ok(args.gigabytes)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = Connection::open("volumes-1.key", None).await?;
//! let router = Router::new().with(Method::new("resize", resize).open_to_components());
//! let serving = connection.serve(router, ServeOptions::new().only_host()).await?;
//! tokio::signal::ctrl_c().await?;
//! serving.drain(std::time::Duration::from_secs(30)).await;
//! connection.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # And who calls it
//!
//! ```no_run
//! # use bulla::{Connection, Target};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = Connection::open("api-1.key", None).await?;
//! let volumes: Target = "component/volumes".parse()?;
//! let args = serde_json::json!({ "volume": "v-7", "gigabytes": 20 });
//! let size: u64 = connection.client().call(&volumes, "resize", &args).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Without a broker
//!
//! Everything works over a bus inside the process too, which is how the tests of a service can
//! run it ([`memory`] makes such a deployment):
//!
//! ```
//! use bulla::{Client, HandlerResult, Router, Server, Target};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let deployment = bulla::memory::Deployment::new()?;
//! let agent = deployment.agent("db-1")?;
//! let router = Router::new()
//!     .method("double", |_, n: u64| async move { Ok(2 * n) as HandlerResult<u64> });
//! let server = Server::start(agent, router, bulla::memory::server_options()).await?;
//!
//! let control = Client::new(deployment.component("control", "host-1")?);
//! let target: Target = "agent/db-1".parse()?;
//! assert_eq!(control.call::<_, u64>(&target, "double", &21).await?, 42);
//! # Ok(())
//! # }
//! ```
//!
//! # Who may call whom
//!
//! Until a policy says otherwise, what is not named here is denied: components may call every
//! method of an agent; agents and components may call those methods of a component that are
//! [open to agents](Method::open_to_agents) and [open to components](Method::open_to_components);
//! agents never call agents.
//!
//! # What it is not
//!
//! - No web server, no command line and no keystore: those are the `bulla` program's.
//! - No hiding of who talks to whom: queue names, sizes and times stay visible to the broker.
//! - No delivery guarantee against the broker: it can withhold messages. A call notices (it times
//!   out), a cast does not.
//!
//! # Running once
//!
//! To a receiver, a broker's redelivery and an attacker's replay are the same. A message is
//! therefore *claimed* in state of the receiver's own before it runs, and for that a server needs
//! a folder that outlives it: see [`ServeOptions`].

mod claims;
mod connection;
mod error;
pub mod memory;
mod policies;
mod queue;
mod renewal;
mod serving;
mod shared;
mod statements;

/// Who may call what: see [`PolicyRule`].
pub use bulla_policy as policy;
pub use bulla_rpc::client::{DEFAULT_TIMEOUT, DEFAULT_TTL, Progress, Request, Step};
/// Traces across processes: what a context is, and who takes spans.
pub use bulla_rpc::trace;
pub use bulla_rpc::{
    Access, Authorization, CallError, Client, Context, Decision, DefaultRule, Difference, Effect,
    Endpoint, EndpointOptions, HandlerResult, Identity, KeyFile, KeyFileError, Method, PolicyRule,
    Question, RemoteDirectory, RemoteError, Router, ServeError, Server, ServerOptions,
    StaticDirectory, Target, Version, kinds,
};
pub use bulla_seal::{
    GroupName, Level, MessageId, MessageKind, NameError, Party, Principal, PrincipalKind,
};
pub use claims::{Claims, default_state};
pub use connection::Connection;
pub use error::ConnectError;
pub use queue::{QUEUE_SCHEME, queue_options};
pub use serving::{ServeOptions, Serving};
pub use shared::{AddressError, SharedClaims};
