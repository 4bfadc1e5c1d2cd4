//! The tables, and what is checked before a file is trusted.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor, Row};

use crate::store::StoreError;

/// Marks a file as a queue store (`PRAGMA application_id`; "BLQU").
const APPLICATION_ID: i64 = 0x424c_5155;
const VERSION: i64 = MIGRATIONS.len() as i64;

/// What `free_ms` says of a message: 0 anybody may have it; else from when on that is so, because
/// it is held back, or in somebody's hands (then `claim` says in whose).
///
/// Rows are found by two indexes alone: a queue's in the order of its messages, the free ones first,
/// and those whose time is over. `gone` holds queues that were removed, whose messages go bit by bit.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE queue (
        n INTEGER PRIMARY KEY,
        project TEXT NOT NULL,
        name TEXT NOT NULL,
        metadata TEXT NOT NULL,
        UNIQUE (project, name)
    ) STRICT;
    CREATE TABLE message (
        seq INTEGER PRIMARY KEY,
        tag INTEGER NOT NULL,
        queue INTEGER NOT NULL,
        client BLOB NOT NULL,
        ttl INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        free_ms INTEGER NOT NULL,
        claim INTEGER,
        claim_tag INTEGER,
        claims INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX message_by_queue ON message (queue, free_ms, seq, expires_ms);
    CREATE INDEX message_by_end ON message (expires_ms);
    CREATE TABLE claim (
        seq INTEGER PRIMARY KEY,
        tag INTEGER NOT NULL,
        queue INTEGER NOT NULL,
        ttl INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        until_ms INTEGER NOT NULL,
        messages BLOB NOT NULL
    ) STRICT;
    CREATE INDEX claim_by_end ON claim (until_ms);
    CREATE TABLE gone (queue INTEGER PRIMARY KEY) STRICT;
    CREATE TABLE ledger (one INTEGER PRIMARY KEY CHECK (one = 1), next_seq INTEGER NOT NULL) STRICT;
    INSERT INTO ledger VALUES (1, 0);",
    "
    CREATE TABLE record (
        kind TEXT NOT NULL,
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        until_ms INTEGER NOT NULL,
        PRIMARY KEY (kind, owner, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX record_by_end ON record (until_ms);",
];

/// Brings the file to [`VERSION`].
pub(super) async fn upgrade(conn: &mut SqliteConnection, at: &str) -> Result<(), StoreError> {
    let found = check(conn, at).await?;
    let failed = |error: sqlx::Error| super::io_error(at, &error);
    for (number, up) in (1..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        tx.execute(*up).await.map_err(failed)?;
        let marks =
            format!("PRAGMA user_version = {number}; PRAGMA application_id = {APPLICATION_ID}");
        tx.execute(sqlx::AssertSqlSafe(marks)).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
    }
    Ok(())
}

/// The schema version of a sound store; 0 for an empty file.
async fn check(conn: &mut SqliteConnection, at: &str) -> Result<i64, StoreError> {
    let mut read = async |sql: &'static str| -> Result<String, StoreError> {
        let row = conn.fetch_one(sql).await.map_err(|error| super::io_error(at, &error))?;
        row.try_get_unchecked::<String, _>(0).map_err(|error| super::io_error(at, &error))
    };
    let number = |text: String| text.parse::<i64>().unwrap_or(-1);
    let found = number(read("PRAGMA user_version").await?);
    let application = number(read("PRAGMA application_id").await?);
    let tables = number(read("SELECT count(*) FROM sqlite_schema").await?);
    let foreign = |why: &str| StoreError::Foreign { at: at.to_owned(), why: why.into() };
    if found == 0 && application == 0 && tables == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(foreign("it is a SQLite file of another program"));
    }
    if found > VERSION {
        return Err(StoreError::Newer { at: at.to_owned(), found, known: VERSION });
    }
    match read("PRAGMA quick_check(1)").await?.as_str() {
        "ok" => Ok(found),
        why => Err(foreign(why)),
    }
}
