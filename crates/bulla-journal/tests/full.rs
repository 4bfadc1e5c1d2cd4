//! A disk that takes no more, and then does again. The limit on the size of files stands for the
//! disk: the kernel refuses writes in the same way, in the middle of a record.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::process::Command;
use std::time::Duration;

use bulla_journal::{Events, NoRoom, OnFull, Options, Status, events, read_entries};
use common::{Place, event, options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;

/// In a process of its own, where the signal that comes with the refusal is ignored.
#[test]
fn a_full_disk_loses_and_counts_or_stops_what_changes_something() {
    let test = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' 25; exec \"$0\" --exact in_its_own_process --ignored --nocapture"])
        .arg(test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}{:?}", output.stderr);
}

fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
#[ignore = "started by the other test"]
fn in_its_own_process() {
    for on_full in [OnFull::Lose, OnFull::Stop] {
        let place = Place::new();
        let small = Options {
            on_full,
            queue: 64,
            retry: Duration::from_millis(5),
            sync: bulla_journal::Sync::Batch,
            checkpoint_records: 50,
            ..options()
        };
        let journal = Arc::new(place.open(small));
        let way = Events::to(journal.clone());
        // Not a multiple of a record's length.
        limit_files(Some(20_011));
        let mut sent = 0_u64;
        while journal.status() == Status::Writing {
            way.emit(event(sent));
            sent += 1;
            std::thread::sleep(Duration::from_micros(200));
        }
        assert!(matches!(journal.status(), Status::Failing { .. }), "{:?}", journal.status());
        let call = || {
            let operator = "ops".into();
            events::OperatorTapped { operator }
        };
        assert_eq!(way.room(), on_full == OnFull::Lose);
        let stopped = on_full == OnFull::Stop;
        assert_eq!(way.emit_first(call()), if stopped { Err(NoRoom) } else { Ok(()) });
        sent += u64::from(!stopped);
        for _ in 0..500 {
            way.emit(event(sent));
            sent += 1;
        }
        assert!(journal.lost() > 0);
        assert!(journal.flush().is_err());
        limit_files(None);
        until(|| journal.status() == Status::Writing && way.room());
        assert_eq!(way.emit_first(call()), Ok(()));
        sent += 1;
        journal.flush().unwrap();
        journal.close();
        let report = place.verify();
        assert!(report.is_good(), "{report:?}");
        let entries = read_entries(&place.log()).unwrap();
        let told: Vec<_> = entries
            .iter()
            .filter(|entry| {
                entry.event == "events-lost"
                    && !entry.fields["why"].to_string().contains("nwritten")
            })
            .collect();
        let lost: u64 = told.iter().map(|entry| entry.fields["lost"].as_u64().unwrap()).sum();
        assert_eq!(lost, journal.lost(), "{told:?}");
        assert_eq!(entries.len() as u64 - told.len() as u64 + lost, sent);
    }
}
