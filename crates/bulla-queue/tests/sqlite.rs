//! Queues in a SQLite file: everything that a store must do, and what is true of a file.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bulla_queue::{
    ClaimTerms, ClientId, Limits, NewMessage, Page, Place, SqliteQueues, Store, StoreError,
    conformance,
};

const NOW: u64 = 4_000_000_000_000;

fn place(name: &str) -> Place {
    Place::new("p".into(), name, &Limits::default()).unwrap()
}

fn text(body: &str) -> NewMessage {
    NewMessage { body: format!("\"{body}\""), ttl: 3600, delay: 0 }
}

fn client() -> ClientId {
    ClientId::parse("30387f0039a011eebe560242ac120002").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteQueues::open(dir.path().join("q.db"), NOW).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    conformance::run_all(&store).await.unwrap();
    store.close().await;
    let refused = store.post(&place("q"), client(), vec![text("a")], NOW).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
}

#[tokio::test]
async fn what_was_there_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    let store = SqliteQueues::open(&path, NOW).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let at = place("q");
    let first = store.post(&at, client(), vec![text("a"), text("b")], NOW).await.unwrap();
    let terms = ClaimTerms { ttl: 100, grace: 60 };
    let claim = store.claim(&at, 1, terms, NOW).await.unwrap().unwrap();
    // Another process may not use it meanwhile.
    let second = SqliteQueues::open(&path, NOW).await;
    assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
    store.close().await;
    drop(store);

    // The clock was set back: what comes is still behind what was there.
    let store = SqliteQueues::open(&path, 1000).await.unwrap();
    let held = store.claimed(&at, claim.id, NOW).await.unwrap().unwrap();
    assert_eq!(held.messages[0].body, "\"a\"");
    let later = store.post(&at, client(), vec![text("c")], 1000).await.unwrap();
    assert!(later[0].seq() > first[1].seq());
    let page = Page { limit: 9, claimed: true, ..Page::default() };
    let listed = store.list(&at, &page, 2000).await.unwrap();
    let bodies: Vec<_> = listed.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, ["\"a\"", "\"b\"", "\"c\""]);
    store.close().await;
}

#[tokio::test]
async fn a_file_of_another_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    std::fs::write(&path, "notes of somebody's").unwrap();
    let refused = SqliteQueues::open(&path, NOW).await;
    assert!(matches!(refused, Err(StoreError::Foreign { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"notes of somebody's");
}

#[tokio::test]
async fn what_is_over_is_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    // Long over by the real clock.
    let store = SqliteQueues::open(&path, 1000).await.unwrap();
    let at = place("q");
    let many = (0..2500).map(|n| text(&n.to_string())).collect();
    store.post(&at, client(), many, 1000).await.unwrap();
    let page = Page { limit: 1, ..Page::default() };
    let gone = async {
        while !store.list(&at, &page, 2000).await.unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.unwrap();
    store.close().await;
}
