//! Queues spread over pools: nobody chooses one, and what must move moves.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::Request;
use bulla_queue::{
    ClientId, Limits, Metadata, NewMessage, Once, Place, Posted, SPREAD_KEY, Service, SpreadKey,
    SpreadQueues, SqliteQueues, Store, StoreError, StorePool, conformance, router,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn place(name: &str) -> Place {
    Place::new("p".into(), name, &Limits::default()).unwrap()
}

fn client() -> ClientId {
    ClientId::parse("30387f0039a011eebe560242ac120002").unwrap()
}

const FOUR: [(&str, u32); 4] = [("a", 1), ("b", 1), ("c", 1), ("d", 1)];

fn key(n: u8) -> SpreadKey {
    SpreadKey::new([n; SPREAD_KEY])
}

/// What an attacker does who can reckon where a queue comes to be: he takes the names that suit him.
fn chosen(where_is: impl Fn(&Place) -> usize) -> Vec<Place> {
    (0..).map(|n| place(&format!("q{n}"))).filter(|at| where_is(at) == 0).take(1000).collect()
}

fn by_crc32(at: &Place) -> usize {
    let mut crc = u32::MAX;
    for byte in at.project().bytes().chain(at.name().bytes()) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    (!crc % 4) as usize
}

fn by_key(key: &SpreadKey) -> impl Fn(&Place) -> usize {
    let at = |name: &str| FOUR.iter().position(|(pool, _)| *pool == name);
    move |place| key.draw(place, FOUR).and_then(at).unwrap()
}

/// Of 1,000 queues in four pools, against 250 in each.
fn chi_squared(queues: &[Place], where_is: impl Fn(&Place) -> usize) -> f64 {
    let mut counts = [0_u32; 4];
    for queue in queues {
        counts[where_is(queue)] += 1;
    }
    counts.iter().map(|count| (f64::from(*count) - 250.0).powi(2) / 250.0).sum()
}

/// With three degrees of freedom, chance is above this once in a thousand times.
const ONCE_IN_A_THOUSAND: f64 = 16.27;

#[test]
fn who_does_not_know_the_key_can_not_choose_a_pool() {
    // Zaqar's own, and ours with a key that everybody knows: all of them are where he wants them.
    let all_in_one = 3000.0;
    assert!(chi_squared(&chosen(by_crc32), by_crc32) >= all_in_one);
    let known = key(0);
    let suits = chosen(by_key(&known));
    assert!(chi_squared(&suits, by_key(&known)) >= all_in_one);
    // The same names under keys that he does not know are spread as by chance.
    let unlucky = (1..=100).filter(|n| {
        let spread = chi_squared(&suits, by_key(&key(*n)));
        spread > ONCE_IN_A_THOUSAND || chi_squared(&chosen(by_crc32), by_key(&key(*n))) > 30.0
    });
    assert!(unlucky.count() <= 2);
}

#[test]
fn weights_count_and_only_what_must_move_moves() {
    let key = key(7);
    let queues: Vec<_> = (0..10_000).map(|n| place(&format!("q{n}"))).collect();
    let three = [("a", 1), ("b", 2), ("c", 1)];
    let four = [("a", 1), ("b", 2), ("c", 1), ("d", 4)];
    let mut counts: HashMap<&str, u32> = HashMap::new();
    let mut moved = 0;
    for queue in &queues {
        let (before, after) = (key.draw(queue, three), key.draw(queue, four));
        *counts.entry(before.unwrap()).or_default() += 1;
        if before != after {
            assert_eq!(after, Some("d"));
            moved += 1;
        }
    }
    // 2500, 5000, 2500, and half of all; the bounds are six standard deviations away.
    assert!((2240..2760).contains(&counts["a"]), "{counts:?}");
    assert!((4700..5300).contains(&counts["b"]), "{counts:?}");
    assert!((4700..5300).contains(&moved), "{moved}");
    assert_eq!(key.draw(&queues[0], [("a", 0)]), None);
}

fn message() -> Vec<NewMessage> {
    vec![NewMessage { body: "1".to_owned(), ttl: 3600, delay: 0 }]
}

struct Opened {
    spread: Arc<SpreadQueues>,
    stores: Vec<Arc<dyn Store>>,
}

impl Opened {
    async fn counts(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for store in &self.stores {
            counts.push(store.all_queues(None, 1000).await.unwrap().len());
        }
        counts
    }
}

async fn open(dir: &Path, weights: &[(&str, u32)]) -> Result<Opened, StoreError> {
    let pools: Vec<_> = weights.iter().map(|(name, weight)| (*name, *weight, None)).collect();
    open_flavored(dir, &pools).await
}

async fn open_flavored(
    dir: &Path,
    all: &[(&str, u32, Option<&str>)],
) -> Result<Opened, StoreError> {
    let (mut pools, mut stores) = (Vec::new(), Vec::new());
    for (name, weight, flavor) in all {
        let (path, name) = (dir.join(name), (*name).to_owned());
        let store: Arc<dyn Store> = Arc::new(SqliteQueues::open(&path, now()).await?);
        stores.push(store.clone());
        let (flavor, shown) = (flavor.map(str::to_owned), path.display().to_string());
        pools.push(StorePool { name, weight: *weight, flavor, shown, store });
    }
    let spread = SpreadQueues::open(key(7), pools).await;
    if spread.is_err() {
        for store in &stores {
            store.close().await;
        }
    }
    Ok(Opened { spread: spread?, stores })
}

async fn eventually<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = open(dir.path(), &[("a", 1), ("b", 2)]).await.unwrap().spread;
    conformance::run_all(&store).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_more_gets_what_it_wins_while_queues_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &[("a", 1), ("b", 1)]).await.unwrap();
    let spread = &opened.spread;
    assert!(spread.progress().done);
    let (name, digest) = ("key".to_owned(), "digest".to_owned());
    let once = Once { name, digest, until: now() + 3_600_000 };
    let names: Vec<_> = (0..60).map(|n| place(&format!("q{n}"))).collect();
    for at in &names {
        spread.create(at, &Metadata::new()).await.unwrap();
        let posted = spread.post_once(at, client(), message(), once.clone(), now()).await.unwrap();
        assert!(matches!(posted, Posted::Now(_)));
    }
    let before = opened.counts().await;
    spread.close().await;
    drop(opened);

    // The messages are in the way, and where they were.
    let opened = open(dir.path(), &[("a", 1), ("b", 1), ("c", 1)]).await.unwrap();
    let spread = &opened.spread;
    eventually(|| async { spread.progress().waiting > 0 }).await;
    assert_eq!(opened.counts().await[..2], before[..]);
    assert_eq!(spread.count_queues("p").await.unwrap(), 60);
    for at in &names {
        let popped = spread.pop(at, 9, now()).await.unwrap();
        assert_eq!(popped.len(), 1);
    }
    eventually(|| async { spread.progress().done }).await;
    let after = opened.counts().await;
    assert_eq!(after.iter().sum::<usize>(), 60);
    assert_eq!(spread.progress().moved as usize, after[2]);
    assert!(after[2] > 0 && after[0] <= before[0] && after[1] <= before[1], "{before:?} {after:?}");
    // What was done once is known where the queue is now.
    for at in &names {
        let posted = spread.post_once(at, client(), message(), once.clone(), now()).await.unwrap();
        assert!(matches!(posted, Posted::Before(_)), "{posted:?}");
        assert!(spread.pop(at, 9, now()).await.unwrap().is_empty());
    }
    spread.close().await;
    drop(opened);

    // One that may have queues is not left out; with the weight 0 it is emptied, and can be.
    let refused = open(dir.path(), &[("a", 1), ("b", 1)]).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("the pool c"), "{refused}");
    let opened = open(dir.path(), &[("a", 1), ("b", 1), ("c", 0)]).await.unwrap();
    let spread = &opened.spread;
    eventually(|| async { spread.progress().done }).await;
    assert_eq!(opened.counts().await, [before, vec![0]].concat());
    spread.close().await;
    drop(opened);
    assert!(open(dir.path(), &[("a", 1), ("b", 1)]).await.is_ok());
}

async fn ask(spread: &Arc<SpreadQueues>, method: &str, path: &str, body: &str) -> (u16, Value) {
    let router = router(Arc::new(Service::new(spread.clone()).dangerously_open()));
    let request = Request::builder().method(method).uri(path).header("X-Project-ID", "p");
    let request = request.header("Client-ID", "30387f00-39a0-11ee-be56-0242ac120002");
    let kind = "application/openstack-messaging-v2.0-json-patch";
    let request = request.header("Content-Type", kind).body(Body::from(body.to_owned())).unwrap();
    let answer = router.oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn are_in(store: &Arc<dyn Store>, of: &str) -> usize {
    let all = store.all_queues(None, 1000).await.unwrap();
    all.iter().filter(|at| at.name().starts_with(of)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_a_flavor_is_in_that_flavors_pools() {
    const POOLS: [(&str, u32, Option<&str>); 4] =
        [("a", 1, None), ("b", 1, None), ("c", 1, Some("fast")), ("d", 1, Some("fast"))];
    const FAST: &str = r#"{"_flavor": "fast"}"#;
    let change = r#"[{"op": "add", "path": "/metadata/_flavor", "value": "fast"}]"#;
    let dir = tempfile::tempdir().unwrap();
    let opened = open_flavored(dir.path(), &POOLS).await.unwrap();
    let spread = &opened.spread;
    for n in 0..30 {
        assert_eq!(ask(spread, "PUT", &format!("/v2/queues/fast{n}"), FAST).await.0, 201);
        assert_eq!(ask(spread, "PUT", &format!("/v2/queues/fast{n}"), FAST).await.0, 204);
        spread.post(&place(&format!("plain{n}")), client(), message(), now()).await.unwrap();
    }
    let unknown = ask(spread, "PUT", "/v2/queues/x", r#"{"_flavor": "slow"}"#).await;
    assert_eq!(unknown.0, 400);
    for (store, (.., flavor)) in opened.stores.iter().zip(POOLS) {
        let (fast, plain) = (are_in(store, "fast").await, are_in(store, "plain").await);
        assert_eq!((fast > 0, plain > 0), (flavor.is_some(), flavor.is_none()));
    }

    // Operators see the pools, which are the settings' to change.
    let (_, pools) = ask(spread, "GET", "/v2/pools", "").await;
    let seen: Vec<_> = pools["pools"].as_array().unwrap().iter().collect();
    let names: Vec<_> = seen.iter().map(|pool| pool["name"].as_str().unwrap()).collect();
    assert_eq!((names, &seen[3]["flavor"]), (vec!["a", "b", "c", "d"], &json!("fast")));
    let (_, flavors) = ask(spread, "GET", "/v2/flavors", "").await;
    assert_eq!(flavors["flavors"][0]["pool_list"], json!(["c", "d"]));
    let pool = r#"{"weight": 1, "uri": "redis://h"}"#;
    assert_eq!(ask(spread, "PUT", "/v2/pools/e", pool).await.0, 403);
    assert_eq!(ask(spread, "PATCH", "/v2/pools/a", r#"{"weight": 2}"#).await.0, 403);
    assert_eq!(ask(spread, "DELETE", "/v2/pools/a", "").await.0, 403);
    assert_eq!(ask(spread, "PUT", "/v2/flavors/x", r#"{"pool_list": ["a"]}"#).await.0, 403);
    assert_eq!(ask(spread, "DELETE", "/v2/flavors/fast", "").await.0, 403);

    // Another flavor is for an empty queue.
    let (full, path) = (place("plain0"), "/v2/queues/plain0");
    assert_eq!(ask(spread, "PATCH", path, change).await.0, 400);
    assert_eq!(spread.pop(&full, 9, now()).await.unwrap().len(), 1);
    let changed = ask(spread, "PATCH", path, change).await;
    assert_eq!(changed.0, 200, "{}", changed.1);
    assert_eq!(
        are_in(&opened.stores[2], "plain0").await + are_in(&opened.stores[3], "plain0").await,
        1
    );
    assert_eq!(ask(spread, "GET", path, "").await.1["_flavor"], "fast");
    let gone = r#"[{"op": "remove", "path": "/metadata/_flavor"}]"#;
    assert_eq!(ask(spread, "PATCH", path, gone).await.0, 200);
    assert_eq!(
        are_in(&opened.stores[0], "plain0").await + are_in(&opened.stores[1], "plain0").await,
        1
    );
    // And whoever makes a removed one anew says which it has.
    let again = place("fast0");
    spread.remove(&again).await.unwrap();
    spread.post(&again, client(), message(), now()).await.unwrap();
    let plain = are_in(&opened.stores[0], "fast").await + are_in(&opened.stores[1], "fast").await;
    assert_eq!(plain, 1);
    spread.remove(&again).await.unwrap();
    spread.close().await;
    drop(opened);

    // All of it is known to the next process; a pool that the flavor loses is emptied.
    let mut fewer = POOLS;
    fewer[2].2 = None;
    let opened = open_flavored(dir.path(), &fewer).await.unwrap();
    let spread = &opened.spread;
    for n in 1..30 {
        let popped = spread.pop(&place(&format!("plain{n}")), 9, now()).await.unwrap();
        assert_eq!(popped.len(), 1);
    }
    eventually(|| async { spread.progress().done }).await;
    assert_eq!(are_in(&opened.stores[3], "fast").await, 29);
    assert_eq!(opened.counts().await.iter().sum::<usize>(), 59);
    assert!(are_in(&opened.stores[2], "plain").await > 0);
    spread.close().await;
}

#[tokio::test]
async fn queues_without_a_flavor_need_a_pool() {
    let dir = tempfile::tempdir().unwrap();
    for pools in [[("a", 1, Some("fast")), ("b", 0, None)], [("a", 1, None), ("b", 1, Some("a b"))]]
    {
        let refused = open_flavored(dir.path(), &pools).await.map(drop).unwrap_err();
        assert!(refused.to_string().contains("flavor"), "{refused}");
    }
}
