//! Claims in memory, with a log of what happened to them: a restart of the process forgets
//! nothing, and nobody waits for the disk.
//!
//! An event is written to the log before anyone hears what came of it, in one `write` on the
//! caller's own thread. From then on it outlives the process, but not yet the machine: it goes to
//! the disk a little later, together with others. What a machine may have lost when it went down,
//! the store refuses: it knows by the boot id that it did, and by *marks* in the log up to when its
//! claims can have been. Nothing is claimed later than [`WINDOW_MS`] after a mark that is on the disk.

mod file;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bulla_seal::Party;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::file::{LogFile, NotOpened};
use self::record::Record;
use crate::key::ClaimKey;
use crate::memory::MemoryClaims;
use crate::store::{
    ClaimOutcome, ClaimRequest, ClaimStore, Completed, Completion, Duplicate, Grant, Lost,
    NewStore, Reply, Stats, StoreError, StoreOptions, SweepRequest, Swept,
};

/// How long after a mark that is on the disk things are claimed, in milliseconds.
pub const WINDOW_MS: u64 = 15_000;
/// How long another process may take to let go of the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// A log that is shorter is never written anew.
const SHORT: u64 = 8 << 20;

/// How to open a log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Limits and skew.
    pub store: StoreOptions,
    /// What it means that the file is not there yet.
    pub new_store: NewStore,
    /// The boot id. If it is not the one that the log was last used under, what was not on the
    /// disk yet is lost. `None`: it is always feared to be.
    pub boot: Option<String>,
    /// The wall clock, in Unix milliseconds.
    pub now_ms: u64,
}

impl LogOptions {
    /// With default limits and skew, and this machine's boot id.
    pub fn new(new_store: NewStore, now_ms: u64) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let boot = boot.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
        Self { store: StoreOptions::default(), new_store, boot, now_ms }
    }
}

/// Claims in memory, and in a file with mode 0600 that one process at a time has.
///
/// It survives the end of its process, however that comes. When the machine went down, what was
/// claimed last may be missing: then what was issued until then, and [`WINDOW_MS`] and the skew
/// after, is refused unless the log knows it.
pub struct LogClaims {
    memory: MemoryClaims,
    path: PathBuf,
    log: Mutex<Log>,
}

struct Log {
    file: LogFile,
    boot: Option<String>,
    /// The last mark that is on the disk.
    marked_ms: Option<u64>,
    /// Whether something was written since.
    dirty: bool,
    /// How long the file was when it was last written anew.
    fresh: u64,
}

impl LogClaims {
    /// Opens the log, or makes it, and gives its events to the state machines again. Waits a few
    /// seconds for another process to let go of it.
    ///
    /// # Errors
    /// It can't be written, is something else, or another process has it.
    pub async fn open(path: impl AsRef<Path>, options: LogOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let end = Instant::now() + PATIENCE;
        let (file, was_there) = loop {
            match LogFile::open(path) {
                Ok(opened) => break opened,
                Err(NotOpened::Taken) if Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(why) => return Err(not_opened(path, why)),
            }
        };
        Self::replay(file, was_there, options).map_err(|error| failed(path, &error))
    }

    fn replay(mut file: LogFile, was_there: bool, options: LogOptions) -> std::io::Result<Self> {
        let LogOptions { store, new_store, boot, now_ms } = options;
        let mut memory = MemoryClaims::for_new_bus(store);
        let mut past = Past::default();
        file.read_all(|record| past.take(&memory, record))?;
        let lost = match (was_there, new_store) {
            (false, NewStore::NothingBefore) => None,
            (false, NewStore::MayBeLost) => Some(now_ms),
            (true, _) => past.lost(boot.as_deref(), now_ms),
        };
        if let Some(lost_ms) = lost {
            memory.lose(lost_ms);
        }
        memory.forget_counts();
        let mut log = Log { fresh: file.len(), file, boot, marked_ms: None, dirty: false };
        let opened = Record::Opened { boot: log.boot.clone() };
        log.file.append(&[opened, Record::Gate(memory.gate())])?;
        log.mark(now_ms)?;
        let path = log.file.path.clone();
        Ok(Self { memory, path, log: Mutex::new(log) })
    }

    fn try_claim(&self, request: &ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        let mut log = self.log.lock();
        self.may_lose(&mut log, request.now_ms)?;
        let outcome = self.memory.try_claim(request);
        // A lease that ran out can be found over by who comes next: the sweeper, or this.
        let changed = matches!(
            outcome,
            ClaimOutcome::Granted(_) | ClaimOutcome::Duplicate(Duplicate::InDoubt { error: None })
        );
        if changed {
            self.write(&mut log, Record::Claim(Box::new(request.into())))?;
        }
        Ok(outcome)
    }

    fn try_complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: &Completion,
    ) -> Result<Completed, StoreError> {
        let mut log = self.log.lock();
        let dropped = self.memory.replies_dropped();
        let completed = self.memory.try_complete(key, grant, completion.clone());
        if completed == Completed::Stored {
            let mut completion = completion.clone();
            if self.memory.replies_dropped() != dropped {
                drop_bytes(&mut completion);
            }
            self.write(&mut log, Record::Complete { key: key.clone(), grant, completion })?;
        }
        Ok(completed)
    }

    /// Nothing is claimed of which a machine that goes down could not say when it was.
    fn may_lose(&self, log: &mut Log, now_ms: u64) -> Result<(), StoreError> {
        if log.marked_ms.is_some_and(|marked| now_ms.abs_diff(marked) <= WINDOW_MS) {
            return Ok(());
        }
        log.mark(now_ms).map_err(|error| failed(&self.path, &error))
    }

    fn write(&self, log: &mut Log, record: Record) -> Result<(), StoreError> {
        log.dirty = true;
        log.file.append(&[record]).map_err(|error| failed(&self.path, &error))
    }

    /// Writes a mark, if anything came after the last, and gives the file to sync.
    fn begin_mark(&self, now_ms: u64) -> Result<Option<Arc<File>>, StoreError> {
        let mut log = self.log.lock();
        if !std::mem::take(&mut log.dirty) {
            return Ok(None);
        }
        self.write(&mut log, Record::Mark { now_ms })?;
        log.dirty = false;
        Ok(Some(log.file.handle()))
    }

    fn sweep_now(&self, request: &SweepRequest) -> Result<Swept, StoreError> {
        let mut log = self.log.lock();
        let swept = self.memory.sweep_now(request);
        if swept.purged > 0 || !swept.in_doubt.is_empty() || !swept.taken_over.is_empty() {
            self.write(&mut log, Record::from(request))?;
        }
        if log.file.len() > SHORT.max(log.fresh.saturating_mul(2)) {
            log.shorten(&self.memory, request.now_ms)
                .map_err(|error| failed(&self.path, &error))?;
        }
        Ok(swept)
    }
}

impl Log {
    fn mark(&mut self, now_ms: u64) -> std::io::Result<()> {
        self.file.append(&[Record::Mark { now_ms }])?;
        self.file.handle().sync_data()?;
        (self.marked_ms, self.dirty) = (Some(now_ms), false);
        Ok(())
    }

    /// Leaves out what is about claims that are forgotten.
    fn shorten(&mut self, memory: &MemoryClaims, now_ms: u64) -> std::io::Result<()> {
        let first = Record::Opened { boot: self.boot.clone() };
        let mut any = false;
        let keep = |record: &Record| {
            // Sweeps that found only what is forgotten.
            let kept = match record.key() {
                Some(key) => memory.knows(key),
                None => any && matches!(record, Record::Sweep { .. }),
            };
            any |= kept;
            kept
        };
        let last = [Record::Gate(memory.gate()), Record::Mark { now_ms }];
        self.file.rewrite(&first, keep, &last)?;
        (self.marked_ms, self.dirty, self.fresh) = (Some(now_ms), false, self.file.len());
        Ok(())
    }
}

/// What a log says of those who used it before.
#[derive(Default)]
struct Past {
    boot: Option<String>,
    marked_ms: Option<u64>,
    closed: bool,
    /// It does not say what this program makes of it (limits were lowered, say).
    strange: bool,
}

impl Past {
    fn take(&mut self, memory: &MemoryClaims, record: Record) {
        self.closed = false;
        match record {
            Record::Opened { boot } => self.boot = boot,
            Record::Closed => self.closed = true,
            Record::Mark { now_ms } => self.marked_ms = self.marked_ms.max(Some(now_ms)),
            Record::Gate(gate) => memory.restore(gate),
            Record::Claim(claimed) => {
                let outcome = memory.try_claim(&claimed.request());
                self.strange |= matches!(outcome, ClaimOutcome::Refused(_));
            }
            Record::Complete { key, grant, completion } => {
                let completed = memory.try_complete(&key, grant, completion);
                self.strange |= completed != Completed::Stored;
            }
            Record::Extend { key, grant, until_ms } => {
                self.strange |= memory.try_extend(&key, grant, until_ms).is_err();
            }
            Record::Answer { key, error } => {
                memory.try_answer(&key, error);
            }
            Record::Sweep { now_ms, worker, lease_ms } => {
                memory.sweep_now(&SweepRequest { now_ms, worker, lease_ms });
            }
        }
    }

    /// Until when there may have been claims that the log does not know, in Unix milliseconds.
    fn lost(&self, boot: Option<&str>, now_ms: u64) -> Option<u64> {
        if self.strange {
            return Some(now_ms);
        }
        let same = boot.is_some() && boot == self.boot.as_deref();
        if same || self.closed {
            return None;
        }
        Some(self.marked_ms.map_or(now_ms, |marked| marked.saturating_add(WINDOW_MS)))
    }
}

impl Drop for LogClaims {
    fn drop(&mut self) {
        let log = self.log.get_mut();
        // If it fails, the next to open it fears for what is not on the disk.
        if log.file.append(&[Record::Closed]).is_ok() {
            let _ = log.file.handle().sync_data();
        }
    }
}

fn drop_bytes(completion: &mut Completion) {
    let (Completion::Done { reply: told } | Completion::InDoubt { error: told }) = completion;
    if let Some(told) = told {
        told.drop_bytes();
    }
}

fn not_opened(path: &Path, why: NotOpened) -> StoreError {
    let display = path.display().to_string();
    match why {
        NotOpened::Io(error) => StoreError::NotWritable { path: display, why: error.to_string() },
        NotOpened::Taken => StoreError::Unfit {
            path: display,
            why: "another process has it; give each a folder of its own, or all a store that is \
                  shared"
                .to_owned(),
        },
        NotOpened::Foreign => {
            StoreError::Damaged { path: display, why: "it is the file of another program".into() }
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io { path: path.display().to_string(), why: error.to_string() }
}

impl fmt::Debug for LogClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogClaims").field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl ClaimStore for LogClaims {
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        self.try_claim(&request)
    }

    fn claim_now(&self, request: &ClaimRequest) -> Option<ClaimOutcome> {
        // What failed is asked for again, and told then.
        self.try_claim(request).ok()
    }

    fn complete_now(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, Completion> {
        self.try_complete(key, grant, &completion).map_err(|_| completion)
    }

    async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError> {
        self.try_complete(key, grant, &completion)
    }

    async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError> {
        let mut log = self.log.lock();
        let extended = self.memory.try_extend(key, grant, until_ms);
        if extended.is_ok() {
            self.write(&mut log, Record::Extend { key: key.clone(), grant, until_ms })?;
        }
        Ok(extended)
    }

    async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError> {
        let mut log = self.log.lock();
        let standing = self.memory.try_answer(key, error.clone());
        if standing.as_ref() == Some(&error) {
            self.write(&mut log, Record::Answer { key: key.clone(), error })?;
        }
        Ok(standing)
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError> {
        let swept = self.sweep_now(&request)?;
        if let Some(file) = self.begin_mark(request.now_ms)? {
            let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
            match synced {
                Ok(Ok(())) => self.log.lock().marked_ms = Some(request.now_ms),
                Ok(Err(error)) => return Err(failed(&self.path, &error)),
                Err(_) => return Err(StoreError::Closed),
            }
        }
        Ok(swept)
    }

    async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError> {
        let mut log = self.log.lock();
        self.memory.lose(now_ms);
        self.write(&mut log, Record::Gate(self.memory.gate()))?;
        log.mark(now_ms).map_err(|error| failed(&self.path, &error))
    }

    async fn held_by(&self, sender: &Party) -> Result<u64, StoreError> {
        self.memory.held_by(sender).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.memory.stats().await
    }

    fn is_shared(&self) -> bool {
        false
    }
}
