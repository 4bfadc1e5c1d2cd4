//! Reading, forging, replaying and changing requests.

use std::time::Duration;

use bulla_oslo::Queues;
use bulla_oslo::legacy::LegacyKey;
use bulla_rpc::*;
use bulla_seal::*;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::common::rpc::{Keys, claims, until, validity};
use crate::common::{carrier, endpoint};
use crate::stage::*;

// Reading.

pub async fn a_request_is_not_readable(stage: &Stage) {
    let users = json!({"users": [{"name": "bob", "password": "hunter2"}]});
    let body = stage.seen_call("create_user", users).await;
    for word in ["hunter2", SECRET, "create_user", "users", "password", "method", "args", "context"]
    {
        assert!(!shows(&body, word), "{word} is readable");
    }
    let inner = inner_of(&body);
    let mut members: Vec<&String> = inner.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(members, ["_msg_id", "_reply_q", "_timeout", "_unique_id", "bulla"]);
}

pub async fn an_exception_is_not_readable(stage: &Stage) {
    let body = stage.stolen_reply("broken").await;
    for word in [SECRET, "RuntimeError", "log in"] {
        assert!(!shows(&body, word), "{word} is readable");
    }
}

pub async fn a_result_is_not_readable(stage: &Stage) {
    let body = stage.stolen_reply("enable_root").await;
    for word in [SECRET, "password", "root"] {
        assert!(!shows(&body, word), "{word} is readable");
    }
}

pub async fn nobody_decrypts_for_a_stranger(stage: &Stage) {
    let body = stage.seen_call("create_user", json!({"users": []})).await;
    let sealed = inner_of(&body)["bulla"].clone();
    let entity = json!({"entity": sealed, "csz-instance-id": "guest-a"}).to_string();
    let context = json!({"_context_context": sealed, "_context_csz-instance-id": "guest-a"});
    let asked =
        stage.plain("heartbeat", json!({"instance_id": entity, "payload": entity}), context);
    // And the message itself, where it does not belong.
    stage.refused(&stage.conductor, "trove-conductor", vec![asked, stage.again(&body)]).await;
}

// Forging.

pub async fn in_clear_to_a_guest(stage: &Stage) {
    let forged = stage.plain("stop_db", json!({}), json!({"_context_is_admin": true}));
    stage.refused(&stage.a, "guestagent.guest-a", vec![forged]).await;
}

pub async fn in_clear_with_a_context_that_does_not_decode(stage: &Stage) {
    let context = json!({"_context_context": "AAAA"});
    let mut beside = context.clone();
    beside["bulla"] = "AAAA".into();
    let forged = vec![
        stage.plain("stop_db", json!({}), context),
        stage.plain("stop_db", json!({}), beside),
        json!({"method": "stop_db", "args": {}}).to_string().into(),
    ];
    stage.refused(&stage.a, "guestagent.guest-a", forged).await;
}

pub async fn in_clear_to_the_task_manager(stage: &Stage) {
    let forged = stage.plain("delete_instance", json!({"instance_id": "x"}), json!({}));
    stage.refused(&stage.tasks, "trove-taskmanager", vec![forged]).await;
}

pub async fn in_clear_as_any_guest(stage: &Stage) {
    let args = json!({"instance_id": "guest-b", "payload": {"service_status": "shutdown"}});
    let forged = stage.plain("heartbeat", args, json!({}));
    stage.refused(&stage.conductor, "trove-conductor", vec![forged]).await;
}

pub async fn with_the_key_that_everybody_has(stage: &Stage) {
    let printed = LegacyKey::to_unwrap("bzH6y0SGmjuoY0FNSTptrhgieGXNDX6PIhvz");
    let seal = |value: Value| printed.seal(value.to_string().as_bytes()).unwrap();
    let context = json!({"_context_context": seal(json!({"is_admin": true}))});
    let troves = stage.plain("stop_db", json!({"x": seal(json!(1))}), context);
    // And a seal of somebody who made a session up under any key.
    let body = stage.seen_call("create_user", json!({"users": []})).await;
    let mut frame = frame_of(&body);
    let sender = b"component/taskmanager";
    let at = frame.windows(sender.len()).position(|part| part == sender).unwrap();
    frame[at - 24..at - 4].fill(0);
    let made_up = stage.with_frame(&body, &frame);
    stage.refused(&stage.a, "guestagent.guest-a", vec![troves, made_up]).await;
}

pub async fn with_code_by_name(stage: &Stage) {
    let args = json!({"serialized_notification": {"notification_classname": "x.Y"}});
    let forged = stage.plain("notify_end", args, json!({}));
    stage.refused(&stage.conductor, "trove-conductor", vec![forged]).await;
}

pub async fn a_guest_reports_for_another(stage: &Stage) {
    let denied = stage.heartbeat("guest-b").await;
    let Err(CallError::Remote(error)) = denied else { panic!("{denied:?}") };
    assert_eq!(error.kind, kinds::NOT_PERMITTED);
    assert!(error.message.contains("agents-report-only-on-themselves"), "{}", error.message);
    stage.nothing_ran();
}

pub async fn a_deleted_guests_key(stage: &Stage) {
    stage.heartbeat("guest-a").await.unwrap();
    let Keys::Pair { signing, .. } = &stage.keys_a else { panic!("a key pair") };
    let kid = signing.kid;
    let until_then = rpc_until();
    let statement =
        stage.world.statement(1, |s| s.revoked = vec![Revoked { kid, until: until_then }]);
    stage.conductor.endpoint.take_statement(statement.as_bytes()).unwrap();
    let (before, refused) = (stage.count("conductor", "heartbeat"), stage.conductor.refusals());
    let args = json!({"instance_id": "guest-a", "payload": {}});
    let to = conductor();
    let request = stage.guest_a.request(&to, "heartbeat").timeout(Duration::from_secs(2));
    assert!(request.call::<_, Value>(&args).await.is_err());
    assert!(stage.conductor.refusals() > refused);
    assert_eq!(stage.count("conductor", "heartbeat"), before);
}

/// Until when a revocation of today is told.
pub fn rpc_until() -> u64 {
    validity().not_after
}

// Replaying.

/// A cast that ran once, and copies of it, of which none runs.
pub async fn copies_of_a_cast(stage: &Stage, others: usize, copies: impl Fn(&Bytes) -> Vec<Bytes>) {
    let mut seen = stage.sniff("guestagent.guest-a").await;
    stage.tasks_client.cast(&guest("guest-a"), "stop_db", &json!({})).await.unwrap();
    let body = seen.next().await.unwrap().payload;
    seen.stop().await;
    until("the cast ran", || stage.count("guest-a", "stop_db") == 1).await;
    for _ in 0..others {
        call(&stage.tasks_client, &guest("guest-a"), "restart", json!({})).await.unwrap();
    }
    let (before, copies) = (stage.a.duplicates(), copies(&body));
    let count = copies.len() as u64;
    for copy in copies {
        stage.publish("guestagent.guest-a", copy).await;
    }
    until("the copies are noticed", || stage.a.duplicates() >= before + count).await;
    assert_eq!(stage.count("guest-a", "stop_db"), 1);
}

pub async fn the_same_bytes_again(stage: &Stage) {
    copies_of_a_cast(stage, 0, |body| vec![body.clone()]).await;
}

pub async fn the_same_under_another_id(stage: &Stage) {
    copies_of_a_cast(stage, 0, |body| vec![stage.again(body), stage.again(body)]).await;
}

pub async fn the_same_after_others(stage: &Stage) {
    copies_of_a_cast(stage, 17, |body| vec![body.clone(), stage.again(body)]).await;
}

pub async fn at_another_worker(stage: &Stage) {
    let keys = stage.world.agent_keys("auditor", Suite::X25519, 1);
    // What Redis or a database is to processes.
    let shared = claims();
    let mut workers = Vec::new();
    for at in ["one", "two"] {
        let way = carrier(&stage.url, Queues::default()).await;
        let endpoint = endpoint(&stage.world, keys.identity(&stage.world.trust), way, &[]).await;
        let options = ServerOptions { only_host: true, ..ServerOptions::new(shared.clone()) };
        let router = Router::new().with(noting(&stage.ran, at, "stop_db"));
        let server = Server::start(endpoint.clone(), router, options).await.unwrap();
        server.consume(&topic("auditor")).await.unwrap();
        workers.push(Served { endpoint, server });
    }
    let mut seen = stage.sniff("auditor").await;
    let to = named("agent/auditor", "auditor");
    stage.tasks_client.cast(&to, "stop_db", &json!({})).await.unwrap();
    let body = seen.next().await.unwrap().payload;
    until("it ran", || !stage.ran.lock().is_empty()).await;
    for _ in 0..6 {
        stage.publish("auditor", stage.again(&body)).await;
    }
    // The broker gives them to both in turn.
    until("both noticed copies", || workers.iter().all(|worker| worker.duplicates() >= 2)).await;
    assert_eq!(stage.ran.lock().len(), 1);
    for worker in workers {
        worker.server.drain(Duration::from_secs(5)).await;
    }
}

pub async fn an_old_heartbeat(stage: &Stage) {
    let mut seen = stage.sniff("trove-conductor").await;
    stage.heartbeat("guest-a").await.unwrap();
    let body = seen.next().await.unwrap().payload;
    seen.stop().await;
    let before = stage.conductor.duplicates();
    stage.publish("trove-conductor", stage.again(&body)).await;
    until("the copy is noticed", || stage.conductor.duplicates() > before).await;
    assert_eq!(stage.count("conductor", "heartbeat"), 1);
    // There is no argument outside the seal to leave out.
    let without = with(&stage.again(&body), json!({"args": {}}));
    stage.refused(&stage.conductor, "trove-conductor", vec![without]).await;
}

// Changing.

pub async fn any_bit_changed(stage: &Stage) {
    let body = stage.seen_call("create_user", json!({"users": [{"name": "ann"}]})).await;
    let frame = frame_of(&body);
    let step = (frame.len() / 40).max(1);
    let mut changed: Vec<Bytes> = (0..frame.len())
        .step_by(step)
        .map(|at| {
            let mut frame = frame.clone();
            frame[at] ^= 1;
            stage.with_frame(&body, &frame)
        })
        .collect();
    changed.push(with(&stage.again(&body), json!({"method": "stop_db"})));
    stage.refused(&stage.a, "guestagent.guest-a", changed).await;
}

pub async fn restart_into_delete(stage: &Stage) {
    let mut seen = stage.sniff("trove-taskmanager").await;
    call(&stage.api, &tasks(), "restart", json!({"instance_id": "db"})).await.unwrap();
    let body = seen.next().await.unwrap().payload;
    seen.stop().await;
    let changed = with(&stage.again(&body), json!({"method": "delete_instance"}));
    stage.refused(&stage.tasks, "trove-taskmanager", vec![changed]).await;
}

pub async fn parts_of_two_messages(stage: &Stage) {
    let one = stage.seen_call("create_user", json!({"users": [{"name": "one"}]})).await;
    let two = stage.seen_call("create_user", json!({"users": [{"name": "two"}]})).await;
    let (first, second) = (frame_of(&one), frame_of(&two));
    let spliced: Vec<Bytes> = (8..first.len().min(second.len()) - 1)
        .step_by(16)
        .map(|at| [&first[..at], &second[at..]].concat())
        .filter(|frame| *frame != first && *frame != second)
        .map(|frame| stage.with_frame(&one, &frame))
        .collect();
    assert!(spliced.len() > 5);
    stage.refused(&stage.a, "guestagent.guest-a", spliced).await;
}

pub async fn for_another_guest(stage: &Stage) {
    let body = stage.seen_call("restart", json!({})).await;
    stage.refused(&stage.b, "guestagent.guest-b", vec![stage.again(&body)]).await;
}

pub async fn under_another_name(stage: &Stage) {
    let mut seen = stage.sniff("trove-conductor").await;
    stage.heartbeat("guest-a").await.unwrap();
    let body = seen.next().await.unwrap().payload;
    seen.stop().await;
    let renamed = replaced(&frame_of(&body), b"guest-a", b"guest-b");
    let renamed = stage.with_frame(&body, &renamed);
    stage.refused(&stage.conductor, "trove-conductor", vec![renamed]).await;
}
