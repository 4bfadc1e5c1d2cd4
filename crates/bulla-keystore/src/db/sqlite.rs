//! The SQLite file: made, checked, opened.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use super::{BUSY, Conn, Handle, Pools, READERS};
use crate::error::{KeystoreError, Result};

/// "Bull", in the file's header (SQLite's `application_id`).
const APPLICATION_ID: i64 = 0x4275_6c6c;

/// Makes the file `path` (mode 0600) with an empty schema. The caller removes it again with
/// [`discard`] if filling it fails.
pub(super) async fn create(path: &Path) -> Result<Pools<Sqlite>> {
    make_file(path)?;
    let options = options(path).journal_mode(SqliteJournalMode::Wal);
    match options.connect().await {
        Ok(connection) => connection.close().await?,
        Err(e) => {
            discard(path);
            return Err(e.into());
        }
    }
    connect(path).await
}

/// Opens an existing keystore file, whatever its schema version.
pub(super) async fn open(path: &Path) -> Result<Pools<Sqlite>> {
    check_file(path)?;
    let pools = connect(path).await.map_err(|e| not_a_database(e, path))?;
    let mut conn = Conn::Sqlite(Handle::pooled(pools.readers.acquire().await?));
    let id: Result<i64> = conn.one("PRAGMA application_id", &[]).await;
    match id.map_err(|e| not_a_database(e, path))? {
        APPLICATION_ID => Ok(pools),
        _ => Err(KeystoreError::NotAKeystore { place: path.display().to_string() }),
    }
}

async fn connect(path: &Path) -> Result<Pools<Sqlite>> {
    let options = options(path);
    let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(Pools { readers, writer })
}

/// Marks the file as a keystore.
pub(crate) async fn mark(conn: &mut Conn) -> Result<()> {
    const { assert!(APPLICATION_ID == 1_114_991_724) };
    conn.script("PRAGMA application_id = 1114991724").await
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
            Err(KeystoreError::Exists { place: path.display().to_string() })
        }
        Err(source) => Err(KeystoreError::CannotWrite { path: path.into(), source }),
    }
}

/// SQLite gives its journal files the permissions of the database file, so this covers them.
fn check_file(path: &Path) -> Result<()> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(KeystoreError::Missing { place: path.display().to_string() });
        }
        Err(source) => return Err(KeystoreError::CannotWrite { path: path.into(), source }),
    };
    if !meta.is_file() {
        return Err(KeystoreError::NotAKeystore { place: path.display().to_string() });
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
        Some(26 | 11) => KeystoreError::NotAKeystore { place: path.display().to_string() },
        Some(14) => KeystoreError::ReadOnly,
        _ => error,
    }
}
