//! Queues in a real PostgreSQL: everything that a store must do, and what is true of PostgreSQL.

#![cfg(feature = "postgres")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_queue::{
    ClaimTerms, ClientId, EncryptedQueues, Limits, NewMessage, Once, Page, Place, Plain, Posted,
    PostgresOptions, PostgresQueues, RestKey, Store, StoreAddress, StoreError, conformance,
};
use bulla_seal::Secret;
use bulla_services::{Authority, Postgres, require};

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

// One server for all of it: it takes seconds to make.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_store_that_keeps_what_it_answered() {
    let authority = Authority::new("test").unwrap();
    let server = authority.server(&["localhost"]).unwrap();
    let Some(mut postgres) = require(Postgres::start_with_tls(&server)) else { return };
    let options = PostgresOptions::new(postgres.url()).with_clock_of_requests();
    assert!(!format!("{options:?}").contains("test-only"));
    let store: Arc<dyn Store> = Arc::new(PostgresQueues::open(options).await.unwrap());
    conformance::run_all(&store).await.unwrap();
    let own = PostgresOptions::new(postgres.url());
    it_lies_encrypted(Arc::new(PostgresQueues::open(own).await.unwrap())).await;
    what_is_over_is_swept_away(&store).await;
    store.close().await;
    let refused = store.post(&place("q"), client(), vec![text("a")], now()).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");

    what_was_answered_survives_a_crash_and_other_hosts_hear_of_posts(&mut postgres).await;
    the_way_to_another_machine_is_checked(&postgres, &authority).await;
}

/// Long over by the real clock, but for whoever asks in the past.
async fn what_is_over_is_swept_away(store: &Arc<dyn Store>) {
    let at = place("old");
    let many = (0..2500).map(|n| text(&n.to_string())).collect();
    store.post(&at, client(), many, 1000).await.unwrap();
    let page = Page { limit: 1, ..Page::default() };
    let there = || async { store.list(&at, &page, 2000).await.unwrap().is_empty() };
    eventually("they are gone", there).await;
}

async fn what_was_answered_survives_a_crash_and_other_hosts_hear_of_posts(postgres: &mut Postgres) {
    let open =
        || async { PostgresQueues::open(PostgresOptions::new(postgres.url())).await.unwrap() };
    let (one, other) = (open().await, open().await);
    let (at, elsewhere) = (place("q"), place("elsewhere"));
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    other.on_arrival(Arc::new(move |at: Option<&Place>| {
        let _ = heard.send(at.cloned());
    }));
    let (told, hears) = (std::cell::Cell::new(false), std::cell::RefCell::new(&mut hears));
    eventually("it is heard", || async {
        one.post(&elsewhere, client(), vec![text("x")], now()).await.unwrap();
        while let Ok(heard) = hears.borrow_mut().try_recv() {
            told.set(told.get() || heard.as_ref() == Some(&elsewhere));
        }
        told.get()
    })
    .await;

    let ids = one.post(&at, client(), vec![text("a"), text("b")], now()).await.unwrap();
    let terms = ClaimTerms { ttl: 100, grace: 60 };
    let claim = one.claim(&at, 1, terms, now()).await.unwrap().unwrap();
    assert_eq!(claim.messages[0].id, ids[0]);
    postgres.kill();
    postgres.restart().unwrap();
    eventually("it is used again", || async { other.ping().await.is_ok() }).await;
    let held = other.claimed(&at, claim.id, now()).await.unwrap().unwrap();
    assert_eq!(held.messages[0].body, "\"a\"");
    let page = Page { limit: 9, ..Page::default() };
    let listed = other.list(&at, &page, now()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, ids[1]);
    one.close().await;
    other.close().await;
}

async fn the_way_to_another_machine_is_checked(postgres: &Postgres, authority: &Authority) {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let url = postgres.url();
    let named = url.replace("127.0.0.1", "localhost");
    let known: StoreAddress = named.parse().unwrap();
    known.authorities(&ca).open(now()).await.unwrap().close().await;
    // Neither whom nobody vouches for, nor one of another name.
    let unknown = format!("{named}?sslmode=verify-full");
    assert!(PostgresQueues::open(PostgresOptions::new(unknown)).await.is_err());
    let other = PostgresOptions::new(&url).authorities(&ca);
    assert!(PostgresQueues::open(other).await.is_err());

    let stranger = url.replace("test-only", "secret");
    let stranger = PostgresQueues::open(PostgresOptions::new(stranger)).await.unwrap_err();
    assert!(matches!(stranger, StoreError::Unfit { .. }), "{stranger}");
    assert!(!stranger.to_string().contains("secret"), "{stranger}");
}
