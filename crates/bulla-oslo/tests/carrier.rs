//! Sealed messages over the oslo carrier: the same pipeline, in oslo.messaging's bodies.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bulla_oslo::{OsloTransport, Queues, wire};
use bulla_rpc::*;
use bulla_seal::*;
use bulla_transport::{ConsumeOptions, Inbox, Outbound, ReplyName, Transport};
use common::rpc::{World, options, until, validity};
use common::{endpoint, methods};
use serde_json::{Value, json};

fn over_memory(world: &World) -> Arc<OsloTransport> {
    let inner = Arc::new(world.bus.transport());
    Arc::new(OsloTransport::new(inner, Queues::default(), DEFAULT_MAX_FRAME))
}

fn conductor(server: Option<&str>) -> Target {
    Target::Named {
        principal: Principal::component("conductor").unwrap(),
        exchange: "trove".into(),
        topic: "trove-conductor".into(),
        server: server.map(str::to_owned),
    }
}

/// A conductor that serves the topics of Trove's, and an agent that calls it, with one way onto the bus
/// each.
async fn both(world: &World, ways: [Arc<dyn Transport>; 2]) -> (Server, Endpoint, Client) {
    let [at_server, at_client] = ways;
    let identity = world.component_identity("conductor", "h1", 1, validity());
    let serving = endpoint(world, identity, at_server, &[]).await;
    let server = Server::start(serving.clone(), methods(), options()).await.unwrap();
    for inbox in [None, Some("h.1")] {
        server.consume(&conductor(inbox).inbox("trove").unwrap()).await.unwrap();
    }
    let agent = world.agent_identity("db-1", Suite::X25519, 1);
    let client = Client::new(endpoint(world, agent, at_client, &[]).await);
    (server, serving, client)
}

async fn call(client: &Client, to: &Target, method: &str, args: Value) -> Result<Value, CallError> {
    client.request(to, method).timeout(Duration::from_secs(20)).call(&args).await
}

async fn works(client: &Client) {
    for to in [conductor(None), conductor(Some("h.1")), "component/conductor".parse().unwrap()] {
        let value = json!({"a": [1, 2.5, null, true, "é"]});
        assert_eq!(call(client, &to, "echo", json!({"value": value})).await.unwrap(), value);
        assert_eq!(call(client, &to, "sender", json!({})).await.unwrap(), "agent/db-1");
        match call(client, &to, "fail", json!({"text": "s3cret"})).await {
            Err(CallError::Remote(error)) => assert_eq!(error.kind, "Broken"),
            other => panic!("{other:?}"),
        }
    }
    let to = conductor(None);
    let ping = client.request(&to, "ping").namespace("baseapi").version("2.0");
    let pong: Value = ping.call(&json!({"arg": 7})).await.unwrap();
    assert_eq!(pong, json!({"pong": 7}));
}

#[tokio::test]
async fn the_same_pipeline_runs_and_nothing_is_outside_the_seal() {
    let world = World::new();
    let mut tap = world.bus.tap();
    let ways: [Arc<dyn Transport>; 2] = [over_memory(&world), over_memory(&world)];
    let (server, _, client) = both(&world, ways).await;
    works(&client).await;
    let (mut requests, mut replies) = (0, 0);
    while let Ok(Some(seen)) = tokio::time::timeout(Duration::from_millis(50), tap.next()).await {
        let text = String::from_utf8(seen.payload.to_vec()).unwrap();
        for secret in ["echo", "s3cret", "Broken", "baseapi", "sender", "pong"] {
            assert!(!text.contains(secret), "{secret} is in clear: {text}");
        }
        match wire::read_sealed(&seen.payload, DEFAULT_MAX_FRAME).unwrap() {
            wire::Sealed::Request(request) => {
                let queue = request.call.unwrap().reply_queue;
                assert!(queue.as_str().starts_with("reply_agent.db-1."), "{queue}");
                assert_eq!(seen.exchange, "trove");
                requests += 1;
            }
            wire::Sealed::Reply(reply) => {
                assert!(reply.ending);
                assert_eq!(seen.exchange, "");
                replies += 1;
            }
        }
    }
    assert!(requests >= 10 && replies >= 10, "{requests} {replies}");
    assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
}

/// Sends `body` as it is to the conductor's topic.
async fn send(way: &OsloTransport, body: Vec<u8>) {
    let to = conductor(None).address("trove");
    way.publish(&to, Outbound { mandatory: true, ..Outbound::new(body.into()) }).await.unwrap();
}

#[tokio::test]
async fn what_is_outside_only_routes() {
    let world = World::new();
    let ways: [Arc<dyn Transport>; 2] = [over_memory(&world), over_memory(&world)];
    let (server, serving, client) = both(&world, ways).await;
    let broker = over_memory(&world);
    // A plain request, and nonsense: refused before anybody asks what is in it.
    let plain = json!({"method": "echo", "args": {"value": 1}, "version": "1.0", "_unique_id": "29".repeat(16)});
    for inner in [plain.to_string(), "{}".to_owned(), "[]".to_owned()] {
        let body = json!({"oslo.version": "2.0", "oslo.message": inner}).to_string();
        let before = serving.counters().refused(Refusal::Malformed);
        send(&broker, body.into_bytes()).await;
        until("refused", || serving.counters().refused(Refusal::Malformed) > before).await;
    }
    // A sealed call whose outside names another reply queue than its inside is run and answered nowhere;
    // the same message with its own outside gets the answer.
    let mut tap = world.bus.tap();
    let calling = {
        let client = client.clone();
        tokio::spawn(
            async move { call(&client, &conductor(None), "echo", json!({"value": 1})).await },
        )
    };
    let first = tap.next().await.unwrap();
    assert_eq!(calling.await.unwrap().unwrap(), 1);
    let wire::Sealed::Request(request) =
        wire::read_sealed(&first.payload, DEFAULT_MAX_FRAME).unwrap()
    else {
        panic!("not a request")
    };
    let mut own = request.call.clone().unwrap();
    let name = ReplyName::queue("reply_thief").unwrap();
    let inbox = Inbox::Reply { exchange: "trove".into(), name };
    let mut thief = broker.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
    let mut elsewhere = own.clone();
    elsewhere.reply_queue = wire::ReplyQueue::parse("reply_thief").unwrap();
    let duplicates = || serving.counters().duplicates.get();
    let before = duplicates();
    send(&broker, wire::request(&request.frame, Some(&elsewhere), wire::Id([1; 16]))).await;
    until("taken for a copy", || duplicates() > before).await;
    own.id = wire::Id([9; 16]);
    send(&broker, wire::request(&request.frame, Some(&own), wire::Id([2; 16]))).await;
    until("taken for a copy again", || duplicates() > before + 1).await;
    let stolen = tokio::time::timeout(Duration::from_millis(200), thief.next()).await;
    assert!(stolen.is_err(), "a reply went where the outside said");
    let mut answered = false;
    while let Ok(Some(seen)) = tokio::time::timeout(Duration::from_millis(200), tap.next()).await {
        if let Ok(wire::Sealed::Reply(reply)) = wire::read_sealed(&seen.payload, DEFAULT_MAX_FRAME)
        {
            answered |=
                reply.call == wire::Id([9; 16]) && seen.routing_key == own.reply_queue.as_str();
        }
    }
    assert!(answered, "the copy with its own outside is answered");
    assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
}

#[tokio::test]
async fn a_caller_that_asks_for_signs_of_life_gets_them_sealed() {
    let world = World::new();
    let broker = over_memory(&world);
    // The call waits in the queue until the broker takes it, and gives it on as Python's driver would have
    // sent it: with a `_timeout`.
    let inbox = conductor(None).inbox("trove").unwrap();
    let mut taken = broker
        .inner()
        .consume(&Inbox::Foreign(broker.queues().inbox(&inbox)), &ConsumeOptions::default())
        .await
        .unwrap();
    let identity = world.component_identity("conductor", "h1", 1, validity());
    let agent = world.agent_identity("db-1", Suite::X25519, 1);
    let client = Client::new(endpoint(&world, agent, over_memory(&world), &[]).await);
    let calling = tokio::spawn({
        let client = client.clone();
        async move { call(&client, &conductor(None), "slow", json!({"seconds": 2.6})).await }
    });
    let first = taken.next().await.unwrap();
    let body = first.payload.clone();
    first.acker.ack();
    taken.stop().await;
    let wire::Sealed::Request(request) = wire::read_sealed(&body, DEFAULT_MAX_FRAME).unwrap()
    else {
        panic!("not a request")
    };
    let mut own = request.call.unwrap();
    own.monitor = wire::Monitor::from_secs(2.0);
    let serving = endpoint(&world, identity, over_memory(&world), &[]).await;
    let server = Server::start(serving, methods(), options()).await.unwrap();
    server.consume(&inbox).await.unwrap();
    let mut tap = world.bus.tap();
    send(&broker, wire::request(&request.frame, Some(&own), wire::Id([3; 16]))).await;
    assert_eq!(calling.await.unwrap().unwrap(), "done");
    let mut alive = 0;
    while let Ok(Some(seen)) = tokio::time::timeout(Duration::from_millis(100), tap.next()).await {
        if let Ok(wire::Sealed::Reply(reply)) = wire::read_sealed(&seen.payload, DEFAULT_MAX_FRAME)
        {
            assert_eq!(reply.call, own.id);
            alive += usize::from(!reply.ending);
        }
    }
    assert_eq!(alive, 2, "one sign of life a second, for 2.6 s");
    assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_set_of_options_carries_sealed_calls_over_rabbitmq() {
    let sets = [
        Queues::default(),
        Queues { durable: true, ..Queues::default() },
        Queues { auto_delete: true, ..Queues::default() },
        Queues { quorum: true, ..Queues::default() },
        Queues { quorum: true, transient_quorum: true, delivery_limit: 5, ..Queues::default() },
        Queues { quorum: true, transient_quorum: true, stream_fanout: true, ..Queues::default() },
    ];
    for (n, queues) in sets.into_iter().enumerate() {
        let Some(host) = bulla_services::require(bulla_services::VirtualHost::new()) else {
            return;
        };
        let url = host.url();
        let world = World::new();
        let ways: [Arc<dyn Transport>; 2] =
            [common::carrier(&url, queues.clone()).await, common::carrier(&url, queues).await];
        let (server, _, client) = both(&world, ways).await;
        works(&client).await;
        assert_eq!(server.drain(Duration::from_secs(5)).await, 0, "set {n}");
    }
}
