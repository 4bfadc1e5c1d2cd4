//! What the API is a door to.

use async_trait::async_trait;
use bulla_http::Identity;
use futures_util::stream::BoxStream;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::admin::Administration;
use crate::agents::AgentDetails;
use crate::failure::CallFailure;
use crate::model::{
    Agent, CallRequest, CastRequest, Component, Group, Page, PageRequest, Sent, Status, TapItem,
};
use crate::operation::Operation;
use crate::peers::{ExemptRequest, Peer, PeerExemption, RaiseRequest, TakenBack};

/// Progress messages that wait for a slow reader at the most.
pub const PROGRESS_BUFFER: usize = 64;

/// Where a call's progress goes. Sending fails once nobody listens, and at once if the caller
/// asked for no progress: that is no reason to give up the call.
pub type ProgressSender = mpsc::Sender<Value>;

/// What a tap yields until the control plane stops.
pub type TapStream = BoxStream<'static, TapItem>;

/// The control plane behind the API. The routes have checked what can be checked without
/// knowing anyone: shapes, ranges of times and page sizes. Who may do what is the
/// implementation's to decide.
#[async_trait]
pub trait ControlPlane: Administration {
    /// Whether who asks may ask for an operation, with what its path names; [`CallFailure::Denied`]
    /// if not. Of those that [send](Operation::sends) a message, `call`, `cast` and `fanout` decide.
    async fn authorize(
        &self,
        by: &Identity,
        operation: &Operation,
        named: &[(&str, &str)],
    ) -> Result<(), CallFailure>;

    /// Seals and sends a call, waits for its answer. The future is dropped when the operator
    /// hangs up: it must then stop waiting.
    async fn call(
        &self,
        by: &Identity,
        request: CallRequest,
        progress: ProgressSender,
    ) -> Result<Value, CallFailure>;

    /// Seals and sends a message that nobody answers; returns when the bus has taken it over.
    async fn cast(&self, by: &Identity, request: CastRequest) -> Result<Sent, CallFailure>;

    /// Seals and sends a message to a group.
    async fn fanout(&self, by: &Identity, request: CastRequest) -> Result<Sent, CallFailure>;

    /// A part of the list of agents, ordered by id.
    async fn agents(&self, page: PageRequest) -> Result<Page<Agent>, CallFailure>;

    /// One agent by its id; [`CallFailure::UnknownTarget`] if there is none.
    async fn agent(&self, id: &str) -> Result<AgentDetails, CallFailure>;

    /// A part of the list of component types, ordered by name.
    async fn components(&self, page: PageRequest) -> Result<Page<Component>, CallFailure>;

    /// A part of the list of groups, ordered by name.
    async fn groups(&self, page: PageRequest) -> Result<Page<Group>, CallFailure>;

    /// A part of what is known of peers' levels, ordered by name; peers of which nothing is known
    /// are left out.
    async fn peers(&self, page: PageRequest) -> Result<Page<Peer>, CallFailure>;

    /// Raises a peer's floor, or rehearses that.
    async fn raise(&self, by: &Identity, request: RaiseRequest) -> Result<Peer, CallFailure>;

    /// Gives an exemption.
    async fn exempt(
        &self,
        by: &Identity,
        request: ExemptRequest,
    ) -> Result<PeerExemption, CallFailure>;

    /// Takes an exemption back; [`CallFailure::BadRequest`] if there is none of that id.
    async fn take_back(&self, by: &Identity, id: &str) -> Result<TakenBack, CallFailure>;

    /// How the control plane is.
    async fn status(&self) -> Result<Status, CallFailure>;

    /// What the bus sees from now on; [`CallFailure::NotPermitted`] or
    /// [`CallFailure::BadRequest`] where this bus can't be watched from here. A slow reader reads
    /// no faster for being waited for: keep a bounded buffer and yield [`TapItem::Missed`].
    async fn tap(&self, by: &Identity) -> Result<TapStream, CallFailure>;
}
