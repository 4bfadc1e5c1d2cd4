//! Records.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Error, Row};

use super::rows::{signed, unsigned};
use crate::record::{Before, Record, RecordKind};
use crate::store::Millis;

type Of<'a> = (RecordKind, &'a str, &'a str);

fn record(kind: RecordKind, owner: &str, row: &SqliteRow) -> Result<Record, Error> {
    let until: i64 = row.try_get(2)?;
    let owner = owner.to_owned();
    Ok(Record {
        kind,
        owner,
        name: row.try_get(0)?,
        value: row.try_get(1)?,
        until: unsigned(until),
    })
}

pub(super) async fn one(
    conn: &mut SqliteConnection,
    (kind, owner, name): Of<'_>,
    now: Millis,
) -> Result<Option<Record>, Error> {
    let query = sqlx::query(
        "SELECT name, value, until_ms FROM record \
         WHERE kind = ? AND owner = ? AND name = ? AND until_ms > ?",
    );
    let query = query.bind(kind.text()).bind(owner.to_owned()).bind(name.to_owned());
    let row = query.bind(signed(now)).fetch_optional(conn).await?;
    row.as_ref().map(|row| record(kind, owner, row)).transpose()
}

pub(super) async fn some(
    conn: &mut SqliteConnection,
    (kind, owner): (RecordKind, &str),
    (after, limit): (&str, usize),
    now: Millis,
) -> Result<Vec<Record>, Error> {
    let query = sqlx::query(
        "SELECT name, value, until_ms FROM record \
         WHERE kind = ? AND owner = ? AND name > ? AND until_ms > ? ORDER BY name LIMIT ?",
    );
    let query = query.bind(kind.text()).bind(owner.to_owned()).bind(after.to_owned());
    let query = query.bind(signed(now)).bind(signed(limit as u64));
    query.fetch_all(conn).await?.iter().map(|row| record(kind, owner, row)).collect()
}

/// In the writer's transaction.
pub(super) async fn keep(
    conn: &mut SqliteConnection,
    record: Record,
    before: &Before,
    now: Millis,
) -> Result<Option<Record>, Error> {
    let there = one(conn, (record.kind, &record.owner, &record.name), now).await?;
    if before.is(there.as_ref()) {
        let query = sqlx::query(
            "INSERT INTO record (kind, owner, name, value, until_ms) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET value = excluded.value, until_ms = excluded.until_ms",
        );
        let query = query.bind(record.kind.text()).bind(record.owner).bind(record.name);
        query.bind(record.value).bind(signed(record.until)).execute(conn).await?;
    }
    Ok(there)
}

/// In the writer's transaction.
pub(super) async fn forget(
    conn: &mut SqliteConnection,
    (kind, owner, name): (RecordKind, &str, Option<&str>),
) -> Result<(), Error> {
    let query = sqlx::query(
        "DELETE FROM record WHERE kind = ?1 AND owner = ?2 AND (?3 IS NULL OR name = ?3)",
    );
    let query = query.bind(kind.text()).bind(owner.to_owned()).bind(name.map(str::to_owned));
    query.execute(conn).await.map(drop)
}
