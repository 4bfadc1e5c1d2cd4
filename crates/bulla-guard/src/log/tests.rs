use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::claim::Limits;
use crate::conformance::{
    self, ALICE, BOB, LEASE_MS, NOW_MS, NOW_S, done, granted, key, reply, request,
};
use crate::store::Refused;

fn options() -> LogOptions {
    LogOptions { boot: Some("one".into()), ..LogOptions::new(NewStore::NothingBefore, NOW_MS) }
}

fn after_a_power_cut(now_ms: u64) -> LogOptions {
    LogOptions { boot: Some("two".into()), now_ms, ..options() }
}

/// Ends the store as a kill does.
fn kill(claims: LogClaims, path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    drop(claims);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let folder = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    let fresh = |store| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = folder.path().join(format!("{number}.log"));
        async move {
            let claims = LogClaims::open(path, LogOptions { store, ..options() }).await?;
            Ok(Arc::new(claims) as Arc<dyn ClaimStore>)
        }
    };
    conformance::run(&fresh).await.unwrap();
    conformance::agrees_with_memory(&fresh, 0..4, 150).await.unwrap();
}

#[tokio::test]
async fn everything_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.log");
    let limits = Limits { senders: 1, per_sender: 1, shared: 5, reply_bytes: 10 };
    let store = StoreOptions { limits, ..StoreOptions::default() };
    let options = LogOptions { store, ..options() };
    let claims = LogClaims::open(&path, options.clone()).await.unwrap();
    for n in 0..3 {
        let grant = granted(&claims, &request(n)).await.unwrap();
        claims.complete(&request(n).key, grant, done("sealed")).await.unwrap();
    }
    // One runs, one fell in doubt and was answered, one runs longer than its first lease.
    granted(&claims, &request(3)).await.unwrap();
    granted(&claims, &ClaimRequest { lease_ms: 1, ..request(4) }).await.unwrap();
    let long = granted(&claims, &request(5)).await.unwrap();
    claims.extend(&request(5).key, long, NOW_MS + 600_000).await.unwrap().unwrap();
    let sweep = SweepRequest { now_ms: NOW_MS + 1, worker: BOB, lease_ms: 1 };
    assert_eq!(claims.sweep(sweep).await.unwrap().in_doubt.len(), 1);
    let unknown = reply("?");
    claims.answer_in_doubt(&request(4).key, unknown.clone()).await.unwrap();
    claims.declare_lost(NOW_MS - 3_600_000).await.unwrap();
    let before = claims.stats().await.unwrap();
    kill(claims, &path);

    let claims = LogClaims::open(&path, options.clone()).await.unwrap();
    let after = claims.stats().await.unwrap();
    assert_eq!(
        (after.entries, after.senders, after.in_flight, after.reply_bytes, after.blind_until),
        (before.entries, before.senders, before.in_flight, before.reply_bytes, before.blind_until)
    );
    assert_eq!(after.granted, 0, "counted since the store was opened");
    let answered = Duplicate::Done { reply: Some(reply("sealed")) };
    assert_eq!(claims.claim(request(0)).await.unwrap(), answered.into());
    // Past the budget only the digest stays.
    let digest_only = Some(Reply::with_digest(reply("sealed").digest(), None));
    let answered = Duplicate::Done { reply: digest_only };
    assert_eq!(claims.claim(request(1)).await.unwrap(), answered.into());
    let held = Duplicate::Held { until_ms: NOW_MS + LEASE_MS };
    assert_eq!(claims.claim(request(3)).await.unwrap(), held.into());
    let doubt = Duplicate::InDoubt { error: Some(Reply::with_digest(unknown.digest(), None)) };
    let found = claims.claim(request(4)).await.unwrap();
    assert!(
        found == doubt.into() || found == Duplicate::InDoubt { error: Some(reply("?")) }.into(),
        "{found:?}"
    );
    let held = Duplicate::Held { until_ms: NOW_MS + 600_000 };
    assert_eq!(claims.claim(request(5)).await.unwrap(), held.into());
    let full = claims.claim(request(9)).await.unwrap();
    assert_eq!(full, ClaimOutcome::Refused(Refused::SenderQuota), "quotas are still taken");
    let sweep = SweepRequest { now_ms: NOW_MS + 900_000, worker: BOB, lease_ms: 1 };
    assert_eq!(claims.sweep(sweep).await.unwrap().purged, 6);
    kill(claims, &path);

    let claims = LogClaims::open(&path, options).await.unwrap();
    let purged = claims.claim(request(0)).await.unwrap();
    assert_eq!(purged, ClaimOutcome::Refused(Refused::Purged), "the mark is still there");
}

#[tokio::test]
async fn a_power_cut_is_known_by_the_boot_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.log");
    let claims = LogClaims::open(&path, options()).await.unwrap();
    granted(&claims, &request(1)).await.unwrap();
    kill(claims, &path);
    // An hour later. What may have run unseen was claimed within the window.
    let claims = LogClaims::open(&path, after_a_power_cut(NOW_MS + 3_600_000)).await.unwrap();
    let unseen = claims.stats().await.unwrap().blind_until;
    assert_eq!(unseen, Some(NOW_S + WINDOW_MS / 1000 + 120));
    let held = Duplicate::Held { until_ms: NOW_MS + LEASE_MS };
    assert_eq!(claims.claim(request(1)).await.unwrap(), held.into(), "what is known is known");
    let late = |n, iat| ClaimRequest { iat, exp: iat + 60, ..request(n) };
    let refused = claims.claim(late(2, NOW_S + 135)).await.unwrap();
    assert_eq!(refused, ClaimOutcome::Refused(Refused::BeforeStart));
    granted(&claims, &late(3, NOW_S + 136)).await.unwrap();
    // It left in good order: another boot is nothing to fear.
    drop(claims);
    let claims = LogClaims::open(&path, options()).await.unwrap();
    assert_eq!(claims.stats().await.unwrap().blind_until, unseen);
    kill(claims, &path);
    // Without a boot id, what was killed may have been cut off.
    let unknown = LogOptions { boot: None, now_ms: NOW_MS + 7_200_000, ..options() };
    let claims = LogClaims::open(&path, unknown).await.unwrap();
    assert!(claims.stats().await.unwrap().blind_until > unseen);
}

#[tokio::test]
async fn nothing_is_claimed_long_after_what_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.log");
    let claims = LogClaims::open(&path, options()).await.unwrap();
    let at = |n, now_ms: u64| ClaimRequest {
        now_ms,
        iat: now_ms / 1000,
        exp: now_ms / 1000 + 60,
        ..request(n)
    };
    let marked = || claims.log.lock().marked_ms;
    granted(&claims, &at(1, NOW_MS + WINDOW_MS)).await.unwrap();
    assert_eq!(marked(), Some(NOW_MS));
    granted(&claims, &at(2, NOW_MS + WINDOW_MS + 1)).await.unwrap();
    assert_eq!(marked(), Some(NOW_MS + WINDOW_MS + 1));
    let sweep = SweepRequest { now_ms: NOW_MS + 20_000, worker: ALICE, lease_ms: 1 };
    claims.sweep(sweep).await.unwrap();
    assert_eq!(marked(), Some(NOW_MS + 20_000), "the sweeper marks what was written");
    claims.sweep(SweepRequest { now_ms: NOW_MS + 25_000, ..sweep }).await.unwrap();
    assert_eq!(marked(), Some(NOW_MS + 20_000), "and nothing if nothing was");
    // A clock that was set back.
    granted(&claims, &at(3, NOW_MS)).await.unwrap();
    assert_eq!(marked(), Some(NOW_MS));
}

#[tokio::test]
async fn a_new_file_may_count_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.log");
    let lost = LogOptions { new_store: NewStore::MayBeLost, ..options() };
    let claims = LogClaims::open(&path, lost.clone()).await.unwrap();
    assert_eq!(claims.stats().await.unwrap().blind_until, Some(NOW_S + 120));
    kill(claims, &path);
    let claims = LogClaims::open(&path, options()).await.unwrap();
    assert_eq!(claims.stats().await.unwrap().blind_until, Some(NOW_S + 120), "still");
}

#[tokio::test]
async fn what_is_half_written_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.log");
    let claims = LogClaims::open(&path, options()).await.unwrap();
    granted(&claims, &request(1)).await.unwrap();
    let len = std::fs::metadata(&path).unwrap().len();
    granted(&claims, &request(2)).await.unwrap();
    kill(claims, &path);
    let whole = std::fs::read(&path).unwrap();
    for cut in [len + 1, len + 11, len + 12, whole.len() as u64 - 1] {
        std::fs::write(&path, &whole[..cut as usize]).unwrap();
        let claims = LogClaims::open(&path, options()).await.unwrap();
        assert_eq!(claims.len().await.unwrap(), 1, "cut at {cut}");
        // And what comes after it is read again.
        granted(&claims, &request(2)).await.unwrap();
        kill(claims, &path);
        let claims = LogClaims::open(&path, options()).await.unwrap();
        assert_eq!(claims.len().await.unwrap(), 2);
    }
    let mut flipped = whole.clone();
    flipped[len as usize + 20] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    assert_eq!(LogClaims::open(&path, options()).await.unwrap().len().await.unwrap(), 1);
}

#[tokio::test]
async fn a_long_log_is_shortened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.log");
    let claims = LogClaims::open(&path, options()).await.unwrap();
    let at = |n, now_ms: u64| ClaimRequest {
        now_ms,
        iat: now_ms / 1000,
        exp: now_ms / 1000 + 60,
        ..request(n)
    };
    let text: &str = "x".repeat(4000).leak();
    for n in 0..2100 {
        let grant = granted(&claims, &at(n, NOW_MS)).await.unwrap();
        claims.complete(&request(n).key, grant, done(text)).await.unwrap();
    }
    let later = NOW_MS + 300_000;
    for n in 5000..5003 {
        let grant = granted(&claims, &at(n, later)).await.unwrap();
        claims.complete(&request(n).key, grant, done("kept")).await.unwrap();
    }
    let long = std::fs::metadata(&path).unwrap().len();
    let sweep = SweepRequest { now_ms: later, worker: BOB, lease_ms: 1 };
    assert_eq!(claims.sweep(sweep).await.unwrap().purged, 2100);
    let short = std::fs::metadata(&path).unwrap().len();
    assert!(long > SHORT && short < 4096, "{long} {short}");
    granted(&claims, &at(6000, later)).await.unwrap();
    let before = claims.stats().await.unwrap();
    kill(claims, &path);
    let claims = LogClaims::open(&path, options()).await.unwrap();
    let after = claims.stats().await.unwrap();
    assert_eq!((after.entries, after.in_flight, after.purged_exp), (4, 1, before.purged_exp));
    let answered = Duplicate::Done { reply: Some(reply("kept")) };
    assert_eq!(claims.claim(at(5001, later)).await.unwrap(), answered.into());
    let refused = claims.claim(at(7, NOW_MS)).await.unwrap();
    assert_eq!(refused, ClaimOutcome::Refused(Refused::Purged));
}

#[tokio::test(start_paused = true)]
async fn one_process_at_a_time_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.log");
    let claims = LogClaims::open(&path, options()).await.unwrap();
    let error = LogClaims::open(&path, options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unfit { .. }), "{error}");
    drop(claims);
    LogClaims::open(&path, options()).await.unwrap();
    std::fs::write(&path, "something else altogether").unwrap();
    let error = LogClaims::open(&path, options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// What a process was told was granted, the next one knows, wherever the first was killed.
#[tokio::test]
async fn a_killed_process_keeps_its_claims() {
    const FILE: &str = "BULLA_GUARD_LOG";
    if let Ok(path) = std::env::var(FILE) {
        let claims = LogClaims::open(&path, options()).await.unwrap();
        let mut out = std::io::stdout().lock();
        for n in 0.. {
            granted(&claims, &request(n)).await.unwrap();
            writeln!(out, "granted {n}").unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.log");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "log::tests::a_killed_process_keeps_its_claims", "--nocapture"])
        .env(FILE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = 0u128;
    while told < 500 {
        let line = lines.next().unwrap().unwrap();
        told = line.strip_prefix("granted ").map_or(told, |n| n.parse().unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let rest = lines.map_while(Result::ok);
    told =
        rest.filter_map(|line| line.strip_prefix("granted ")?.parse().ok()).last().unwrap_or(told);
    let claims = LogClaims::open(&path, options()).await.unwrap();
    for n in 0..=told {
        let held = Duplicate::Held { until_ms: NOW_MS + LEASE_MS };
        assert_eq!(claims.claim(request(n)).await.unwrap(), held.into(), "{n} of {told}");
    }
    assert!(claims.held_by(&key("agent/a", 0).sender).await.unwrap() > told as u64);
}
