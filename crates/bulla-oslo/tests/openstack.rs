//! Real oslo.messaging of Debian, in clear and with Trove's serializers, as client and as server, against
//! what is ours: only what is exempted, and nothing that is forged.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bulla_oslo::legacy::{LegacyKey, unwrap_key};
use bulla_oslo::{
    ClearClient, ClearError, ClearRequest, Form, LegacyPeer, LegacyReader, OsloTransport, Queues,
    Rule,
};
use bulla_rpc::*;
use bulla_seal::*;
use bulla_transport::{Inbox, Outbound, Transport};
use common::rpc::{World, options, until, validity};
use common::{Peer, carrier, endpoint, installed, methods};
use serde_json::{Map, Value, json};

const KEY: &str = "yLLiWW1gM8yFbTEIUoYM0mnMwRt8Cjgl";
const GUEST: &str = "f9b4a958-5c27-4dbe-9c8c-61394b5c56aa";
const METHODS: [&str; 7] = ["echo", "who", "sender", "slow", "fail", "baseapi.ping", "note"];

fn party(text: &str) -> Party {
    Party::new(text.parse().unwrap(), 1)
}

/// Exemptions of every method but `secret`, for these parties.
fn exempted(world: &World, level: Level, parties: &[&str]) -> Vec<SignedExemption> {
    let each = parties.iter().flat_map(|who| METHODS.map(|method| (party(who), method)));
    each.map(|(who, method)| world.exemption(&who, method, level)).collect()
}

fn rule(topic: &str, peer: LegacyPeer) -> Rule {
    Rule { exchange: "trove".into(), topic: topic.into(), peer }
}

fn inboxes(topic: &str) -> [Inbox; 3] {
    let (exchange, topic) = ("trove".to_owned(), topic.to_owned());
    [
        Inbox::Topic { exchange: exchange.clone(), topic: topic.clone() },
        Inbox::Server { exchange: exchange.clone(), topic: topic.clone(), server: "h1".into() },
        Inbox::Fanout { exchange, topic, member: "m1".into() },
    ]
}

/// A conductor of ours that reads what these rules say.
async fn serve(
    world: &World,
    way: Arc<OsloTransport>,
    exemptions: &[SignedExemption],
    rules: Vec<Rule>,
) -> (Server, Endpoint) {
    let identity = world.component_identity("conductor", "h1", 1, validity());
    let serving = endpoint(world, identity, way, exemptions).await;
    let unsealed = LegacyReader::new(rules, DEFAULT_MAX_FRAME);
    let options = ServerOptions { unsealed: Some(Arc::new(unsealed)), ..options() };
    let secret = Method::new("secret", |_, (): ()| async { Ok(1) }).open_to_components();
    let noted = Method::new("note", |_, _: Value| async { Ok(()) });
    let router = methods().with(secret).with(noted.open_to_agents().open_to_components());
    let server = Server::start(serving.clone(), router, options).await.unwrap();
    for inbox in inboxes("trove-conductor") {
        server.consume(&inbox).await.unwrap();
    }
    (server, serving)
}

fn host() -> Option<bulla_services::VirtualHost> {
    bulla_services::require(bulla_services::VirtualHost::new())
}

fn ran(endpoint: &Endpoint) -> u64 {
    endpoint.counters().exempted.get()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_in_clear_reaches_what_is_exempted_and_nothing_else() {
    if !installed(&["oslo_messaging"]) {
        return;
    }
    let Some(host) = host() else { return };
    let world = World::new();
    let exemptions = exempted(&world, Level::Plaintext, &["component/api"]);
    let way = carrier(&host.url(), Queues::default()).await;
    let api = Principal::component("api").unwrap();
    let rules = vec![rule("trove-conductor", LegacyPeer::Clear(api))];
    let (server, serving) = serve(&world, way, &exemptions, rules).await;
    let mut peer = Peer::start(&host.url(), &json!({"exchange": "trove"}));
    let ask = |method: &str, more: Value| {
        let mut request = json!({"op": "call", "topic": "trove-conductor", "method": method});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let value = json!({"a": [1, 2.5, null, true, "é", 1795299829.2872586]});
    let echoed = peer.ask(&ask("echo", json!({"args": {"value": value}})));
    assert_eq!(echoed, json!({"value": value}));
    assert_eq!(peer.ask(&ask("who", json!({"server": "h1"}))), json!({"value": "u1"}));
    assert_eq!(peer.ask(&ask("sender", json!({}))), json!({"value": "component/api"}));
    let ping = json!({"namespace": "baseapi", "version": "2.1", "args": {"arg": 7}});
    assert_eq!(peer.ask(&ask("ping", ping)), json!({"value": {"pong": 7}}));
    let failed = peer.ask(&ask("fail", json!({"args": {"text": "no room"}})));
    assert_eq!(failed["error"], "Broken", "{failed}");
    // Longer than the caller waits between two signs of life.
    let slow = peer.ask(&ask("slow", json!({"args": {"seconds": 3.5}, "monitor": 2})));
    assert_eq!(slow, json!({"value": "done"}));
    let before = ran(&serving);
    for fanout in [false, true] {
        let cast = json!({"op": "cast", "fanout": fanout, "args": {"value": 1}});
        assert_eq!(peer.ask(&ask("note", cast)), json!({"value": null}));
    }
    until("the casts ran", || ran(&serving) == before + 2).await;
    // A method without an exemption is refused, not answered.
    let refused = serving.counters().refused(Refusal::LevelNotAllowed);
    let answer = peer.ask(&ask("secret", json!({"timeout": 2})));
    assert_eq!(answer["error"], "MessagingTimeout", "{answer}");
    assert!(serving.counters().refused(Refusal::LevelNotAllowed) > refused);
    assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
}

fn clear_request(method: &str, args: Value) -> ClearRequest {
    let args = args.as_object().cloned().unwrap_or_default();
    // Trove's context has the one, and oslo's own tests the other.
    let context = ["user", "user_id"].map(|name| (name.to_owned(), json!("u1")));
    let context = Map::from_iter(context);
    ClearRequest { method: method.into(), args, context, ..ClearRequest::default() }
}

async fn caller(world: &World, url: &str, level: Level) -> ClearClient {
    let way = carrier(url, Queues::default()).await;
    let mut exemptions = exempted(world, level, &["component/legacy"]);
    for method in ["notes", "svc.happened"] {
        exemptions.push(world.exemption(&party("component/legacy"), method, level));
    }
    let identity = world.component_identity("control", "h1", 1, validity());
    let own = endpoint(world, identity, way.clone(), &exemptions).await;
    ClearClient::new(own, way).unwrap()
}

fn legacy(form: Form, server: Option<&str>) -> bulla_oslo::Peer {
    bulla_oslo::Peer {
        principal: Principal::component("legacy").unwrap(),
        exchange: "trove".into(),
        topic: "worker".into(),
        server: server.map(str::to_owned),
        form,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_in_clear_is_called_where_that_is_exempted() {
    if !installed(&["oslo_messaging"]) {
        return;
    }
    let Some(host) = host() else { return };
    let world = World::new();
    let _peer =
        Peer::start(&host.url(), &json!({"exchange": "trove", "topic": "worker", "server": "w1"}));
    let client = caller(&world, &host.url(), Level::Plaintext).await;
    for to in [legacy(Form::Clear, None), legacy(Form::Clear, Some("w1"))] {
        let value = json!({"a": [1, 2.5, null, true, "é"]});
        let echo = client.call(&to, clear_request("echo", json!({"value": value}))).await;
        assert_eq!(echo.unwrap(), value);
        assert_eq!(client.call(&to, clear_request("who", json!({}))).await.unwrap(), "u1");
    }
    let to = legacy(Form::Clear, None);
    let ping = ClearRequest {
        namespace: Some("baseapi".into()),
        version: Some("2.0".into()),
        ..clear_request("ping", json!({"arg": 7}))
    };
    assert_eq!(client.call(&to, ping).await.unwrap(), json!({"pong": 7}));
    let failed = client.call(&to, clear_request("fail", json!({"text": "no room"}))).await;
    let Err(ClearError::Failed(failure)) = failed else { panic!("{failed:?}") };
    assert_eq!((failure.class.as_str(), failure.message.as_str()), ("Broken", "no room"));
    let slow = |seconds: f64, timeout: u64| ClearRequest {
        monitor: Some(Duration::from_secs(2)),
        timeout: Some(Duration::from_secs(timeout)),
        ..clear_request("slow", json!({"seconds": seconds}))
    };
    assert_eq!(client.call(&to, slow(3.5, 20)).await.unwrap(), "done");
    assert!(matches!(client.call(&to, slow(3.0, 1)).await, Err(ClearError::Timeout(_))));
    client.cast(&to, clear_request("note", json!({"value": 1}))).await.unwrap();
    client.fanout(&to, clear_request("note", json!({"value": 2}))).await.unwrap();
    let mut notes = Value::Null;
    for _ in 0..100 {
        notes = client.call(&to, clear_request("notes", json!({}))).await.unwrap();
        if notes.as_array().is_some_and(|notes| notes.len() == 2) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut notes: Vec<i64> = serde_json::from_value(notes).unwrap();
    notes.sort_unstable();
    assert_eq!(notes, [1, 2]);
    // Nobody exempted this one, and nothing of it leaves.
    let nothing = client.call(&to, clear_request("nothing", json!({}))).await;
    assert!(matches!(nothing, Err(ClearError::NotExempted { .. })), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn troves_own_serializers_are_read_and_answered_and_forgeries_refused() {
    if !installed(&["oslo_messaging", "trove.common.rpc.secure_serializer"]) {
        return;
    }
    let Some(host) = host() else { return };
    let world = World::new();
    let guest = format!("agent/{GUEST}");
    let exemptions = exempted(&world, Level::AesCbc, &["component/api", &guest]);
    let way = carrier(&host.url(), Queues::default()).await;
    let key = || Arc::new(LegacyKey::new(KEY).unwrap());
    let api = Principal::component("api").unwrap();
    let guests = HashMap::from([(GUEST.to_owned(), (guest.parse().unwrap(), key()))]);
    let rules = vec![
        rule("trove-conductor", LegacyPeer::Trove(api, key())),
        rule("trove-conductor", LegacyPeer::TroveGuests(Arc::new(guests))),
    ];
    let (server, serving) = serve(&world, way.clone(), &exemptions, rules).await;

    // The control plane's serializer, with answers.
    let mut peer = Peer::start(&host.url(), &json!({"exchange": "trove", "key": KEY}));
    let ask = |op: &str, method: &str, args: Value| json!({"op": op, "topic": "trove-conductor", "method": method, "args": args, "timeout": 4});
    let value = json!({"_name": "root", "_password": "s3cret"});
    assert_eq!(peer.ask(&ask("call", "echo", json!({"value": value}))), json!({"value": value}));
    assert_eq!(peer.ask(&ask("call", "sender", json!({}))), json!({"value": "component/api"}));
    let failed = peer.ask(&ask("call", "fail", json!({"text": "s3cret"})));
    assert_eq!(failed["error"], "Broken");
    assert!(!failed.to_string().contains("s3cret"), "failures go in clear: {failed}");
    assert_eq!(peer.ask(&ask("call", "secret", json!({})))["error"], "MessagingTimeout");

    // A guest's, which names its key; and the same bytes again, as they are and changed.
    let mut of_guest =
        Peer::start(&host.url(), &json!({"exchange": "trove", "key": KEY, "guest": GUEST}));
    let before = ran(&serving);
    assert_eq!(of_guest.ask(&ask("cast", "note", json!({"value": 1})))["value"], Value::Null);
    until("the guest's cast ran", || ran(&serving) == before + 1).await;

    let forged = attacks();
    for (name, body) in forged {
        let total = || serving.counters().refusals().values().sum::<u64>();
        let (before, exempted) = (total(), ran(&serving));
        let to = bulla_transport::Address::Topic {
            exchange: "trove".into(),
            topic: "trove-conductor".into(),
        };
        way.publish(&to, Outbound::new(body.into())).await.unwrap();
        until(name, || total() > before).await;
        assert_eq!(ran(&serving), exempted, "{name} was let through");
    }
    assert_eq!(server.drain(Duration::from_secs(5)).await, 0);
}

/// What a broker can make of messages of Trove's that it saw.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let key = LegacyKey::new(KEY).unwrap();
    let other = LegacyKey::new("another-key-of-another-guest-000").unwrap();
    let seal = |value: Value| key.seal(value.to_string().as_bytes()).unwrap();
    let context = || seal(json!({"user": "u1"}));
    let body = |args: Value, context: Value| {
        let mut inner = json!({"method": "note", "args": args, "version": "1.0", "_unique_id": "29".repeat(16)});
        inner.as_object_mut().unwrap().extend(context.as_object().unwrap().clone());
        json!({"oslo.version": "2.0", "oslo.message": inner.to_string()}).to_string().into_bytes()
    };
    let labelled =
        |entity: &str, label: &str| json!({"entity": entity, "csz-instance-id": label}).to_string();
    let of_guest = |context: String, label: &str| json!({"_context_context": context, "_context_csz-instance-id": label});
    let secure = |context: String| json!({"_context_context": context});
    let mut bits = seal(json!(1)).into_bytes();
    bits[2] ^= 1;
    let short = seal(json!("a value of more than one block of sixteen bytes"));
    let cut = {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD;
        let bytes = engine.decode(&short).unwrap();
        engine.encode(&bytes[..48])
    };
    vec![
        ("F1: in clear", body(json!({"value": 1}), json!({"_context_user_id": "u1"}))),
        ("F1: in clear, no context", body(json!({"value": 1}), json!({}))),
        (
            "F2: in clear beside an undecodable context",
            body(json!({"value": 1}), secure("AAAA".into())),
        ),
        ("F2: in clear beside a good context", body(json!({"value": 1}), secure(context()))),
        ("F5: the printed key", {
            let printed = LegacyKey::to_unwrap("bzH6y0SGmjuoY0FNSTptrhgieGXNDX6PIhvz");
            let seal = |value: Value| printed.seal(value.to_string().as_bytes()).unwrap();
            body(json!({"value": seal(json!(1))}), secure(seal(json!({}))))
        }),
        ("F7: a guest's key under another's label", {
            let value = other.seal(b"1").unwrap();
            let context = other.seal(b"{}").unwrap();
            body(json!({"value": labelled(&value, GUEST)}), of_guest(context, GUEST))
        }),
        (
            "C4: a flipped bit of the IV",
            body(
                json!({"value": String::from_utf8(bits).unwrap()}),
                secure(seal(json!({"user": "u2"}))),
            ),
        ),
        ("C4: a value that was cut", body(json!({"value": cut}), secure(context()))),
        (
            "C6: two labels",
            body(
                json!({"value": labelled(&seal(json!(1)), "another")}),
                of_guest(context(), GUEST),
            ),
        ),
        (
            "C6: a label that nobody has",
            body(json!({"value": labelled(&seal(json!(1)), "x")}), of_guest(context(), "x")),
        ),
        (
            "a value of the other form",
            body(json!({"value": seal(json!(1))}), of_guest(context(), GUEST)),
        ),
        (
            "a context that is no object",
            body(json!({"value": seal(json!(1))}), secure(seal(json!([])))),
        ),
        (
            "a member too many",
            body(
                json!({"value": seal(json!(1))}),
                json!({"_context_context": context(), "_context_x": 1}),
            ),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_with_troves_serializer_is_called() {
    if !installed(&["oslo_messaging", "trove.common.rpc.secure_serializer"]) {
        return;
    }
    let Some(host) = host() else { return };
    let world = World::new();
    let options = json!({"exchange": "trove", "topic": "worker", "server": "w1", "key": KEY});
    let _peer = Peer::start(&host.url(), &options);
    let client = caller(&world, &host.url(), Level::AesCbc).await;
    let key = Arc::new(LegacyKey::new(KEY).unwrap());
    let to = legacy(Form::Trove(key), None);
    let value = json!({"_name": "root", "_password": "s3cret"});
    let request = clear_request("echo", json!({"value": value}));
    assert_eq!(client.call(&to, request).await.unwrap(), value);
    assert_eq!(client.call(&to, clear_request("who", json!({}))).await.unwrap(), "u1");
    let wrong = Arc::new(LegacyKey::new("another-key-of-another-guest-000").unwrap());
    let to = legacy(Form::Trove(wrong), None);
    let answer = client.call(&to, clear_request("echo", json!({"value": value}))).await;
    assert!(answer.is_err(), "{answer:?}");
    // An exemption for Trove's serializer is none for clear text.
    let clear = client.call(&legacy(Form::Clear, None), clear_request("echo", json!({}))).await;
    assert!(matches!(clear, Err(ClearError::NotExempted { .. })), "{clear:?}");
}

#[test]
fn a_stored_key_is_unwrapped() {
    let stored =
        "izLBcPyip0QhebtMee/JlHmLPE7TGJdUHjHTsKpVhgwND/ZNUSWJDXQBq45HQcrV2xMl8hTZS8ZmQNZvq/T04w==";
    let wrapping = LegacyKey::to_unwrap("emYjgHFqfXNB1NGehAFIUeoyw4V4XwWHEaKP");
    assert_eq!(*unwrap_key(stored, &wrapping).unwrap(), KEY);
    assert!(unwrap_key(stored, &LegacyKey::to_unwrap("another")).is_none());
    assert!(unwrap_key("AAAA", &wrapping).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_of_both_drivers_go_both_ways() {
    use bulla_oslo::wire::{Driver, Id, Notification};
    use bulla_transport::ConsumeOptions;
    if !installed(&["oslo_messaging"]) {
        return;
    }
    let Some(host) = host() else { return };
    let world = World::new();
    let way = carrier(&host.url(), Queues::default()).await;
    let queue = Inbox::Foreign(way.queues().named("trove", "events.info".into()));
    let mut consumer = way.inner().consume(&queue, &ConsumeOptions::default()).await.unwrap();
    let mut peer = Peer::start(&host.url(), &json!({"exchange": "trove"}));
    for (name, driver) in [("messaging", Driver::Messaging), ("messagingv2", Driver::MessagingV2)] {
        let request = json!({"op": "notify", "driver": name, "topic": "events", "event": "svc.up", "payload": {"n": 1}});
        assert_eq!(peer.ask(&request), json!({"value": null}), "{name}");
        let delivery = consumer.next().await.unwrap();
        let (read, as_driver) = Notification::read(&delivery.payload, DEFAULT_MAX_FRAME).unwrap();
        delivery.acker.ack();
        assert_eq!((read.event_type.as_str(), as_driver), ("svc.up", driver));
        assert_eq!(read.payload, json!({"n": 1}));
    }
    let options = json!({"exchange": "trove", "topic": "worker", "notifications": true});
    let mut listener = Peer::start(&host.url(), &options);
    let client = caller(&world, &host.url(), Level::Plaintext).await;
    for (n, driver) in [(1u8, Driver::Messaging), (2, Driver::MessagingV2)] {
        let notification = Notification {
            message_id: format!("0f8fad5b-d9cb-469f-a165-70867728950{n}"),
            publisher_id: "bulla.host".into(),
            event_type: "svc.happened".into(),
            priority: "INFO".into(),
            payload: json!({"n": n}),
            timestamp: "2026-01-31 23:59:59.123456".into(),
            context: Map::new(),
            unique_id: Id([n; 16]),
        };
        client.notify(&legacy(Form::Clear, None), &notification, driver).await.unwrap();
        let heard: Value = serde_json::from_str(&listener.line()).unwrap();
        assert_eq!(heard["payload"], json!({"n": n}));
    }
}
