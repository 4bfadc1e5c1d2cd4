//! The files: what is written, what is on the disk, how it goes on after a crash.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use crate::checkpoint::Checkpoint;
use crate::error::JournalError;
use crate::instant::{Clock, now_nanos};
use crate::key::SigningKey;
use crate::record::{CHECKPOINT, Signed, State};
use crate::schema::Event;
use crate::schema::Text;
use crate::schema::events::{JournalCut, JournalRolledBack, JournalTrimmed};
use crate::segment::{CHECKPOINT_FILE, Segment, sync_folder, take_folder, write_whole};

use super::queue::Gauges;
use super::{Options, Sync};

/// So much may be written and not on the disk yet; it is kept in memory, to be written again if
/// the disk fails.
const MAX_PENDING: usize = 8 << 20;

/// One journal's files, in the hands of its writer.
pub(super) struct Log {
    dir: PathBuf,
    key: SigningKey,
    pub(super) options: Options,
    state: State,
    clock: Clock,
    segment: Segment,
    file: File,
    began: Instant,
    /// Bytes of the file that are on the disk.
    durable: u64,
    /// Bytes after them.
    pending: Vec<u8>,
    /// How many of those were written, and may be on the disk or not.
    written: usize,
    synced: Instant,
    /// When the oldest event happened that is not on the disk, in Unix nanoseconds; 0 for none.
    unsynced: u64,
    /// When the last checkpoint was made, in Unix seconds; 0 if it is not known.
    signed_at: u64,
    /// Records that the last checkpoint covers, and when the first that it does not came.
    checkpointed: u64,
    uncovered: Option<Instant>,
    /// A checkpoint that is written, but not alone in its file yet.
    note: Option<String>,
    /// Held as long as the journal is open.
    _lock: File,
}

/// What was found at the end of the last file.
struct Recovered {
    state: State,
    length: u64,
    checkpointed: u64,
    cut: Option<(u64, PathBuf)>,
    rolled_back: Option<u64>,
}

impl Log {
    pub(super) fn open(
        dir: &Path,
        key: SigningKey,
        options: Options,
    ) -> Result<Self, JournalError> {
        let lock = take_folder(dir)?;
        let segments = Segment::list(dir).map_err(JournalError::io("read", dir))?;
        let (segment, recovered) = match segments.last() {
            Some(last) => (last.clone(), recover(dir, last, &key, &options.origin)?),
            None => begin(dir, &key, &options.origin)?,
        };
        let file = OpenOptions::new().write(true).open(&segment.path);
        let file = file.map_err(JournalError::io("open", &segment.path))?;
        file.set_len(recovered.length).map_err(JournalError::io("shorten", &segment.path))?;
        let now = Instant::now();
        let mut log = Self {
            dir: dir.to_owned(),
            key,
            options,
            clock: Clock::default(),
            segment,
            file,
            began: now,
            durable: recovered.length,
            pending: Vec::new(),
            written: 0,
            synced: now,
            unsynced: 0,
            signed_at: modified(&dir.join(CHECKPOINT_FILE)),
            checkpointed: recovered.checkpointed,
            uncovered: (recovered.state.size() > recovered.checkpointed).then_some(now),
            note: None,
            state: recovered.state,
            _lock: lock,
        };
        log.tell(recovered.cut, recovered.rolled_back);
        Ok(log)
    }

    /// Records what was found when it was opened.
    fn tell(&mut self, cut: Option<(u64, PathBuf)>, rolled_back: Option<u64>) {
        if let Some((bytes, kept)) = cut {
            let kept = Text::of(&kept.file_name().unwrap_or_default().to_string_lossy());
            self.own(&JournalCut { bytes, kept }.into());
        }
        if let Some(signed) = rolled_back {
            let size = self.state.size();
            self.own(&JournalRolledBack { size, signed }.into());
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.state.size()
    }

    /// Tells how far it is.
    pub(super) fn show(&self, gauges: &Gauges) {
        gauges.records.store(self.state.size(), Ordering::Relaxed);
        gauges.signed.store(self.checkpointed, Ordering::Relaxed);
        gauges.signed_at.store(self.signed_at, Ordering::Relaxed);
        gauges.unsynced.store(self.unsynced, Ordering::Relaxed);
    }

    /// Adds an event of the journal's own.
    pub(super) fn own(&mut self, event: &Event) {
        event.log();
        self.add(now_nanos(), event);
    }

    pub(super) fn add(&mut self, time: u64, event: &Event) {
        self.state.record(&mut self.pending, &mut self.clock, time, event);
        if self.unsynced == 0 {
            self.unsynced = time;
        }
        self.uncovered.get_or_insert_with(Instant::now);
    }

    /// When there is something to do even if nothing comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let sync = match self.options.sync {
            Sync::Every(every) if !self.pending.is_empty() => Some(self.synced + every),
            _ => None,
        };
        let checkpoint = self.uncovered.map(|since| since + self.options.checkpoint_every);
        let rotate = (self.state.size() > self.segment.first)
            .then(|| self.began.checked_add(self.options.file_age))
            .flatten();
        [sync, checkpoint, rotate].into_iter().flatten().min()
    }

    /// Writes, syncs, signs and begins another file, as far as each is due. After an error the same
    /// is tried again, and nothing is lost.
    pub(super) fn settle(&mut self, all: bool) -> io::Result<()> {
        self.write()?;
        let covered = self.state.size() - self.checkpointed;
        let old = self.uncovered.is_some_and(|at| at.elapsed() >= self.options.checkpoint_every);
        if covered > 0 && (covered >= self.options.checkpoint_records || old) {
            self.checkpoint()?;
        }
        let sync = match self.options.sync {
            Sync::Batch => true,
            Sync::Every(every) => self.synced.elapsed() >= every,
        };
        if all || sync || self.pending.len() > MAX_PENDING {
            self.sync()?;
        }
        self.publish()?;
        let large = self.durable + self.pending.len() as u64 >= self.options.file_bytes;
        let aged = self.began.elapsed() >= self.options.file_age;
        if (large || aged) && self.state.size() > self.segment.first {
            self.rotate()?;
        }
        Ok(())
    }

    /// After an error nobody knows which of the written bytes are there: all are written again.
    pub(super) fn doubt(&mut self) {
        self.written = 0;
    }

    fn write(&mut self) -> io::Result<()> {
        let rest = self.pending.get(self.written..).unwrap_or_default();
        if !rest.is_empty() {
            self.file.write_all_at(rest, self.durable + self.written as u64)?;
            self.written = self.pending.len();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        if !self.pending.is_empty() {
            self.file.sync_data()?;
            self.durable += self.pending.len() as u64;
            self.pending.clear();
            self.written = 0;
            self.unsynced = 0;
        }
        self.synced = Instant::now();
        Ok(())
    }

    /// Signs what there is.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        if self.state.size() > self.checkpointed {
            let (origin, key) = (&self.options.origin, &self.key);
            self.note = Some(self.state.checkpoint(&mut self.pending, origin, key));
            self.checkpointed = self.state.size();
            self.signed_at = now_nanos() / 1_000_000_000;
            self.uncovered = None;
        }
        self.sync()?;
        self.publish()
    }

    /// Puts the newest checkpoint alone into its file, once it is on the disk where it belongs.
    fn publish(&mut self) -> io::Result<()> {
        let Some(note) = &self.note else { return Ok(()) };
        if !self.pending.is_empty() {
            return Ok(());
        }
        write_whole(&self.dir.join(CHECKPOINT_FILE), note.as_bytes())?;
        self.note = None;
        Ok(())
    }

    /// Begins another file, and lets old ones go.
    fn rotate(&mut self) -> io::Result<()> {
        self.checkpoint()?;
        let next = Segment::new(&self.dir, self.state.size());
        let mut first = Vec::new();
        let mut state = self.state.clone();
        state.checkpoint(&mut first, &self.options.origin, &self.key);
        self.file = next.create(&first)?;
        (self.segment, self.state, self.began) = (next, state, Instant::now());
        self.durable = first.len() as u64;
        self.trim()
    }

    /// Which files go is on the disk, signed, before they do.
    fn trim(&mut self) -> io::Result<()> {
        let segments = Segment::list(&self.dir)?;
        let keep = segments.iter().enumerate().position(|(at, segment)| {
            let left = segments.len() - at;
            segment.first == self.segment.first
                || (left <= self.options.keep_files && !self.is_old(segment))
        });
        let (gone, kept) = segments.split_at_checked(keep.unwrap_or(0)).unwrap_or_default();
        let (false, Some(first)) = (gone.is_empty(), kept.first()) else { return Ok(()) };
        self.own(&JournalTrimmed { first: first.first }.into());
        self.checkpoint()?;
        gone.iter().try_for_each(|segment| fs::remove_file(&segment.path))?;
        sync_folder(&self.dir)
    }

    fn is_old(&self, segment: &Segment) -> bool {
        let Some(age) = self.options.keep_age else { return false };
        let modified = fs::metadata(&segment.path).and_then(|meta| meta.modified());
        let since = modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        since.is_some_and(|since| since >= age)
    }
}

/// When a file was last written, in Unix seconds; 0 if nobody knows.
fn modified(path: &Path) -> u64 {
    let modified = fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let since = modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}

/// The first file of a new journal.
fn begin(dir: &Path, key: &SigningKey, origin: &str) -> Result<(Segment, Recovered), JournalError> {
    let segment = Segment::new(dir, 0);
    let (mut state, mut bytes) = (State::default(), Vec::new());
    let note = state.checkpoint(&mut bytes, origin, key);
    segment.create(&bytes).map_err(JournalError::io("make", &segment.path))?;
    let alone = dir.join(CHECKPOINT_FILE);
    // If there is one, then there was a journal.
    let rolled_back = signed_before(&alone, key, origin).filter(|size| *size > 0);
    if rolled_back.is_none() {
        write_whole(&alone, note.as_bytes()).map_err(JournalError::io("write", &alone))?;
    }
    let length = bytes.len() as u64;
    Ok((segment, Recovered { state, length, checkpointed: 0, cut: None, rolled_back }))
}

/// How many records the checkpoint that is alone in a file signs.
fn signed_before(path: &Path, key: &SigningKey, origin: &str) -> Option<u64> {
    let note = fs::read_to_string(path).ok()?;
    let read = Checkpoint::open(&note, key.public()).ok()?;
    (read.origin == origin).then_some(read.size)
}

/// Where the last file stands: after its last good checkpoint, and the records that follow on it.
/// What is before that checkpoint is signed, and a matter for `verify`.
fn recover(
    dir: &Path,
    segment: &Segment,
    key: &SigningKey,
    origin: &str,
) -> Result<Recovered, JournalError> {
    let bytes = fs::read(&segment.path).map_err(JournalError::io("read", &segment.path))?;
    let (signed, mut at) = last_checkpoint(&bytes, key, origin).ok_or_else(|| {
        JournalError::NoCheckpoint { path: segment.path.clone(), folder: dir.to_owned() }
    })?;
    let mut state = signed.state();
    let checkpointed = state.size();
    let mut rest = bytes.get(at..).unwrap_or_default();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at_checked(end).unwrap_or_default();
        if state.take_record(line).is_err() {
            break;
        }
        at += end + 1;
        rest = after.get(1..).unwrap_or_default();
    }
    let alone = dir.join(CHECKPOINT_FILE);
    let before = signed_before(&alone, key, origin);
    let rolled_back = before.filter(|signed| *signed > state.size());
    if rolled_back.is_none() && before != Some(checkpointed) {
        write_whole(&alone, signed.note.as_bytes()).map_err(JournalError::io("write", &alone))?;
    }
    let cut = (!rest.is_empty()).then(|| keep(segment, rest)).transpose()?;
    Ok(Recovered { state, length: at as u64, checkpointed, cut, rolled_back })
}

/// Keeps what is cut off.
fn keep(segment: &Segment, cut: &[u8]) -> Result<(u64, PathBuf), JournalError> {
    let path = segment.path.with_extension(format!("cut-{}", now_nanos()));
    write_whole(&path, cut).map_err(JournalError::io("write", &path))?;
    Ok((cut.len() as u64, path))
}

/// The last good checkpoint, and where its line ends.
fn last_checkpoint(bytes: &[u8], key: &SigningKey, origin: &str) -> Option<(Signed, usize)> {
    let mut end = bytes.iter().rposition(|byte| *byte == b'\n')?;
    loop {
        let before = bytes.get(..end)?;
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = bytes.get(begin..end)?;
        if line.starts_with(CHECKPOINT) {
            let signed = Signed::read(line, key.public()).ok();
            if let Some(signed) = signed.filter(|signed| signed.checkpoint.origin == origin) {
                return Some((signed, end + 1));
            }
        }
        end = begin.checked_sub(1)?;
    }
}
