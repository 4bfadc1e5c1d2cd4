//! The tables, and what is checked before a database is trusted.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Error, Executor, Row};

use super::io_error;
use crate::store::StoreError;

/// Keeps two hosts from making the tables at one time ("BLQU").
const LOCK: i64 = 0x424c_5155;
const VERSION: i64 = MIGRATIONS.len() as i64;

/// What `free_ms` says of a message: 0 anybody may have it; else from when on that is so, because
/// it is held back, or in somebody's hands (then `claim` says in whose).
///
/// `gone` holds queues that were removed, whose messages go bit by bit. `last_seq` of a queue is
/// locked by whoever posts, so that no message comes before one that somebody has read.
const MIGRATIONS: &[&str] = &["
    CREATE SEQUENCE queue_number;
    CREATE TABLE queue (
        project TEXT NOT NULL,
        name TEXT COLLATE \"C\" NOT NULL,
        n BIGINT NOT NULL DEFAULT nextval('queue_number'),
        last_seq BIGINT NOT NULL DEFAULT 0,
        metadata TEXT NOT NULL,
        max_claims BIGINT,
        dead TEXT,
        dead_ttl BIGINT,
        PRIMARY KEY (project, name)
    ) WITH (fillfactor = 50);
    CREATE TABLE message (
        queue BIGINT NOT NULL,
        seq BIGINT NOT NULL,
        tag BIGINT NOT NULL,
        client BYTEA NOT NULL,
        ttl BIGINT NOT NULL,
        created_ms BIGINT NOT NULL,
        expires_ms BIGINT NOT NULL,
        free_ms BIGINT NOT NULL,
        claim BIGINT,
        claim_tag BIGINT,
        claims BIGINT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (queue, seq, tag)
    );
    CREATE INDEX message_free ON message (queue, seq) WHERE free_ms = 0;
    CREATE INDEX message_busy ON message (queue, free_ms) WHERE free_ms > 0;
    CREATE INDEX message_tried ON message (queue) WHERE claims > 0;
    CREATE INDEX message_by_end ON message (expires_ms);
    CREATE TABLE claim (
        queue BIGINT NOT NULL,
        seq BIGINT NOT NULL,
        tag BIGINT NOT NULL,
        ttl BIGINT NOT NULL,
        created_ms BIGINT NOT NULL,
        until_ms BIGINT NOT NULL,
        messages BIGINT[] NOT NULL,
        PRIMARY KEY (queue, seq, tag)
    );
    CREATE INDEX claim_by_end ON claim (until_ms);
    CREATE TABLE gone (queue BIGINT PRIMARY KEY);
    CREATE TABLE record (
        kind TEXT NOT NULL,
        owner TEXT NOT NULL,
        name TEXT COLLATE \"C\" NOT NULL,
        value TEXT NOT NULL,
        until_ms BIGINT NOT NULL,
        PRIMARY KEY (kind, owner, name)
    );
    CREATE INDEX record_by_end ON record (until_ms);"];

/// Whether this server may be used.
pub(super) async fn examine(conn: &mut PgConnection, at: &str) -> Result<(), StoreError> {
    let failed = |error: Error| io_error(at, &error);
    let unfit = |why: &str| StoreError::Unfit { at: at.to_owned(), why: why.to_owned() };
    let asked = "SELECT current_setting('fsync') AS fsync, pg_is_in_recovery() AS standby";
    let row = conn.fetch_one(asked).await.map_err(failed)?;
    if row.try_get::<&str, _>("fsync").map_err(failed)? != "on" {
        return Err(unfit("its fsync is off, so it may lose messages; set `fsync = on`"));
    }
    if row.try_get::<bool, _>("standby").map_err(failed)? {
        return Err(unfit("it is a standby; give the primary's address"));
    }
    Ok(())
}

/// Brings the tables to [`VERSION`].
pub(super) async fn upgrade(conn: &mut PgConnection, at: &str) -> Result<(), StoreError> {
    let failed = |error: Error| io_error(at, &error);
    let there = "SELECT to_regclass('bulla_queue.schema') IS NOT NULL";
    let there: bool = conn.fetch_one(there).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    if there && version(conn, at).await? == VERSION {
        // Nothing to do, for which no right to make tables is needed.
        return Ok(());
    }
    let mut tx = conn.begin().await.map_err(failed)?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK);
    lock.execute(&mut *tx).await.map_err(failed)?;
    tx.execute(
        "CREATE SCHEMA IF NOT EXISTS bulla_queue;
         CREATE TABLE IF NOT EXISTS bulla_queue.schema (version BIGINT NOT NULL)",
    )
    .await
    .map_err(failed)?;
    let found = version(&mut tx, at).await?;
    for up in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.execute(*up).await.map_err(failed)?;
    }
    tx.execute("DELETE FROM schema").await.map_err(failed)?;
    let set = sqlx::query("INSERT INTO schema VALUES ($1)").bind(VERSION);
    set.execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)
}

async fn version(conn: &mut PgConnection, at: &str) -> Result<i64, StoreError> {
    let failed = |error: Error| io_error(at, &error);
    let row = conn.fetch_optional("SELECT version FROM schema").await.map_err(failed)?;
    let found: i64 = row.map_or(Ok(0), |row| row.try_get(0)).map_err(failed)?;
    if found > VERSION {
        return Err(StoreError::Newer { at: at.to_owned(), found, known: VERSION });
    }
    Ok(found)
}
