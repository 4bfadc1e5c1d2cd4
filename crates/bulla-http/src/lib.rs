//! What every HTTPS door of ours needs.
//!
//! ```text
//! accept ─► TLS 1.3, client certificate ─┐
//! accept ─► TLS 1.3, signature or token ─┼─► Gate: Identity, rate ─► axum::Router ─► response
//! accept ─► loopback, bearer token … ────┘                              └─ Problem (RFC 9457)
//! ```
//!
//! A [`Listener`] has one of two doors. The usual one is TLS 1.3 with a client certificate from a
//! CA of the operator's choice; the other, plain HTTP with a bearer token from a file, exists on
//! loopback addresses alone and only when it is asked for. At both, [`Authenticators`] may take
//! requests that are signed with an access key (RFC 9421), and tokens of Keystone's. Of all these a
//! request shows exactly one, and without an [`Identity`] from it none reaches the router.
//!
//! ```no_run
//! use bulla_http::certs::Files;
//! use bulla_http::{Listener, Options};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn serve(router: axum::Router) -> Result<(), bulla_http::ListenError> {
//! let files = Files::in_dir("/etc/bulla/tls".as_ref()).server_tls();
//! let listener = Listener::bind(Options::tls(([127, 0, 0, 1], 7443).into(), files)).await?;
//! let shutdown = CancellationToken::new();
//! listener.serve(router, shutdown).await;
//! # Ok(())
//! # }
//! ```
//!
//! The crate holds the only rustls types of the HTTP side. Certificates for a first installation
//! come from [`certs::make`]; [`Dialer`] is the other end of the line.

pub mod certs;
mod connection;
mod dial;
mod extract;
mod file;
mod gate;
mod identity;
mod keystone;
mod limits;
mod listen;
mod outward;
mod problem;
mod rate;
mod reload;
mod signature;
mod tls;
mod token;
mod waiting;

pub use certs::CertError;
pub use dial::{DialError, DialStream, Dialer, TlsFault};
pub use extract::{Json, Path, Query, whole_body};
pub use file::FileError;
pub use gate::{AUTH_TOKEN, AccessKeys, AgentKey, AgentKeys, Authenticators, KeyOwner, Watch};
pub use identity::{Authenticator, Identity, IdentityKind};
pub use keystone::{KeystoneError, KeystoneLogin, KeystoneOptions};
pub use limits::{DEFAULT_MAX_BODY, Limits};
pub use listen::{ListenError, Listener, Options, Stopping};
pub use outward::{Outward, OutwardError, Reach};
pub use problem::{
    PROBLEM_CONTENT_TYPE, PROBLEM_PREFIX, Problem, method_not_allowed, no_such_route,
};
pub use rate::Rate;
pub use reload::Certificates;
pub use signature::{
    AccessKey, AccessKeyError, AccessSecret, MemoryNonces, NonceError, Nonces, Seen, SignError,
};
pub use tls::{ClientCertificates, ClientTls, ServerTls};
pub use token::{KeystoneToken, Token, TokenError};
