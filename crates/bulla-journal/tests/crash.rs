//! A process that is killed while it writes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bulla_journal::{Journal, Options, SigningKey, Sink, now_nanos, read_entries};
use common::{NAME, Place, event, options, write};

fn busy() -> Options {
    Options { checkpoint_records: 100, file_bytes: 30_000, ..options() }
}

#[test]
fn what_was_on_the_disk_is_there_after_kill_9() {
    let place = Place::new();
    let mut flushed = 0;
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env("BULLA_CRASH_DIR", place.dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.map_while(Result::ok).filter_map(|line| line.parse::<u64>().ok());
        let last = numbers.take(30 + round * 17).last();
        child.kill().unwrap();
        child.wait().unwrap();
        flushed += last.unwrap();
        let journal = place.open(busy());
        write(&journal, 0..1);
        journal.close();
        let report = place.verify();
        assert!(report.is_good() && report.records > flushed, "{flushed}: {report:?}");
        assert_eq!(read_entries(&place.log()).unwrap().len() as u64, report.records);
    }
    assert!(place.files().len() > 1);
}

#[test]
#[ignore = "started by the other test, which kills it"]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os("BULLA_CRASH_DIR") else { return };
    let dir = std::path::PathBuf::from(dir);
    let key = SigningKey::load_or_create(&dir.join("journal.key"), NAME).unwrap();
    let journal = Journal::open(&dir.join("log"), key, busy()).unwrap();
    for batch in 1.. {
        (0..7).for_each(|n| journal.take(now_nanos(), event(n)));
        journal.flush().unwrap();
        println!("{}", batch * 7);
    }
}
