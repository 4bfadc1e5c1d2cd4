//! Floors between real endpoints: they rise by themselves, fall by no message, and give way to a
//! signed exemption alone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bulla_guard::floor::{
    Action, CensusRow, Event, FloorError, FloorStore, MemoryFloors, PeerRecord, SqliteFloors,
};
use bulla_rpc::*;
use bulla_seal::{Kid, Level, Party, Refusal, SignedExemption};
use bulla_transport::hostile::{Act, Plan};
use bytes::Bytes;
use common::*;

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn methods() -> Router {
    let method = |name| {
        let method = Method::new(name, |_, n: u32| async move { Ok(n) });
        method.namespace("guest").open_to_agents().open_to_components()
    };
    Router::new().with(method("resize")).with(method("status"))
}

/// A component that takes level `signed` too, as its topic is configured.
fn low() -> ServerOptions {
    ServerOptions { level: Level::Signed, ..options() }
}

fn with_floors(world: &World, identity: Identity, floors: Arc<dyn FloorStore>) -> Endpoint {
    let options = EndpointOptions { floors: Some(floors), ..EndpointOptions::default() };
    let transport = Arc::new(world.bus.transport());
    Endpoint::new(identity, world.directory.clone(), transport, options).unwrap()
}

fn control(world: &World, floors: Arc<dyn FloorStore>) -> Endpoint {
    with_floors(world, world.component_identity("control", "h1", 1, validity()), floors)
}

async fn call(client: &Client, to: &str, method: &str, level: Level) -> Result<u32, CallError> {
    let to = target(to);
    let request = client.request(&to, method).namespace("guest").timeout(Duration::from_secs(20));
    if level == Level::Signed { request.signed() } else { request }.call(&7).await
}

/// Sends a call that nobody answers, and waits until it was refused as below the floor.
async fn too_low(client: &Client, to: &str, method: &'static str, at: &Endpoint) {
    let before = at.counters().refused(Refusal::LevelNotAllowed);
    let (client, to) = (client.clone(), to.to_owned());
    let calling = tokio::spawn(async move { call(&client, &to, method, Level::Signed).await });
    until("refused", || at.counters().refused(Refusal::LevelNotAllowed) > before).await;
    calling.abort();
}

const CONTROL: &str = "component/control";

#[tokio::test]
async fn an_agents_floor_rises_is_kept_and_never_falls() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("floors.db");
    let store = Arc::new(SqliteFloors::open(&path).await.unwrap());
    let at = control(&world, store.clone());
    let server = Server::start(at.clone(), methods(), low()).await.unwrap();
    let agent = world.agent("a");
    let client = Client::new(agent.clone());
    assert_eq!(call(&client, CONTROL, "resize", Level::Signed).await.unwrap(), 7);
    let record = store.record(agent.identity().party()).await.unwrap().unwrap();
    assert_eq!(record.accepts, Level::Signed);
    assert_eq!(call(&client, CONTROL, "resize", Level::Sealed).await.unwrap(), 7);
    too_low(&client, CONTROL, "resize", &at).await;
    // Another agent is not touched by it.
    let other = Client::new(world.agent("b"));
    assert_eq!(call(&other, CONTROL, "resize", Level::Signed).await.unwrap(), 7);
    server.drain(Duration::from_secs(5)).await;
    store.close().await;

    // After a restart it is where it was, for new sessions too.
    let store = Arc::new(SqliteFloors::open(&path).await.unwrap());
    let at = control(&world, store);
    let _server = Server::start(at.clone(), methods(), low()).await.unwrap();
    agent.forget_sessions();
    too_low(&client, CONTROL, "resize", &at).await;
    assert_eq!(call(&client, CONTROL, "resize", Level::Sealed).await.unwrap(), 7);
}

#[tokio::test]
async fn what_does_not_pass_raises_nothing() {
    let world = World::new();
    let store = Arc::new(MemoryFloors::new());
    let at = control(&world, store.clone());
    let _server = Server::start(at.clone(), methods(), low()).await.unwrap();
    let identity = world.agent_identity("a", bulla_seal::Suite::X25519, 1);
    // Every sealed request of the agent is altered on the way, in its last bytes.
    let plan = Plan::script(|sent, _| match sent.to {
        bulla_transport::Address::Reply { .. } => vec![Act::Pass],
        // Behind the envelope: a null, and the offer or a null.
        _ => vec![Act::Flip((sent.message.payload.len() as u64 / 3) * 8)],
    });
    let (agent, _bus) = world.hostile(identity, plan);
    let party = agent.identity().party().clone();
    let client = Client::new(agent);
    let calling =
        tokio::spawn(async move { call(&client, CONTROL, "resize", Level::Sealed).await });
    until("refused", || at.counters().refusals().values().sum::<u64>() > 0).await;
    calling.abort();
    assert_eq!(store.record(&party).await.unwrap(), None);
    // The honest one's signed messages are taken as before.
    let honest = Client::new(world.agent("b"));
    assert_eq!(call(&honest, CONTROL, "resize", Level::Signed).await.unwrap(), 7);
}

#[tokio::test]
async fn a_components_floor_is_the_operators() {
    let world = World::new();
    let store = Arc::new(MemoryFloors::new());
    let identity = world.agent_identity("a", bulla_seal::Suite::X25519, 1);
    let agent = with_floors(&world, identity, store.clone());
    let _server = Server::start(agent.clone(), methods(), low()).await.unwrap();
    let (one, two) = (world.component("api", "h1"), world.component("api", "h2"));
    let party = one.identity().party().clone();
    let (one, two) = (Client::new(one), Client::new(two));
    assert_eq!(call(&one, "agent/a", "resize", Level::Sealed).await.unwrap(), 7);
    assert_eq!(call(&two, "agent/a", "resize", Level::Signed).await.unwrap(), 7);
    assert_eq!(store.record(&party).await.unwrap(), None);

    // A rise is rehearsed first: what would be refused is counted.
    let peer = agent.floors().peer(&party).await.unwrap();
    agent.floors().apply(&peer, Event::Rehearse { to: Level::Sealed }).await.unwrap();
    assert_eq!(call(&two, "agent/a", "resize", Level::Signed).await.unwrap(), 7);
    assert_eq!(call(&one, "agent/a", "resize", Level::Sealed).await.unwrap(), 7);
    assert_eq!(agent.counters().below_target.get(), 1);
    agent.floors().flush().await.unwrap();
    let below: Vec<CensusRow> =
        store.census().await.unwrap().into_iter().filter(|row| row.below > 0).collect();
    let [row] = &below[..] else { panic!("{below:?}") };
    assert_eq!(
        (row.method.as_str(), row.level, row.count, row.below),
        ("guest.resize", Level::Signed, 2, 1)
    );

    let action = agent.floors().apply(&peer, Event::Raise { to: Level::Sealed }).await.unwrap();
    assert_eq!(action, Action::Raised { from: Level::Plaintext });
    too_low(&two, "agent/a", "resize", &agent).await;
    assert_eq!(call(&two, "agent/a", "resize", Level::Sealed).await.unwrap(), 7);
}

#[tokio::test]
async fn an_exemption_is_for_one_peer_and_one_method() {
    let world = World::new();
    let store = Arc::new(MemoryFloors::new());
    let at = control(&world, store.clone());
    // The server itself demands sealed of everybody.
    let _server = Server::start(at.clone(), methods(), options()).await.unwrap();
    let (agent, other) = (world.agent("a"), world.agent("b"));
    let party = agent.identity().party().clone();
    let (client, stranger) = (Client::new(agent), Client::new(other));
    call(&client, CONTROL, "resize", Level::Sealed).await.unwrap();
    too_low(&client, CONTROL, "resize", &at).await;

    let forged = World::new().exemption(&party, "guest.resize", Level::Signed);
    store.add_exemption(&forged).await.unwrap();
    assert!(at.refresh_floors().await.unwrap());
    too_low(&client, CONTROL, "resize", &at).await;

    let given = world.exemption(&party, "guest.resize", Level::Signed);
    store.add_exemption(&given).await.unwrap();
    assert!(at.refresh_floors().await.unwrap());
    assert_eq!(call(&client, CONTROL, "resize", Level::Signed).await.unwrap(), 7);
    assert_eq!(at.counters().exempted.get(), 1);
    let executed = at.counters().executed.get();
    too_low(&client, CONTROL, "status", &at).await;
    too_low(&stranger, CONTROL, "resize", &at).await;
    assert_eq!(at.counters().executed.get(), executed);
    // It lowered nothing: once it is taken back, all is as before.
    assert_eq!(store.record(&party).await.unwrap().unwrap().accepts, Level::Sealed);
    assert!(store.remove_exemption(given.id).await.unwrap());
    assert!(at.refresh_floors().await.unwrap());
    too_low(&client, CONTROL, "resize", &at).await;
}

/// Can't write while it is told not to.
#[derive(Debug, Default)]
struct Failing {
    inner: MemoryFloors,
    fails: AtomicBool,
}

#[async_trait]
impl FloorStore for Failing {
    async fn record(&self, peer: &Party) -> Result<Option<PeerRecord>, FloorError> {
        self.inner.record(peer).await
    }

    async fn apply(&self, peer: &Party, event: Event) -> Result<(PeerRecord, Action), FloorError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(FloorError {
                place: "in this test".into(),
                why: "the disk is full".into(),
            });
        }
        self.inner.apply(peer, event).await
    }

    async fn records(&self) -> Result<Vec<(Party, PeerRecord)>, FloorError> {
        self.inner.records().await
    }

    async fn exemptions(&self) -> Result<Vec<Bytes>, FloorError> {
        self.inner.exemptions().await
    }

    async fn add_exemption(&self, exemption: &SignedExemption) -> Result<(), FloorError> {
        self.inner.add_exemption(exemption).await
    }

    async fn remove_exemption(&self, id: Kid) -> Result<bool, FloorError> {
        self.inner.remove_exemption(id).await
    }

    async fn generation(&self) -> Result<u64, FloorError> {
        self.inner.generation().await
    }

    async fn add_census(&self, rows: &[CensusRow]) -> Result<(), FloorError> {
        self.inner.add_census(rows).await
    }

    async fn census(&self) -> Result<Vec<CensusRow>, FloorError> {
        self.inner.census().await
    }
}

#[tokio::test]
async fn nothing_runs_before_the_rise_is_kept() {
    let world = World::new();
    let store = Arc::new(Failing::default());
    store.fails.store(true, Ordering::SeqCst);
    let at = control(&world, store.clone());
    let _server = Server::start(at.clone(), methods(), low()).await.unwrap();
    let client = Client::new(world.agent("a"));
    let calling =
        tokio::spawn(async move { call(&client, CONTROL, "resize", Level::Sealed).await });
    until("it was opened", || at.counters().offers.get() > 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(at.counters().executed.get(), 0);
    // It went back to the queue, and runs when the floor can be kept.
    store.fails.store(false, Ordering::SeqCst);
    assert_eq!(calling.await.unwrap().unwrap(), 7);
    assert_eq!(at.counters().executed.get(), 1);
}

#[tokio::test]
async fn what_is_below_the_floor_is_refused_before_it_is_opened() {
    let world = World::new();
    let at = control(&world, Arc::new(MemoryFloors::new()));
    let _server = Server::start(at.clone(), methods(), options()).await.unwrap();
    let identity = world.agent_identity("a", bulla_seal::Suite::X25519, 1);
    // The content of each request is altered on the way, behind its header.
    let plan = Plan::script(|sent, _| match sent.to {
        bulla_transport::Address::Reply { .. } => vec![Act::Pass],
        _ => vec![Act::Flip((sent.message.payload.len() as u64 / 4) * 8)],
    });
    let (agent, _bus) = world.hostile(identity, plan);
    let client = Client::new(agent);
    let calling =
        tokio::spawn(async move { call(&client, CONTROL, "resize", Level::Signed).await });
    until("refused", || at.counters().refusals().values().sum::<u64>() > 0).await;
    calling.abort();
    let refusals = at.counters().refusals();
    assert_eq!(refusals.get("level-not-allowed"), Some(&1), "{refusals:?}");
}
