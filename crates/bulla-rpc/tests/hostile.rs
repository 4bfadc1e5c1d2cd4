//! On a bus that misbehaves nothing runs twice, and nobody is lied to.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "common/book.rs"]
mod book;
mod common;
#[path = "common/hostile.rs"]
mod stage;
#[path = "common/stores.rs"]
mod stores;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bulla_guard::{ClaimStore, NewStore, SqliteClaims, SqliteOptions};
use bulla_rpc::*;
use bulla_transport::hostile::{Act, Plan, SEED_VARIABLE, Weights, flip, seeds};
use bulla_transport::{Address, TransportEvent};
use common::*;
use parking_lot::Mutex;
use serde_json::Value;
use stage::{Shared, Summary, run};
use stores::Fault;

type Runs = Arc<Mutex<HashMap<u32, u32>>>;

/// Counts how often each number ran; not idempotent.
fn counting(runs: &Runs) -> Router {
    let runs = runs.clone();
    let count = Method::new("count", move |_, n: u32| {
        let runs = runs.clone();
        async move {
            *runs.lock().entry(n).or_default() += 1;
            tokio::task::yield_now().await;
            Ok(u64::from(n) * 7 + 3)
        }
    });
    Router::new().with(count.open_to_components())
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

/// Runs seeds on both cores. A failure names its seed and shows what the broker did.
fn run_all(seeds: Vec<u64>, weights: Weights, shared: Shared) -> Summary {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let total = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let Some(seed) = seeds.get(n) else { break };
                    let (wrong, summary, log) = run(*seed, weights, shared);
                    assert!(
                        wrong.is_empty(),
                        "{log}\n{}\nrun it again with {SEED_VARIABLE}={seed}",
                        wrong.join("\n")
                    );
                    total.lock().add(summary);
                }
            });
        }
    });
    total.into_inner()
}

#[test]
fn hundreds_of_hostile_brokers() {
    let summary = run_all(seeds(0..150), Weights::default(), Shared::Memory);
    println!("{summary:#?}");
    // The harm was real, and most calls got through all the same.
    let (ends, refused) = (&summary.ends, &summary.refused);
    assert!(ends["value"] > ends["timeout"] && ends["timeout"] > 0, "{ends:?}");
    if seeds(0..2).len() > 1 {
        assert!(ends.contains_key(kinds::OUTCOME_UNKNOWN));
        for name in [
            "malformed",
            "not-authentic",
            "audience-mismatch",
            "signature-invalid",
            "credential-invalid",
            "session-unknown",
            "reply-mismatch",
            "kind-not-allowed",
            "before-start",
        ] {
            assert!(refused.contains_key(name), "{name}");
        }
    }
}

/// The harness must see what it is there for.
#[test]
fn faults_are_found() {
    for (fault, what) in [
        (Fault::Forgets, "ran more than once"),
        (Fault::TakesOver, "ran more than once"),
        (Fault::LateCompletion, "end one request differently"),
    ] {
        let found = (0..50).find(|seed| {
            let (wrong, ..) = run(*seed, Weights::default(), Shared::Faulty(fault));
            wrong.iter().any(|wrong| wrong.contains(what))
        });
        println!("{fault:?}: seed {found:?}");
        assert!(found.is_some(), "{fault:?} was not found");
    }
}

/// On disk, where virtual time waits for the real work.
#[test]
fn hostile_brokers_and_claims_on_disk() {
    run_all(seeds(1000..1008), Weights::default(), Shared::Sqlite);
}

#[test]
fn brokers_that_do_little_else_than_harm() {
    run_all(seeds(2000..2020), Weights::storm(), Shared::Memory);
}

/// Virtual time, and nothing random but the seed.
#[test]
fn a_seed_does_the_same_again() {
    for seed in seeds([7, 8, 9]) {
        let [first, second] = [(); 2].map(|()| run(seed, Weights::default(), Shared::Memory).2);
        assert!(first.lines().count() > 300);
        for (n, (a, b)) in first.lines().zip(second.lines()).enumerate() {
            assert_eq!(a, b, "seed {seed}, line {n}");
        }
        assert_eq!(first.len(), second.len());
        let other = run(seed + 1000, Weights::default(), Shared::Memory).2;
        assert_ne!(first, other);
    }
}

/// How many messages a server settled: each of them counts once.
fn settled(endpoint: &Endpoint) -> u64 {
    let counters = endpoint.counters();
    let refused: u64 = counters.refusals().values().sum();
    refused + counters.duplicates.get() + counters.executed.get()
}

struct Replayed {
    world: World,
    bus: Bus,
    client: Client,
    runs: Runs,
}

impl Replayed {
    /// Calls and casts to a component, to any host and to one host.
    async fn record(claims: Arc<dyn ClaimStore>) -> (Self, Server) {
        let world = World::new();
        let identity = world.component_identity("control", "h1", 1, validity());
        let (endpoint, bus) = world.hostile(identity, Plan::honest());
        let client = Client::new(endpoint);
        let runs = Runs::default();
        let service = world.component("conductor", "h1");
        let this = Self { world, bus, client, runs };
        let server = this.serve(service, claims).await;
        for n in 0..10u32 {
            for (base, to) in [(0, "component/conductor"), (100, "component/conductor@h1")] {
                let (to, n) = (target(to), base + n);
                let value: u64 = this.client.call(&to, "count", &n).await.unwrap();
                assert_eq!(value, u64::from(n) * 7 + 3);
                this.client.cast(&to, "count", &(n + 50)).await.unwrap();
            }
        }
        until("everything ran", || server.endpoint().counters().executed.get() == 40).await;
        (this, server)
    }

    async fn serve(&self, endpoint: Endpoint, claims: Arc<dyn ClaimStore>) -> Server {
        let options = ServerOptions { only_host: true, ..ServerOptions::new(claims) };
        Server::start(endpoint, counting(&self.runs), options).await.unwrap()
    }

    /// Every request, to where it went and to where it did not.
    async fn replay(&self, server: &Server) {
        let before = settled(server.endpoint());
        let mut again = 0;
        for sent in self.bus.requests() {
            for to in ["component/conductor", "component/conductor@h1"] {
                let to = target(to).address("bulla");
                for _ in 0..2 {
                    self.bus.inject(&to, sent.message.payload.clone()).await;
                    again += 1;
                }
            }
        }
        assert!(again >= 160);
        until("all copies are settled", || settled(server.endpoint()) >= before + again).await;
        assert_eq!(settled(server.endpoint()), before + again);
        let runs = self.runs.lock();
        assert_eq!(runs.len(), 40);
        assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
    }
}

#[tokio::test]
async fn no_replay_runs_from_memory() {
    let (replayed, server) = Replayed::record(claims()).await;
    replayed.replay(&server).await;
    // Half of the copies were for the other queue.
    let counters = server.endpoint().counters();
    assert_eq!(counters.refused_by_name("not-authentic"), 80);
    assert_eq!(counters.duplicates.get(), 80);
    // Later, and with all sessions gone.
    server.endpoint().drop_sessions();
    replayed.replay(&server).await;
}

#[tokio::test]
async fn no_replay_runs_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("claims.db");
    let open =
        |new| SqliteClaims::open(file.clone(), SqliteOptions::new(new, now().ns / 1_000_000));
    let store = open(NewStore::NothingBefore).await.unwrap();
    let (replayed, server) = Replayed::record(Arc::new(store.clone())).await;
    replayed.replay(&server).await;
    let endpoint = server.endpoint().clone();
    assert_eq!(server.drain(Duration::from_secs(10)).await, 0);
    store.close().await;
    drop((server, store));

    endpoint.drop_sessions();
    let store = open(NewStore::MayBeLost).await.unwrap();
    let server = replayed.serve(endpoint, Arc::new(store)).await;
    let duplicates = server.endpoint().counters().duplicates.get();
    replayed.replay(&server).await;
    assert!(server.endpoint().counters().duplicates.get() > duplicates);
    // And it goes on serving.
    let to = target("component/conductor");
    assert_eq!(replayed.client.call::<_, u64>(&to, "count", &1000).await.unwrap(), 7003);
    assert!(replayed.world.bus.waiting(&to.inbox("bulla").unwrap()) == Some(0));
}

#[tokio::test]
async fn a_duplicate_gets_the_very_same_reply() {
    let world = World::new();
    let identity = world.component_identity("control", "h1", 1, validity());
    let (endpoint, there) = world.hostile(identity, Plan::honest());
    let (agent, back) =
        world.hostile(world.agent_identity("db-1", bulla_seal::Suite::X25519, 1), Plan::honest());
    let client = Client::new(endpoint.clone());
    let runs = Runs::default();
    let server = Server::start(agent, counting(&runs), options()).await.unwrap();
    let _: u64 = client.call(&target("agent/db-1"), "count", &1).await.unwrap();
    let request = there.requests().remove(0);
    for copies in 2..5 {
        there.inject(&request.to, request.message.payload.clone()).await;
        until("it is answered again", || back.replies().len() == copies).await;
    }
    let replies = back.replies();
    assert!(replies.iter().all(|reply| reply.message.payload == replies[0].message.payload));
    assert!(replies.iter().all(|reply| reply.to == replies[0].to));
    assert_eq!(runs.lock().get(&1), Some(&1));
    assert_eq!(server.endpoint().counters().duplicates.get(), 3);
    // The caller has its answer and believes no second one.
    until("the others are refused", || endpoint.counters().refused_by_name("reply-mismatch") == 3)
        .await;
}

/// Every reply twice, and each also to whoever waits for another; the first call's reply in the
/// place of the second's.
#[tokio::test]
async fn replies_count_once_and_for_their_own_request() {
    let world = World::new();
    let control = world.component("control", "h1");
    let (agent, back) = world.hostile(
        world.agent_identity("db-1", bulla_seal::Suite::X25519, 1),
        Plan::script(|sent, _| if sent.n == 1 { vec![] } else { vec![Act::Pass, Act::Pass] }),
    );
    let client = Client::new(control.clone());
    let _server = Server::start(agent, counting(&Runs::default()), options()).await.unwrap();
    let to = target("agent/db-1");
    assert_eq!(client.call::<_, u64>(&to, "count", &1).await.unwrap(), 10);
    let second = {
        let (client, to) = (client.clone(), to.clone());
        tokio::spawn(async move {
            let request = client.request(&to, "count").timeout(Duration::from_secs(2));
            request.call::<_, u64>(&2).await
        })
    };
    until("the second reply is withheld", || back.replies().len() == 2).await;
    let first = back.replies().remove(0);
    back.inject(&first.to, first.message.payload).await;
    // Another agent answers in the place of the one that was asked.
    let stranger = world.component_identity("stranger", "h1", 1, validity());
    let (stranger, forged) = world.hostile(stranger, Plan::honest());
    let other = Client::new(stranger);
    let _: u64 = other.call(&to, "count", &3).await.unwrap();
    let foreign = back.replies().pop().unwrap();
    forged.inject(&first.to, foreign.message.payload).await;
    let error = second.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    assert!(control.counters().refused_by_name("reply-mismatch") >= 3);
    assert_eq!(client.waiting(), 0);
}

#[tokio::test]
async fn a_reply_of_another_peer_is_not_believed() {
    let world = World::new();
    let identity = world.component_identity("control", "h1", 1, validity());
    // What is for db-1 goes to db-2 too.
    let db2 = target("agent/db-2").address("bulla");
    let (endpoint, _) =
        world.hostile(identity, Plan::script(move |_, _| vec![Act::Reroute(db2.clone())]));
    let client = Client::new(endpoint.clone());
    let runs = Runs::default();
    let _away = Server::start(world.agent("db-1"), Router::new(), options()).await.unwrap();
    let other = Server::start(world.agent("db-2"), counting(&runs), options()).await.unwrap();
    let to = target("agent/db-1");
    let request = client.request(&to, "count").timeout(Duration::from_millis(500));
    let error = request.call::<_, u64>(&1).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    assert!(runs.lock().is_empty());
    assert!(other.endpoint().counters().refused_by_name("audience-mismatch") >= 1);
    assert_eq!(client.waiting(), 0);
}

#[tokio::test]
async fn a_connection_that_comes_back_runs_nothing_twice() {
    let world = World::new();
    let identity = world.component_identity("control", "h1", 1, validity());
    // The first request is lost with the connection.
    let (endpoint, bus) = world.hostile(
        identity,
        Plan::script(|sent, _| if sent.n == 0 { vec![] } else { vec![Act::Pass] }),
    );
    let client = Client::new(endpoint);
    let runs = Runs::default();
    let server = Server::start(world.agent("db-1"), counting(&runs), options()).await.unwrap();
    let call = |n: u32| {
        let client = client.clone();
        tokio::spawn(async move {
            let to = target("agent/db-1");
            client.call::<_, u64>(&to, "count", &n).await
        })
    };
    let waiting = call(1);
    until("it was sent", || bus.requests().len() == 1).await;
    bus.tell(TransportEvent::Connected);
    assert_eq!(waiting.await.unwrap().unwrap(), 10);
    // Sent again although it arrived: it runs once.
    assert_eq!(call(2).await.unwrap().unwrap(), 17);
    let last = bus.requests().pop().unwrap();
    bus.inject(&last.to, last.message.payload).await;
    until("the copy is settled", || server.endpoint().counters().duplicates.get() == 1).await;
    assert!(runs.lock().values().all(|runs| *runs == 1));
    assert_eq!(client.waiting(), 0);
}

#[tokio::test]
async fn notices_make_nobody_send_more_than_once() {
    let world = World::new();
    let identity = world.component_identity("control", "h1", 1, validity());
    let (endpoint, bus) = world.hostile(identity, Plan::honest());
    let client = Client::new(endpoint.clone());
    let (go, wait) = tokio::sync::watch::channel(false);
    let router = Router::new().method("wait", move |_, (): ()| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.ok();
            Ok(())
        }
    });
    let server = Server::start(world.agent("db-1"), router, options()).await.unwrap();
    let reply_name = client.reply_name().clone();
    let call =
        tokio::spawn(async move { client.call::<_, ()>(&target("agent/db-1"), "wait", &()).await });
    until("it was sent", || bus.requests().len() == 1).await;
    let parsed = bulla_seal::Parsed::parse(bus.requests()[0].message.payload.clone(), 1 << 20);
    let mut notice = vec![0x82, 0x00, 0x50];
    notice.extend(parsed.unwrap().header().id.as_bytes());
    let to = Address::Reply { exchange: "bulla".into(), to: reply_name, from: "agent/db-1".into() };
    for _ in 0..100 {
        bus.inject(&to, notice.clone().into()).await;
    }
    go.send(true).unwrap();
    call.await.unwrap().unwrap();
    assert!(bus.requests().len() <= 2, "{} sent", bus.requests().len());
    assert!(server.endpoint().counters().executed.get() == 1);
}

#[tokio::test]
async fn flipped_bits_everywhere_run_nothing() {
    let world = World::new();
    let identity = world.component_identity("control", "h1", 1, validity());
    let (endpoint, bus) = world.hostile(identity, Plan::honest());
    let client = Client::new(endpoint);
    let runs = Runs::default();
    let server = Server::start(world.agent("db-1"), counting(&runs), options()).await.unwrap();
    let to = target("agent/db-1");
    let _: u64 = client.call(&to, "count", &1).await.unwrap();
    let _: u64 = client.call(&to, "count", &2).await.unwrap();
    let frame = bus.requests()[1].message.payload.clone();
    let before = settled(server.endpoint());
    let bits = frame.len() as u64 * 8;
    for bit in 0..bits {
        bus.inject(&to.address("bulla"), flip(&frame, bit)).await;
    }
    until("all are settled", || settled(server.endpoint()) == before + bits).await;
    assert_eq!(server.endpoint().counters().executed.get(), 2);
    assert_eq!(server.endpoint().counters().duplicates.get(), 0);
    let _: Value = client.call::<_, Value>(&to, "count", &3).await.unwrap();
}
