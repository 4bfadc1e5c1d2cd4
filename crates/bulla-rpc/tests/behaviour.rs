//! What callers and servers can rely on, over the in-memory bus.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulla_guard::{ClaimStore, Limits, MemoryClaims, StoreOptions};
use bulla_rpc::*;
use bulla_seal::{Level, Refusal, Suite, Validity};
use bulla_transport::hostile::{Act, Plan};
use common::gate::Gate;
use common::*;
use serde_json::{Value, json};
use tokio::sync::mpsc;

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn echo() -> Router {
    let echo = Method::new("echo", |_, args: Value| async move { Ok(args) });
    Router::new().with(echo.open_to_agents().open_to_components())
}

fn remote(error: CallError) -> String {
    match error {
        CallError::Remote(error) => error.kind,
        other => panic!("{other}"),
    }
}

fn short<'a>(client: &'a Client, to: &'a Target, method: &'a str) -> client::Request<'a> {
    client.request(to, method).timeout(Duration::from_millis(300))
}

/// More peers than keys are kept ready for: whoever rested goes on in the session that it had.
#[tokio::test]
async fn sessions_that_rest_go_on_when_they_are_used() {
    let world = World::new();
    let mut agents: Vec<_> = (0..4).map(|n| world.agent(&format!("a-{n}"))).collect();
    agents.push(world.shared_agent("shared", "api"));
    let mut servers = Vec::new();
    for agent in &agents {
        servers.push(Server::start(agent.clone(), echo(), options()).await.unwrap());
    }
    let identity = world.component_identity("api", "h1", 1, validity());
    let few = EndpointOptions { awake_sessions: 2, ..EndpointOptions::default() };
    let transport = Arc::new(world.bus.transport());
    let api = Endpoint::new(identity, world.directory.clone(), transport, few).unwrap();
    let client = Client::new(api);
    for round in 0..4 {
        for agent in &agents {
            let to = target(agent.identity().principal().as_str());
            let said: Value = client.call(&to, "echo", &json!({ "round": round })).await.unwrap();
            assert_eq!(said["round"], round);
        }
    }
    let offers: Vec<_> = agents.iter().map(|agent| agent.counters().offers.get()).collect();
    assert_eq!(offers, [1, 1, 1, 1, 0], "sessions that were opened");
    // Who lost it is offered it again, by the one that rested.
    agents[0].drop_sessions();
    let _: Value = client.call(&target("agent/a-0"), "echo", &json!({})).await.unwrap();
    assert_eq!(agents[0].counters().offers.get(), 2);
}

#[tokio::test]
async fn the_default_rule_pair_by_pair() {
    let world = World::new();
    let agents = [world.agent("a"), world.agent("b")];
    let components = [world.component("x", "h1"), world.component("y", "h1")];
    let router = || {
        let method = |name| Method::new(name, |_, (): ()| async move { Ok(1) });
        Router::new()
            .with(method("closed"))
            .with(method("agents").open_to_agents())
            .with(method("components").open_to_components())
    };
    let mut servers = Vec::new();
    for endpoint in agents.iter().chain(&components) {
        servers.push(Server::start(endpoint.clone(), router(), options()).await.unwrap());
    }
    let from_agent = Client::new(agents[0].clone());
    let from_component = Client::new(components[0].clone());
    for (client, to, allowed) in [
        (&from_agent, "agent/b", [false, false, false]),
        (&from_agent, "component/y", [false, true, false]),
        (&from_component, "component/y", [false, false, true]),
        (&from_component, "agent/b", [true, true, true]),
    ] {
        for (method, allowed) in ["closed", "agents", "components"].into_iter().zip(allowed) {
            let outcome = client.call::<_, u32>(&target(to), method, &()).await;
            match outcome {
                Ok(_) => assert!(allowed, "{client:?} called {method} of {to}"),
                Err(error) => {
                    assert!(!allowed, "{client:?} may call {method} of {to}: {error}");
                    assert_eq!(remote(error), kinds::NOT_PERMITTED);
                }
            }
        }
    }
}

#[tokio::test]
async fn versions_and_namespaces() {
    let world = World::new();
    let named = |version: (u32, u32), answer: &'static str| {
        Method::new("get", move |_, (): ()| async move { Ok(answer) })
            .namespace("db")
            .version(version.0, version.1)
    };
    let router = Router::new()
        .with(named((1, 3), "one"))
        .with(named((2, 1), "two"))
        .with(Method::new("get", |_, (): ()| async move { Ok("bare") }));
    let _server = Server::start(world.agent("db-1"), router, options()).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let ask = |version: &'static str| {
        let request = client.request(&to, "get").namespace("db").version(version);
        async move { request.call::<_, String>(&()).await }
    };
    for (version, answer) in [("1.0", "one"), ("1.3", "one"), ("2.0", "two"), ("2.1", "two")] {
        assert_eq!(ask(version).await.unwrap(), answer, "{version}");
    }
    for version in ["1.4", "2.2", "3.0", "0.9", "new"] {
        assert_eq!(remote(ask(version).await.unwrap_err()), kinds::UNSUPPORTED_VERSION);
    }
    assert_eq!(client.call::<_, String>(&to, "get", &()).await.unwrap(), "bare");
    let other = client.request(&to, "get").namespace("other").call::<_, String>(&()).await;
    assert_eq!(remote(other.unwrap_err()), kinds::NO_SUCH_METHOD);
}

#[tokio::test]
async fn casts_and_notifications_are_run_and_not_answered() {
    let world = World::new();
    let identity = world.component_identity("conductor", "h1", 1, validity());
    let (conductor, back) = world.hostile(identity, Plan::honest());
    let (tx, mut heard) = mpsc::channel(8);
    let event = Method::new("backup.end", move |context: Context, id: u32| {
        let tx = tx.clone();
        async move {
            context.progress(&1).await.unwrap();
            tx.send((context.kind().to_string(), id)).await.unwrap();
            Ok(())
        }
    });
    let router = Router::new().with(event.open_to_agents());
    let _server = Server::start(conductor, router, options()).await.unwrap();
    let agent = Client::new(world.agent("db-1"));
    let to = target("component/conductor");
    agent.request(&to, "backup.end").notify(&7).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), ("notification".into(), 7));
    agent.cast(&to, "backup.end", &8).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), ("cast".into(), 8));
    assert!(back.sent().is_empty(), "something was answered");
    let error = agent.call::<_, ()>(&target("group/all"), "x", &()).await.unwrap_err();
    assert!(matches!(error, CallError::Usage(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_at_once() {
    let world = World::new();
    let server = Server::start(world.agent("db-1"), echo(), options()).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = Arc::new(target("agent/db-1"));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..64 {
        let (client, to) = (client.clone(), to.clone());
        callers.spawn(async move {
            for n in 0..10 {
                let args = json!([caller, n]);
                let answer: Value = client.call(&to, "echo", &args).await.unwrap();
                assert_eq!(answer, args);
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    assert_eq!(client.waiting(), 0);
    assert_eq!(server.endpoint().counters().executed.get(), 640);
    // However many began at once, one session was used.
    assert_eq!(server.endpoint().counters().refusals().values().sum::<u64>(), 0);
}

#[tokio::test]
async fn no_more_run_than_may_and_all_are_served() {
    let world = World::new();
    let (mut gate, method) = Gate::new();
    let options = ServerOptions { concurrency: 3, ..options() };
    let router = Router::new().with(method);
    let _server = Server::start(world.agent("db-1"), router, options).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..30u32 {
        let client = client.clone();
        calls.spawn(async move {
            client.call::<_, u32>(&target("agent/db-1"), "wait", &n).await.unwrap()
        });
    }
    for _ in 0..3 {
        gate.started.recv().await.unwrap();
    }
    tokio::task::yield_now().await;
    assert_eq!(gate.running.load(Ordering::SeqCst), 3);
    gate.go.send(true).unwrap();
    while let Some(n) = calls.join_next().await {
        n.unwrap();
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn each_call_ends_at_its_own_time() {
    let world = World::new();
    let (mut gate, method) = Gate::new();
    let server = Server::start(world.agent("db-1"), Router::new().with(method), options()).await;
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let patient = tokio::spawn({
        let (client, to) = (client.clone(), to.clone());
        async move { client.call::<_, u32>(&to, "wait", &1u32).await }
    });
    gate.started.recv().await.unwrap();
    // Each sooner than all before it, and then one later again.
    for ms in [90, 60, 30, 90] {
        let timeout = Duration::from_millis(ms);
        let call = client.request(&to, "wait").timeout(timeout).call::<_, u32>(&2u32).await;
        match call {
            Err(CallError::Timeout { target, after }) => {
                assert_eq!((target.as_str(), after), ("agent/db-1", timeout));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.waiting(), 1, "the first call waits on");
    assert_eq!(client.endpoint().counters().calls[CallOutcome::Timeout as usize].get(), 4);
    gate.go.send_replace(true);
    assert_eq!(patient.await.unwrap().unwrap(), 1);
    assert_eq!(client.waiting(), 0);
    drop(server);
}

/// A rule with a mistake in it.
struct Panicking;

impl Authorization for Panicking {
    fn decide(&self, question: &Question<'_>) -> Decision {
        assert_ne!(question.method.name(), "broken");
        Decision::Allow
    }
}

#[tokio::test]
async fn a_panic_on_a_messages_way_keeps_no_other_message_from_running() {
    let world = World::new();
    let broken = Method::new("broken", |_, (): ()| async move { Ok(()) });
    let options = ServerOptions { authorization: Arc::new(Panicking), ..options() };
    let router = echo().with(broken);
    let server = Server::start(world.agent("db-1"), router, options).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    client.call::<_, Value>(&to, "echo", &json!(1)).await.unwrap();
    client.cast(&to, "broken", &()).await.unwrap();
    for n in 0..10 {
        assert_eq!(client.call::<_, Value>(&to, "echo", &json!(n)).await.unwrap(), json!(n));
    }
    // It waits to be judged again; nothing is lost.
    assert_eq!(server.load().messages, 1);
    assert_eq!(server.load().running, 0);
    server.drain(Duration::from_secs(5)).await;
    let left = world.bus.waiting(&to.inbox("bulla").unwrap());
    assert_eq!(left, Some(1));
}

#[tokio::test]
async fn drain_ends_what_runs_and_takes_nothing_new() {
    let world = World::new();
    let (mut gate, method) = Gate::new();
    let router = Router::new().with(method);
    let server = Server::start(world.agent("db-1"), router, options()).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let running = {
        let (client, to) = (client.clone(), to.clone());
        tokio::spawn(async move { client.call::<_, u32>(&to, "wait", &1).await })
    };
    gate.started.recv().await.unwrap();
    let drain = tokio::spawn(async move { server.drain(Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.cast(&to, "wait", &2u32).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!drain.is_finished());
    gate.go.send(true).unwrap();
    assert_eq!(drain.await.unwrap(), 0);
    assert_eq!(running.await.unwrap().unwrap(), 1);
    assert!(gate.started.try_recv().is_err(), "the cast ran");
    assert_eq!(world.bus.waiting(&to.inbox("bulla").unwrap()), Some(1));
}

#[tokio::test]
async fn only_the_caller_cancels_its_call() {
    let world = World::new();
    let (mut gate, method) = Gate::new();
    let identity = world.component_identity("control", "h1", 1, validity());
    let (endpoint, bus) = world.hostile(identity, Plan::honest());
    let client = Client::new(endpoint);
    let router = Router::new().with(method);
    let server = Server::start(world.agent("db-1"), router, options()).await.unwrap();
    let to = target("agent/db-1");
    let stream = client.request(&to, "wait").stream(&1u32).await.unwrap();
    gate.started.recv().await.unwrap();
    let frame = bus.requests()[0].message.payload.clone();
    let id = bulla_seal::Parsed::parse(frame, 1 << 20).unwrap().header().id;
    let stranger = Client::new(world.component("stranger", "h1"));
    let cancel = builtin::Cancel { message: id.to_string() };
    let request = stranger.request(&to, builtin::CANCEL).namespace(builtin::NAMESPACE);
    request.cast(&cancel).await.unwrap();
    // What comes after it was settled, so it was settled too.
    let _ = short(&stranger, &to, "none").call::<_, ()>(&()).await;
    assert_eq!(server.endpoint().counters().executed.get(), 0);
    stream.cancel();
    until("it is stopped", || server.endpoint().counters().executed.get() == 1).await;
    assert_eq!(gate.running.load(Ordering::SeqCst), 1, "it ran to its end");
    assert_eq!(client.waiting(), 0);
}

#[tokio::test]
async fn progress_comes_in_order_and_ends_with_the_result() {
    let world = World::new();
    // The second sign of progress is lost on the way.
    let (agent, back) = world.hostile(
        world.agent_identity("db-1", Suite::X25519, 1),
        Plan::script(|sent, _| if sent.n == 1 { vec![] } else { vec![Act::Pass] }),
    );
    let (tx, mut late) = mpsc::channel(1);
    let router = Router::new().method("steps", move |context: Context, steps: u32| {
        let tx = tx.clone();
        async move {
            for step in 0..steps {
                context.progress(&step).await.unwrap();
            }
            tx.send(context).await.unwrap();
            Ok(steps)
        }
    });
    let _server = Server::start(agent, router, options()).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let mut seen = Vec::new();
    let request = client.request(&to, "steps");
    let steps: u32 = request.call_with_progress(&5u32, |step: u32| seen.push(step)).await.unwrap();
    assert_eq!((steps, seen), (5, vec![0, 2, 3, 4]));
    // Nothing comes after the result.
    let context = late.recv().await.unwrap();
    let error = context.progress(&6).await.unwrap_err();
    assert!(matches!(error, CallError::Usage(_)), "{error}");
    assert_eq!(back.replies().len(), 6);
}

#[tokio::test]
async fn shared_key_agents_call_and_are_called() {
    let world = World::new();
    let control = world.component("control", "h1");
    let agent = world.shared_agent("db-1", "control");
    let _agent = Server::start(agent.clone(), echo(), options()).await.unwrap();
    let _control = Server::start(control.clone(), echo(), options()).await.unwrap();
    let (down, up) = (Client::new(control), Client::new(agent.clone()));
    for n in 0..3 {
        let answer: Value = down.call(&target("agent/db-1"), "echo", &n).await.unwrap();
        assert_eq!(answer, json!(n));
        let answer: Value = up.call(&target("component/control"), "echo", &n).await.unwrap();
        assert_eq!(answer, json!(n));
    }
    let to = target("component/control");
    let error = up.request(&to, "echo").sign_inside().call::<_, Value>(&1).await.unwrap_err();
    assert!(matches!(error, CallError::Usage(_)), "a signature was asked for: {error}");
    let other = target("component/other");
    let error = up.call::<_, Value>(&other, "echo", &1).await.unwrap_err();
    assert!(matches!(error, CallError::UnknownTarget { .. }), "{error}");
}

#[tokio::test]
async fn x_wing_agents() {
    let world = World::new();
    let agent = world.agent_with("db-1", Suite::XWing);
    let _server = Server::start(agent.clone(), echo(), options()).await.unwrap();
    let control = world.component("control", "h1");
    let _control = Server::start(control.clone(), echo(), options()).await.unwrap();
    let (down, up) = (Client::new(control), Client::new(agent.clone()));
    for n in 0..3 {
        let to = target("agent/db-1");
        let request = down.request(&to, "echo").timeout(Duration::from_secs(20));
        let answer = request.call::<_, Value>(&n).await;
        let refused = agent.counters().refusals();
        assert!(matches!(&answer, Ok(value) if *value == json!(n)), "{answer:?} {refused:?}");
        let answer: Value = up.call(&target("component/control"), "echo", &n).await.unwrap();
        assert_eq!(answer, json!(n));
    }
}

#[tokio::test]
async fn messages_over_the_limit() {
    let world = World::new();
    let router = echo().method("big", |_, size: usize| async move { Ok("x".repeat(size)) });
    let server = Server::start(world.agent("db-1"), router, options()).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let limit = EndpointOptions::default().max_message;
    let fits: String = client.call(&to, "big", &(limit - 1000)).await.unwrap();
    assert_eq!(fits.len(), limit - 1000);
    let error = client.call::<_, String>(&to, "big", &(limit + 1)).await.unwrap_err();
    assert_eq!(remote(error), kinds::RESULT_TOO_LARGE);
    for size in [limit - 50, limit + 1] {
        let error = client.call::<_, Value>(&to, "echo", &"x".repeat(size)).await.unwrap_err();
        assert!(matches!(error, CallError::TooLarge { .. }), "{error}");
    }
    assert_eq!((server.endpoint().counters().executed.get(), client.waiting()), (2, 0));
}

#[tokio::test]
async fn a_clock_off_by_a_day() {
    let world = World::new();
    let client = Client::new(world.component("control", "h1"));
    for (id, days, refusal) in
        [("ahead", 1, Refusal::Expired), ("behind", -1, Refusal::NotYetValid)]
    {
        let identity = world.agent_identity(id, Suite::X25519, 1);
        let endpoint = world.endpoint_at(identity, Shifted::by(days * 86_400));
        let server = Server::start(endpoint, echo(), options()).await.unwrap();
        let to = target(&format!("agent/{id}"));
        let error = short(&client, &to, "echo").call::<_, Value>(&1).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
        assert!(error.to_string().contains("did not answer within"), "{error}");
        let counters = server.endpoint().counters();
        assert!(counters.refused(refusal) >= 1, "{:?}", counters.refusals());
        assert_eq!((counters.executed.get(), counters.offers.get()), (0, 0));
    }
}

#[tokio::test]
async fn an_expired_credential_is_refused_at_both_ends() {
    let world = World::new();
    let over = Validity { not_before: now().secs() - 600, not_after: now().secs() - 10 };
    let client = Client::new(world.endpoint(world.component_identity("control", "h1", 1, over)));
    let agent = world.agent("db-1");
    let server = Server::start(agent, echo(), options()).await.unwrap();
    server.join_groups().await.unwrap();
    let error = client.call::<_, Value>(&target("agent/db-1"), "echo", &1).await.unwrap_err();
    assert!(matches!(error, CallError::Offer(_)), "{error}");
    assert!(error.to_string().contains("renew"), "{error}");
    // A sender that does not look at its own credential.
    client.fanout(&target("group/all"), "echo", &1).await.unwrap();
    let counters = server.endpoint().counters();
    until("it is refused", || counters.refused(Refusal::CredentialExpired) == 1).await;
    assert_eq!(counters.executed.get(), 0);
}

#[tokio::test]
async fn level_signed_end_to_end() {
    let world = World::new();
    let readable = ServerOptions { level: Level::Signed, ..options() };
    let _server = Server::start(world.agent("db-1"), echo(), readable).await.unwrap();
    let sealed = Server::start(world.agent("db-2"), echo(), options()).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let (to, other) = (target("agent/db-1"), target("agent/db-2"));
    let mut tap = world.bus.tap();
    let request = client.request(&to, "echo").signed();
    let answer: Value = request.call(&"readable by the bus").await.unwrap();
    assert_eq!(answer, json!("readable by the bus"));
    for _ in 0..2 {
        let seen = tap.next().await.unwrap().payload;
        assert!(seen.windows(19).any(|bytes| bytes == b"readable by the bus"));
    }
    // What is sealed is more than enough; what is readable is too little elsewhere.
    assert_eq!(client.call::<_, Value>(&to, "echo", &1).await.unwrap(), json!(1));
    let request = short(&client, &other, "echo").signed();
    let error = request.call::<_, Value>(&1).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    assert!(sealed.endpoint().counters().refused(Refusal::LevelNotAllowed) >= 1);
}

#[tokio::test]
async fn a_signature_inside_is_demanded() {
    let world = World::new();
    let demanding = ServerOptions { inner_signature: true, ..options() };
    let server = Server::start(world.agent("db-1"), echo(), demanding).await.unwrap();
    let client = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let given: Value = client.request(&to, "echo").sign_inside().call(&1).await.unwrap();
    assert_eq!(given, json!(1));
    let error = short(&client, &to, "echo").call::<_, Value>(&2).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    assert!(server.endpoint().counters().refused(Refusal::SignatureInvalid) >= 1);
    assert_eq!(server.endpoint().counters().executed.get(), 1);
}

/// The worker is killed while the method runs; its message goes to another one.
async fn kill(method: Method) -> (Result<u32, CallError>, Arc<AtomicUsize>) {
    let world = World::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let store: Arc<dyn ClaimStore> = claims();
    let options = || ServerOptions {
        lease: Duration::from_millis(600),
        only_host: true,
        ..ServerOptions::new(store.clone())
    };
    let agent = world.agent("db-1");
    let (started, mut running) = mpsc::channel(1);
    let lost =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let count = runs.clone();
    let hangs = Method::new("work", move |_, (): ()| {
        let (started, count) = (started.clone(), count.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            started.send(()).await.unwrap();
            std::future::pending::<()>().await;
            Ok(0u32)
        }
    });
    let hangs = if method.effect() == Effect::Idempotent { hangs.idempotent() } else { hangs };
    let start = Server::start(agent.clone(), Router::new().with(hangs), options());
    let _first = lost.spawn(start).await.unwrap().unwrap();
    let client = Client::new(world.component("control", "h1"));
    let call =
        tokio::spawn(
            async move { client.call::<_, u32>(&target("agent/db-1"), "work", &()).await },
        );
    running.recv().await.unwrap();
    lost.shutdown_background();
    let router = Router::new().with(method);
    let _second = Server::start(agent, router, options()).await.unwrap();
    let outcome = tokio::time::timeout(Duration::from_secs(30), call).await.unwrap().unwrap();
    (outcome, runs)
}

#[tokio::test]
async fn a_lost_run_is_in_doubt_unless_it_may_run_again() {
    let again = || Method::new("work", |_, (): ()| async move { Ok(2u32) });
    let (outcome, runs) = kill(again()).await;
    assert_eq!(remote(outcome.unwrap_err()), kinds::OUTCOME_UNKNOWN);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let (outcome, _) = kill(again().idempotent()).await;
    assert_eq!(outcome.unwrap(), 2);
}

#[tokio::test]
async fn a_result_that_is_not_held_is_said_to_be_gone() {
    let world = World::new();
    let limits = Limits { reply_bytes: 0, ..Limits::default() };
    let store = StoreOptions { limits, ..StoreOptions::default() };
    let options = ServerOptions::new(Arc::new(MemoryClaims::for_new_bus(store)));
    let _server = Server::start(world.agent("db-1"), echo(), options).await.unwrap();
    // The reply is lost on its way; the connection comes back and the call is sent again.
    let identity = world.component_identity("control", "h1", 1, validity());
    let (endpoint, bus) = world.hostile(identity, Plan::honest());
    let client = Client::new(endpoint.clone());
    let to = target("agent/db-1");
    let _: Value = client.call(&to, "echo", &1).await.unwrap();
    let sent = bus.requests().remove(0);
    let replies = endpoint.counters().refused(Refusal::ReplyMismatch);
    bus.inject(&sent.to, sent.message.payload).await;
    until("it is answered", || endpoint.counters().refused(Refusal::ReplyMismatch) == replies + 1)
        .await;
}

#[tokio::test]
async fn a_gap_in_fanouts_is_counted_group_by_group() {
    let world = World::new();
    let identity = world.component_identity("control", "h1", 1, validity());
    // The third is withheld, the fifth comes late.
    let (endpoint, bus) = world.hostile(
        identity,
        Plan::script(|sent, _| match sent.n {
            4 | 8 => vec![],
            _ => vec![Act::Pass],
        }),
    );
    let client = Client::new(endpoint);
    let other = bulla_seal::GroupKey {
        group: bulla_seal::GroupName::new("other").unwrap(),
        epoch: 1,
        key: bulla_seal::Secret::new([7; 32]),
    };
    let server = Server::start(world.agent("db-1"), echo(), options()).await.unwrap();
    server.join_groups().await.unwrap();
    world.directory.add_group_key(other);
    let counters = server.endpoint().counters();
    for n in 0..6u64 {
        client.fanout(&target("group/all"), "echo", &n).await.unwrap();
        let heard = n + 1 - u64::from(n >= 2) - u64::from(n >= 4);
        until("it came", || counters.executed.get() == heard).await;
        // Not for this member: no gap of its own.
        client.fanout(&target("group/other"), "echo", &n).await.unwrap();
    }
    assert_eq!(counters.gaps.get(), 2);
    let late = bus.requests().remove(8);
    bus.inject(&late.to, late.message.payload).await;
    until("it came late", || counters.executed.get() == 5).await;
    assert_eq!(counters.gaps.get(), 1);
}

#[tokio::test]
async fn one_agent_does_not_occupy_a_component() {
    let world = World::new();
    let (mut gate, wait) = Gate::new();
    let options = ServerOptions { concurrency: 8, per_agent: Some(2), ..options() };
    let control = world.component("control", "h1");
    let _server = Server::start(control.clone(), echo().with(wait), options).await.unwrap();
    let to = target("component/control");
    let (greedy, modest) = (Client::new(world.agent("a")), Client::new(world.agent("b")));
    // Two run, eight wait without a worker, and the others are refused.
    let calls: Vec<_> = (0..20)
        .map(|n: u32| {
            let (client, to) = (greedy.clone(), to.clone());
            tokio::spawn(async move {
                let request = client.request(&to, "wait").timeout(Duration::from_secs(30));
                request.call::<_, u32>(&n).await
            })
        })
        .collect();
    for _ in 0..2 {
        gate.started.recv().await.unwrap();
    }
    until("ten are refused", || control.counters().refused(Refusal::RateLimited) == 10).await;
    assert_eq!(gate.running.load(Ordering::SeqCst), 2);
    // Another agent is served meanwhile, and so is a component, which has no such limit.
    let request = modest.request(&to, "echo").timeout(Duration::from_secs(30));
    assert_eq!(request.call::<_, u32>(&7).await.unwrap(), 7);
    let api = Client::new(world.component("api", "h1"));
    let more: Vec<_> = (100..105)
        .map(|n: u32| {
            let (client, to) = (api.clone(), to.clone());
            tokio::spawn(async move {
                let request = client.request(&to, "wait").timeout(Duration::from_secs(30));
                request.call::<_, u32>(&n).await
            })
        })
        .collect();
    for _ in 0..5 {
        assert!(gate.started.recv().await.unwrap() >= 100);
    }
    gate.go.send(true).unwrap();
    for call in more {
        call.await.unwrap().unwrap();
    }
    until("the ten that waited ran", || control.counters().executed.get() == 16).await;
    let refused = calls.iter().filter(|call| !call.is_finished()).count();
    until("ten were answered", || calls.iter().filter(|call| call.is_finished()).count() == 10)
        .await;
    assert!(refused >= 10);
    assert!(gate.most.load(Ordering::SeqCst) <= 7);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}
