//! The files of a journal's folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::JournalError;

/// The newest checkpoint, alone, in a journal's folder.
pub const CHECKPOINT_FILE: &str = "checkpoint";
const LOCK: &str = "lock";
const SUFFIX: &str = ".jsonl";
const NEW: &str = ".new";

/// One file with records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The number of its first record.
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

impl Segment {
    pub(crate) fn new(dir: &Path, first: u64) -> Self {
        Self { first, path: dir.join(format!("{first:016}{SUFFIX}")) }
    }

    /// All of a folder, in order.
    pub(crate) fn list(dir: &Path) -> io::Result<Vec<Self>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            if let Some(first) = number.and_then(|number| number.parse().ok()) {
                out.push(Self::new(dir, first));
            }
        }
        out.sort_by_key(|segment| segment.first);
        Ok(out)
    }

    /// Makes it with its first bytes, so that it never has less than them.
    pub(crate) fn create(&self, begin: &[u8]) -> io::Result<File> {
        write_whole(&self.path, begin)?;
        OpenOptions::new().write(true).open(&self.path)
    }
}

/// Writes a file that is there whole or not at all, whatever happens.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(NEW);
    let new = path.with_file_name(name);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&new, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

pub(crate) fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the folder if need be and takes it for this process alone, until the file is closed.
pub(crate) fn take_folder(dir: &Path) -> Result<File, JournalError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(JournalError::io("make", dir))?;
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.map_err(JournalError::io("make", &path))?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(JournalError::Busy { path: dir.to_owned() });
        }
        Err(error) => return Err(JournalError::io("lock", &path)(error.into())),
    }
    for entry in fs::read_dir(dir).map_err(JournalError::io("read", dir))?.flatten() {
        // A file that was not finished.
        if entry.file_name().to_string_lossy().ends_with(NEW) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(lock)
}

/// Whether `dir` is the folder of one journal.
pub fn is_journal(dir: &Path) -> bool {
    dir.join(LOCK).exists()
        || dir.join(CHECKPOINT_FILE).exists()
        || Segment::list(dir).is_ok_and(|found| !found.is_empty())
}

/// The journals at `path`: itself, or those in it.
///
/// # Errors
/// The folder can't be read.
pub fn journals(path: &Path) -> io::Result<Vec<PathBuf>> {
    if is_journal(path) {
        return Ok(vec![path.to_owned()]);
    }
    let mut out = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() && is_journal(&path) {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}
