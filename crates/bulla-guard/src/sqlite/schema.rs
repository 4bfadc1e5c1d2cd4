//! The tables, forward and back, and what is checked before a file is trusted.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor, Row};

use crate::store::StoreError;

/// Marks a file as a claim store (`PRAGMA application_id`; "BLCL").
const APPLICATION_ID: i64 = 0x424c_434c;

/// The newest schema known here: the number of migrations.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

struct Migration {
    up: &'static str,
    down: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        up: "
        CREATE TABLE claim (
            n INTEGER PRIMARY KEY,
            key BLOB NOT NULL UNIQUE,
            sender INTEGER NOT NULL,
            digest BLOB NOT NULL,
            exp INTEGER NOT NULL,
            state INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
            worker INTEGER,
            attempt INTEGER,
            until_ms INTEGER,
            idempotent INTEGER,
            envelope BLOB,
            reply_digest BLOB,
            reply BLOB
        ) STRICT;
        CREATE INDEX claim_by_expiry ON claim (exp);
        CREATE INDEX claim_by_lease ON claim (until_ms) WHERE state = 0;
        CREATE TABLE sender (
            id INTEGER PRIMARY KEY,
            principal TEXT NOT NULL,
            incarnation INTEGER NOT NULL,
            ids INTEGER NOT NULL,
            UNIQUE (principal, incarnation)
        ) STRICT;
        CREATE TABLE ledger (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            purged_exp INTEGER NOT NULL,
            blind_until INTEGER,
            entries INTEGER NOT NULL,
            senders INTEGER NOT NULL,
            next_sender INTEGER NOT NULL,
            shared INTEGER NOT NULL,
            reply_bytes INTEGER NOT NULL,
            generation TEXT
        ) STRICT;
        INSERT INTO ledger VALUES (1, 0, NULL, 0, 0, 1, 0, 0, NULL);",
        down: "DROP TABLE ledger; DROP TABLE sender; DROP TABLE claim;",
    },
    // The name that it has in every store: `key` is a word of SQL elsewhere.
    Migration {
        up: "ALTER TABLE claim RENAME COLUMN key TO claim_key;",
        down: "ALTER TABLE claim RENAME COLUMN claim_key TO key;",
    },
];

/// Brings the file to [`VERSION`]; says whether it was empty before.
pub(super) async fn upgrade(conn: &mut SqliteConnection, path: &Path) -> Result<bool, StoreError> {
    let found = check(conn, path).await?;
    let failed = |error| super::io_error(path, &error);
    for (number, migration) in (1..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        tx.execute(migration.up).await.map_err(failed)?;
        set_version(&mut tx, number).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
    }
    Ok(found == 0)
}

/// Takes the file back to schema version `target`, forgetting what that version can't hold.
pub(super) async fn revert(
    conn: &mut SqliteConnection,
    path: &Path,
    target: i64,
) -> Result<(), StoreError> {
    let found = check(conn, path).await?;
    let failed = |error| super::io_error(path, &error);
    for (below, migration) in (0i64..).zip(MIGRATIONS).collect::<Vec<_>>().into_iter().rev() {
        if below < found && below >= target {
            let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            tx.execute(migration.down).await.map_err(failed)?;
            set_version(&mut tx, below).await.map_err(failed)?;
            tx.commit().await.map_err(failed)?;
        }
    }
    Ok(())
}

async fn set_version(conn: &mut SqliteConnection, version: i64) -> Result<(), sqlx::Error> {
    let application = if version == 0 { 0 } else { APPLICATION_ID };
    let sql = format!("PRAGMA user_version = {version}; PRAGMA application_id = {application}");
    conn.execute(sqlx::AssertSqlSafe(sql)).await.map(drop)
}

/// The schema version of a sound claim store; 0 for an empty file.
async fn check(conn: &mut SqliteConnection, path: &Path) -> Result<i64, StoreError> {
    let mut read = async |sql: &'static str| -> Result<String, StoreError> {
        let row = conn.fetch_one(sql).await.map_err(|error| super::io_error(path, &error))?;
        let text = row.try_get_unchecked::<String, _>(0);
        text.map_err(|error| super::io_error(path, &error))
    };
    let number = |text: String| text.parse::<i64>().unwrap_or(-1);
    let found = number(read("PRAGMA user_version").await?);
    let application = number(read("PRAGMA application_id").await?);
    let tables = number(read("SELECT count(*) FROM sqlite_schema").await?);
    let damaged =
        |why: &str| StoreError::Damaged { path: path.display().to_string(), why: why.into() };
    if found == 0 && application == 0 && tables == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(damaged("it is a SQLite file of another program"));
    }
    if found > VERSION {
        let path = path.display().to_string();
        return Err(StoreError::Newer { path, found, known: VERSION });
    }
    match read("PRAGMA quick_check(1)").await?.as_str() {
        "ok" => Ok(found),
        why => Err(damaged(why)),
    }
}
