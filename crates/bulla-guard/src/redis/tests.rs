use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bulla_services::{Redis, require};

use super::*;
use crate::conformance::{self, BOB, LEASE_MS, done, granted, reply, request};
use crate::store::{Duplicate, Refused};

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A request of now.
fn live(n: u128) -> ClaimRequest {
    let now_ms = now_ms();
    ClaimRequest { iat: now_ms / 1000, exp: now_ms / 1000 + 600, now_ms, ..request(n) }
}

async fn open(redis: &Redis) -> RedisClaims {
    let options = RedisOptions::new(redis.url(), NewStore::NothingBefore);
    RedisClaims::open(options).await.unwrap()
}

async fn command(redis: &Redis, words: &[&str]) -> redis::Value {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (first, rest) = words.split_first().unwrap();
    redis::cmd(first).arg(rest).query_async(&mut connection).await.unwrap()
}

/// Fresh stores on one Redis, by the clock of requests.
macro_rules! fresh {
    ($redis:expr, $number:expr) => {
        |store| {
            let n = $number.fetch_add(1, Relaxed);
            let options = RedisOptions {
                store,
                prefix: format!("store-{n}"),
                ..RedisOptions::new($redis.url(), NewStore::NothingBefore)
            };
            async move {
                let claims = RedisClaims::open(options).await?.with_clock_of_requests();
                Ok(Arc::new(claims) as Arc<dyn ClaimStore>)
            }
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let Some(redis) = require(Redis::builder().durable(false).start()) else { return };
    let number = AtomicU32::new(0);
    conformance::run(fresh!(redis, number)).await.unwrap();
    conformance::agrees_with_memory(fresh!(redis, number), 0..60, 250).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_clock_decides() {
    let Some(redis) = require(Redis::builder().durable(false).start()) else { return };
    let (slow, fast) = (open(&redis).await, open(&redis).await);
    let behind = ClaimRequest { now_ms: live(1).now_ms - 3_600_000, ..live(1) };
    let ahead = ClaimRequest { worker: BOB, now_ms: live(1).now_ms + 3_600_000, ..live(1) };
    let grant = granted(&slow, &behind).await.unwrap();
    assert_eq!(grant.until_ms, behind.now_ms + LEASE_MS, "told in the clock of who asks");
    // To a host whose clock says that the lease is long over, it is not.
    let ClaimOutcome::Duplicate(Duplicate::Held { until_ms }) =
        fast.claim(ahead.clone()).await.unwrap()
    else {
        panic!("not held");
    };
    let left = until_ms - ahead.now_ms;
    assert!(left <= LEASE_MS && left > LEASE_MS / 2, "{left}");
    let extended = slow.extend(&behind.key, grant, grant.until_ms + 5000).await.unwrap().unwrap();
    assert_eq!(extended.until_ms, grant.until_ms + 5000);
    let sweep = SweepRequest { now_ms: ahead.now_ms, worker: BOB, lease_ms: 1 };
    let swept = fast.sweep(sweep).await.unwrap();
    assert!(swept.in_doubt.is_empty() && swept.purged == 0);
    assert_eq!(slow.complete(&behind.key, grant, done("x")).await.unwrap(), Completed::Stored);
    // A host whose clock jumped counts the store as lost at the store's time.
    fast.declare_lost(ahead.now_ms).await.unwrap();
    let blind = fast.stats().await.unwrap().blind_until.unwrap();
    assert!(blind.abs_diff(now_ms() / 1000 + 120) < 60, "{blind}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_one_round_trip() {
    let Some(redis) = require(Redis::builder().durable(false).start()) else { return };
    let store = open(&redis).await;
    let calls = async |name: &str| {
        let redis::Value::BulkString(text) = command(&redis, &["INFO", "commandstats"]).await
        else {
            panic!("no text");
        };
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:")));
        let calls = line.map(|line| line.split(['=', ',']).nth(1).unwrap().parse().unwrap());
        calls.unwrap_or(0u64)
    };
    let top_level = ["evalsha", "eval", "script|load", "script|exists", "config|get"];
    let mut before = Vec::new();
    for name in top_level {
        before.push(calls(name).await);
    }
    for n in 0..100 {
        let request = live(n);
        let grant = granted(&store, &request).await.unwrap();
        store.complete(&request.key, grant, done("x")).await.unwrap();
        store.claim(request).await.unwrap();
    }
    let mut made = Vec::new();
    for (name, before) in top_level.into_iter().zip(before) {
        made.push(calls(name).await - before);
    }
    assert_eq!(made, [300, 0, 0, 0, 0], "300 claims and completions");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_share_it() {
    let Some(redis) = require(Redis::builder().durable(false).start()) else { return };
    let (alice, bob) = (open(&redis).await, open(&redis).await);
    assert!(alice.is_shared());
    let first = live(1);
    let grant = granted(&alice, &first).await.unwrap();
    let again = ClaimRequest { worker: BOB, ..first.clone() };
    let held = bob.claim(again.clone()).await.unwrap();
    assert!(matches!(held, ClaimOutcome::Duplicate(Duplicate::Held { .. })), "{held:?}");
    alice.complete(&first.key, grant, done("sealed")).await.unwrap();
    let answered = Duplicate::Done { reply: Some(reply("sealed")) };
    assert_eq!(bob.claim(again).await.unwrap(), answered.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_keeps_everything_changes_nothing() {
    let Some(mut redis) = require(Redis::start()) else { return };
    let store = open(&redis).await;
    let first = live(1);
    let grant = granted(&store, &first).await.unwrap();
    redis.kill();
    let error = store.claim(live(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    redis.restart().unwrap();
    // Scripts are gone, and come back by themselves.
    let completed = retried(|| store.complete(&first.key, grant, done("sealed"))).await;
    assert_eq!(completed, Completed::Stored);
    let answered = Duplicate::Done { reply: Some(reply("sealed")) };
    assert_eq!(store.claim(first).await.unwrap(), answered.into());
    assert_eq!(store.stats().await.unwrap().blind_until, None);
}

/// Until the connection is there again.
async fn retried<T, F: Future<Output = Result<T, StoreError>>>(attempt: impl Fn() -> F) -> T {
    for _ in 0..600 {
        if let Ok(value) = attempt().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the connection did not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_may_forget_counts_as_lost() {
    let Some(mut redis) = require(Redis::builder().durable(false).start()) else { return };
    let store = open(&redis).await;
    granted(&store, &live(1)).await.unwrap();
    // What was on disk by chance is no promise: the epoch is there, the last writes may not be.
    command(&redis, &["SAVE"]).await;
    redis.kill();
    redis.restart().unwrap();
    let outcome = retried(|| store.claim(live(2))).await;
    assert_eq!(outcome, ClaimOutcome::Refused(Refused::BeforeStart));
    let known = store.claim(live(1)).await.unwrap();
    assert!(matches!(known, ClaimOutcome::Duplicate(Duplicate::Held { .. })), "{known:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_counts_as_lost_at_once() {
    let Some(redis) = require(Redis::start()) else { return };
    let store = open(&redis).await;
    granted(&store, &live(1)).await.unwrap();
    command(&redis, &["FLUSHALL"]).await;
    let again = store.claim(live(1)).await.unwrap();
    assert_eq!(again, ClaimOutcome::Refused(Refused::BeforeStart));
    // Nor does a host that starts now, and was told that nothing was before, see it otherwise.
    let outcome = open(&redis).await.claim(live(2)).await.unwrap();
    assert_eq!(outcome, ClaimOutcome::Refused(Refused::BeforeStart));
    let lost = RedisOptions {
        prefix: "other".to_owned(),
        ..RedisOptions::new(redis.url(), NewStore::MayBeLost)
    };
    let outcome = RedisClaims::open(lost).await.unwrap().claim(live(3)).await.unwrap();
    assert_eq!(outcome, ClaimOutcome::Refused(Refused::BeforeStart));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_is_refused() {
    let evicts = Redis::builder().setting("maxmemory-policy allkeys-lru").start();
    let Some(redis) = require(evicts) else { return };
    let options = RedisOptions::new(redis.url(), NewStore::NothingBefore);
    let error = RedisClaims::open(options).await.unwrap_err().to_string();
    assert!(error.contains("allkeys-lru") && error.contains("noeviction"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_in_no_message() {
    let Some(redis) = require(Redis::builder().durable(false).start()) else { return };
    let url = redis.url().replace("test-only", "wrong-secret");
    let options = RedisOptions::new(url, NewStore::NothingBefore);
    let mut told = format!("{options:?}");
    let error = RedisClaims::open(options).await.unwrap_err();
    told += &format!("{error} {error:?}");
    told += &format!("{:?}", open(&redis).await);
    for url in ["redis://:wrong-secret@[::1", "wrong-secret", "redis://u:wrong-secret@h:1/x y"] {
        let options = RedisOptions::new(url, NewStore::NothingBefore);
        let error = RedisClaims::open(options).await.unwrap_err();
        told += &format!("{error} {error:?}");
    }
    assert!(!told.contains("secret") && !told.contains("test-only"), "{told}");
}
