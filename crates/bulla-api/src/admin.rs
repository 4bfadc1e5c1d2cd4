//! What the API can change and tell of a deployment, beside its messages.

use async_trait::async_trait;
use bulla_http::Identity;
use futures_util::stream::BoxStream;

use crate::access_keys::{
    AccessKey, AddAccessKeyRequest, AddedAccessKey, ChangeAccessKeyRequest, ChangedAccessKey,
    Examination,
};
use crate::agents::{
    AddAgentsRequest, AddedAgent, AddedAgents, RejoinRequest, RevokedAgent, RotateAgentRequest,
    RotatedAgent,
};
use crate::components::{
    AddComponentRequest, AddGroupRequest, AddMembersRequest, AddedComponent, ExtendedGroup, Member,
    RevokedHost, RotatedComponent,
};
use crate::failure::CallFailure;
use crate::journal::{JournalCheckpoints, JournalEntry, JournalItem, JournalRequest};
use crate::model::{Component, Group, Page, PageRequest};
use crate::policies::{
    Difference, ExplainRequest, Explanation, PolicyChange, PolicyCheck, PolicySource,
    PolicyStanding, PolicyVersion, RollBackRequest, ShadowStanding,
};

/// What a journal's stream yields until the control plane stops.
pub type JournalStream = BoxStream<'static, JournalItem>;

type Answer<T> = Result<T, CallFailure>;

fn not_here<T>() -> Answer<T> {
    Err(CallFailure::NotPermitted { why: "this control plane does not do that".to_owned() })
}

/// The deployment behind the API. What an implementation does not offer, it refuses.
///
/// The routes have checked shapes, ranges and sizes; `by` is who asked, for the journal. Lists are
/// ordered, and `after` of a page is the name of the last entry of the page before.
#[async_trait]
#[expect(unused_variables, reason = "the names are for who implements it")]
pub trait Administration: Send + Sync + 'static {
    /// Adds agents, all of them or none.
    async fn add_agents(&self, by: &Identity, request: AddAgentsRequest) -> Answer<AddedAgents> {
        not_here()
    }

    /// Lets an agent join again.
    async fn rejoin_agent(
        &self,
        by: &Identity,
        id: &str,
        request: RejoinRequest,
    ) -> Answer<AddedAgent> {
        not_here()
    }

    /// Revokes an agent.
    async fn revoke_agent(&self, by: &Identity, id: &str) -> Answer<RevokedAgent> {
        not_here()
    }

    /// Has an agent renew its keys.
    async fn rotate_agent(
        &self,
        by: &Identity,
        id: &str,
        request: RotateAgentRequest,
    ) -> Answer<RotatedAgent> {
        not_here()
    }

    /// One component type.
    async fn component(&self, name: &str) -> Answer<Component> {
        not_here()
    }

    /// Adds a component type, or another host of one.
    async fn add_component(
        &self,
        by: &Identity,
        request: AddComponentRequest,
    ) -> Answer<AddedComponent> {
        not_here()
    }

    /// Makes a component type's next key to receive with.
    async fn rotate_component(&self, by: &Identity, name: &str) -> Answer<RotatedComponent> {
        not_here()
    }

    /// Revokes one host of a component type.
    async fn revoke_host(&self, by: &Identity, name: &str, instance: &str) -> Answer<RevokedHost> {
        not_here()
    }

    /// One group.
    async fn group(&self, name: &str) -> Answer<Group> {
        not_here()
    }

    /// A part of the members of a group.
    async fn members(&self, group: &str, page: PageRequest) -> Answer<Page<Member>> {
        not_here()
    }

    /// Adds a group.
    async fn add_group(&self, by: &Identity, request: AddGroupRequest) -> Answer<ExtendedGroup> {
        not_here()
    }

    /// Adds members to a group.
    async fn add_members(
        &self,
        by: &Identity,
        group: &str,
        request: AddMembersRequest,
    ) -> Answer<ExtendedGroup> {
        not_here()
    }

    /// Which policy counts.
    async fn policy(&self) -> Answer<PolicyStanding> {
        not_here()
    }

    /// A part of the list of versions, without their texts, the oldest first.
    async fn policies(&self, page: PageRequest) -> Answer<Page<PolicyVersion>> {
        not_here()
    }

    /// One version, with its text.
    async fn policy_version(&self, version: u32) -> Answer<PolicyVersion> {
        not_here()
    }

    /// What there is to say of a policy.
    async fn check_policy(&self, source: PolicySource) -> Answer<PolicyCheck> {
        not_here()
    }

    /// How a request is judged.
    async fn explain(&self, request: ExplainRequest) -> Answer<Explanation> {
        not_here()
    }

    /// Activates a policy.
    async fn activate_policy(&self, by: &Identity, source: PolicySource) -> Answer<PolicyChange> {
        not_here()
    }

    /// Goes back to an earlier version.
    async fn roll_back(&self, by: &Identity, request: RollBackRequest) -> Answer<PolicyChange> {
        not_here()
    }

    /// The policy in the shadow.
    async fn shadow(&self) -> Answer<ShadowStanding> {
        not_here()
    }

    /// Lets a policy judge in the shadow.
    async fn begin_shadow(&self, by: &Identity, source: PolicySource) -> Answer<ShadowStanding> {
        not_here()
    }

    /// Lets none judge in the shadow any more.
    async fn end_shadow(&self, by: &Identity) -> Answer<ShadowStanding> {
        not_here()
    }

    /// What the policy in the shadow would decide otherwise.
    async fn differences(&self, page: PageRequest) -> Answer<Page<Difference>> {
        not_here()
    }

    /// A part of what the journals of this host hold, the oldest first.
    async fn journal(&self, request: JournalRequest) -> Answer<Page<JournalEntry>> {
        not_here()
    }

    /// What is written into the journals of this host from now on, or behind the place that
    /// `request.after` names.
    async fn follow_journal(&self, request: JournalRequest) -> Answer<JournalStream> {
        not_here()
    }

    /// The newest checkpoints of the journals of this host.
    async fn checkpoints(&self) -> Answer<JournalCheckpoints> {
        not_here()
    }

    /// A part of the list of access keys.
    async fn access_keys(&self, page: PageRequest) -> Answer<Page<AccessKey>> {
        not_here()
    }

    /// Makes an access key.
    async fn add_access_key(
        &self,
        by: &Identity,
        request: AddAccessKeyRequest,
    ) -> Answer<AddedAccessKey> {
        not_here()
    }

    /// Has an access key refused for now, or taken again.
    async fn change_access_key(
        &self,
        by: &Identity,
        id: &str,
        request: ChangeAccessKeyRequest,
    ) -> Answer<ChangedAccessKey> {
        not_here()
    }

    /// Removes an access key and wipes its secret.
    async fn remove_access_key(&self, by: &Identity, id: &str) -> Answer<ChangedAccessKey> {
        not_here()
    }

    /// Looks for what is wrong.
    async fn examine(&self) -> Answer<Examination> {
        not_here()
    }

    /// Remembers the first answer to each request with an idempotency key.
    async fn first_answer(&self, request: &RequestKey) -> Answer<Claimed> {
        not_here()
    }
}

/// A request that has an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Who asks: how it was authenticated, and its name.
    pub by: String,
    /// The key.
    pub key: String,
    /// SHA-256 of what was asked for: method, path, query and body.
    pub digest: [u8; 32],
    /// How many times before it was answered that nothing was done.
    pub attempt: u32,
}

/// What is known of a request with an idempotency key.
pub enum Claimed {
    /// It is the first one: do it, within the turn.
    First(Box<dyn Turn>),
    /// It was done; this was the answer, as it was given to [`Turn::done`].
    Done(Vec<u8>),
}

/// The right to serve the first request with a key. A turn that ends without an answer leaves the
/// outcome unknown.
#[async_trait]
pub trait Turn: Send + Sync {
    /// How often [`Turn::go_on`] is to be called at the least.
    fn every(&self) -> std::time::Duration;

    /// Says that the request is still being served.
    async fn go_on(&mut self);

    /// Keeps the answer.
    async fn done(self: Box<Self>, answer: Vec<u8>);
}
