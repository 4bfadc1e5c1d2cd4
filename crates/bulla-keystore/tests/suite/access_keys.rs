//! The history of access keys: once in clear, then encrypted.
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bulla_keystore::{ApiUser, Kek, Keystore, KeystoreError, StoreAddress};

use crate::common::{Database, Fixture, dump, fixture, table_file};

const CHILD: &str = "BULLA_TEST_CONVERSION";
const CHILD_KEK: &str = "BULLA_TEST_CONVERSION_KEK";
/// `migrate` or `revert`.
const CHILD_DOES: &str = "BULLA_TEST_CONVERSION_DOES";
/// The version with secrets in clear, and the one between it and encrypted ones.
const CLEAR: u32 = 7;
const BETWEEN: u32 = 8;
const KEYS: usize = 600;

fn user(name: &str) -> ApiUser {
    name.parse().unwrap()
}

fn id(i: usize) -> String {
    format!("BULL{i:06}")
}

fn secret(i: usize) -> String {
    format!("clear-secret-of-{i:06}-fifty-bytes-or-nearly-so-long")
}

/// A deployment as it was when secrets were in clear.
async fn in_clear(fixture: &Fixture, keys: usize) {
    fixture.keystore.clone().close().await;
    Keystore::revert(&fixture.address, &fixture.kek, CLEAR).await.unwrap();
    let mut raw = fixture.raw().await;
    let rows = (0..keys).map(|i| {
        format!("('{}', 'program/p-{}', {}, 0, '{}')", id(i), i / 2, i % 2 + 1, secret(i))
    });
    raw.run(&format!(
        "INSERT INTO access_keys (access_key_id, api_user, epoch, created, secret_key) VALUES {}",
        rows.collect::<Vec<_>>().join(", ")
    ))
    .await;
    raw.close().await;
}

async fn all_open(fixture: &Fixture, keys: usize) {
    let keystore = fixture.open().await.unwrap();
    assert_eq!(keystore.list_access_keys().await.unwrap().len(), keys);
    for i in 0..keys {
        let key = keystore.access_key(&id(i)).await.unwrap().unwrap();
        assert_eq!(key.secret.expose(), secret(i));
    }
    keystore.close().await;
}

/// Rows in clear, and encrypted ones.
async fn counts(fixture: &Fixture) -> (i64, i64) {
    let mut raw = fixture.raw().await;
    let count = |column| format!("SELECT count(*) FROM access_keys WHERE {column} IS NOT NULL");
    let clear = raw.number(&count("secret_key")).await;
    let encrypted = raw.number(&count("encrypted_secret_key")).await;
    raw.close().await;
    (clear, encrypted)
}

fn find(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

async fn refused(fixture: &Fixture, version: u32) {
    let error = fixture.open().await.unwrap_err();
    assert!(
        matches!(error, KeystoreError::SchemaOlder { found, .. } if found == version),
        "{error}"
    );
    assert!(error.to_string().contains("bulla db migrate"), "{error}");
}

#[tokio::test]
async fn secrets_in_clear_are_encrypted_and_nothing_of_them_is_left() {
    let fixture = fixture!();
    in_clear(&fixture, 50).await;
    refused(&fixture, CLEAR).await;
    // Or the search itself is broken.
    assert!(find(&dump(&fixture), b"clear-secret-of-"));
    assert!(find(&table_file(&fixture, "access_keys").await, b"clear-secret-of-"));
    let mut told = Vec::new();
    let tell = |far| told.push(far);
    Keystore::migrate_in_batches(&fixture.address, &fixture.kek, 20, tell).await.unwrap();
    let told: Vec<_> = told.iter().map(|far| (far.done, far.total)).collect();
    assert_eq!(told, [(0, 50), (20, 50), (40, 50), (50, 50)]);
    assert!(!find(&dump(&fixture), b"clear-secret-of-"));
    assert!(!find(&table_file(&fixture, "access_keys").await, b"clear-secret-of-"));
    all_open(&fixture, 50).await;

    // And back, as an older program had them.
    Keystore::revert(&fixture.address, &fixture.kek, CLEAR).await.unwrap();
    refused(&fixture, CLEAR).await;
    let mut raw = fixture.raw().await;
    let sql = "SELECT secret_key FROM access_keys ORDER BY access_key_id";
    assert_eq!(raw.texts(sql).await, (0..50).map(secret).collect::<Vec<_>>());
    raw.close().await;
    Keystore::migrate(&fixture.address, &fixture.kek).await.unwrap();
    all_open(&fixture, 50).await;
}

#[tokio::test]
async fn a_secret_that_does_not_open_stops_the_way_back() {
    let fixture = fixture!();
    let keystore = fixture.keystore.clone();
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(keystore.add_access_key(&user("operator/alice"), None).await.unwrap());
    }
    let mut raw = fixture.raw().await;
    raw.run("UPDATE access_keys SET epoch = 9 WHERE epoch = 2").await;
    raw.close().await;
    keystore.close().await;
    let error = Keystore::revert(&fixture.address, &fixture.kek, CLEAR).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(&keys[1].record.id), "{error}");
    refused(&fixture, BETWEEN).await;
    Keystore::migrate(&fixture.address, &fixture.kek).await.unwrap();
    let keystore = fixture.open().await.unwrap();
    for i in [0, 2] {
        let key = keystore.access_key(&keys[i].record.id).await.unwrap().unwrap();
        assert_eq!(key.secret.expose(), keys[i].secret.expose());
    }
}

/// Not a test of its own: what the process does that is killed in the next one.
#[tokio::test]
async fn child() {
    let (Ok(url), Ok(kek)) = (std::env::var(CHILD), std::env::var(CHILD_KEK)) else { return };
    let address = url.parse::<StoreAddress>().unwrap();
    let kek = Kek::from_file(&kek).unwrap();
    let tell = |far: bulla_keystore::Converted| println!("converted={};", far.done);
    if std::env::var(CHILD_DOES).unwrap() == "migrate" {
        Keystore::migrate_in_batches(address, kek, 5, tell).await.unwrap();
    } else {
        Keystore::revert_in_batches(address, kek, CLEAR, 5, tell).await.unwrap();
    }
}

/// Kills a process in the middle of it.
fn cut_off(fixture: &Fixture, does: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "suite::access_keys::child", "--nocapture"])
        .env(CHILD, &fixture.url)
        .env(CHILD_KEK, fixture.folder.path().join("kek"))
        .env(CHILD_DOES, does)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, count)) = line.split_once("converted=") else { continue };
        if count.split_once(';').unwrap().0.parse::<usize>().unwrap() >= KEYS / 3 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_conversion_that_was_killed_goes_on() {
    let fixture = fixture!();
    in_clear(&fixture, KEYS).await;
    let all = KEYS as i64;

    cut_off(&fixture, "migrate");
    refused(&fixture, BETWEEN).await;
    let (clear, encrypted) = counts(&fixture).await;
    assert!(clear > 0 && encrypted >= all / 3 && clear + encrypted == all, "{clear} {encrypted}");
    // Going back from half-way is as good.
    let mut first = None;
    let tell = |far: bulla_keystore::Converted| first = first.or(Some(far.total));
    Keystore::revert_in_batches(&fixture.address, &fixture.kek, CLEAR, 500, tell).await.unwrap();
    assert!(first.unwrap() < KEYS as u64, "what was not done is not taken back");
    let sql = "SELECT count(*) FROM access_keys WHERE secret_key IS NOT NULL";
    assert_eq!(fixture.raw().await.number(sql).await, all);

    cut_off(&fixture, "migrate");
    // Somebody who looks at what there was.
    let mut long = fixture.raw().await;
    if fixture.database == Database::Postgres {
        long.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        long.number("SELECT count(*) FROM pg_class").await;
    }
    let mut first = None;
    let tell = |far: bulla_keystore::Converted| first = first.or(Some(far.total));
    Keystore::migrate_in_batches(&fixture.address, &fixture.kek, 500, tell).await.unwrap();
    assert!(first.unwrap() < KEYS as u64, "what was done is not done again");
    all_open(&fixture, KEYS).await;
    assert!(!find(&dump(&fixture), b"clear-secret-of-"));
    assert!(!find(&table_file(&fixture, "access_keys").await, b"clear-secret-of-"));
    drop(long);

    cut_off(&fixture, "revert");
    refused(&fixture, BETWEEN).await;
    let (clear, encrypted) = counts(&fixture).await;
    assert!(clear >= all / 3 && encrypted > 0 && clear + encrypted == all, "{clear} {encrypted}");
    Keystore::migrate(&fixture.address, &fixture.kek).await.unwrap();
    all_open(&fixture, KEYS).await;
}
