//! Prints events per second, with each setting of what is on the disk when.
//!
//! `cargo bench -p bulla-journal`; `TMPDIR` says which disk the journal is on.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement may stop at the first surprise"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla_journal::{
    Event, Events, Journal, OnFull, Options, PublicKey, SigningKey, Sink, Sync, Text, events,
};
use bulla_seal::{MessageId, Party, Principal};

const EVENTS: u64 = 1_000_000;
const NAME: &str = "example.org/journal";

fn event(n: u64) -> Event {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    events::CallTaken {
        sender: Party::new(Principal::agent("db-1").unwrap(), 1),
        method: Text::new("heartbeat.beat"),
        effect: "once",
        message: MessageId(id),
    }
    .into()
}

/// CPU time of this process so far, in seconds: its own, and the system's for it.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // In hundredths.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn run(
    sync: Sync,
    events: u64,
    producers: u64,
) -> (f64, Duration, u64, PublicKey, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (key, _) = SigningKey::generate(NAME).unwrap();
    let public = key.public().clone();
    // Nothing is lost: whoever finds no room waits.
    let options = Options { sync, on_full: OnFull::Stop, ..Options::new(NAME) };
    let journal = Arc::new(Journal::open(&dir.path().join("log"), key, options).unwrap());
    let way = Events::to(journal.clone());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..producers {
            scope.spawn(|| {
                let event = event(7);
                for _ in 0..events / producers {
                    while way.emit_first(event.clone()).is_err() {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            });
        }
    });
    let flushing = Instant::now();
    journal.flush().unwrap();
    let (took, flush) = (begun.elapsed(), flushing.elapsed());
    let lost = journal.lost();
    journal.close();
    (events as f64 / took.as_secs_f64(), flush, lost, public, dir)
}

/// What a producer pays, with nobody in its way.
fn producer() -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let (key, _) = SigningKey::generate(NAME).unwrap();
    let options = Options { queue: 1 << 21, ..Options::new(NAME) };
    let journal = Journal::open(&dir.path().join("log"), key, options).unwrap();
    let event = event(7);
    let begun = Instant::now();
    for _ in 0..200_000 {
        journal.take(bulla_journal::now_nanos(), event.clone());
    }
    begun.elapsed().as_secs_f64() / 200_000.0 * 1e9
}

fn main() {
    println!("what an event costs where it happens: {:.0} ns", producer());
    for (name, sync, events, producers) in [
        ("on the disk each second, one thread", Sync::Every(Duration::from_secs(1)), EVENTS, 1),
        ("on the disk each second, four threads", Sync::Every(Duration::from_secs(1)), EVENTS, 4),
        ("on the disk with each batch, four threads", Sync::Batch, EVENTS, 4),
    ] {
        let before = cpu();
        let (rate, flush, lost, key, dir) = run(sync, events, producers);
        let each = (cpu() - before) / events as f64 * 1e6;
        println!(
            "{name}: {rate:.0} events/s, {each:.2} µs of CPU each, the last flush {flush:.1?}, lost {lost}"
        );
        let log = dir.path().join("log");
        let begun = Instant::now();
        let report = bulla_journal::verify::verify(&log, &key, None);
        let rate = report.records as f64 / begun.elapsed().as_secs_f64();
        assert!(
            report.is_good() && report.records == events && report.unsigned() == 0,
            "{report:?}"
        );
        println!("  verified: {rate:.0} records/s");
    }
}
