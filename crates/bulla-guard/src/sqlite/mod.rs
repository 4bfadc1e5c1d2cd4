//! Claims in a SQLite file: durable, for one process at a time.

mod rows;
mod schema;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Error};

use self::rows::Rows;
use crate::batch::{Backend, Batches, store_of_batches};
use crate::store::{NewStore, StoreError, StoreOptions};

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
    batches: Batches,
}

// Not async: the writer is compiled here, as this crate is optimised (docs/adr/0008).
#[inline(never)]
fn start(rows: Rows, options: StoreOptions) -> Batches {
    Batches::start(rows, options)
}

impl SqliteClaims {
    /// Opens the file, or makes it, and checks that it is sound.
    pub async fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let mut conn = connect(path).await?;
        let is_new = schema::upgrade(&mut conn, path).await?;
        let mut rows = Rows { conn: Some(conn), path: path.to_owned() };
        if let Err(error) = prepare(&mut rows, &options, is_new).await {
            rows.give_up(&error).await;
            return Err(io_error(path, &error));
        }
        Ok(Self { path: path.into(), batches: start(rows, options.store) })
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
        self.batches.close().await;
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
        // In KiB: ids are random, so each claim lands on a page of its own.
        .pragma("cache_size", "-32768")
        // A statement of many rows keeps what it may take back apart: not in a file.
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", "16000");
    SqliteConnection::connect_with(&options).await.map_err(|error| io_error(path, &error))
}

/// Settles what the file means at this start.
async fn prepare(rows: &mut Rows, options: &SqliteOptions, is_new: bool) -> Result<(), Error> {
    let (mut ledger, _) = rows.begin().await?;
    let moved = options.generation.is_some()
        && ledger.generation.is_some()
        && options.generation != ledger.generation;
    if moved || is_new && options.new_store == NewStore::MayBeLost {
        ledger.gate.lose(options.now_ms, options.store.skew_s);
    }
    ledger.generation = options.generation.clone().or(ledger.generation);
    // Quotas may have been set anew since the last start.
    ledger.shared = rows.shared(options.store.limits.per_sender).await?;
    rows.save_ledger(&ledger).await?;
    rows.commit().await
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

store_of_batches!(SqliteClaims, shared: false);
