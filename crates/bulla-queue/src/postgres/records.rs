//! Records.

use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::{Error, Executor, Postgres, Row};

use super::rows::{signed, unsigned};
use crate::record::{Record, RecordKind};

type Of<'a> = (RecordKind, &'a str, &'a str);

/// `now` is nothing for the server's clock.
pub(super) async fn one<'c>(
    conn: impl Executor<'c, Database = Postgres>,
    (kind, owner, name): Of<'_>,
    now: Option<i64>,
) -> Result<Option<Record>, Error> {
    let query = sqlx::query(
        "SELECT name, value, until_ms FROM record WHERE kind = $1 AND owner = $2 AND name = $3 \
         AND until_ms > coalesce($4::int8, (extract(epoch FROM statement_timestamp()) * 1000)::int8)",
    );
    let query = query.bind(kind.text()).bind(owner.to_owned()).bind(name.to_owned()).bind(now);
    let row = query.fetch_optional(conn).await?;
    row.map(|row| read(kind, owner, &row)).transpose()
}

pub(super) async fn some(
    pool: &PgPool,
    (kind, owner): (RecordKind, &str),
    (after, limit): (&str, usize),
    now: Option<i64>,
) -> Result<Vec<Record>, Error> {
    let query = sqlx::query(
        "SELECT name, value, until_ms FROM record WHERE kind = $1 AND owner = $2 AND name > $3 \
         AND until_ms > coalesce($4::int8, (extract(epoch FROM statement_timestamp()) * 1000)::int8) \
         ORDER BY name LIMIT $5",
    );
    let query = query.bind(kind.text()).bind(owner.to_owned()).bind(after.to_owned());
    let rows = query.bind(now).bind(signed(limit as u64)).fetch_all(pool).await?;
    rows.iter().map(|row| read(kind, owner, row)).collect()
}

/// What is there of this record, which until the end of the transaction nobody else changes.
pub(super) async fn locked(
    conn: &mut PgConnection,
    of: &Record,
    now: Option<i64>,
) -> Result<Option<Record>, Error> {
    // One after the other, also where there is nothing yet that could be locked.
    let name = format!("{}\n{}\n{}", of.kind.text(), of.owner, of.name);
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    sqlx::query(lock).bind(name).execute(&mut *conn).await?;
    one(conn, (of.kind, &of.owner, &of.name), now).await
}

/// In the place of what is there.
pub(super) async fn put(conn: &mut PgConnection, record: Record) -> Result<(), Error> {
    let query = sqlx::query(
        "INSERT INTO record (kind, owner, name, value, until_ms) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (kind, owner, name) \
         DO UPDATE SET value = excluded.value, until_ms = excluded.until_ms",
    );
    let query = query.bind(record.kind.text()).bind(record.owner).bind(record.name);
    query.bind(record.value).bind(signed(record.until)).execute(conn).await.map(drop)
}

fn read(kind: RecordKind, owner: &str, row: &PgRow) -> Result<Record, Error> {
    let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let until = unsigned(row.try_get(2)?);
    Ok(Record { kind, owner: owner.to_owned(), name, value, until })
}
