use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::claim::Limits;
use crate::conformance::{
    self, ALICE, BOB, LEASE_MS, NOW_MS, NOW_S, done, granted, key, reply, request,
};
use crate::store::{
    ClaimOutcome, ClaimRequest, ClaimStore, Completed, Duplicate, Grant, Lost, Refused,
    SweepRequest,
};

fn fresh_options() -> SqliteOptions {
    SqliteOptions::new(NewStore::NothingBefore, NOW_MS)
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let folder = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    let fresh = |store| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = folder.path().join(format!("claims-{number}.db"));
        async move {
            let claims =
                SqliteClaims::open(path, SqliteOptions { store, ..fresh_options() }).await?;
            Ok(Arc::new(claims) as Arc<dyn ClaimStore>)
        }
    };
    conformance::run(&fresh).await.unwrap();
    conformance::agrees_with_memory(&fresh, 0..4, 150).await.unwrap();
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.db");
    let limits = Limits { senders: 1, per_sender: 1, shared: 2, reply_bytes: 100 };
    let store = StoreOptions { limits, ..StoreOptions::default() };
    let options = SqliteOptions { store, ..fresh_options() };
    let claims = SqliteClaims::open(&path, options.clone()).await.unwrap();
    for n in 0..3 {
        let grant = granted(&claims, &request(n)).await.unwrap();
        claims.complete(&request(n).key, grant, done("sealed")).await.unwrap();
    }
    claims.declare_lost(NOW_MS - 3_600_000).await.unwrap();
    let before = claims.stats().await.unwrap();
    claims.close().await;
    assert_eq!(claims.claim(request(0)).await, Err(StoreError::Closed));

    let claims = SqliteClaims::open(&path, options).await.unwrap();
    let after = claims.stats().await.unwrap();
    assert_eq!(
        (after.entries, after.senders, after.reply_bytes, after.blind_until),
        (before.entries, before.senders, before.reply_bytes, before.blind_until)
    );
    let answered = Duplicate::Done { reply: Some(reply("sealed")) };
    assert_eq!(claims.claim(request(0)).await.unwrap(), answered.into());
    let full = claims.claim(request(9)).await.unwrap();
    assert_eq!(full, ClaimOutcome::Refused(Refused::SenderQuota), "quotas are still taken");
    let sweep = SweepRequest { now_ms: NOW_MS + 600_000, worker: BOB, lease_ms: 1 };
    assert_eq!(claims.sweep(sweep).await.unwrap().purged, 3);
    claims.close().await;

    let claims = SqliteClaims::open(&path, fresh_options()).await.unwrap();
    let purged = claims.claim(request(0)).await.unwrap();
    assert_eq!(purged, ClaimOutcome::Refused(Refused::Purged), "the mark is still there");
}

#[tokio::test]
async fn a_new_file_or_generation_may_count_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.db");
    let boot = |id: &str, now_ms| SqliteOptions {
        generation: Some(id.into()),
        ..SqliteOptions::new(NewStore::MayBeLost, now_ms)
    };
    let blind = async |options| {
        let claims = SqliteClaims::open(&path, options).await.unwrap();
        let blind_until = claims.stats().await.unwrap().blind_until;
        claims.close().await;
        blind_until
    };
    assert_eq!(blind(boot("one", NOW_MS)).await, Some(NOW_S + 120));
    assert_eq!(blind(boot("one", NOW_MS + 9000)).await, Some(NOW_S + 120), "nothing was lost");
    assert_eq!(blind(boot("two", NOW_MS + 9000)).await, Some(NOW_S + 129), "an old copy");
}

#[tokio::test]
async fn only_the_owner_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let claims = SqliteClaims::open(&path, fresh_options()).await.unwrap();
    granted(&claims, &request(1)).await.unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        seen += 1;
    }
    assert!(seen >= 2, "the file and its log");
}

#[tokio::test]
async fn unusable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |name: &str| {
        SqliteClaims::open(folder.path().join(name), fresh_options()).await.unwrap_err()
    };
    let at = |name: &str| folder.path().join(name);

    assert!(matches!(open("absent/claims.db").await, StoreError::NotWritable { .. }));
    // A folder in which not even root can make files.
    let read_only = SqliteClaims::open("/proc/claims.db", fresh_options()).await.unwrap_err();
    assert!(matches!(read_only, StoreError::NotWritable { .. }), "{read_only}");

    fs::write(at("text.db"), "not a database, but long enough to be looked at ".repeat(20))
        .unwrap();
    assert!(matches!(open("text.db").await, StoreError::Damaged { .. }));

    let claims = SqliteClaims::open(at("torn.db"), fresh_options()).await.unwrap();
    for n in 0..200 {
        granted(&claims, &request(n)).await.unwrap();
    }
    claims.close().await;
    let mut bytes = fs::read(at("torn.db")).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0x55);
    fs::write(at("torn.db"), bytes).unwrap();
    let torn = open("torn.db").await;
    assert!(matches!(torn, StoreError::Damaged { .. }), "{torn}");

    let mut other = connect(&at("other.db")).await.unwrap();
    sqlx::query("CREATE TABLE t (x)").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert!(matches!(open("other.db").await, StoreError::Damaged { .. }));

    SqliteClaims::open(at("newer.db"), fresh_options()).await.unwrap().close().await;
    let mut newer = connect(&at("newer.db")).await.unwrap();
    sqlx::query("PRAGMA user_version = 99").execute(&mut newer).await.unwrap();
    newer.close().await.unwrap();
    let found = open("newer.db").await;
    assert!(matches!(found, StoreError::Newer { found: 99, known: schema::VERSION, .. }));
}

#[tokio::test]
async fn the_schema_goes_back_and_forth() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.db");
    let claims = SqliteClaims::open(&path, fresh_options()).await.unwrap();
    granted(&claims, &request(1)).await.unwrap();
    claims.close().await;
    SqliteClaims::revert(&path, 0).await.unwrap();
    let options = SqliteOptions::new(NewStore::MayBeLost, NOW_MS);
    let claims = SqliteClaims::open(&path, options).await.unwrap();
    let stats = claims.stats().await.unwrap();
    assert_eq!((stats.entries, stats.blind_until), (0, Some(NOW_S + 120)));
}

const CHILD: &str = "BULLA_GUARD_TEST_CHILD";

/// Not a test by itself: the process that [`a_killed_worker_leaves_its_claims`] kills.
#[tokio::test]
async fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let claims = SqliteClaims::open(path, fresh_options()).await.unwrap();
    for n in 1..=3 {
        let idempotent = n == 2;
        let grant = granted(&claims, &ClaimRequest { idempotent, ..request(n) }).await.unwrap();
        if n == 1 {
            claims.complete(&request(n).key, grant, done("sealed")).await.unwrap();
        }
    }
    println!("ready");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_worker_leaves_its_claims() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "sqlite::tests::child"])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.any(|line| line.unwrap().ends_with("ready"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready, "the child stored its claims");

    let claims = SqliteClaims::open(&path, fresh_options()).await.unwrap();
    let at = |n, now_ms| ClaimRequest { worker: BOB, idempotent: n == 2, now_ms, ..request(n) };
    let answered = Duplicate::Done { reply: Some(reply("sealed")) };
    assert_eq!(claims.claim(at(1, NOW_MS)).await.unwrap(), answered.into());
    let end = NOW_MS + LEASE_MS;
    let held = Duplicate::Held { until_ms: end };
    assert_eq!(claims.claim(at(2, end - 1)).await.unwrap(), held.clone().into());
    assert_eq!(claims.claim(at(3, end - 1)).await.unwrap(), held.into());
    let taken = granted(&claims, &at(2, end)).await.unwrap();
    assert_eq!((taken.worker, taken.attempt), (BOB, 2));
    let in_doubt = Duplicate::InDoubt { error: None };
    assert_eq!(claims.claim(at(3, end)).await.unwrap(), in_doubt.into());
    let late = Grant { worker: ALICE, attempt: 1, until_ms: end };
    let completed = claims.complete(&key("agent/a", 3), late, done("x")).await.unwrap();
    assert_eq!(completed, Completed::Lost(Lost::InDoubt));
}
