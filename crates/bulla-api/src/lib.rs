//! The control plane's HTTPS API, and the typed client that the command line uses.
//!
//! ```text
//! bulla call ─► Client ─► HTTPS ─► router ─► ControlPlane (sealing, bus, keystore)
//!                  ◄── value, progress, or a Problem made of a CallFailure ◄──┘
//! ```
//!
//! | route | what | answer |
//! |---|---|---|
//! | `POST /v1/calls` | [`CallRequest`] | [`CallAnswer`]; with `Accept: text/event-stream` events `progress`…, then `value` or `problem` |
//! | `POST /v1/casts` | [`CastRequest`] | 202 [`Sent`] |
//! | `POST /v1/fanouts` | [`CastRequest`] | 202 [`Sent`] |
//! | `GET /v1/agents?after=&limit=` | | [`Page`] of [`Agent`] |
//! | `GET /v1/agents/{id}` | | [`Agent`] |
//! | `GET /v1/components` | | array of [`Component`] |
//! | `GET /v1/groups` | | array of [`Group`] |
//! | `GET /v1/peers` | | array of [`Peer`] |
//! | `POST /v1/peers/floors` | [`RaiseRequest`] | [`Peer`] |
//! | `POST /v1/exemptions` | [`ExemptRequest`] | 201 [`PeerExemption`] |
//! | `DELETE /v1/exemptions/{id}` | | [`TakenBack`] |
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/tap` | | events `seen` ([`TapEvent`]) and `missed` |
//! | `GET /healthz` | | 200 [`Status`], or 503 while the bus is away |
//!
//! [`router`] serves what implements [`ControlPlane`]; authentication, TLS and limits are
//! [`bulla_http::Listener`]'s. Whatever fails is a [`CallFailure`], which travels as problem
//! details (RFC 9457) and is decoded back by the [`Client`]. Closing the connection of a call
//! cancels the waiting for its answer; what was sent is not taken back.
//!
//! ```no_run
//! use bulla_api::{CallRequest, Client, Endpoint};
//! use bulla_http::certs::Files;
//!
//! # async fn ask() -> Result<(), bulla_api::ClientError> {
//! let files = Files::in_dir("/etc/bulla/tls".as_ref()).operator_tls();
//! let client = Client::new(&Endpoint::Tls { url: "https://localhost:7443".into(), files })?;
//! let facts = client.call(&CallRequest::new("agent/db-1", "host.facts")).await?;
//! println!("{facts:#}");
//! # Ok(())
//! # }
//! ```

mod client;
mod failure;
mod model;
mod peers;
mod plane;
mod routes;
mod sse;

pub use client::{CallEvent, CallEvents, Client, ClientError, Endpoint, TapItems};
pub use failure::CallFailure;
pub use model::{
    Agent, BusStatus, CallAnswer, CallRequest, CastRequest, Component, DEFAULT_CALL_TIMEOUT,
    DEFAULT_PAGE, Group, KeyType, MAX_LIFETIME, MAX_PAGE, Page, PageRequest, Sent, State, Status,
    TapEvent, TapItem,
};
pub use peers::{ExemptRequest, Peer, PeerExemption, RaiseRequest, Seen, TakenBack};
pub use plane::{ControlPlane, PROGRESS_BUFFER, ProgressSender, TapStream};
pub use routes::router;
