//! Prints claims per second for each store, and what an id costs in memory.
//!
//! `cargo bench -p bulla-guard`; `TMPDIR` says which disk the SQLite file is on.
#![allow(clippy::unwrap_used, reason = "a measurement may stop at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bulla_guard::{
    ClaimKey, ClaimOutcome, ClaimRequest, ClaimStore, Completion, Limits, MemoryClaims, NewStore,
    Reply, Scope, SqliteClaims, SqliteOptions, StoreOptions, SweepRequest, Worker,
};
use bulla_seal::{Digest, MessageId, Party, Principal};
use bytes::Bytes;

const NOW_MS: u64 = 1_800_000_000_000;

struct Source {
    scope: Scope,
    sender: Party,
}

impl Source {
    fn new() -> Self {
        let component = Principal::component("control").unwrap();
        let agent = Party::new(Principal::agent("db-1").unwrap(), 1);
        Self {
            scope: Scope::server(&agent, "guestagent", "db-1"),
            sender: Party::new(component, 1),
        }
    }

    fn request(&self, n: u64) -> ClaimRequest {
        let (mut id, mut digest) = ([0; 16], [7; 32]);
        id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        digest[..8].copy_from_slice(&n.to_le_bytes());
        ClaimRequest {
            key: ClaimKey::new(self.scope.clone(), self.sender.clone(), MessageId(id)),
            digest: Digest(digest),
            iat: NOW_MS / 1000,
            exp: NOW_MS / 1000 + 60 + n % 60,
            idempotent: false,
            worker: Worker(1),
            now_ms: NOW_MS,
            lease_ms: 60_000,
            envelope: None,
        }
    }
}

fn options() -> StoreOptions {
    let limits = Limits { shared: 64_000_000, reply_bytes: 1 << 30, ..Limits::default() };
    StoreOptions { limits, ..StoreOptions::default() }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Time that this thread spent on a processor, so that a busy machine does not matter.
fn on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn rate(count: u64, took: Duration) -> String {
    let per_second = count as f64 / took.as_secs_f64();
    format!("{per_second:>12.0} /s  {:>7.3} us", 1e6 / per_second)
}

fn memory(count: u64) {
    let source = Source::new();
    let store = MemoryClaims::for_new_bus(options());
    let before = resident_bytes();
    let start = on_cpu();
    for n in 0..count {
        let request = source.request(n);
        let ClaimOutcome::Granted(grant) = store.try_claim(&request) else { unreachable!() };
        store.try_complete(&request.key, grant, Completion::Done { reply: None });
    }
    println!("memory   claim + complete     {}", rate(count, on_cpu() - start));
    let bytes = (resident_bytes() - before) as f64 / count as f64;
    println!("memory   an id without reply  {bytes:>12.1} bytes (resident, of {count})");

    let start = on_cpu();
    for n in 0..count {
        store.try_claim(&source.request(n));
    }
    println!("memory   duplicate            {}", rate(count, on_cpu() - start));

    let start = on_cpu();
    for n in count..2 * count {
        store.try_claim(&source.request(n));
    }
    println!("memory   claim alone          {}", rate(count, on_cpu() - start));
    let start = on_cpu();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sweep = SweepRequest { now_ms: NOW_MS + 900_000, worker: Worker(2), lease_ms: 1 };
    let swept = runtime.block_on(store.sweep(sweep)).unwrap();
    println!("memory   purge                {}", rate(swept.purged, on_cpu() - start));
}

fn memory_with_replies(count: u64) {
    let source = Source::new();
    let store = MemoryClaims::for_new_bus(options());
    let before = resident_bytes();
    for n in 0..count {
        let request = source.request(n);
        let ClaimOutcome::Granted(grant) = store.try_claim(&request) else { unreachable!() };
        let reply = Some(Reply::with_digest(request.digest, None));
        store.try_complete(&request.key, grant, Completion::Done { reply });
    }
    let bytes = (resident_bytes() - before) as f64 / count as f64;
    println!("memory   an id with a digest  {bytes:>12.1} bytes (resident, of {count})");
}

async fn sqlite(in_flight: u64, count: u64, complete: bool) {
    let folder = tempfile::tempdir().unwrap();
    let options =
        SqliteOptions { store: options(), ..SqliteOptions::new(NewStore::NothingBefore, NOW_MS) };
    let path = folder.path().join("claims.db");
    let store = Arc::new(SqliteClaims::open(path, options).await.unwrap());
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let tasks = (0..in_flight).map(|_| {
        let (store, next, source) = (Arc::clone(&store), Arc::clone(&next), Source::new());
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Relaxed);
                if n >= count {
                    break;
                }
                let request = source.request(n);
                let key = request.key.clone();
                let outcome = store.claim(request).await.unwrap();
                let ClaimOutcome::Granted(grant) = outcome else { unreachable!() };
                if complete {
                    let sealed = Bytes::from(vec![n as u8; 256]);
                    let reply = Some(Reply::new(sealed));
                    store.complete(&key, grant, Completion::Done { reply }).await.unwrap();
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let what = if complete { "claim + complete" } else { "claim alone" };
    println!("sqlite   {what:<16} x{in_flight:<4}{}", rate(count, start.elapsed()));
    store.close().await;
}

fn main() {
    if std::env::args().all(|arg| arg != "sqlite") {
        memory(2_000_000);
        memory_with_replies(1_000_000);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (in_flight, count) in [(1, 300), (256, 60_000), (1024, 100_000)] {
        runtime.block_on(sqlite(in_flight, count, false));
        runtime.block_on(sqlite(in_flight, count, true));
    }
}
