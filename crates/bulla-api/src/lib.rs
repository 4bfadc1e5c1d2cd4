//! The control plane's HTTPS API, and the typed client that the command line uses.
//!
//! ```text
//! bulla call ─► Client ─► HTTPS ─► router ─► ControlPlane (sealing, bus, keystore)
//!                  ◄── value, progress, or a Problem made of a CallFailure ◄──┘
//! ```
//!
//! What there is, `docs/api.md` tells; what each operation takes and gives, [`openapi`]: both come
//! from the one table of operations (`operation.rs`, `routes/`).
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

mod access_keys;
mod admin;
mod agents;
mod client;
mod components;
mod failure;
mod journal;
mod model;
mod once;
mod operation;
mod page;
mod peers;
mod plane;
mod policies;
mod routes;
mod sse;

pub use access_keys::{
    AccessKey, AddAccessKeyRequest, AddedAccessKey, ChangeAccessKeyRequest, ChangedAccessKey,
    Examination, Finding, Grade,
};
pub use admin::{Administration, Claimed, JournalStream, RequestKey, Turn};
pub use agents::{
    AddAgentsRequest, AddedAgent, AddedAgents, AgentCredential, AgentDetails, AgentFile,
    AgentFloor, AgentPair, BrokerUser, CredentialUse, FileFormat, JoinWord, KeySuite, LastSeen,
    MAX_ADDED, RejoinRequest, RevokedAgent, RotateAgentRequest, RotatedAgent, Rotation, SharedKey,
    StartsWith,
};
pub use client::{CallEvent, CallEvents, Client, ClientError, Credential, Endpoint, TapItems};
pub use components::{
    AddComponentRequest, AddGroupRequest, AddMembersRequest, AddedComponent, ExtendedGroup,
    MAX_MEMBERS, Member, RevokedHost, RotatedComponent,
};
pub use failure::CallFailure;
pub use journal::{
    JournalCheckpoint, JournalCheckpoints, JournalEntry, JournalItem, JournalRequest,
};
pub use model::{
    Agent, BusStatus, CallAnswer, CallRequest, CastRequest, Component, DEFAULT_CALL_TIMEOUT,
    DEFAULT_PAGE, Group, KeyType, MAX_LIFETIME, MAX_PAGE, Page, PageRequest, Sent, State, Status,
    TapEvent, TapItem,
};
pub use operation::Operation;
pub use peers::{ExemptRequest, Peer, PeerExemption, RaiseRequest, Seen, TakenBack};
pub use plane::{ControlPlane, PROGRESS_BUFFER, ProgressSender, TapStream};
pub use policies::{
    Difference, ExplainRequest, Explanation, MAX_POLICY, PolicyChange, PolicyCheck, PolicyMistake,
    PolicyOrigin, PolicyReach, PolicySource, PolicyStanding, PolicyVersion, RollBackRequest,
    RuleStanding, ShadowStanding,
};
pub use routes::{openapi, operations, router};
