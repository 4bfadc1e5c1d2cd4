//! What the API is a door to: the control plane's own view.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bulla_api::{
    Agent, AgentDetails, BusStatus, CallFailure, CallRequest, CastRequest, Component, ControlPlane,
    ExemptRequest, Group, KeyType, Operation, Page, PageRequest, Peer, PeerExemption,
    ProgressSender, RaiseRequest, Sent, State, Status, TakenBack, TapEvent, TapItem, TapStream,
};
use bulla_http::Identity;
use bulla_journal::{Text, events};
use bulla_keystore::{AgentRecord, ComponentRecord, GroupRecord, KeystoreError};
use bulla_policy::Action;
use bulla_rpc::client::Step;
use bulla_rpc::{CallError, Clock, SystemClock, Target, target};
use bulla_seal::{Parsed, Principal};
use bulla_transport::memory::Tapped;
use serde_json::Value;

use super::agent_state::AgentState;
use super::{CONTROL, ControlNode};

/// How many bytes of a message a tap shows.
const HEAD: usize = 48;
/// How long a cast waits for its receiver unless the request says.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// The control plane behind the API.
#[derive(Clone)]
pub(crate) struct Plane(pub(crate) Arc<ControlNode>);

#[async_trait]
impl ControlPlane for Plane {
    async fn authorize(
        &self,
        by: &Identity,
        operation: &Operation,
        named: &[(&str, &str)],
    ) -> Result<(), CallFailure> {
        if operation.sends() { Ok(()) } else { self.may_do(by, operation, named) }
    }

    async fn call(
        &self,
        by: &Identity,
        request: CallRequest,
        progress: ProgressSender,
    ) -> Result<Value, CallFailure> {
        let target = parse_target(&request.target)?;
        let method = (request.namespace.as_deref(), &*request.method, request.version.as_deref());
        self.may_send(by, Action::ApiCall, &target, method, &request.args)?;
        let kind = "call";
        self.tell_call(by, &target, request.namespace.as_deref(), &request.method, kind)?;
        let mut call = self.0.client.request(&target, &request.method).timeout(request.timeout());
        if let Some(namespace) = &request.namespace {
            call = call.namespace(namespace);
        }
        if let Some(version) = &request.version {
            call = call.version(version);
        }
        if let Some(context) = &request.context {
            call = call.context(context).map_err(|e| failure(&target, e))?;
        }
        let mut steps = call.stream(&request.args).await.map_err(|e| failure(&target, e))?;
        while let Some(step) = steps.next::<Value, Value>().await {
            match step.map_err(|e| failure(&target, e))? {
                Step::Done(value) => return Ok(value),
                // Nobody listening is no reason to give the call up.
                Step::Progress(item) => drop(progress.try_send(item)),
            }
        }
        Err(CallFailure::Internal { why: "the call ended without a result".into() })
    }

    async fn cast(&self, by: &Identity, request: CastRequest) -> Result<Sent, CallFailure> {
        self.send(by, request, false).await
    }

    async fn fanout(&self, by: &Identity, request: CastRequest) -> Result<Sent, CallFailure> {
        self.send(by, request, true).await
    }

    async fn agents(&self, page: PageRequest) -> Result<Page<Agent>, CallFailure> {
        let wanted = bulla_keystore::Page { limit: page.limit(), after: page.after };
        let found = self.0.keystore.list_agents(&wanted).await.map_err(internal)?;
        let domain = self.domain();
        let items = found.agents.iter().map(|record| agent(record, &domain)).collect();
        Ok(Page { items, next: found.next.and_then(|page| page.after) })
    }

    async fn agent(&self, id: &str) -> Result<AgentDetails, CallFailure> {
        let state = AgentState::read(&self.0.keystore, id).await.map_err(|error| match error {
            KeystoreError::UnknownPrincipal { .. } | KeystoreError::Name(_) => {
                CallFailure::UnknownTarget { target: format!("agent/{id}") }
            }
            other => internal(other),
        })?;
        Ok(state.to_api())
    }

    async fn components(&self, page: PageRequest) -> Result<Page<Component>, CallFailure> {
        let found = self.0.keystore.list_components().await.map_err(internal)?;
        let domain = self.domain();
        let all = found.iter().map(|record| component(record, &domain)).collect();
        Ok(Page::of(all, &page, |component: &Component| component.name.clone()))
    }

    async fn groups(&self, page: PageRequest) -> Result<Page<Group>, CallFailure> {
        let found = self.0.keystore.list_groups().await.map_err(internal)?;
        Ok(Page::of(found.iter().map(group).collect(), &page, |group: &Group| group.name.clone()))
    }

    async fn peers(&self, page: PageRequest) -> Result<Page<Peer>, CallFailure> {
        // One name may stand there with several incarnations.
        let key = |peer: &Peer| format!("{} {:020}", peer.principal, peer.incarnation);
        Ok(Page::of(self.0.peers().await?, &page, key))
    }

    async fn raise(&self, by: &Identity, request: RaiseRequest) -> Result<Peer, CallFailure> {
        self.0.raise(by, request).await
    }

    async fn exempt(
        &self,
        by: &Identity,
        request: ExemptRequest,
    ) -> Result<PeerExemption, CallFailure> {
        self.0.exempt(by, request).await
    }

    async fn take_back(&self, by: &Identity, id: &str) -> Result<TakenBack, CallFailure> {
        self.0.take_back(by, id).await
    }

    async fn status(&self) -> Result<Status, CallFailure> {
        let problem = self.0.bus_watch.problem();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            trust_domain: self.domain().to_string(),
            component: format!("component/{CONTROL}"),
            started_ms: self.0.started.ns / 1_000_000,
            bus: BusStatus { address: self.0.bus.address(), connected: problem.is_none(), problem },
        })
    }

    async fn tap(&self, by: &Identity) -> Result<TapStream, CallFailure> {
        self.0.events().emit(events::OperatorTapped { operator: Text::of(by) });
        let groups = self.0.keystore.list_groups().await.map_err(internal)?;
        let components = self.0.keystore.list_components().await.map_err(internal)?;
        let topics = groups.iter().map(|group| target::group_topic(&group.name));
        let components = components.iter().map(|c| target::topic_of(&c.party.principal));
        let topics: Vec<_> = topics.chain(components).collect();
        let exchange = &self.0.client.endpoint().options().exchange;
        let tap = self
            .0
            .bus
            .tap(exchange, &topics, self.0.client.reply_name())
            .await
            .map_err(|error| CallFailure::NotPermitted { why: error.to_string() })?;
        Ok(Box::pin(futures_util::stream::unfold((tap, 0), |(mut tap, told)| async move {
            let missed = tap.missed();
            if missed > told {
                return Some((TapItem::Missed(missed - told), (tap, missed)));
            }
            let tapped = tap.next().await?;
            Some((TapItem::Seen(tap_event(&tapped)), (tap, told)))
        })))
    }
}

impl Plane {
    pub(super) fn domain(&self) -> bulla_seal::TrustDomain {
        self.0.client.endpoint().identity().domain()
    }

    /// What an operator has done is in the journal before it is done, or is not done.
    fn tell_call(
        &self,
        by: &Identity,
        target: &Target,
        namespace: Option<&str>,
        method: &str,
        kind: &'static str,
    ) -> Result<(), CallFailure> {
        let method = match namespace {
            Some(namespace) => Text::new(&format!("{namespace}.{method}")),
            None => Text::new(method),
        };
        let (operator, target) = (Text::of(by), Text::of(target));
        let called = events::OperatorCalled { operator, target, method, kind };
        self.0
            .events()
            .emit_first(called)
            .map_err(|error| CallFailure::Internal { why: format!("nothing was sent: {error}") })
    }

    async fn send(
        &self,
        by: &Identity,
        request: CastRequest,
        fanout: bool,
    ) -> Result<Sent, CallFailure> {
        let target = parse_target(&request.target)?;
        let method = (request.namespace.as_deref(), &*request.method, request.version.as_deref());
        let action = if fanout { Action::ApiFanout } else { Action::ApiCast };
        self.may_send(by, action, &target, method, &request.args)?;
        let kind = if fanout { "fanout" } else { "cast" };
        self.tell_call(by, &target, request.namespace.as_deref(), &request.method, kind)?;
        let ttl = request.ttl().unwrap_or(DEFAULT_TTL);
        let mut message = self.0.client.request(&target, &request.method).ttl(ttl);
        if let Some(namespace) = &request.namespace {
            message = message.namespace(namespace);
        }
        if let Some(version) = &request.version {
            message = message.version(version);
        }
        if let Some(context) = &request.context {
            message = message.context(context).map_err(|e| failure(&target, e))?;
        }
        let id = if fanout {
            message.fanout(&request.args).await
        } else {
            message.cast(&request.args).await
        };
        Ok(Sent { message_id: id.map_err(|e| failure(&target, e))?.to_string() })
    }
}

fn parse_target(text: &str) -> Result<Target, CallFailure> {
    text.parse().map_err(|e: bulla_seal::NameError| CallFailure::BadRequest { why: e.to_string() })
}

pub(super) fn internal(error: KeystoreError) -> CallFailure {
    CallFailure::Internal { why: error.to_string() }
}

/// The one place that decides what an operator hears of a call that failed.
fn failure(target: &Target, error: CallError) -> CallFailure {
    let target = target.to_string();
    match error {
        CallError::Remote(error) => CallFailure::Remote {
            target,
            error: error.kind,
            message: error.message,
            details: error.details.unwrap_or_default(),
        },
        CallError::Timeout { after, .. } => CallFailure::Timeout {
            target,
            timeout_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        },
        CallError::Unroutable { .. } => CallFailure::NobodyThere { target },
        CallError::UnknownTarget { .. } => CallFailure::UnknownTarget { target },
        error @ CallError::Revoked { .. } => CallFailure::NotPermitted { why: error.to_string() },
        CallError::TooLarge { size, limit } => {
            CallFailure::TooLarge { size: size as u64, limit: limit as u64 }
        }
        CallError::Usage(why) => CallFailure::BadRequest { why },
        CallError::Value(error) => CallFailure::BadRequest { why: error.to_string() },
        CallError::Publish(error) => CallFailure::BusDown { why: error.to_string() },
        CallError::Transport(error) => CallFailure::BusDown { why: error.to_string() },
        CallError::Closed => CallFailure::Stopping,
        other => CallFailure::Internal { why: other.to_string() },
    }
}

pub(super) fn millis(secs: u64) -> u64 {
    secs.saturating_mul(1000)
}

fn now_secs() -> u64 {
    SystemClock.now().secs()
}

fn state(not_after: Option<u64>) -> State {
    match not_after {
        Some(end) if end <= now_secs() => State::Expired,
        _ => State::Active,
    }
}

pub(super) fn group(record: &GroupRecord) -> Group {
    Group {
        name: record.name.as_str().to_owned(),
        epoch: record.epoch.into(),
        members: record.members,
        every_agent: record.name.as_str() == bulla_keystore::EVERY_AGENT,
    }
}

fn agent(record: &AgentRecord, domain: &bulla_seal::TrustDomain) -> Agent {
    Agent {
        id: record.party.principal.name().to_owned(),
        principal: record.party.principal.spiffe_id(domain),
        incarnation: record.party.incarnation.into(),
        key_type: match record.key_type {
            bulla_keystore::KeyType::Pair => KeyType::Pair,
            bulla_keystore::KeyType::Shared => KeyType::Shared,
        },
        epoch: 1,
        kid: None,
        state: State::Active,
        created_ms: millis(record.created.secs()),
        expires_ms: None,
        groups: Vec::new(),
    }
}

pub(super) fn agent_details(
    details: &bulla_keystore::AgentDetails,
    domain: &bulla_seal::TrustDomain,
) -> Agent {
    let credential = details.credential.as_ref();
    let end = credential.map(|credential| credential.validity.not_after);
    Agent {
        epoch: credential.map_or(1, |credential| credential.epoch.into()),
        kid: credential
            .map(|credential| credential.kid)
            .or_else(|| details.pairs.first().map(|pair| pair.kid))
            .map(|kid| kid.to_string()),
        state: state(end),
        expires_ms: end.map(millis),
        groups: details.groups.iter().map(|group| group.as_str().to_owned()).collect(),
        ..agent(&details.record, domain)
    }
}

pub(super) fn component(record: &ComponentRecord, domain: &bulla_seal::TrustDomain) -> Component {
    let principal: &Principal = &record.party.principal;
    let end = record.audience.validity.not_after;
    Component {
        name: principal.name().to_owned(),
        principal: principal.spiffe_id(domain),
        incarnation: record.party.incarnation.into(),
        epoch: record.epoch.into(),
        state: state(Some(end)),
        created_ms: millis(record.created.secs()),
        expires_ms: Some(millis(end)),
    }
}

/// A message as the bus sees it; what a broker can read of it without any key.
pub(crate) fn tap_event(tapped: &Tapped) -> TapEvent {
    let parsed = Parsed::parse(tapped.payload.clone(), bulla_seal::MAX_FRAME).ok();
    let time = tapped.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    TapEvent {
        time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        queue: if tapped.routing_key.is_empty() || tapped.routing_key == "#" {
            tapped.exchange.clone()
        } else {
            tapped.routing_key.clone()
        },
        size: tapped.payload.len() as u64,
        key_id: parsed.as_ref().map(|parsed| parsed.header().handle.to_string()),
        offer: parsed.as_ref().is_some_and(|parsed| parsed.offer().is_some()),
        head: hex::encode(tapped.payload.get(..HEAD).unwrap_or(&tapped.payload)),
    }
}
