//! From key files over a real RabbitMQ.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bulla::{
    CallError, ConnectError, Connection, Context, HandlerResult, Method, Router, ServeOptions,
    Target, default_state,
};
use bulla_services::{RabbitMq, require};
use common::{keystore, write_key_file};
use serde_json::json;

/// Long enough that only a hang reaches it.
const HANG: Duration = Duration::from_secs(120);

/// Counts how often it ran, and says who called.
fn counting(runs: &Arc<AtomicU32>) -> Router {
    let runs = runs.clone();
    let method = Method::new("run", move |context: Context, (): ()| {
        let runs = runs.clone();
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            Ok(context.sender().principal.to_string()) as HandlerResult<String>
        }
    });
    Router::new().with(method.open_to_components())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_call_each_other_over_tls() {
    let Some(rabbit) = require(RabbitMq::builder().tls(true).start()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore = keystore(&folder, &["control", "api", "worker"]).await;
    std::fs::write(folder.path().join("ca.pem"), rabbit.ca_pem()).unwrap();
    // The certificate's path is relative to the key file.
    let bus = json!({ "url": rabbit.tls_url(), "exchange": "services", "ca": "ca.pem" });
    let peers = ["component/control", "component/api", "component/worker"];
    let mut sides = Vec::new();
    for name in ["api", "worker"] {
        let key = write_key_file(&keystore, name, &peers, Some(bus.clone()), folder.path()).await;
        let connection = Connection::open(&key, None).await.unwrap();
        assert_eq!(connection.endpoint().options().exchange, "services");
        let runs = Arc::new(AtomicU32::new(0));
        let options = ServeOptions::new().only_host();
        let serving = connection.serve(counting(&runs), options).await.unwrap();
        assert!(default_state(&key).join("claims.db").exists());
        sides.push((connection, serving));
    }
    for (own, other) in [(0, "worker"), (1, "api")] {
        let target: Target = format!("component/{other}").parse().unwrap();
        let client = sides[own].0.client();
        // At once after the first start: nothing can have run before.
        let call = client.call::<_, String>(&target, "run", &());
        let who = tokio::time::timeout(HANG, call).await.unwrap().unwrap();
        assert_eq!(who, sides[own].0.principal().to_string());
    }
    for (connection, serving) in sides {
        assert_eq!(serving.drain(HANG).await, 0);
        connection.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_runs_once_and_what_may_have_run_does_not() {
    let Some(rabbit) = require(RabbitMq::start()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore = keystore(&folder, &["control", "api", "worker"]).await;
    let bus = json!({ "url": rabbit.url(), "exchange": "bulla" });
    let peers = ["component/control", "component/api", "component/worker"];
    let api = write_key_file(&keystore, "api", &peers, Some(bus.clone()), folder.path()).await;
    let worker = write_key_file(&keystore, "worker", &peers, None, folder.path()).await;
    let error = Connection::open(&worker, None).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoBus { .. }), "{error}");
    let api = Connection::open(&api, None).await.unwrap();
    let target: Target = "component/worker".parse().unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let url = rabbit.url();

    // Without a word on being the only host, a component does not start on a store of its own.
    let first = Connection::open(&worker, Some(&url)).await.unwrap();
    let error = first.serve(counting(&runs), ServeOptions::new()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Serve(_)), "{error}");
    let options = || ServeOptions::new().only_host();
    let serving = first.serve(counting(&runs), options()).await.unwrap();
    serving.drain(HANG).await;
    first.close().await;

    // Two casts to one that is away; it comes back and runs them, once each.
    for _ in 0..2 {
        api.client().cast(&target, "run", &()).await.unwrap();
    }
    let second = Connection::open(&worker, Some(&url)).await.unwrap();
    let serving = second.serve(counting(&runs), options()).await.unwrap();
    let call = api.client().call::<_, String>(&target, "run", &());
    tokio::time::timeout(HANG, call).await.unwrap().unwrap();
    serving.drain(HANG).await;
    second.close().await;
    assert_eq!(runs.load(Ordering::SeqCst), 3);

    // One that lost its memory runs nothing that was sealed before: it may have run.
    api.client().cast(&target, "run", &()).await.unwrap();
    std::fs::remove_dir_all(default_state(&worker)).unwrap();
    let third = Connection::open(&worker, Some(&url)).await.unwrap();
    let serving = third.serve(counting(&runs), options()).await.unwrap();
    let refused = || third.endpoint().counters().refused_by_name("before-start");
    let waited = async {
        while refused() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANG, waited).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    serving.drain(HANG).await;
    third.close().await;
    // And the caller of one that is gone hears of it.
    let call = api.client().request(&target, "run").timeout(Duration::from_secs(1));
    let error = call.call::<_, String>(&()).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    api.close().await;
}
