//! The in-memory bus: what every transport must do, and what is its own.

use std::sync::Arc;
use std::time::Duration;

use bulla_transport::conformance::{Party, run_all};
use bulla_transport::{
    Address, ConsumeOptions, Inbox, MemoryBus, Outbound, PublishError, ReplyName, Transport,
};

fn inbox() -> Inbox {
    Inbox::Topic { exchange: "bulla".to_owned(), topic: "db".to_owned() }
}

fn address() -> Address {
    Address::Topic { exchange: "bulla".to_owned(), topic: "db".to_owned() }
}

fn message(payload: &'static str) -> Outbound {
    Outbound { confirm: true, ..Outbound::new(payload.into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let bus = MemoryBus::with_limits(100_000, 1 << 20);
    let factory = move || {
        let party: Party = Arc::new(bus.transport());
        Box::pin(async move { Ok(party) }) as _
    };
    run_all(&factory).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_refuses_and_expired_messages_make_room() {
    tokio::time::pause();
    let bus = MemoryBus::with_limits(2, 100);
    let party = bus.transport();
    party.declare(&inbox(), &ConsumeOptions::default()).await.unwrap();
    for payload in ["one", "two"] {
        let brief = Outbound { ttl: Some(Duration::from_secs(1)), ..message(payload) };
        party.publish(&address(), brief).await.unwrap();
    }
    let full = party.publish(&address(), message("three")).await;
    assert!(matches!(full, Err(PublishError::Rejected)), "{full:?}");
    tokio::time::advance(Duration::from_secs(2)).await;
    party.publish(&address(), message("three")).await.unwrap();
    assert_eq!(bus.waiting(&inbox()), Some(1));
}

#[tokio::test]
async fn a_tap_shows_what_a_broker_would_see() {
    let bus = MemoryBus::new();
    let party = bus.transport();
    party.publish(&address(), message("unseen")).await.unwrap();
    let mut tap = bus.tap();
    let to = ReplyName::new("component/api", "9f3a").unwrap();
    let hinted = Outbound { reply_hint: Some(to.clone()), ..message("request") };
    party.publish(&address(), hinted).await.unwrap();
    let reply = Address::Reply { exchange: "bulla".to_owned(), to, from: "agent/db-1".to_owned() };
    party.publish(&reply, message("reply")).await.unwrap();
    let seen = tap.next().await.unwrap();
    assert_eq!((seen.exchange.as_str(), seen.routing_key.as_str()), ("bulla", "db"));
    assert_eq!(seen.reply_to.as_deref(), Some("component.api.9f3a"));
    assert_eq!(seen.payload, "request");
    let seen = tap.next().await.unwrap();
    assert_eq!(seen.exchange, "bulla.reply");
    assert_eq!(seen.routing_key, "component.api.9f3a");
    assert_eq!(tap.missed(), 0);
}

#[tokio::test]
async fn a_reply_inbox_goes_with_its_process() {
    let bus = MemoryBus::new();
    let (caller, responder) = (bus.transport(), bus.transport());
    let name = ReplyName::new("component/api", "9f3a").unwrap();
    let inbox = Inbox::Reply { exchange: "bulla".to_owned(), name: name.clone() };
    caller.declare(&inbox, &ConsumeOptions::default()).await.unwrap();
    let reply =
        Address::Reply { exchange: "bulla".to_owned(), to: name, from: "agent/db-1".to_owned() };
    let mandatory = Outbound { mandatory: true, ..message("reply") };
    responder.publish(&reply, mandatory.clone()).await.unwrap();
    drop(caller);
    let gone = responder.publish(&reply, mandatory).await;
    assert!(matches!(gone, Err(PublishError::Unroutable { .. })), "{gone:?}");
    assert_eq!(bus.waiting(&inbox), None);
}

#[tokio::test]
async fn a_cancelled_wait_loses_no_message() {
    let bus = MemoryBus::new();
    let party = bus.transport();
    let mut first = party.consume(&inbox(), &ConsumeOptions::default()).await.unwrap();
    let mut second = party.consume(&inbox(), &ConsumeOptions::default()).await.unwrap();
    // Waits, is woken, and goes away before it looks.
    let waiting = tokio::time::timeout(Duration::from_millis(10), first.next()).await;
    assert!(waiting.is_err());
    party.publish(&address(), message("one")).await.unwrap();
    drop(first);
    let delivery = tokio::time::timeout(Duration::from_secs(30), second.next()).await;
    assert_eq!(delivery.unwrap().unwrap().payload, "one");
}
