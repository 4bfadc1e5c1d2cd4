//! Several hosts of one component.

#[cfg(feature = "redis")]
mod common;

use bulla::memory::{Deployment, server_options};
use bulla::{Router, ServeError, Server, ServerOptions};

fn by_bus() -> ServerOptions {
    ServerOptions { only_host: false, only_host_by_bus: true, ..server_options() }
}

#[tokio::test(start_paused = true)]
async fn a_second_host_on_an_unshared_store_does_not_start() {
    let deployment = Deployment::new().unwrap();
    let host = |instance| deployment.component("worker", instance).unwrap();
    let start = |instance, options| Server::start(host(instance), Router::new(), options);
    let first = start("one", by_bus()).await.unwrap();
    let error = start("two", by_bus()).await.unwrap_err();
    assert!(matches!(error, ServeError::NotAlone { .. }), "{error}");
    assert!(error.to_string().contains("component.worker"), "{error}");
    // Without any word not even the first one would have.
    let silent = ServerOptions { only_host_by_bus: false, ..by_bus() };
    let error = start("two", silent).await.unwrap_err();
    assert!(matches!(error, ServeError::UnsharedStore), "{error}");
    // The operator's word goes over it.
    let word = start("two", ServerOptions { only_host: true, ..by_bus() }).await.unwrap();
    word.drain(std::time::Duration::ZERO).await;
    first.drain(std::time::Duration::ZERO).await;
    start("two", by_bus()).await.unwrap();
    // Another component's hosts are none of its business.
    let other = deployment.component("other", "one").unwrap();
    Server::start(other, Router::new(), by_bus()).await.unwrap();
}

#[cfg(feature = "redis")]
mod redis {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use bulla::memory::MemoryBus;
    use bulla::{
        Claims, Connection, Context, EndpointOptions, HandlerResult, KeyFile, Method, Router,
        ServeOptions, SharedClaims, Target,
    };
    use bulla_guard::NewStore;
    use bulla_services::{Redis, require};
    use bulla_transport::{Address, Outbound, Transport};

    use super::common::{keystore, write_key_file};

    const CALLS: u32 = 200;
    /// Long enough that only a hang reaches it.
    const HANG: Duration = Duration::from_secs(120);

    /// Answers with its run's number, a little later.
    fn counting(runs: &Arc<AtomicU32>) -> Router {
        let runs = runs.clone();
        let method = Method::new("run", move |_: Context, (): ()| {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(run) as HandlerResult<u32>
            }
        });
        Router::new().with(method.open_to_components())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn hosts_that_share_a_store_run_every_call_once() {
        let Some(redis) = require(Redis::start()) else { return };
        let folder = tempfile::tempdir().unwrap();
        let keystore = keystore(&folder, &["api", "worker"]).await;
        let peers = ["component/api", "component/worker"];
        let bus = MemoryBus::new();
        let connect = async |name| {
            let path = folder.path().join(format!("{name}.key"));
            if !path.exists() {
                write_key_file(&keystore, name, &peers, None, folder.path()).await;
            }
            let file = KeyFile::read(&path).unwrap();
            let transport = Arc::new(bus.transport());
            Connection::over(&file, &path, transport, EndpointOptions::default()).unwrap()
        };
        let shared = SharedClaims::new(&redis.url()).unwrap();
        let hosts = [connect("worker").await, connect("worker").await];
        // The bus is as new as the store.
        let party = hosts[0].endpoint().identity().party().to_string();
        shared.open(&party, NewStore::NothingBefore).await.unwrap();
        let runs = [Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0))];
        let mut serving = Vec::new();
        for (host, runs) in hosts.iter().zip(&runs) {
            let options = ServeOptions::new().claims(Claims::Shared(shared.clone()));
            serving.push(host.serve(counting(runs), options).await.unwrap());
        }
        // Everything comes twice.
        let (mut tap, broker) = (bus.tap(), bus.transport());
        let doubled = Arc::new(AtomicU32::new(0));
        let counted = doubled.clone();
        let doubling = tokio::spawn(async move {
            let mut seen = std::collections::HashSet::new();
            while let Some(tapped) = tap.next().await {
                if tapped.routing_key != "component.worker" || !seen.insert(tapped.payload.clone())
                {
                    continue;
                }
                let (exchange, topic) = ("bulla".to_owned(), tapped.routing_key);
                let again =
                    Outbound { mandatory: true, confirm: true, ..Outbound::new(tapped.payload) };
                broker.publish(&Address::Topic { exchange, topic }, again).await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let api = connect("api").await;
        let target: Target = "component/worker".parse().unwrap();
        let calls = (0..CALLS).map(|_| {
            let (client, target) = (api.client().clone(), target.clone());
            tokio::spawn(async move { client.call::<_, u32>(&target, "run", &()).await })
        });
        for call in calls.collect::<Vec<_>>() {
            tokio::time::timeout(HANG, call).await.unwrap().unwrap().unwrap();
        }
        let all = async {
            while doubled.load(Ordering::SeqCst) < CALLS {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(HANG, all).await.unwrap();
        for serving in serving {
            serving.drain(HANG).await;
        }
        doubling.abort();
        let ran = runs.map(|runs| runs.load(Ordering::SeqCst));
        assert_eq!(ran.iter().sum::<u32>(), CALLS, "{ran:?}");
        assert!(ran.iter().all(|runs| *runs > 0), "{ran:?}");
    }
}
