//! Queues in a SQLite file: durable, for one process at a time.
//!
//! One connection writes, and what comes in while a transaction is written to the disk goes into the
//! next together; others read meanwhile. What is read is what was committed.

mod known;
mod ops;
mod reads;
mod records;
mod rows;
mod schema;
mod writer;

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Connection, Error};

use self::known::Known;
use self::writer::{Job, Writer};
use crate::id::Id;
use crate::metadata::{Patch, PatchFault, Settings};
use crate::name::{ClientId, Place};
use crate::once::{Once, Posted};
use crate::record::{Before, Record, RecordKind};
use crate::store::{
    Claim, ClaimTerms, Deletion, Doomed, Listed, Listing, Metadata, Millis, NewMessage, Page,
    QueuePage, Stats, Store, StoreError,
};

/// Connections that read.
const READERS: u32 = 4;
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 256;

/// Queues in a SQLite file with mode 0600, in WAL mode with full synchronisation.
///
/// Must be used inside a Tokio runtime. Dropping it lets the writer finish what is queued;
/// [`Store::close`] waits for that.
pub struct SqliteQueues {
    at: Arc<str>,
    writer: Writer,
    reads: SqlitePool,
    known: Arc<Known>,
    /// Held as long as the file is used.
    _lock: File,
}

impl SqliteQueues {
    /// Opens the file, or makes it, and checks that it is sound. `now` is the wall clock.
    ///
    /// # Errors
    /// It can't be used, or another process does.
    pub async fn open(path: impl AsRef<Path>, now: Millis) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let at: Arc<str> = path.display().to_string().into();
        let lock = lock(path, &at)?;
        let failed = |error: Error| io_error(&at, &error);
        let mut conn = SqliteConnection::connect_with(&options(path)).await.map_err(failed)?;
        schema::upgrade(&mut conn, &at).await?;
        let reads = SqlitePoolOptions::new()
            .max_connections(READERS)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options(path).read_only(true));
        let known = Arc::new(Known::default());
        let writer = Writer::start(conn, at.clone(), known.clone(), now).await?;
        Ok(Self { at, writer, reads, known, _lock: lock })
    }

    fn failed(&self, error: &Error) -> StoreError {
        io_error(&self.at, error)
    }

    async fn conn(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Sqlite>, StoreError> {
        self.reads.acquire().await.map_err(|error| self.failed(&error))
    }

    /// The queue's number and metadata; `None` if there is none.
    async fn queue(&self, at: &Place) -> Result<Option<known::Row>, StoreError> {
        let (found, mark) = self.known.find(at);
        if found.is_some() {
            return Ok(found);
        }
        let mut conn = self.conn().await?;
        let row = reads::queue(&mut conn, at).await.map_err(|error| self.failed(&error))?;
        if let Some(row) = &row {
            self.known.learn(at, row.clone(), mark);
        }
        Ok(row)
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .statement_cache_capacity(STATEMENTS)
        .pragma("cache_size", "-32768")
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", "4000")
}

/// Makes the file, so that at no moment others can read it, and sees to it that nobody else has it.
fn lock(path: &Path, at: &str) -> Result<File, StoreError> {
    let failed = |error: std::io::Error| StoreError::Io { at: at.into(), why: error.to_string() };
    let made = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    made.map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    // A file of its own: SQLite's locks on the other go when any of its files is closed.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(beside).map_err(failed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| StoreError::InUse { at: at.into() })?;
    Ok(file)
}

fn io_error(at: &str, error: &Error) -> StoreError {
    let (at, why) = (at.to_owned(), error.to_string());
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<i64>().ok()).unwrap_or_default() & 0xff;
    match code {
        // SQLITE_CORRUPT, SQLITE_NOTADB.
        11 | 26 => StoreError::Foreign { at, why },
        _ => StoreError::Io { at, why },
    }
}

impl fmt::Debug for SqliteQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteQueues").field("at", &self.at).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteQueues {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.writer.ask(|to| Job::Ping { to }).await
    }

    async fn create(&self, at: &Place, metadata: &Metadata) -> Result<bool, StoreError> {
        let (at, metadata) = (at.clone(), metadata.clone());
        self.writer.ask(|to| Job::Create { at, metadata, to }).await
    }

    async fn metadata(&self, at: &Place) -> Result<Option<Arc<Metadata>>, StoreError> {
        Ok(self.queue(at).await?.map(|row| row.metadata))
    }

    async fn settings(&self, at: &Place) -> Result<Arc<Settings>, StoreError> {
        Ok(self.queue(at).await?.map(|row| row.settings).unwrap_or_default())
    }

    async fn patch(
        &self,
        at: &Place,
        patch: &Patch,
    ) -> Result<Option<Result<Metadata, PatchFault>>, StoreError> {
        let (at, patch) = (at.clone(), patch.clone());
        self.writer.ask(|to| Job::Patch { at, patch, to }).await
    }

    async fn remove(&self, at: &Place) -> Result<(), StoreError> {
        let at = at.clone();
        self.writer.ask(|to| Job::Remove { at, to }).await
    }

    async fn purge(&self, at: &Place) -> Result<(), StoreError> {
        let at = at.clone();
        self.writer.ask(|to| Job::Purge { at, to }).await
    }

    async fn queues(&self, project: &str, page: &QueuePage) -> Result<Vec<Listing>, StoreError> {
        let mut conn = self.conn().await?;
        reads::queues(&mut conn, project, page).await.map_err(|error| self.failed(&error))
    }

    async fn count_queues(&self, project: &str) -> Result<u64, StoreError> {
        let mut conn = self.conn().await?;
        reads::count_queues(&mut conn, project).await.map_err(|error| self.failed(&error))
    }

    async fn all_queues(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let mut conn = self.conn().await?;
        reads::all_queues(&mut conn, after, limit).await.map_err(|error| self.failed(&error))
    }

    async fn stats(&self, at: &Place, now: Millis) -> Result<Stats, StoreError> {
        let Some(row) = self.queue(at).await? else { return Ok(Stats::default()) };
        let mut conn = self.conn().await?;
        reads::stats(&mut conn, row.n, now).await.map_err(|error| self.failed(&error))
    }

    async fn post(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        now: Millis,
    ) -> Result<Vec<Id>, StoreError> {
        let at = at.clone();
        let posted = self.writer.ask(|to| Job::Post { at, by, messages, once: None, now, to });
        match posted.await? {
            Posted::Now(ids) | Posted::Before(ids) => Ok(ids),
            Posted::Other | Posted::Unknown => Ok(Vec::new()),
        }
    }

    /// In one transaction.
    async fn post_once(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        once: Once,
        now: Millis,
    ) -> Result<Posted, StoreError> {
        let (at, once) = (at.clone(), Some(once));
        self.writer.ask(|to| Job::Post { at, by, messages, once, now, to }).await
    }

    async fn list(&self, at: &Place, page: &Page, now: Millis) -> Result<Listed, StoreError> {
        let Some(row) = self.queue(at).await? else { return Ok(Vec::new()) };
        let mut conn = self.conn().await?;
        reads::list(&mut conn, row.n, page, now).await.map_err(|error| self.failed(&error))
    }

    async fn get(&self, at: &Place, ids: &[Id], now: Millis) -> Result<Listed, StoreError> {
        let Some(row) = self.queue(at).await? else { return Ok(Vec::new()) };
        let mut conn = self.conn().await?;
        rows::get(&mut conn, row.n, ids, now).await.map_err(|error| self.failed(&error))
    }

    async fn delete(
        &self,
        at: &Place,
        doomed: Vec<Doomed>,
        now: Millis,
    ) -> Result<Vec<Deletion>, StoreError> {
        let at = at.clone();
        self.writer.ask(|to| Job::Delete { at, doomed, now, to }).await
    }

    async fn pop(&self, at: &Place, limit: usize, now: Millis) -> Result<Listed, StoreError> {
        let at = at.clone();
        self.writer.ask(|to| Job::Pop { at, limit, now, to }).await
    }

    async fn claim(
        &self,
        at: &Place,
        limit: usize,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<Option<Claim>, StoreError> {
        let at = at.clone();
        self.writer.ask(|to| Job::Claim { at, limit, terms, now, to }).await
    }

    async fn claimed(&self, at: &Place, id: Id, now: Millis) -> Result<Option<Claim>, StoreError> {
        let Some(row) = self.queue(at).await? else { return Ok(None) };
        let mut conn = self.conn().await?;
        rows::claimed(&mut conn, row.n, id, now).await.map_err(|error| self.failed(&error))
    }

    async fn renew(
        &self,
        at: &Place,
        id: Id,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let at = at.clone();
        self.writer.ask(|to| Job::Renew { at, id, terms, now, to }).await
    }

    async fn release(&self, at: &Place, id: Id, now: Millis) -> Result<(), StoreError> {
        let at = at.clone();
        self.writer.ask(|to| Job::Release { at, id, now, to }).await
    }

    async fn next_free(&self, at: &Place, now: Millis) -> Result<Option<Millis>, StoreError> {
        let Some(row) = self.queue(at).await? else { return Ok(None) };
        let mut conn = self.conn().await?;
        reads::next_free(&mut conn, row.n, now).await.map_err(|error| self.failed(&error))
    }

    async fn keep(
        &self,
        record: Record,
        before: Before,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        self.writer.ask(|to| Job::Keep { record, before, now, to }).await
    }

    async fn record(
        &self,
        kind: RecordKind,
        owner: &str,
        name: &str,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        let (mut conn, of) = (self.conn().await?, (kind, owner, name));
        records::one(&mut conn, of, now).await.map_err(|error| self.failed(&error))
    }

    async fn records(
        &self,
        kind: RecordKind,
        owner: &str,
        page: (&str, usize),
        now: Millis,
    ) -> Result<Vec<Record>, StoreError> {
        let mut conn = self.conn().await?;
        let found = records::some(&mut conn, (kind, owner), page, now).await;
        found.map_err(|error| self.failed(&error))
    }

    async fn forget(
        &self,
        kind: RecordKind,
        owner: &str,
        name: Option<&str>,
    ) -> Result<(), StoreError> {
        let (owner, name) = (owner.to_owned(), name.map(str::to_owned));
        self.writer.ask(|to| Job::Forget { kind, owner, name, to }).await
    }

    /// The file is locked for this process.
    fn is_shared(&self) -> bool {
        false
    }

    async fn close(&self) {
        self.reads.close().await;
        self.writer.close().await;
    }
}
