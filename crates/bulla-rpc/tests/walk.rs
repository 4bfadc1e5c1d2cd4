//! Calls, casts, fanouts, errors and progress over the in-memory bus.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bulla_rpc::*;
use common::*;
use serde_json::{Value, json};

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn echo() -> Router {
    Router::new()
        .method("echo", |_, args: Value| async move { Ok(args) })
        .method("fail", |_, (): ()| async move {
            Err::<(), _>(RemoteError::new("Broken", "it broke").with_details(json!({"code": 7})))
        })
        .method("panics", |_, (): ()| async move {
            if true {
                panic!("a handler's bug");
            }
            Ok(())
        })
        .method("slow", |context: Context, steps: u32| async move {
            for step in 0..steps {
                context.progress(&step).await.unwrap();
            }
            Ok(steps)
        })
        .method(
            "whoami",
            |context: Context, (): ()| async move { Ok(context.sender().to_string()) },
        )
}

#[tokio::test]
async fn a_component_calls_an_agent() {
    let world = World::new();
    let control = Client::new(world.component("control", "h1"));
    let agent = Server::start(world.agent("db-1"), echo(), options()).await.unwrap();
    let to = target("agent/db-1");
    for n in 0..3 {
        let answer: Value = control.call(&to, "echo", &json!({"n": n})).await.unwrap();
        assert_eq!(answer, json!({"n": n}));
    }
    let who: String = control.call(&to, "whoami", &()).await.unwrap();
    assert_eq!(who, "component/control#1");
    // One session, one opened offer.
    assert_eq!(agent.endpoint().counters().offers.get(), 1);

    let error = control.call::<_, ()>(&to, "fail", &()).await.unwrap_err();
    let CallError::Remote(error) = error else { panic!("{error}") };
    assert_eq!(
        (error.kind.as_str(), error.details),
        ("Broken", Some(Box::new(json!({"code": 7}))))
    );
    let error = control.call::<_, ()>(&to, "panics", &()).await.unwrap_err();
    assert!(matches!(error, CallError::Remote(e) if e.kind == kinds::INTERNAL));
    let error = control.call::<_, ()>(&to, "nothing", &()).await.unwrap_err();
    assert!(matches!(error, CallError::Remote(e) if e.kind == kinds::NO_SUCH_METHOD));
    let error = control.call::<_, ()>(&to, "slow", &"text").await.unwrap_err();
    assert!(matches!(error, CallError::Remote(e) if e.kind == kinds::BAD_ARGUMENTS));

    let mut seen = Vec::new();
    let request = control.request(&to, "slow");
    let steps: u32 = request.call_with_progress(&5u32, |step: u32| seen.push(step)).await.unwrap();
    assert_eq!((steps, seen), (5, vec![0, 1, 2, 3, 4]));
    assert_eq!(agent.drain(Duration::from_secs(5)).await, 0);
}

#[tokio::test]
async fn default_rule_is_deny() {
    let world = World::new();
    let open = Router::new()
        .with(Method::new("open", |_, (): ()| async move { Ok(1) }).open_to_agents())
        .method("closed", |_, (): ()| async move { Ok(2) });
    let conductor =
        Server::start(world.component("conductor", "h1"), open, options()).await.unwrap();
    let agent = world.agent("db-1");
    let _other = Server::start(world.agent("db-2"), echo(), options()).await.unwrap();
    let client = Client::new(agent);
    let to = target("component/conductor");
    assert_eq!(client.call::<_, u32>(&to, "open", &()).await.unwrap(), 1);
    let denied = |error| matches!(error, CallError::Remote(e) if e.kind == kinds::NOT_PERMITTED);
    assert!(denied(client.call::<_, u32>(&to, "closed", &()).await.unwrap_err()));
    let to = target("agent/db-2");
    assert!(denied(client.call::<_, Value>(&to, "echo", &1).await.unwrap_err()));
    assert!(denied(client.call::<_, Value>(&to, "no-such", &1).await.unwrap_err()));
    assert_eq!(conductor.endpoint().counters().denied.get(), 1);
}

#[tokio::test]
async fn casts_wait_and_run_once() {
    let world = World::new();
    let control = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let endpoint = world.agent("db-1");
    control.cast(&to, "count", &()).await.unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let (counter, (done, mut finished)) = (runs.clone(), tokio::sync::mpsc::channel(4));
    let router = Router::new().method("count", move |_, (): ()| {
        let (counter, done) = (counter.clone(), done.clone());
        async move {
            counter.fetch_add(1, Ordering::SeqCst);
            done.send(()).await.unwrap();
            Ok(())
        }
    });
    let _server = Server::start(endpoint, router, options()).await.unwrap();
    finished.recv().await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_fanout_reaches_every_member() {
    let world = World::new();
    let control = Client::new(world.component("control", "h1"));
    let (done, mut heard) = tokio::sync::mpsc::channel(8);
    let mut servers = Vec::new();
    for id in ["a", "b", "c"] {
        let done = done.clone();
        let router = Router::new().method("hear", move |_, word: String| {
            let done = done.clone();
            async move {
                done.send(format!("{id}:{word}")).await.unwrap();
                Ok(())
            }
        });
        let server = Server::start(world.agent(id), router, options()).await.unwrap();
        server.join_groups().await.unwrap();
        servers.push(server);
    }
    control.fanout(&target("group/all"), "hear", &"hello").await.unwrap();
    let mut words = Vec::new();
    for _ in 0..3 {
        words.push(heard.recv().await.unwrap());
    }
    words.sort();
    assert_eq!(words, ["a:hello", "b:hello", "c:hello"]);
}

#[tokio::test]
async fn a_session_that_the_peer_lost_is_offered_again() {
    let world = World::new();
    let control = Client::new(world.component("control", "h1"));
    let to = target("agent/db-1");
    let endpoint = world.agent("db-1");
    let first = Server::start(endpoint.clone(), echo(), options()).await.unwrap();
    let _: Value = control.call(&to, "echo", &1).await.unwrap();
    first.endpoint().forget_peer(control.endpoint().identity().principal());
    let _: Value = control.call(&to, "echo", &2).await.unwrap();
    assert_eq!(endpoint.counters().notices.get(), 1);
    assert_eq!(endpoint.counters().offers.get(), 2);
}

#[tokio::test]
async fn an_unknown_target_and_a_silent_one_are_told_apart() {
    let world = World::new();
    let control = Client::new(world.component("control", "h1"));
    let error = control.call::<_, ()>(&target("agent/none"), "x", &()).await.unwrap_err();
    assert!(matches!(error, CallError::UnknownTarget { .. }), "{error}");
    let _known = world.agent("away");
    let to = target("agent/away");
    let error = control.call::<_, ()>(&to, "x", &()).await.unwrap_err();
    assert!(matches!(error, CallError::Unroutable { .. }), "{error}");
    control.cast(&to, "x", &()).await.unwrap();
    let request = control.request(&to, "x").timeout(Duration::from_millis(200));
    let error = request.call::<_, ()>(&()).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn dropping_a_call_stops_the_method() {
    let world = World::new();
    let control = Client::new(world.component("control", "h1"));
    let (started, mut running) = tokio::sync::mpsc::channel::<()>(1);
    let (stopped, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    let router = Router::new().method("forever", move |_, (): ()| {
        let (started, stopped) = (started.clone(), stopped.clone());
        async move {
            let _guard = scopeguard(move || stopped.try_send(()).unwrap_or_default());
            started.send(()).await.unwrap();
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let _server = Server::start(world.agent("db-1"), router, options()).await.unwrap();
    let to = target("agent/db-1");
    let call = tokio::spawn(async move { control.call::<_, ()>(&to, "forever", &()).await });
    running.recv().await.unwrap();
    call.abort();
    ended.recv().await.unwrap();
}

struct Guard<F: FnMut()>(F);
impl<F: FnMut()> Drop for Guard<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
fn scopeguard<F: FnMut()>(f: F) -> Guard<F> {
    Guard(f)
}

#[tokio::test]
async fn several_hosts_need_a_shared_store() {
    let world = World::new();
    let options = ServerOptions::new(claims());
    let error = Server::start(world.component("api", "h1"), echo(), options).await.unwrap_err();
    assert!(matches!(error, ServeError::UnsharedStore));
}
