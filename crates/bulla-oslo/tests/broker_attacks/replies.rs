//! Forging replies, and denying service.

use std::time::Duration;

use bulla_oslo::Queues;
use bulla_rpc::*;
use bulla_seal::*;
use bulla_transport::{ConsumeOptions, Inbox, ReplyName};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::common::rpc::options;
use crate::common::{carrier, endpoint};
use crate::stage::*;

// Replies.

/// A call under way, and what `meddle` sends to who waits for it, changes nothing.
pub async fn is_not_believed(stage: &Stage, members: Vec<Value>) {
    let mut seen = stage.sniff("guestagent.guest-a").await;
    let client = stage.tasks_client.clone();
    let pending = tokio::spawn(async move {
        call(&client, &guest("guest-a"), "slow", json!({"seconds": 1.0})).await
    });
    let request = inner_of(&seen.next().await.unwrap().payload);
    seen.stop().await;
    for more in members {
        let mut reply = json!({"result": null, "failure": null, "ending": true,
            "_msg_id": request["_msg_id"], "_unique_id": stage.id()});
        reply.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage.reply(request["_reply_q"].as_str().unwrap(), enveloped(&reply)).await;
    }
    assert_eq!(pending.await.unwrap().unwrap(), "done by guest-a");
}

pub async fn a_forged_reply(stage: &Stage) {
    let failure = json!({"class": "SystemExit", "module": "builtins", "message": "x", "tb": [],
        "args": [], "kwargs": {}});
    let forged = vec![
        json!({"result": "forged"}),
        json!({"result": {"bulla": "AAAA"}}),
        json!({"result": {"bulla": "AAAA"}, "ending": false}),
        json!({"failure": failure.to_string()}),
    ];
    is_not_believed(stage, forged).await;
}

pub async fn the_reply_to_another_call(stage: &Stage) {
    let other = stage.stolen_reply("enable_root").await;
    is_not_believed(stage, vec![json!({"result": inner_of(&other)["result"]})]).await;
}

pub async fn a_reply_into_any_queue(stage: &Stage) {
    // The attacker takes the request out, and sends it on with other reply queues.
    let mut thief = stage.steal(&topic("guestagent.guest-a")).await;
    let client = stage.tasks_client.clone();
    let pending = tokio::spawn(async move {
        let to = guest("guest-a");
        let request = client.request(&to, "restart").timeout(Duration::from_secs(3));
        request.call::<_, Value>(&json!({})).await
    });
    let taken = thief.next().await.unwrap();
    let body = taken.payload.clone();
    taken.acker.ack();
    thief.stop().await;
    let before = stage.tasks.refusals();
    let mut watched = stage
        .attacker
        .inner()
        .consume(&reply_queue("reply_thief"), &ConsumeOptions::default())
        .await
        .unwrap();
    for queue in ["trove-taskmanager", "reply_thief"] {
        let elsewhere = with(&stage.again(&body), json!({"_reply_q": queue}));
        stage.publish("guestagent.guest-a", elsewhere).await;
    }
    assert!(pending.await.unwrap().is_err(), "nobody answered the caller");
    assert_eq!(stage.count("guest-a", "restart"), 1);
    let nothing = tokio::time::timeout(Duration::from_millis(300), watched.next()).await;
    assert!(nothing.is_err(), "a reply went where the outside said");
    assert_eq!(stage.tasks.refusals(), before);
}

pub fn reply_queue(name: &str) -> Inbox {
    let name = ReplyName::queue(name).unwrap();
    Inbox::Foreign(Queues::default().inbox(&Inbox::Reply { exchange: EXCHANGE.into(), name }))
}

// Denying.

pub async fn swallowed_requests(stage: &Stage) {
    let mut thief = stage.steal(&topic("guestagent.guest-b")).await;
    let to = guest("guest-b");
    let request = stage.tasks_client.request(&to, "stop_db").timeout(Duration::from_secs(1));
    let nothing = request.call::<_, Value>(&json!({})).await;
    assert!(matches!(nothing, Err(CallError::Timeout { .. })), "{nothing:?}");
    stage.nothing_ran();
    thief.next().await.unwrap().acker.ack();
    thief.stop().await;
}

pub async fn poison(stage: &Stage) {
    let bodies = [
        Bytes::from_static(b"\xff\xfe{"),
        Bytes::from_static(b"[1]"),
        Bytes::from_static(b"\"text\""),
        Bytes::from_static(b"{\"oslo.version\": \"2.0\", \"oslo.message\": \"[]\"}"),
        // What pickles in Python.
        Bytes::from_static(b"\x80\x04N."),
    ];
    stage.refused(&stage.a, "guestagent.guest-a", bodies.to_vec()).await;
    call(&stage.tasks_client, &guest("guest-a"), "restart", json!({})).await.unwrap();
    assert_eq!(stage.count("guest-a", "restart"), 1);
}

pub async fn a_deleted_queue(stage: &Stage) {
    let way = carrier(&stage.url, Queues::default()).await;
    let identity = stage.world.agent_identity("guest-d", Suite::X25519, 1);
    let endpoint = endpoint(&stage.world, identity, way, &[]).await;
    let router = guest_methods(&stage.ran, "guest-d");
    let server = Server::start(endpoint, router, options()).await.unwrap();
    server.consume(&topic("guestagent.guest-d")).await.unwrap();
    call(&stage.tasks_client, &guest("guest-d"), "restart", json!({})).await.unwrap();
    let queue = Inbox::Foreign(stage.attacker.queues().inbox(&topic("guestagent.guest-d")));
    stage.attacker.inner().delete(&queue).await.unwrap();
    let to = guest("guest-d");
    let request = stage.tasks_client.request(&to, "stop_db").timeout(Duration::from_secs(2));
    // Either it is noticed, or the queue is there again.
    let answered = request.call::<_, Value>(&json!({})).await;
    assert_eq!(answered.is_ok(), stage.count("guest-d", "stop_db") == 1, "{answered:?}");
    server.drain(Duration::from_secs(5)).await;
}
