//! What happens is told as events: refusals, denials, and calls that change something.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulla_journal::{Event, Recorder};
use bulla_rpc::*;
use bulla_seal::Suite;
use common::*;
use serde_json::{Value, json};

/// A component that counts its runs, and tells events to a recorder.
struct Told {
    recorder: Arc<Recorder>,
    runs: Arc<AtomicUsize>,
    _server: Server,
}

async fn told(world: &World, journal_calls: JournalCalls) -> Told {
    let (recorder, events) = Recorder::new();
    let identity = world.component_identity("control", "h1", 1, validity());
    let transport = Arc::new(world.bus.transport());
    let endpoint = EndpointOptions { events, journal_calls, ..EndpointOptions::default() };
    let endpoint = Endpoint::new(identity, world.directory.clone(), transport, endpoint).unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let method = |name| {
        let runs = runs.clone();
        Method::new(name, move |_, _: Value| {
            runs.fetch_add(1, Ordering::SeqCst);
            async move { Ok(1) }
        })
        .namespace("db")
    };
    let router = Router::new()
        .with(method("resize").open_to_agents())
        .with(method("show").open_to_agents().read_only())
        .with(method("closed"));
    let _server = Server::start(endpoint, router, options()).await.unwrap();
    Told { recorder, runs, _server }
}

async fn call(client: &Client, method: &str) -> Result<u32, String> {
    let to: Target = "component/control".parse().unwrap();
    let args = json!({ "password": "correct-horse" });
    client.request(&to, method).namespace("db").call(&args).await.map_err(|error| match error {
        CallError::Remote(error) => error.kind,
        other => panic!("{other}"),
    })
}

fn named(told: &Told, name: &str) -> Vec<Event> {
    told.recorder.named(name)
}

#[tokio::test]
async fn a_denial_is_told_with_who_what_and_which_rule() {
    let world = World::new();
    let told = told(&world, JournalCalls::None).await;
    let client = Client::new(world.agent("db-1"));
    assert_eq!(call(&client, "closed").await.unwrap_err(), kinds::NOT_PERMITTED);
    let events = named(&told, "call-denied");
    let [Event::CallDenied(denied)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(denied.sender.to_string(), "agent/db-1#1");
    assert_eq!(denied.method.as_str(), "db.closed");
    assert_eq!(denied.rule.as_str(), "default/not-open-to-agents");
    // Calls that are let through are told only where that is asked for.
    assert_eq!(call(&client, "resize").await, Ok(1));
    assert!(named(&told, "call-taken").is_empty());
    assert!(!format!("{:?}", told.recorder.events()).contains("correct-horse"));
}

#[tokio::test]
async fn calls_are_told_as_far_as_they_are_asked_for() {
    let cases = [(JournalCalls::None, 0), (JournalCalls::Mutating, 1), (JournalCalls::All, 2)];
    for (journal_calls, expected) in cases {
        let world = World::new();
        let told = told(&world, journal_calls).await;
        let client = Client::new(world.agent("db-1"));
        assert_eq!((call(&client, "resize").await, call(&client, "show").await), (Ok(1), Ok(1)));
        let taken = named(&told, "call-taken");
        assert_eq!(taken.len(), expected, "{taken:?}");
        if let Some(Event::CallTaken(taken)) = taken.first() {
            assert_eq!((taken.method.as_str(), taken.effect), ("db.resize", "once"));
        }
        assert!(!format!("{:?}", told.recorder.events()).contains("correct-horse"));
    }
}

#[tokio::test]
async fn what_can_not_be_journalled_is_not_run() {
    for journal_calls in [JournalCalls::None, JournalCalls::Mutating] {
        let world = World::new();
        let told = told(&world, journal_calls).await;
        let client = Client::new(world.agent("db-1"));
        told.recorder.set_full(true);
        assert_eq!(call(&client, "resize").await.unwrap_err(), kinds::NOT_JOURNALLED);
        assert_eq!(told.runs.load(Ordering::SeqCst), 0);
        assert_eq!(named(&told, "call-held-back").len(), 1);
        assert!(named(&told, "call-taken").is_empty());
        // What changes nothing goes on.
        assert_eq!(call(&client, "show").await, Ok(1));
        told.recorder.set_full(false);
        assert_eq!(call(&client, "resize").await, Ok(1));
        assert_eq!(told.runs.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn one_sender_does_not_fill_the_journal() {
    let world = World::new();
    let told = told(&world, JournalCalls::None).await;
    let client = Client::new(world.agent("db-1"));
    for _ in 0..400 {
        // Some are not answered either: a denial has a rate too.
        let to: Target = "component/control".parse().unwrap();
        client.request(&to, "closed").namespace("db").cast(&json!(1)).await.unwrap();
    }
    // The last one is denied when this one is answered, or its like is in hand.
    assert_eq!(call(&client, "show").await, Ok(1));
    until("all are denied", || told._server.endpoint().counters().denied.get() == 400).await;
    let (one_by_one, in_sum) = (named(&told, "call-denied"), named(&told, "message-refused"));
    assert!((50..400).contains(&one_by_one.len()), "{}", one_by_one.len());
    assert!(in_sum.iter().any(|event| match event {
        Event::MessageRefused(refused) => refused.refusal == "too-many-refusals",
        _ => false,
    }));
}

#[tokio::test]
async fn what_nobody_vouches_for_is_told_now_and_then() {
    let world = World::new();
    let told = told(&world, JournalCalls::None).await;
    // The keys of another deployment: it may call itself what it wants.
    let stranger = World::new();
    let forged = stranger.agent_identity("db-1", Suite::X25519, 1);
    let transport = Arc::new(world.bus.transport());
    let endpoint =
        Endpoint::new(forged, world.directory.clone(), transport, EndpointOptions::default());
    let client = Client::new(endpoint.unwrap());
    let to: Target = "component/control".parse().unwrap();
    for _ in 0..20 {
        client.request(&to, "resize").namespace("db").cast(&json!(1)).await.unwrap();
    }
    until("told", || !named(&told, "message-refused").is_empty()).await;
    let refused = named(&told, "message-refused");
    assert!(refused.len() < 20 && told.runs.load(Ordering::SeqCst) == 0, "{refused:?}");
}
