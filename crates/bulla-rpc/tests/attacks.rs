//! What somebody with the broker's password, or with one agent's keys, can't do. Each of these
//! was possible once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::time::Duration;

use bulla_rpc::*;
use bulla_seal::{Refusal, Suite};
use bulla_transport::hostile::{Act, Plan};
use common::*;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn echo() -> Router {
    let echo = Method::new("echo", |_, args: Value| async move { Ok(args) });
    Router::new().with(echo.open_to_agents().open_to_components())
}

fn short<'a>(client: &'a Client, to: &'a Target, method: &'a str) -> client::Request<'a> {
    client.request(to, method).timeout(Duration::from_millis(300)).cancel_on_drop(false)
}

/// An inbox where nothing arrives held the only permit.
#[tokio::test]
async fn a_silent_queue_starves_no_other() {
    let world = World::new();
    let options = ServerOptions { concurrency: 1, ..options() };
    let _server = Server::start(world.component("api", "h1"), echo(), options).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    for to in ["component/api@h1", "component/api", "component/api@h1", "component/api@h1"] {
        let to = target(to);
        let request = client.request(&to, "echo").timeout(Duration::from_secs(10));
        assert_eq!(request.call::<_, Value>(&1).await.unwrap(), json!(1));
    }
}

/// A handler, or a decoder of arguments, that panics before its first await took its message
/// back to the queue, for ever.
#[tokio::test]
async fn a_panic_before_the_first_await_is_answered_once() {
    fn broken(_: Context, n: u32) -> std::future::Ready<HandlerResult<u32>> {
        assert!(n > 100, "a bug that arguments can reach");
        std::future::ready(Ok(n))
    }
    let world = World::new();
    let router = Router::new()
        .with(Method::new("once", broken))
        .with(Method::new("read", broken).read_only());
    let server = Server::start(world.agent("db-1"), router, options()).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    for method in ["once", "read"] {
        let error = client.call::<_, u32>(&to, method, &1).await.unwrap_err();
        assert!(matches!(error, CallError::Remote(e) if e.kind == kinds::INTERNAL));
        assert_eq!(client.call::<_, u32>(&to, method, &101).await.unwrap(), 101);
    }
    assert_eq!(server.endpoint().counters().executed.get(), 4);
    assert_eq!(world.bus.waiting(&to.inbox("bulla").unwrap()), Some(0));
}

/// Copies of one message that runs were all held unacknowledged, up to the queue's prefetch:
/// then nobody else was served until the lease ended.
#[tokio::test]
async fn copies_of_what_runs_keep_nobody_else_waiting() {
    let world = World::new();
    let (tx, mut started) = mpsc::channel(8);
    let (go, wait) = watch::channel(false);
    let slow = Method::new("slow", move |_, (): ()| {
        let (tx, mut wait) = (tx.clone(), wait.clone());
        async move {
            tx.send(()).await.unwrap();
            wait.wait_for(|go| *go).await.ok();
            Ok(1)
        }
    });
    let router = echo().with(slow.open_to_agents());
    let service = world.component("api", "h1");
    let _server = Server::start(service, router, options()).await.unwrap();
    // An agent that sends the same frame over and over.
    let (agent, bus) =
        world.hostile(world.agent_identity("evil", Suite::X25519, 1), Plan::honest());
    let to = target("component/api");
    let call = {
        let (client, to) = (Client::new(agent), to.clone());
        tokio::spawn(async move { client.call::<_, u32>(&to, "slow", &()).await })
    };
    started.recv().await.unwrap();
    let sent = bus.requests().remove(0);
    for _ in 0..1000 {
        bus.inject(&sent.to, sent.message.payload.clone()).await;
    }
    let honest = Client::new(world.agent("honest"));
    let request = honest.request(&to, "echo").timeout(Duration::from_secs(20));
    assert_eq!(request.call::<_, Value>(&1).await.unwrap(), json!(1));
    go.send(true).unwrap();
    assert_eq!(call.await.unwrap().unwrap(), 1);
    assert!(started.try_recv().is_err(), "it ran twice");
}

/// Hosts of one component type, more than one sender may have sessions, put each other's out.
#[tokio::test]
async fn hosts_of_a_component_keep_their_own_sessions() {
    let world = World::new();
    let server = Server::start(world.agent("db-1"), echo(), options()).await.unwrap();
    let to = target("agent/db-1");
    let hosts: Vec<_> =
        (0..12).map(|n| Client::new(world.component("control", &format!("h{n}")))).collect();
    for _ in 0..3 {
        for host in &hosts {
            let _: Value = host.call(&to, "echo", &1).await.unwrap();
        }
    }
    let counters = server.endpoint().counters();
    assert_eq!((counters.offers.get(), counters.notices.get()), (12, 0));
}

/// A renewed host with a newer credential epoch outdated its type's other hosts; its own older
/// credential it does outdate, and the sessions and fanouts made with it.
#[tokio::test]
async fn a_newer_epoch_outdates_its_own_host_alone() {
    let world = World::new();
    let host = |instance: &str, epoch| {
        let identity = world.component_identity("control", instance, epoch, validity());
        Client::new(world.endpoint(identity))
    };
    let (old, other, new) = (host("h1", 1), host("h2", 1), host("h1", 2));
    let server = Server::start(world.agent("db-1"), echo(), options()).await.unwrap();
    server.join_groups().await.unwrap();
    let counters = server.endpoint().counters();
    let (to, all) = (target("agent/db-1"), target("group/all"));
    for client in [&old, &other] {
        let _: Value = client.call(&to, "echo", &1).await.unwrap();
        client.fanout(&all, "echo", &1).await.unwrap();
    }
    until("both were heard", || counters.executed.get() == 4).await;
    let _: Value = new.call(&to, "echo", &1).await.unwrap();
    let _: Value = other.call(&to, "echo", &2).await.unwrap();
    let error = short(&old, &to, "echo").call::<_, Value>(&2).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    let stale = counters.refused(Refusal::EpochStale);
    assert!(stale >= 1, "{:?}", counters.refusals());
    old.fanout(&all, "echo", &2).await.unwrap();
    until("the fanout is refused", || counters.refused(Refusal::EpochStale) == stale + 1).await;
    assert_eq!(counters.executed.get(), 6);
}

/// Sessions of an older incarnation stayed good beside the newer one's.
#[tokio::test]
async fn a_new_incarnation_ends_the_old_ones_sessions() {
    let world = World::new();
    let server = Server::start(world.component("api", "h1"), echo(), options()).await.unwrap();
    let to = target("component/api");
    let was = Client::new(world.agent("db-1"));
    let _: Value = was.call(&to, "echo", &1).await.unwrap();
    let is = Client::new(world.endpoint(world.agent_identity("db-1", Suite::X25519, 2)));
    let _: Value = is.call(&to, "echo", &1).await.unwrap();
    let error = short(&was, &to, "echo").call::<_, Value>(&2).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    assert_eq!(server.endpoint().counters().executed.get(), 2);
    assert!(server.endpoint().counters().refused(Refusal::EpochStale) >= 1);
}

/// Recorded messages that are over cost the receiver two signatures and a decapsulation each,
/// and put the sender's living session out.
#[tokio::test]
async fn old_messages_cost_no_asymmetric_work() {
    let world = World::new();
    let clock = Shifted::by(0);
    let agent = world.endpoint_at(world.agent_identity("db-1", Suite::X25519, 1), clock.clone());
    let server = Server::start(agent, echo(), options()).await.unwrap();
    let to = target("agent/db-1");
    let identity = world.component_identity("control", "h1", 1, validity());
    let (endpoint, bus) = world.hostile(identity, Plan::honest());
    let client = Client::new(endpoint.clone());
    for _ in 0..10 {
        let _: Value = client.call(&to, "echo", &1).await.unwrap();
        endpoint.forget_sessions();
    }
    let counters = server.endpoint().counters();
    assert_eq!(counters.offers.get(), 10);
    server.endpoint().drop_sessions();
    clock.set(1000);
    for sent in bus.requests() {
        bus.inject(&sent.to, sent.message.payload).await;
    }
    until("all are refused", || counters.refused(Refusal::Expired) == 10).await;
    assert_eq!(counters.offers.get(), 10);
}

/// A call that found no queue made one, by casting there that the call is to be stopped.
#[tokio::test]
async fn a_call_that_went_nowhere_leaves_nothing_behind() {
    let world = World::new();
    let _known = world.agent("away");
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/away");
    for _ in 0..3 {
        let error = client.call::<_, ()>(&to, "x", &()).await.unwrap_err();
        assert!(matches!(error, CallError::Unroutable { .. }), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.bus.waiting(&to.inbox("bulla").unwrap()), None);
    assert_eq!(client.waiting(), 0);
    client.close();
    let error = client.call::<_, ()>(&to, "x", &()).await.unwrap_err();
    assert!(matches!(error, CallError::Closed), "{error}");
}

/// An agent that was made anew could not be called until the caller's session ran out.
#[tokio::test]
async fn an_agent_made_anew_is_found_after_one_timeout() {
    let world = World::new();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let first = Server::start(world.agent("db-1"), echo(), options()).await.unwrap();
    let _: Value = client.call(&to, "echo", &1).await.unwrap();
    first.drain(Duration::from_secs(5)).await;
    let again = world.endpoint(world.agent_identity("db-1", Suite::X25519, 2));
    let _second = Server::start(again, echo(), options()).await.unwrap();
    let error = short(&client, &to, "echo").call::<_, Value>(&2).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    assert_eq!(client.call::<_, Value>(&to, "echo", &3).await.unwrap(), json!(3));
}

/// Who withholds or uses up the notices kept a restarted receiver from being called at all.
#[tokio::test]
async fn withheld_notices_cost_one_call_and_not_all() {
    let world = World::new();
    let (agent, _) = world.hostile(
        world.agent_identity("db-1", Suite::X25519, 1),
        // A notice is the smallest thing that a receiver sends.
        Plan::script(|sent, _| match sent.message.payload.len() {
            0..40 => vec![],
            _ => vec![Act::Pass],
        }),
    );
    let server = Server::start(agent, echo(), options()).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let _: Value = client.call(&to, "echo", &1).await.unwrap();
    server.endpoint().drop_sessions();
    let error = short(&client, &to, "echo").call::<_, Value>(&2).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    assert_eq!(server.endpoint().counters().notices.get(), 1);
    assert_eq!(client.call::<_, Value>(&to, "echo", &3).await.unwrap(), json!(3));
}

/// A sender whose clock was set back a little could not speak until it had caught up.
#[tokio::test]
async fn a_clock_set_back_opens_a_new_session() {
    let world = World::new();
    let clock = Shifted::by(0);
    let identity = world.component_identity("control", "h1", 1, validity());
    let client = Client::new(world.endpoint_at(identity, clock.clone()));
    let _server = Server::start(world.agent("db-1"), echo(), options()).await.unwrap();
    let to = target("agent/db-1");
    let _: Value = client.call(&to, "echo", &1).await.unwrap();
    clock.set(-60);
    assert_eq!(client.call::<_, Value>(&to, "echo", &2).await.unwrap(), json!(2));
}

/// A wall clock that jumps counts as a lost store, and every session is dropped.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_is_a_lost_store() {
    let world = World::new();
    let clock = Shifted::by(0);
    let agent = world.endpoint_at(world.agent_identity("db-1", Suite::X25519, 1), clock.clone());
    let server = Server::start(agent, echo(), options()).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let _: Value = client.call(&to, "echo", &1).await.unwrap();
    // Let the watch look once, then put the clock back by five minutes and again.
    tokio::time::sleep(Duration::from_secs(6)).await;
    clock.set(-300);
    tokio::time::sleep(Duration::from_secs(6)).await;
    clock.set(0);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let error = short(&client, &to, "echo").call::<_, Value>(&2).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    let counters = server.endpoint().counters();
    assert!(counters.refused_by_name("before-start") >= 1, "{:?}", counters.refusals());
    assert_eq!((counters.executed.get(), counters.offers.get()), (1, 2));
}

/// Clients of one endpoint took each other's replies, and one that was dropped went on doing so.
#[tokio::test]
async fn clients_of_one_endpoint_take_only_their_own_replies() {
    let world = World::new();
    let _server = Server::start(world.agent("db-1"), echo(), options()).await.unwrap();
    let control = world.component("control", "h1");
    let to = target("agent/db-1");
    let kept = Client::new(control.clone());
    for n in 0..20 {
        for client in [&kept, &Client::new(control.clone())] {
            let request = client.request(&to, "echo").timeout(Duration::from_secs(20));
            assert_eq!(request.call::<_, Value>(&n).await.unwrap(), json!(n));
        }
    }
    assert_eq!(control.counters().refusals().values().sum::<u64>(), 0);
}
