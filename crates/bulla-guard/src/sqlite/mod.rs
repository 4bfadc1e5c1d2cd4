//! Claims in a SQLite file: durable, for one process at a time.

mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bulla_seal::{Digest, Party};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Error, Row};
use tokio::sync::{mpsc, oneshot};

use self::writer::{First, Job, Step, Writer};
use crate::claim::{Action, Event};
use crate::counters::Counters;
use crate::key::ClaimKey;
use crate::store::{
    ClaimOutcome, ClaimRequest, ClaimStore, Completed, Completion, Grant, Lost, NewStore, Reply,
    Stats, StoreError, StoreOptions, SweepRequest, Swept,
};

/// Jobs that may wait for the writer before callers do.
const QUEUE: usize = 4096;

/// How to open a SQLite store.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Limits and skew.
    pub store: StoreOptions,
    /// What it means that the file is not there yet.
    pub new_store: NewStore,
    /// The boot or VM generation id. When it is not the one that the file was last used under,
    /// the file may be an old copy, and the store counts as lost. `None`: not looked at.
    pub generation: Option<String>,
    /// The wall clock, in Unix milliseconds.
    pub now_ms: u64,
}

impl SqliteOptions {
    /// With default limits and skew, and no generation id.
    pub fn new(new_store: NewStore, now_ms: u64) -> Self {
        Self { store: StoreOptions::default(), new_store, generation: None, now_ms }
    }
}

/// Claims in a SQLite file with mode 0600, in WAL mode with full synchronisation. Everything that
/// waits while one transaction is written goes into the next together.
///
/// Must be used inside a Tokio runtime. Dropping it lets the writer finish what is queued;
/// [`SqliteClaims::close`] waits for that.
#[derive(Clone)]
pub struct SqliteClaims {
    path: Arc<Path>,
    jobs: mpsc::Sender<Job>,
}

impl SqliteClaims {
    /// Opens the file, or makes it, and checks that it is sound.
    pub async fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let mut conn = connect(path).await?;
        let is_new = schema::upgrade(&mut conn, path).await?;
        prepare(&mut conn, &options, is_new).await.map_err(|error| io_error(path, &error))?;
        let writer = Writer {
            conn,
            path: path.to_owned(),
            options: options.store,
            counters: Arc::new(Counters::default()),
        };
        let (jobs, queue) = mpsc::channel(QUEUE);
        tokio::spawn(writer.run(queue));
        Ok(Self { path: path.into(), jobs })
    }

    /// Takes the file at `path` back to an older schema (0: an empty file), for an older
    /// program. No process may have it open.
    pub async fn revert(path: impl AsRef<Path>, version: u32) -> Result<(), StoreError> {
        let path = path.as_ref();
        let mut conn = connect(path).await?;
        schema::revert(&mut conn, path, version.into()).await?;
        conn.close().await.map_err(|error| io_error(path, &error))
    }

    /// Finishes what is queued and closes the file.
    pub async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.jobs.send(Job::Close(closed)).await.is_ok() {
            let _ = done.await;
        }
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (answer, reply) = oneshot::channel();
        self.jobs.send(job(answer)).await.map_err(|_| StoreError::Closed)?;
        reply.await.map_err(|_| StoreError::Closed)?
    }

    async fn step(
        &self,
        key: ClaimKey,
        event: Event<Digest>,
        first: Option<First>,
    ) -> Result<Action, StoreError> {
        self.ask(|answer| Job::Step(Step { key, event, first, answer })).await
    }
}

async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let not_writable = |error: std::io::Error| StoreError::NotWritable {
        path: path.display().to_string(),
        why: error.to_string(),
    };
    // Made by us first, so that at no moment others can read it; SQLite gives the files beside it
    // the same mode.
    let made = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    made.map_err(not_writable)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(not_writable)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(std::time::Duration::from_secs(5))
        .pragma("wal_autocheckpoint", "4000");
    SqliteConnection::connect_with(&options).await.map_err(|error| io_error(path, &error))
}

/// Settles what the file means at this start.
async fn prepare(
    conn: &mut SqliteConnection,
    options: &SqliteOptions,
    is_new: bool,
) -> Result<(), Error> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    let mut ledger = rows::load_ledger(&mut tx).await?;
    let moved = options.generation.is_some()
        && ledger.generation.is_some()
        && options.generation != ledger.generation;
    if moved || is_new && options.new_store == NewStore::MayBeLost {
        ledger.gate.lose(options.now_ms, options.store.skew_s);
    }
    ledger.generation = options.generation.clone().or(ledger.generation);
    // Quotas may have been set anew since the last start.
    let shared = sqlx::query("SELECT total(max(ids - ?, 0)) AS shared FROM sender");
    let shared = shared.bind(rows::signed(options.store.limits.per_sender));
    ledger.shared = shared.fetch_one(&mut *tx).await?.try_get::<f64, _>("shared")? as u64;
    rows::save_ledger(&mut tx, &ledger).await?;
    tx.commit().await
}

/// What a failure of SQLite means to the operator, by its primary result code.
fn io_error(path: &Path, error: &Error) -> StoreError {
    let (path, why) = (path.display().to_string(), error.to_string());
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<i64>().ok()).unwrap_or_default() & 0xff;
    match code {
        // SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN.
        3 | 8 | 14 => StoreError::NotWritable { path, why },
        // SQLITE_CORRUPT, SQLITE_NOTADB.
        11 | 26 => StoreError::Damaged { path, why },
        _ => StoreError::Io { path, why },
    }
}

impl fmt::Debug for SqliteClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteClaims").field("path", &PathBuf::from(&*self.path)).finish()
    }
}

#[async_trait]
impl ClaimStore for SqliteClaims {
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        let ClaimRequest { key, digest, worker, now_ms, lease_ms, idempotent, .. } = request;
        let event = Event::Claim { digest, worker, now_ms, lease_ms, idempotent };
        let first = First { iat: request.iat, exp: request.exp, envelope: request.envelope };
        Ok(writer::outcome(self.step(key, event, Some(first)).await?))
    }

    async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError> {
        let event = Event::Complete { grant, completion };
        Ok(writer::completed(&self.step(key.clone(), event, None).await?))
    }

    async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError> {
        match self.step(key.clone(), Event::Extend { grant, until_ms }, None).await? {
            Action::Extend(extended) => Ok(extended),
            _ => Ok(Err(Lost::Unknown)),
        }
    }

    async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError> {
        match self.step(key.clone(), Event::Answer(error), None).await? {
            Action::Answer(standing) => Ok(standing),
            _ => Ok(None),
        }
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError> {
        self.ask(|answer| Job::Sweep(request, answer)).await
    }

    async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError> {
        self.ask(|answer| Job::Lose(now_ms, answer)).await
    }

    async fn held_by(&self, sender: &Party) -> Result<u64, StoreError> {
        self.ask(|answer| Job::HeldBy(sender.clone(), answer)).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.ask(Job::Stats).await
    }

    fn is_shared(&self) -> bool {
        false
    }
}
