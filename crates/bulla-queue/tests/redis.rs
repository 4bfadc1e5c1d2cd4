//! Queues in a real Redis: everything that a store must do, and what is true of Redis.

#![cfg(feature = "redis")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_queue::{
    ClaimTerms, ClientId, EncryptedQueues, Limits, NewMessage, Once, Page, Place, Plain, Posted,
    RedisOptions, RedisQueues, RestKey, Store, StoreError, conformance,
};
use bulla_seal::Secret;
use bulla_services::{Authority, Redis, require};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn place(name: &str) -> Place {
    Place::new("p".into(), name, &Limits::default()).unwrap()
}

fn text(body: &str) -> NewMessage {
    NewMessage { body: format!("\"{body}\""), ttl: 3600, delay: 0 }
}

fn client() -> ClientId {
    ClientId::parse("30387f0039a011eebe560242ac120002").unwrap()
}

async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), all).await.is_ok(), "{what}");
}

/// It goes by a clock of its own, and what is encrypted is tied to the time.
async fn it_lies_encrypted(inner: Arc<dyn Store>) {
    let key = RestKey::new(Secret::new([1; 32]));
    let store = EncryptedQueues::open(inner.clone(), key, Plain::Refused).await.unwrap();
    let (at, page) = (place("encrypted"), Page { limit: 9, ..Page::default() });
    let messages = || vec![text("a"), text("b")];
    store.post(&at, client(), messages(), now()).await.unwrap();
    let lie = inner.list(&at, &page, now()).await.unwrap();
    assert!(lie.iter().all(|message| message.body.starts_with("~1 encrypted ")));
    let listed = store.list(&at, &page, now()).await.unwrap();
    assert_eq!(listed.iter().map(|one| one.body.as_str()).collect::<Vec<_>>(), ["\"a\"", "\"b\""]);
    assert_eq!(store.pop(&at, 9, now()).await.unwrap().len(), 2);
    // A host whose clock is far off is told at once.
    let once = Once { name: "n".to_owned(), digest: "d".to_owned(), until: now() + 60_000 };
    let off = now() + 400_000;
    assert!(store.post(&at, client(), messages(), off).await.is_err());
    assert!(store.post_once(&at, client(), messages(), once.clone(), off).await.is_err());
    assert_eq!(inner.list(&at, &page, now()).await.unwrap(), []);
    let posted = store.post_once(&at, client(), messages(), once, now()).await.unwrap();
    assert!(matches!(posted, Posted::Now(_)), "{posted:?}");
    store.remove(&at).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_store() {
    let Some(redis) = require(Redis::start()) else { return };
    let options = RedisOptions::new(redis.url()).with_clock_of_requests();
    assert!(!format!("{options:?}").contains("test-only"));
    let store: Arc<dyn Store> = Arc::new(RedisQueues::open(options).await.unwrap());
    conformance::run_all(&store).await.unwrap();
    it_lies_encrypted(Arc::new(RedisQueues::open(RedisOptions::new(redis.url())).await.unwrap()))
        .await;
    store.close().await;
    let refused = store.post(&place("q"), client(), vec![text("a")], now()).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_killed_redis_and_other_hosts_hear_of_posts() {
    let Some(mut redis) = require(Redis::start()) else { return };
    let open = || async { RedisQueues::open(RedisOptions::new(redis.url())).await.unwrap() };
    let (one, other) = (open().await, Arc::new(open().await));
    let at = place("q");
    let terms = ClaimTerms { ttl: 100, grace: 60 };

    // Who waits at another host is told.
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    other.on_arrival(Arc::new(move |at: Option<&Place>| {
        let _ = heard.send(at.cloned());
    }));
    // Also where somebody emptied this Redis, with the list of who is told.
    for (what, before) in [("it is heard", false), ("it is heard again", true)] {
        if before {
            let mut connection = redis::Client::open(redis.url()).unwrap();
            let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
        }
        let elsewhere = place(if before { "again" } else { "elsewhere" });
        let told = std::cell::Cell::new(false);
        let hears = std::cell::RefCell::new(&mut hears);
        eventually(what, || async {
            one.post(&elsewhere, client(), vec![text("x")], now()).await.unwrap();
            while let Ok(heard) = hears.borrow_mut().try_recv() {
                told.set(told.get() || heard.as_ref() == Some(&elsewhere));
            }
            told.get()
        })
        .await;
    }

    let ids = one.post(&at, client(), vec![text("a"), text("b")], now()).await.unwrap();
    let claim = one.claim(&at, 1, terms, now()).await.unwrap().unwrap();
    assert_eq!(claim.messages[0].id, ids[0]);
    redis.kill();
    redis.restart().unwrap();
    eventually("it is used again", || async { other.ping().await.is_ok() }).await;
    let held = other.claimed(&at, claim.id, now()).await.unwrap().unwrap();
    assert_eq!(held.messages[0].body, "\"a\"");
    let page = Page { limit: 9, ..Page::default() };
    let listed = other.list(&at, &page, now()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_nobody_waits_for_is_given_up() {
    let Some(redis) = require(Redis::start()) else { return };
    let store = RedisQueues::open(RedisOptions::new(redis.url())).await.unwrap();
    let (at, terms) = (place("q"), ClaimTerms { ttl: 100, grace: 60 });
    store.post(&at, client(), vec![text("a"), text("b")], now()).await.unwrap();
    for _ in 0..50 {
        // It is on its way, and then whoever asked is gone.
        tokio::select! {
            biased;
            claimed = store.claim(&at, 1, terms, now()) => {
                let claimed = claimed.unwrap().map(|claim| claim.id);
                store.release(&at, claimed.unwrap(), now()).await.unwrap();
            }
            () = tokio::task::yield_now() => {}
        }
    }
    eventually("both are free", || async {
        let stats = store.stats(&at, now()).await.unwrap();
        let claim = store.claim(&at, 2, terms, now()).await.unwrap();
        let Some(claim) = claim else { return false };
        store.release(&at, claim.id, now()).await.unwrap();
        stats.free == 2 && claim.messages.len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_swept_away() {
    let Some(redis) = require(Redis::start()) else { return };
    let old = RedisOptions::new(redis.url()).with_clock_of_requests();
    let old = RedisQueues::open(old).await.unwrap();
    let at = place("q");
    let many = (0..2500).map(|n| text(&n.to_string())).collect();
    // Long over by the real clock, but for whoever asks in the past.
    old.post(&at, client(), many, 1000).await.unwrap();
    let page = Page { limit: 1, ..Page::default() };
    let there = || async { old.list(&at, &page, 2000).await.unwrap().is_empty() };
    eventually("they are gone", there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_or_another_machine_in_the_clear_is_refused() {
    let wrong = RedisQueues::open(RedisOptions::new("redis://u:secret@db.example:7/0")).await;
    let wrong = wrong.unwrap_err();
    assert!(matches!(wrong, StoreError::Address { .. }), "{wrong}");
    assert!(!wrong.to_string().contains("secret"), "{wrong}");
    let unchecked = RedisOptions::new("rediss://:secret@db.example:7/0#insecure");
    let unchecked = RedisQueues::open(unchecked).await.unwrap_err();
    assert!(matches!(unchecked, StoreError::Address { .. }), "{unchecked}");

    let evicts = Redis::builder().setting("maxmemory-policy allkeys-lru").start();
    let Some(redis) = require(evicts) else { return };
    let evicts = RedisQueues::open(RedisOptions::new(redis.url())).await.unwrap_err();
    assert!(matches!(evicts, StoreError::Unfit { .. }), "{evicts}");
    let stranger = redis.url().replace("test-only", "secret");
    let stranger = RedisQueues::open(RedisOptions::new(stranger)).await.unwrap_err();
    assert!(matches!(stranger, StoreError::Unfit { .. }), "{stranger}");
    assert!(!stranger.to_string().contains("secret"), "{stranger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_another_machine_is_checked() {
    let authority = Authority::new("test").unwrap();
    let redis = Redis::builder().tls(&authority).unwrap().start();
    let Some(redis) = require(redis) else { return };
    let options = |host: &str| RedisOptions::new(redis.tls_url(host));
    let known = options("localhost").authorities(authority.pem().into());
    let store = RedisQueues::open(known).await.unwrap();
    store.post(&place("q"), client(), vec![text("a")], now()).await.unwrap();
    // Neither whom nobody vouches for, nor one of another name.
    assert!(RedisQueues::open(options("localhost")).await.is_err());
    let named = options("127.0.0.1").authorities(authority.pem().into());
    assert!(RedisQueues::open(named).await.is_err());
}
