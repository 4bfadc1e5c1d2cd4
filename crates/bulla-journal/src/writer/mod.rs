//! The writer: a thread of its own behind a bounded queue.

mod log;
mod queue;
mod run;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::emit::{NoRoom, Sink};
use crate::error::JournalError;
use crate::key::SigningKey;
use crate::schema::Event;

use log::Log;
use queue::Queue;

/// When what was written is on the disk, whatever happens to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// After each batch: what waited together is synced together.
    Batch,
    /// At the latest after this long.
    Every(Duration),
}

/// What happens when the journal can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// Events are lost, counted, and that is recorded as soon as there is room.
    #[default]
    Lose,
    /// Calls that change something are refused meanwhile.
    Stop,
}

/// How a journal is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which journal this is, in its checkpoints: `example.org/journal/control`.
    pub origin: String,
    /// The program's version, for the record that says that it began. Without one, neither the
    /// beginning nor the end of the process is recorded.
    pub version: Option<&'static str>,
    /// When it is on the disk.
    pub sync: Sync,
    /// A checkpoint is made after so many records.
    pub checkpoint_records: u64,
    /// A checkpoint is made at the latest so long after a record.
    pub checkpoint_every: Duration,
    /// A file is followed by another when it has so many bytes.
    pub file_bytes: u64,
    /// A file is followed by another when it is so old.
    pub file_age: Duration,
    /// So many files are kept.
    pub keep_files: usize,
    /// Files are kept so long after their last record; for ever without one.
    pub keep_age: Option<Duration>,
    /// Events that may wait to be written.
    pub queue: usize,
    /// What happens when it can't be written.
    pub on_full: OnFull,
    /// How long it waits before it tries again to write.
    pub retry: Duration,
}

impl Options {
    /// The defaults, for the journal `origin`.
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            version: None,
            sync: Sync::Every(Duration::from_secs(1)),
            checkpoint_records: 10_000,
            checkpoint_every: Duration::from_secs(10),
            file_bytes: 64 << 20,
            file_age: Duration::from_secs(86_400),
            keep_files: 1000,
            keep_age: None,
            queue: 65_536,
            on_full: OnFull::default(),
            retry: Duration::from_secs(1),
        }
    }
}

/// How the writer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It writes.
    Writing,
    /// It can't.
    Failing {
        /// What the system says.
        why: String,
    },
    /// It was closed.
    Closed,
}

/// How a journal does, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it can be written.
    pub status: Status,
    /// Events that wait for the writer.
    pub queued: usize,
    /// How many may.
    pub capacity: usize,
    /// Events that were lost since it was opened.
    pub lost: u64,
    /// How old the oldest event is that is not on the disk.
    pub lag: Duration,
    /// Records in it.
    pub records: u64,
    /// How many of them the last checkpoint covers.
    pub signed: u64,
    /// When that was made, in Unix seconds, if that is known.
    pub signed_at: Option<u64>,
}

/// An open journal. Events go in as into any [`Sink`]; it ends in order when it is closed or
/// dropped.
pub struct Journal {
    dir: PathBuf,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal in `dir`, or begins one there. What a crash tore off at its end is cut off
    /// and kept beside it.
    ///
    /// # Errors
    /// The folder can't be read or written, another process has it open, or nothing in its last
    /// file is signed with this key.
    pub fn open(dir: &Path, key: SigningKey, options: Options) -> Result<Self, JournalError> {
        if options.origin.is_empty() || options.origin.contains('\n') {
            return Err(JournalError::Usage("a journal's origin is a line of text"));
        }
        if options.queue == 0 || options.keep_files == 0 {
            return Err(JournalError::Usage(
                "a journal keeps one file at least, and queues events",
            ));
        }
        let queue = Arc::new(Queue::new(options.queue, options.on_full));
        let log = Log::open(dir, key, options)?;
        let thread = run::start(log, queue.clone());
        let thread = thread.map_err(JournalError::io("start the thread for", dir))?;
        Ok(Self { dir: dir.to_owned(), queue, thread: Mutex::new(Some(thread)) })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How it does.
    pub fn status(&self) -> Status {
        self.queue.status()
    }

    /// How it does, and how far it is.
    pub fn health(&self) -> Health {
        self.queue.health()
    }

    /// How many events were lost for want of room, since it was opened.
    pub fn lost(&self) -> u64 {
        self.queue.lost_in_all()
    }

    /// Waits until what was taken is on the disk.
    ///
    /// # Errors
    /// It can't be written just now.
    pub fn flush(&self) -> Result<(), NoRoom> {
        self.queue.flush()
    }

    /// Writes what is left, with a last checkpoint, and ends.
    pub fn close(&self) {
        self.queue.close();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(dir = %self.dir.display(), "the journal's writer ended badly");
        }
    }
}

impl Sink for Journal {
    fn take(&self, time: u64, event: Event) {
        self.queue.put(time, event);
    }

    fn take_first(&self, time: u64, event: Event) -> Result<(), NoRoom> {
        self.queue.put_first(time, event)
    }

    fn room(&self) -> bool {
        self.queue.room()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("dir", &self.dir).finish_non_exhaustive()
    }
}
