//! What the tests of the journal share.
#![allow(dead_code, clippy::unwrap_used, reason = "not every test uses all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_journal::verify::{Report, verify};
use bulla_journal::{
    Event, Journal, Options, PublicKey, SigningKey, Sink, Sync, Text, events, now_nanos,
};
use bulla_seal::{MessageId, Party, Principal};

pub(crate) const NAME: &str = "example.org/journal";

/// A folder for one journal, with its key.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) public: PublicKey,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_create(&dir.path().join("journal.key"), NAME).unwrap();
        Self { public: key.public().clone(), dir }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) fn key(&self) -> SigningKey {
        SigningKey::load_or_create(&self.dir.path().join("journal.key"), NAME).unwrap()
    }

    pub(crate) fn open(&self, options: Options) -> Journal {
        Journal::open(&self.log(), self.key(), options).unwrap()
    }

    pub(crate) fn verify(&self) -> Report {
        verify(&self.log(), &self.public, None)
    }

    /// Its files with records, in order.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.log())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|suffix| suffix == "jsonl"))
            .collect();
        files.sort();
        files
    }

    pub(crate) fn note(&self) -> String {
        fs::read_to_string(self.log().join("checkpoint")).unwrap()
    }
}

/// Nothing happens by the clock.
pub(crate) fn options() -> Options {
    let never = Duration::from_secs(1 << 30);
    Options {
        sync: Sync::Every(never),
        checkpoint_every: never,
        file_age: never,
        ..Options::new(&format!("{NAME}/test"))
    }
}

/// Some event or other.
pub(crate) fn event(n: u64) -> Event {
    let agent = Principal::agent(&format!("db-{}", n % 7)).unwrap();
    match n % 4 {
        0 => events::AgentRevoked { agent }.into(),
        1 => events::EventsLost { lost: n, why: Text::new("\"ünwritten\"\n") }.into(),
        2 => events::MessageRefused { refusal: "malformed", count: n, what: "message" }.into(),
        _ => events::CallTaken {
            sender: Party::new(agent, 2),
            method: Text::new("backup.create"),
            effect: "once",
            message: MessageId([n as u8; 16]),
        }
        .into(),
    }
}

pub(crate) fn write(journal: &Journal, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|n| journal.take(now_nanos(), event(n)));
    journal.flush().unwrap();
}

/// The lines of a file, with their ends.
pub(crate) fn lines(path: &Path) -> Vec<Vec<u8>> {
    fs::read(path).unwrap().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

pub(crate) fn write_lines(path: &Path, lines: &[Vec<u8>]) {
    fs::write(path, lines.concat()).unwrap();
}
