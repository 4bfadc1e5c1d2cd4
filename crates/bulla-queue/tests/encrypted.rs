//! Queues that lie encrypted: what a thief of the file reads, and what becomes of what somebody with a
//! pen in it writes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla_queue::{
    Before, ClaimTerms, ClientId, EncryptedQueues, Limits, Message, NEVER, NewMessage, Once, Page,
    Patch, Place, Plain, Posted, Record, RecordKind, RestKey, SqliteQueues, Store, StoreError,
    conformance,
};
use bulla_seal::Secret;
use serde_json::{Map, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};

const NOW: u64 = 4_000_000_000_000;
const TERMS: ClaimTerms = ClaimTerms { ttl: 100, grace: 60 };

struct Queues {
    dir: tempfile::TempDir,
}

impl Queues {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("q.db")
    }

    async fn bare(&self) -> Arc<dyn Store> {
        Arc::new(SqliteQueues::open(self.path(), NOW).await.unwrap())
    }

    async fn open(&self, plain: Plain) -> Arc<dyn Store> {
        Arc::new(EncryptedQueues::open(self.bare().await, key(1), plain).await.unwrap())
    }

    /// What somebody does who has the file.
    async fn write(&self, sql: &str) {
        let options = SqliteConnectOptions::new().filename(self.path());
        let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
        conn.execute(sqlx::query(AssertSqlSafe(sql.to_owned()))).await.unwrap();
        conn.close().await.unwrap();
    }
}

fn key(byte: u8) -> RestKey {
    RestKey::new(Secret::new([byte; 32]))
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

fn page() -> Page {
    Page { limit: 9, ..Page::default() }
}

fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.body.trim_matches('"')).collect()
}

/// Everything that is in the folder, whatever the file.
fn holds(dir: &Path, what: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(what.len()).any(|part| part == what.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_store() {
    let queues = Queues::new();
    let store = queues.open(Plain::Refused).await;
    conformance::run_all(&store).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn nothing_of_a_body_is_in_the_file() {
    let queues = Queues::new();
    let body = "a-word-that-stands-nowhere-else";
    let digest = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9";
    let fill = async |store: &Arc<dyn Store>| {
        let at = place("q");
        store.post(&at, client(), vec![text(body)], NOW).await.unwrap();
        let once = Once { name: "n".to_owned(), digest: digest.to_owned(), until: NEVER };
        for again in [false, true] {
            let messages = vec![text(body)];
            let posted = store.post_once(&at, client(), messages, once.clone(), NOW).await.unwrap();
            assert_eq!(matches!(posted, Posted::Before(_)), again, "{posted:?}");
        }
        for kind in [RecordKind::Pool, RecordKind::Subscription] {
            let (owner, name) = (at.owner(), "a".to_owned());
            let record = Record { kind, owner, name, value: body.to_owned(), until: NEVER };
            store.keep(record.clone(), Before::Nothing, NOW).await.unwrap();
            let found = store.records(kind, &at.owner(), ("", 9), NOW).await.unwrap();
            assert_eq!(found, [record]);
        }
        let claim = store.claim(&at, 9, TERMS, NOW).await.unwrap().unwrap();
        assert_eq!(bodies(&claim.messages), [body, body]);
        let held = store.claimed(&at, claim.id, NOW).await.unwrap().unwrap();
        assert_eq!(bodies(&held.messages), [body, body]);
    };
    // While it is in use, with the log that SQLite writes ahead, and after.
    let store = queues.open(Plain::Refused).await;
    fill(&store).await;
    assert!(queues.path().with_extension("db-wal").exists());
    assert!(!holds(queues.dir.path(), body) && !holds(queues.dir.path(), digest));
    store.close().await;
    assert!(!holds(queues.dir.path(), body) && !holds(queues.dir.path(), digest));
    // The same without is there to be read, or this would show nothing.
    let queues = Queues::new();
    let store = queues.bare().await;
    fill(&store).await;
    assert!(holds(queues.dir.path(), body) && holds(queues.dir.path(), digest));
    store.close().await;
}

#[tokio::test]
async fn what_is_moved_or_changed_is_not_given_out() {
    let post = async |store: &Arc<dyn Store>, name: &str, body: &str, now| {
        store.post(&place(name), client(), vec![text(body)], now).await.unwrap()[0]
    };
    let of = |body: &str| format!("(SELECT body FROM message WHERE created_ms = {body})");
    let second = format!("created_ms = {}", NOW + 1);
    for change in [
        // Another row's of the same queue, another queue's, another project's.
        format!("UPDATE message SET body = {} WHERE {second}", of(&NOW.to_string())),
        format!("UPDATE message SET body = {} WHERE {second}", of(&(NOW + 2).to_string())),
        "UPDATE queue SET project = 'o' WHERE name = 'other';
         UPDATE queue SET name = 'q2' WHERE name = 'q';
         UPDATE queue SET project = 'p', name = 'q' WHERE name = 'other'"
            .to_owned(),
        format!("UPDATE message SET body = substr(body, 1, length(body) - 1) WHERE {second}"),
        // What was never encrypted.
        format!("UPDATE message SET body = '\"forged\"' WHERE {second}"),
    ] {
        let queues = Queues::new();
        let store = queues.open(Plain::Refused).await;
        let first = post(&store, "q", "first", NOW).await;
        let second = post(&store, "q", "second", NOW + 1).await;
        let third = post(&store, "other", "third", NOW + 2).await;
        store.close().await;
        drop(store);
        queues.write(&change).await;
        let store = queues.open(Plain::Refused).await;
        let (at, now) = (place("q"), NOW + 9);
        let shown = store.list(&at, &page(), now).await.unwrap();
        let good: &[_] = if change.contains("queue SET") { &[] } else { &["first"] };
        assert_eq!(bodies(&shown), good, "{change}");
        for id in [second, third] {
            match store.get(&at, &[id], now).await {
                Ok(found) => assert_eq!(found, [], "{change}"),
                Err(error) => assert!(matches!(error, StoreError::Unreadable { .. }), "{error}"),
            }
        }
        if !good.is_empty() {
            let asked = store.get(&at, &[first, second], now).await.unwrap();
            assert_eq!(bodies(&asked), good);
            assert!(store.get(&at, &[second], now).await.is_err());
        }
        // Others are not held up, and what does not open is not lost.
        let popped = store.pop(&at, 9, now).await.unwrap();
        assert_eq!(bodies(&popped), good, "{change}");
        assert_eq!(store.claim(&at, 9, TERMS, now).await.unwrap(), None);
        let stats = store.stats(&at, now).await.unwrap();
        assert_eq!((stats.free, stats.busy), (0, 1), "{change}");
        assert_eq!(stats.oldest.unwrap().body, "null");
        store.close().await;
    }
}

#[tokio::test]
async fn a_moved_pool_is_not_shown() {
    let queues = Queues::new();
    let store = queues.open(Plain::Refused).await;
    for name in ["a", "b"] {
        let (kind, owner, name) = (RecordKind::Pool, String::new(), name.to_owned());
        let record = Record { kind, owner, name, value: "{}".to_owned(), until: NEVER };
        store.keep(record, Before::Nothing, NOW).await.unwrap();
    }
    store.close().await;
    drop(store);
    queues
        .write("UPDATE record SET value = (SELECT value FROM record WHERE name = 'a') WHERE name = 'b'")
        .await;
    let store = queues.open(Plain::Refused).await;
    let found = store.records(RecordKind::Pool, "", ("", 9), NOW).await.unwrap();
    assert_eq!(found.iter().map(|record| record.name.as_str()).collect::<Vec<_>>(), ["a"]);
    let error = store.record(RecordKind::Pool, "", "b", NOW).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
    // It can be put right.
    let record = Record { name: "b".to_owned(), value: "{}".to_owned(), ..found[0].clone() };
    store.keep(record, Before::Any, NOW).await.unwrap();
    assert!(store.record(RecordKind::Pool, "", "b", NOW).await.unwrap().is_some());
}

#[tokio::test]
async fn it_can_be_turned_on_later_and_off_again() {
    let queues = Queues::new();
    let at = place("q");
    let kind = RecordKind::Subscription;
    let record = |value: &str| {
        let (owner, name, value) = (at.owner(), "s".to_owned(), value.to_owned());
        Record { kind, owner, name, value, until: NEVER }
    };
    let store = queues.bare().await;
    store.post(&at, client(), vec![text("old")], NOW).await.unwrap();
    store.keep(record("subscribed-in-plain"), Before::Nothing, NOW).await.unwrap();
    assert!(!EncryptedQueues::is_used(store.as_ref()).await.unwrap());
    store.close().await;
    drop(store);

    // Nobody knows who wrote it, unless the operator says so.
    let store = queues.open(Plain::Refused).await;
    store.post(&at, client(), vec![text("new")], NOW).await.unwrap();
    assert_eq!(bodies(&store.list(&at, &page(), NOW).await.unwrap()), ["new"]);
    assert_eq!(store.records(kind, &at.owner(), ("", 9), NOW).await.unwrap(), []);
    store.close().await;
    drop(store);
    let store = queues.open(Plain::Taken).await;
    assert_eq!(bodies(&store.list(&at, &page(), NOW).await.unwrap()), ["old", "new"]);
    let value = Before::Value("subscribed-in-plain".to_owned());
    let there = store.keep(record("two"), value, NOW).await.unwrap();
    assert_eq!(there, Some(record("subscribed-in-plain")));
    store.close().await;
    drop(store);

    // Off again: what is encrypted is still opened, with the key alone.
    let bare = queues.bare().await;
    assert!(EncryptedQueues::is_used(bare.as_ref()).await.unwrap());
    for wrong in [
        EncryptedQueues::open(bare.clone(), key(2), Plain::Taken).await,
        EncryptedQueues::leave(bare.clone(), key(2)).await,
    ] {
        assert!(matches!(wrong, Err(StoreError::Unreadable { .. })), "{wrong:?}");
    }
    let store = EncryptedQueues::leave(bare.clone(), key(1)).await.unwrap();
    store.post(&at, client(), vec![text("last")], NOW).await.unwrap();
    let all = store.list(&at, &page(), NOW).await.unwrap();
    assert_eq!(bodies(&all), ["old", "new", "last"]);
    assert_eq!(store.record(kind, &at.owner(), "s", NOW).await.unwrap(), Some(record("two")));
    let lie = bare.list(&at, &page(), NOW).await.unwrap();
    let sealed: Vec<_> =
        lie.iter().map(|message| message.body.starts_with("~1 q 4000000000000 ")).collect();
    assert_eq!(sealed, [false, true, false]);
}

#[tokio::test]
async fn what_is_claimed_too_often_opens_where_its_queue_says_and_nowhere_else() {
    let queues = Queues::new();
    let store = queues.open(Plain::Refused).await;
    let (at, dead) = (place("q"), place("dead"));
    // The way may come after the message.
    let ids = store.post(&at, client(), vec![text("a"), text("b")], NOW).await.unwrap();
    let patch = json!([
        { "op": "add", "path": "/metadata/_dead_letter_queue", "value": "dead" },
        { "op": "add", "path": "/metadata/_max_claim_count", "value": 1 },
    ]);
    let patch = Patch::parse(patch.to_string().as_bytes(), &Limits::default()).unwrap();
    store.patch(&at, &patch).await.unwrap().unwrap().unwrap();
    let claim = store.claim(&at, 1, TERMS, NOW).await.unwrap().unwrap();
    store.release(&at, claim.id, NOW).await.unwrap();
    assert_eq!(store.claim(&at, 1, TERMS, NOW).await.unwrap().unwrap().messages[0].id, ids[1]);
    assert_eq!(bodies(&store.list(&dead, &page(), NOW).await.unwrap()), ["a"]);
    // The queue may go.
    store.remove(&at).await.unwrap();
    assert_eq!(bodies(&store.get(&dead, &ids, NOW).await.unwrap()), ["a"]);

    // Whoever writes into the file has it moved elsewhere, and it does not open there.
    store.create(&place("theirs"), &Map::new()).await.unwrap();
    store.close().await;
    drop(store);
    queues.write("UPDATE message SET queue = (SELECT n FROM queue WHERE name = 'theirs')").await;
    let store = queues.open(Plain::Refused).await;
    assert_eq!(store.list(&place("theirs"), &page(), NOW).await.unwrap(), []);
    assert_eq!(store.list(&dead, &page(), NOW).await.unwrap(), []);
}
