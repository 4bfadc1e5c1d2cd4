//! Whether a journal is what was written, with the public key alone.

mod walk;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;
use crate::key::PublicKey;

/// A file that goes while it is looked at makes everything be looked at once more, so many times.
const ATTEMPTS: u32 = 3;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1, if it is about one.
    pub line: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What was found out about a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its folder.
    pub dir: PathBuf,
    /// Which journal it says that it is, if it can be told.
    pub origin: Option<String>,
    /// The first record that is kept.
    pub first: u64,
    /// Records that were looked at, up to what is wrong.
    pub records: u64,
    /// How many records the last good checkpoint signs.
    pub signed: u64,
    /// What is wrong. What comes after it was not looked at.
    pub finding: Option<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.finding.is_none()
    }

    /// Good records that no checkpoint signs yet.
    pub fn unsigned(&self) -> u64 {
        (self.first + self.records).saturating_sub(self.signed)
    }
}

/// Verifies the journal in `dir`: every record is what was written, in its order, with none cut out
/// or put in, up to the last checkpoint; what came after is whole. `elsewhere` is a checkpoint (a
/// signed note) that was copied before to where nobody could alter it, if there is one: then also
/// that the journal still holds all that this one signs.
pub fn verify(dir: &Path, key: &PublicKey, elsewhere: Option<&str>) -> Report {
    let mut report = once(dir, key, elsewhere);
    for _ in 0..ATTEMPTS {
        // The writer let a file go meanwhile.
        if report.finding.as_ref().is_none_or(|finding| finding.file.exists()) {
            break;
        }
        report = once(dir, key, elsewhere);
    }
    report
}

/// The same of the journal's last file alone, whose first line signs all that is before it, and of the newest
/// checkpoint: quick, whatever the journal's size.
pub fn verify_last(dir: &Path, key: &PublicKey) -> Report {
    let mut walk = walk::Walk::new(dir, key);
    let finding = walk.last();
    walk.report(finding.err())
}

fn once(dir: &Path, key: &PublicKey, elsewhere: Option<&str>) -> Report {
    let mut walk = walk::Walk::new(dir, key);
    let finding = walk.all().and_then(|()| match elsewhere {
        Some(note) => walk.agrees(note),
        None => Ok(()),
    });
    walk.report(finding.err())
}

/// Which journal a checkpoint is of.
pub fn origin_of(note: &str, key: &PublicKey) -> Option<String> {
    Checkpoint::open(note, key).ok().map(|checkpoint| checkpoint.origin)
}

/// Which journal is in `dir`, by its newest checkpoint.
pub fn origin_in(dir: &Path, key: &PublicKey) -> Option<String> {
    let note = fs::read_to_string(dir.join(crate::CHECKPOINT_FILE)).ok()?;
    origin_of(&note, key)
}
