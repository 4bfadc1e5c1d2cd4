//! The keystore's tables in SQLite: all SQL of this dialect, and nothing but rows. What a row
//! means, and every key, is the caller's business.

pub(crate) mod credentials;
pub(crate) mod groups;
pub(crate) mod keys;
pub(crate) mod migrations;
pub(crate) mod pairs;
pub(crate) mod principals;
pub(crate) mod revocation;
pub(crate) mod rotation;
pub(crate) mod trust;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};

use crate::error::{KeystoreError, Result};

/// "Bull", in the file's header (SQLite's `application_id`).
const APPLICATION_ID: i32 = 0x4275_6c6c;
/// How long a writer waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(30);
/// Connections for look-ups; SQLite answers each in its own thread.
const READERS: u32 = 4;

/// A write transaction.
pub(crate) type Tx = sqlx::Transaction<'static, Sqlite>;

/// The open database: many readers, one writer, so that writers of one process queue up here
/// and not at the file's lock.
#[derive(Clone, Debug)]
pub(crate) struct Db {
    readers: SqlitePool,
    writer: SqlitePool,
}

impl Db {
    /// Makes the file `path` (mode 0600) with an empty schema. The caller removes it again with
    /// [`discard`] if filling it fails.
    pub(crate) async fn create(path: &Path) -> Result<Self> {
        make_file(path)?;
        let options = options(path).journal_mode(SqliteJournalMode::Wal);
        match options.connect().await {
            Ok(connection) => sqlx::Connection::close(connection).await?,
            Err(e) => {
                discard(path);
                return Err(e.into());
            }
        }
        Self::connect(path).await
    }

    /// Opens an existing keystore file, whatever its schema version.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        check_file(path)?;
        let not_ours = || KeystoreError::NotAKeystore { path: path.into() };
        let db = Self::connect(path).await.map_err(|e| not_a_database(e, path))?;
        let id: i32 = sqlx::query_scalar("PRAGMA application_id")
            .fetch_one(&mut *db.read().await?)
            .await
            .map_err(|e| not_a_database(e.into(), path))?;
        if id == APPLICATION_ID { Ok(db) } else { Err(not_ours()) }
    }

    async fn connect(path: &Path) -> Result<Self> {
        let options = options(path);
        let writer =
            SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self { readers, writer })
    }

    /// A connection for look-ups.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Sqlite>> {
        Ok(self.readers.acquire().await?)
    }

    /// A transaction that holds the write lock from its beginning, so that what it read still
    /// holds when it writes.
    pub(crate) async fn write(&self) -> Result<Tx> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// The connection for writing.
    pub(crate) fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Marks the file as a keystore.
pub(crate) async fn mark(conn: &mut SqliteConnection) -> Result<()> {
    const { assert!(APPLICATION_ID == 1_114_991_724) };
    sqlx::query("PRAGMA application_id = 1114991724").execute(conn).await?;
    Ok(())
}

/// Removes a database that could not be filled.
pub(crate) fn discard(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // It may not exist; there is nothing better to do about another failure.
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        // A power cut must not bring back an incarnation that was given out already.
        .synchronous(SqliteSynchronous::Full)
        // What is deleted is overwritten.
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

fn make_file(path: &Path) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made.and_then(|file| file.sync_all()).and_then(|()| crate::file::sync_folder(path)) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(KeystoreError::Exists { path: path.into() })
        }
        Err(source) => Err(KeystoreError::CannotWrite { path: path.into(), source }),
    }
}

/// SQLite gives its journal files the permissions of the database file, so this covers them.
fn check_file(path: &Path) -> Result<()> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(KeystoreError::Missing { path: path.into() });
        }
        Err(source) => return Err(KeystoreError::CannotWrite { path: path.into(), source }),
    };
    if !meta.is_file() {
        return Err(KeystoreError::NotAKeystore { path: path.into() });
    }
    match meta.permissions().mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(KeystoreError::Unprotected { path: path.into(), mode }),
        _ => Ok(()),
    }
}

/// SQLITE_NOTADB (26) and SQLITE_CORRUPT (11) as what they mean here, SQLITE_CANTOPEN (14) as
/// a folder in which no journal can be made.
fn not_a_database(error: KeystoreError, path: &Path) -> KeystoreError {
    let KeystoreError::Database(source) = &error else { return error };
    let code = source
        .downcast_ref::<sqlx::Error>()
        .and_then(|e| e.as_database_error())
        .and_then(|e| e.code())
        .and_then(|code| code.parse::<u32>().ok());
    match code.map(|code| code & 0xff) {
        Some(26 | 11) => KeystoreError::NotAKeystore { path: path.into() },
        Some(14) => KeystoreError::ReadOnly,
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every look-up goes through indexes only, so that it costs the same with 100,000 agents.
    #[tokio::test]
    async fn look_ups_never_scan_a_table() {
        let options = SqliteConnectOptions::new().in_memory(true);
        let mut conn = options.connect().await.unwrap();
        migrations::prepare(&mut conn).await.unwrap();
        migrations::up(&mut conn, 0).await.unwrap();
        for sql in [
            credentials::CURRENT,
            groups::KEY,
            groups::OF,
            pairs::BY_KID,
            pairs::CURRENT,
            pairs::OF_AGENT,
            pairs::PEER,
            principals::ACTIVE,
            principals::PAGE,
            rotation::RECEIVE,
        ] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).fetch_all(&mut conn).await.unwrap();
            let steps: Vec<_> = plan.iter().map(|step| step.3.as_str()).collect();
            assert!(steps.iter().any(|step| step.contains("SEARCH")), "{steps:?}");
            assert!(!steps.iter().any(|step| step.contains("SCAN")), "{sql}: {steps:?}");
        }
    }
}
