//! Revocation on every message: statements that come beside messages, and what they refuse.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bulla_guard::revocation::Applied;
use bulla_rpc::*;
use bulla_seal::{GroupKey, GroupName, Kid, Lowest, Party, Principal, Refusal, Revoked, Suite};
use bulla_transport::hostile::{Act, Plan};
use common::gate::Gate;
use common::*;

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn echo() -> Router {
    let echo = Method::new("echo", |_, n: u32| async move { Ok(n) });
    Router::new().with(echo.open_to_agents().open_to_components())
}

async fn serve(endpoint: &Endpoint) -> Server {
    let server = Server::start(endpoint.clone(), echo(), options()).await.unwrap();
    server.join_groups().await.unwrap();
    server
}

async fn call(client: &Client, to: &str) -> Result<u32, CallError> {
    client.request(&target(to), "echo").timeout(Duration::from_secs(20)).call(&7).await
}

/// Sends a call that nobody is expected to answer, and waits until `at` counted a refusal.
async fn refused(client: &Client, to: &str, at: &Endpoint, refusal: Refusal) {
    let before = at.counters().refused(refusal);
    let (client, to) = (client.clone(), target(to));
    let calling = tokio::spawn(async move {
        client.request(&to, "echo").timeout(Duration::from_secs(30)).call::<_, u32>(&7).await
    });
    until(refusal.as_str(), || at.counters().refused(refusal) > before).await;
    assert!(!calling.is_finished(), "it was answered");
    calling.abort();
}

fn own_kid(endpoint: &Endpoint) -> Kid {
    endpoint.identity().initiator().unwrap().credential().kid
}

fn revoked(kid: Kid) -> Vec<Revoked> {
    vec![Revoked { kid, until: now().secs() + 90_000 }]
}

fn lowest(principal: &Principal, incarnation: u32, credential: u32, pair: u32) -> Vec<Lowest> {
    let (principal, credential_epoch, pair_epoch) = (principal.clone(), credential, pair);
    vec![Lowest { principal, incarnation, credential_epoch, pair_epoch }]
}

#[tokio::test]
async fn a_revoked_key_is_refused_in_its_session_and_with_a_new_offer() {
    let world = World::new();
    let (agent, control) = (world.agent("a"), world.component("control", "h1"));
    let _server = serve(&agent).await;
    let client = Client::new(control.clone());
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
    let statement = world.statement(1, |s| s.revoked = revoked(own_kid(&control)));
    assert_eq!(agent.take_statement(statement.as_bytes()), Ok(Applied::Moved));
    // The session went at once, so the receiver asks for the offer, and refuses what it is by.
    refused(&client, "agent/a", &agent, Refusal::Revoked).await;
    assert!(agent.counters().refused(Refusal::SessionUnknown) > 0, "the session was kept");
    // Another host of the type has another key.
    let other = Client::new(world.component("control", "h2"));
    assert_eq!(call(&other, "agent/a").await.unwrap(), 7);
    assert_eq!(agent.take_statement(statement.as_bytes()), Ok(Applied::Same));
}

#[tokio::test]
async fn what_waits_for_its_senders_share_is_refused_once_the_sender_is_revoked() {
    let world = World::new();
    let (mut gate, wait) = Gate::new();
    let options = ServerOptions { concurrency: 8, per_agent: Some(1), ..options() };
    let control = world.component("control", "h1");
    let _server = Server::start(control.clone(), Router::new().with(wait), options).await.unwrap();
    let agent = world.agent("a");
    let client = Client::new(agent.clone());
    let to = target("component/control");
    // One runs, four wait without a worker, and the sixth is refused.
    for n in 0..6u32 {
        client.cast(&to, "wait", &n).await.unwrap();
    }
    gate.started.recv().await.unwrap();
    let refused = |refusal| control.counters().refused(refusal);
    until("four wait", || refused(Refusal::RateLimited) == 1).await;
    let statement = world.statement(1, |s| s.revoked = revoked(own_kid(&agent)));
    control.take_statement(statement.as_bytes()).unwrap();
    gate.go.send(true).unwrap();
    let executed = || control.counters().executed.get();
    until("all were judged", || refused(Refusal::Revoked) + executed() == 5).await;
    assert_eq!((refused(Refusal::Revoked), executed()), (4, 1));
}

#[tokio::test]
async fn nobody_seals_to_a_revoked_key_or_believes_its_replies() {
    let world = World::new();
    let (agent, control) = (world.agent("a"), world.component("control", "h1"));
    let _server = serve(&agent).await;
    let client = Client::new(control.clone());
    call(&client, "agent/a").await.unwrap();
    let statement = world.statement(1, |s| s.revoked = revoked(own_kid(&agent)));
    control.take_statement(statement.as_bytes()).unwrap();
    let error = call(&client, "agent/a").await.unwrap_err();
    assert!(matches!(&error, CallError::Revoked { refusal: Refusal::Revoked, .. }), "{error}");
}

/// A directory that goes by what it found until it is told that this is no longer good.
struct Keeping {
    inner: Arc<StaticDirectory>,
    kept: parking_lot::Mutex<Option<PeerKeys>>,
}

#[async_trait::async_trait]
impl Directory for Keeping {
    async fn peer(&self, peer: &Principal) -> Result<Option<PeerKeys>, DirectoryError> {
        if let Some(kept) = &*self.kept.lock() {
            return Ok(Some(kept.clone()));
        }
        let found = self.inner.peer(peer).await?;
        self.kept.lock().clone_from(&found);
        Ok(found)
    }

    fn expire(&self, _: &Principal) {
        *self.kept.lock() = None;
    }

    async fn pair_by_kid(&self, kid: Kid) -> Result<Option<PairKey>, DirectoryError> {
        self.inner.pair_by_kid(kid).await
    }

    async fn group_key(
        &self,
        group: &GroupName,
        epoch: Option<u32>,
    ) -> Result<Option<GroupKey>, DirectoryError> {
        self.inner.group_key(group, epoch).await
    }

    async fn groups(&self) -> Result<Vec<GroupName>, DirectoryError> {
        self.inner.groups().await
    }
}

#[tokio::test]
async fn whoever_gets_a_revoked_name_is_reached_at_once_whatever_the_directory_keeps() {
    let world = World::new();
    let former = world.agent("a");
    let directory = Arc::new(Keeping { inner: world.directory.clone(), kept: None.into() });
    let identity = world.component_identity("control", "h1", 1, validity());
    let transport = Arc::new(world.bus.transport());
    let control =
        Endpoint::new(identity, directory, transport, EndpointOptions::default()).unwrap();
    let client = Client::new(control.clone());
    let serving = serve(&former).await;
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
    serving.drain(Duration::ZERO).await;
    let statement = world.statement(1, |s| s.revoked = revoked(own_kid(&former)));
    control.take_statement(statement.as_bytes()).unwrap();
    let again = world.endpoint(world.agent_identity("a", Suite::X25519, 2));
    let _serving = serve(&again).await;
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
}

#[tokio::test]
async fn incarnations_and_epochs_below_the_lowest_are_refused() {
    let world = World::new();
    let control = world.component("control", "h1");
    let _server = serve(&control).await;
    let (a, b) = (world.agent("a"), world.agent("b"));
    let clients = [Client::new(a.clone()), Client::new(b.clone())];
    for client in &clients {
        call(client, "component/control").await.unwrap();
    }
    // The name `a` was given out anew, and `b` rotated its credential.
    let mut both = lowest(a.identity().principal(), 2, 1, 1);
    both.extend(lowest(b.identity().principal(), 1, 2, 1));
    let statement = world.statement(1, |s| s.lowest = both);
    control.take_statement(statement.as_bytes()).unwrap();
    for client in &clients {
        refused(client, "component/control", &control, Refusal::EpochStale).await;
    }
    let again = world.endpoint(world.agent_identity("a", Suite::X25519, 2));
    assert_eq!(call(&Client::new(again), "component/control").await.unwrap(), 7);
}

#[tokio::test]
async fn a_pair_epoch_is_judged_as_both_its_ends() {
    for whose in ["component/control", "agent/s"] {
        let world = World::new();
        let control = world.component("control", "h1");
        let _server = serve(&control).await;
        let client = Client::new(world.shared_agent("s", "control"));
        call(&client, "component/control").await.unwrap();
        let current = world.statement(1, |s| s.lowest = lowest(&whose.parse().unwrap(), 1, 9, 1));
        control.take_statement(current.as_bytes()).unwrap();
        assert_eq!(
            call(&client, "component/control").await.unwrap(),
            7,
            "a pair has no credential"
        );
        let next = world.statement(2, |s| s.lowest = lowest(&whose.parse().unwrap(), 1, 0, 2));
        control.take_statement(next.as_bytes()).unwrap();
        refused(&client, "component/control", &control, Refusal::EpochStale).await;
    }
}

#[tokio::test]
async fn an_agent_acts_on_no_components_message_without_a_current_statement() {
    let world = World::new();
    let clock = Shifted::by(0);
    let identity = world.agent_identity("a", Suite::X25519, 1).requiring_statement();
    let agent = world.endpoint_at(identity, clock.clone());
    let server = serve(&agent).await;
    let control = world.component("control", "h1");
    let client = Client::new(control.clone());
    refused(&client, "agent/a", &agent, Refusal::StatementMissing).await;
    // The component has one now: it goes along until the agent has shown that it holds it.
    control.take_statement(world.statement(1, |_| {}).as_bytes()).unwrap();
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
    assert_eq!(agent.revocation().epoch(), 1);
    // A newer one reaches the agent with the next message of the same session.
    let offers = agent.counters().offers.get();
    control.take_statement(world.statement(2, |_| {}).as_bytes()).unwrap();
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
    assert_eq!((agent.revocation().epoch(), agent.counters().offers.get()), (2, offers));
    // An hour and the skew later it is worth nothing, and the session is no reason to go on.
    clock.set(3600 + 115);
    assert!(agent.check_component_messages().is_ok(), "not over before its end and the skew");
    clock.set(3600 + 125);
    assert_eq!(agent.check_component_messages(), Err(Refusal::StatementMissing));
    server.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_was_withheld_comes_with_the_next_message() {
    let world = World::new();
    let agent = world.strict_agent("a");
    let _server = serve(&agent).await;
    let control = world.component("control", "h1");
    control.take_statement(world.statement(1, |_| {}).as_bytes()).unwrap();
    let client = Client::new(control.clone());
    // A cast shows nothing: the call after it carries the statement all the same.
    client.cast(&target("agent/a"), "echo", &1u32).await.unwrap();
    until("the cast ran", || agent.counters().executed.get() == 1).await;
    control.take_statement(world.statement(2, |_| {}).as_bytes()).unwrap();
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
    assert_eq!(agent.revocation().epoch(), 2);
    // An agent that lost everything, as after a restart, gets all of it again.
    let again = world.strict_agent("b");
    let first = serve(&again).await;
    call(&client, "agent/b").await.unwrap();
    first.drain(Duration::from_secs(5)).await;
    again.drop_sessions();
    let _second = serve(&again).await;
    assert_eq!(call(&client, "agent/b").await.unwrap(), 7);
}

#[tokio::test]
async fn a_reply_brings_the_statement_and_counts_for_nothing_without() {
    let world = World::new();
    let agent = world.strict_agent("a");
    let control = world.component("control", "h1");
    let _server = serve(&control).await;
    let client = Client::new(agent.clone());
    refused(&client, "component/control", &agent, Refusal::StatementMissing).await;
    control.take_statement(world.statement(1, |_| {}).as_bytes()).unwrap();
    assert_eq!(call(&client, "component/control").await.unwrap(), 7);
    assert_eq!(agent.revocation().epoch(), 1);
    control.take_statement(world.statement(2, |_| {}).as_bytes()).unwrap();
    assert_eq!(call(&client, "component/control").await.unwrap(), 7);
    assert_eq!(agent.revocation().epoch(), 2);
}

#[tokio::test]
async fn fanouts_carry_the_statement_and_old_group_epochs_are_refused() {
    let world = World::new();
    let agent = world.strict_agent("a");
    let _server = serve(&agent).await;
    let control = world.component("control", "h1");
    let client = Client::new(control.clone());
    let all = target("group/all");
    let group = |epoch| vec![(world.group.group.clone(), epoch)];
    client.fanout(&all, "echo", &1u32).await.unwrap();
    let missing = || agent.counters().refused(Refusal::StatementMissing);
    until("without a statement", || missing() == 1).await;
    control.take_statement(world.statement(1, |s| s.groups = group(1)).as_bytes()).unwrap();
    client.fanout(&all, "echo", &1u32).await.unwrap();
    until("with one", || agent.counters().executed.get() == 1).await;
    // The group has a new epoch, of which only a statement speaks.
    agent.take_statement(world.statement(2, |s| s.groups = group(2)).as_bytes()).unwrap();
    client.fanout(&all, "echo", &1u32).await.unwrap();
    until("an old epoch", || agent.counters().refused(Refusal::EpochStale) == 1).await;
    // And a revoked signer's fanouts are refused although its credential was verified before.
    let statement = world.statement(3, |s| s.revoked = revoked(own_kid(&control)));
    agent.take_statement(statement.as_bytes()).unwrap();
    client.fanout(&all, "echo", &1u32).await.unwrap();
    until("both", || agent.counters().refused(Refusal::EpochStale) == 2).await;
    assert_eq!(agent.counters().executed.get(), 1);
}

#[tokio::test]
async fn a_revoked_signers_fanout_is_refused() {
    let world = World::new();
    let agent = world.agent("a");
    let _server = serve(&agent).await;
    let control = world.component("control", "h1");
    let client = Client::new(control.clone());
    let all = target("group/all");
    client.fanout(&all, "echo", &1u32).await.unwrap();
    until("it ran", || agent.counters().executed.get() == 1).await;
    let statement = world.statement(1, |s| s.revoked = revoked(own_kid(&control)));
    agent.take_statement(statement.as_bytes()).unwrap();
    client.fanout(&all, "echo", &1u32).await.unwrap();
    until("it was refused", || agent.counters().refused(Refusal::Revoked) == 1).await;
}

#[tokio::test]
async fn what_is_no_statement_moves_nothing() {
    let world = World::new();
    let agent = world.agent("a");
    let good = world.statement(5, |_| {});
    agent.take_statement(good.as_bytes()).unwrap();
    for old in [1, 4] {
        let old = world.statement(old, |s| s.revoked = revoked(Kid([9; 8])));
        assert_eq!(agent.take_statement(old.as_bytes()), Ok(Applied::Older));
    }
    let other = world.statement(5, |s| s.revoked = revoked(Kid([9; 8])));
    assert_eq!(agent.take_statement(other.as_bytes()), Ok(Applied::Conflict));
    assert_eq!(agent.counters().refused_by_name("statement-conflict"), 1);
    let stranger = World::new().statement(9, |_| {});
    assert_eq!(agent.take_statement(stranger.as_bytes()), Err(Refusal::StatementInvalid));
    assert_eq!(agent.statement().unwrap().digest(), good.digest());
    assert_eq!(agent.revocation().epoch(), 5);
    assert!(!agent.revocation().is_revoked(&Kid([9; 8])));
}

#[tokio::test]
async fn a_forged_statement_in_a_frame_changes_nothing_about_the_message() {
    let world = World::new();
    let forged = World::new().statement(9, |_| {});
    let splice = forged.as_bytes().clone();
    let (agent, _) = (world.agent("a"), ());
    let _server = serve(&agent).await;
    // The broker puts a statement of its own into the last place of each request.
    let plan = Plan::script(move |sent, _| match sent.to {
        bulla_transport::Address::Reply { .. } => vec![Act::Pass],
        _ => vec![Act::Last(splice.clone())],
    });
    let identity = world.component_identity("control", "h1", 1, validity());
    let (control, _bus) = world.hostile(identity, plan);
    let client = Client::new(control);
    assert_eq!(call(&client, "agent/a").await.unwrap(), 7);
    assert_eq!(agent.counters().refused(Refusal::StatementInvalid), 1);
    assert_eq!(agent.revocation().epoch(), 0);
}

#[tokio::test]
async fn an_agents_time_is_never_before_the_newest_statement() {
    let world = World::new();
    let behind: Arc<Shifted> = Shifted::by(-7200);
    let identity = world.agent_identity("a", Suite::X25519, 1);
    let agent = world.endpoint_at(identity, behind.clone());
    let component =
        world.endpoint_at(world.component_identity("x", "h", 1, validity()), behind.clone());
    let statement = world.statement(1, |_| {});
    for endpoint in [&agent, &component] {
        endpoint.take_statement(statement.as_bytes()).unwrap();
    }
    assert_eq!(agent.now().secs(), statement.issued_at);
    assert!(component.now().secs() < statement.issued_at - 7000, "a component has its own clock");
    // So what the agent sends is not refused as old, and what is old is refused by it.
    let _server = serve(&world.component("control", "h1")).await;
    assert_eq!(call(&Client::new(agent), "component/control").await.unwrap(), 7);
}

#[tokio::test]
async fn parties_of_the_same_name_are_told_apart() {
    let party = |incarnation| Party::new("agent/a".parse().unwrap(), incarnation);
    let world = World::new();
    let agent = world.agent("b");
    let statement = world.statement(1, |s| s.lowest = lowest(&party(1).principal, 2, 3, 0));
    agent.take_statement(statement.as_bytes()).unwrap();
    let known = agent.revocation();
    use bulla_guard::revocation::{Subject, SubjectKey};
    let judge = |incarnation, epoch| {
        let key = SubjectKey::Credential(epoch);
        known.judge(&Subject { kid: Kid([1; 8]), party: party(incarnation), key })
    };
    assert_eq!(judge(1, 9), Err(Refusal::EpochStale));
    assert_eq!(judge(2, 2), Err(Refusal::EpochStale));
    assert_eq!(judge(2, 3), Ok(()));
    assert_eq!(judge(3, 1), Ok(()));
}
