//! What is read beside the writer.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Error, Row};

use super::known;
use super::rows::{COLUMNS, message, signed, unsigned};
use crate::limits::Limits;
use crate::name::Place;
use crate::store::{Listed, Listing, Message, Metadata, Millis, Page, QueuePage, Stats};

pub(super) async fn queue(
    conn: &mut SqliteConnection,
    at: &Place,
) -> Result<Option<known::Row>, Error> {
    let query = sqlx::query("SELECT n, metadata FROM queue WHERE project = ? AND name = ?");
    let query = query.bind(at.project().to_owned()).bind(at.name().to_owned());
    let Some(row) = query.fetch_optional(conn).await? else { return Ok(None) };
    Ok(Some(known::Row::new(row.try_get(0)?, metadata(row.try_get(1)?)?)))
}

pub(super) fn metadata(text: &str) -> Result<Metadata, Error> {
    serde_json::from_str(text).map_err(|error| Error::Decode(error.into()))
}

/// Names are compared and metadata looked into here: a project's queues are few beside its messages,
/// and a filter is seldom asked for.
pub(super) async fn queues(
    conn: &mut SqliteConnection,
    project: &str,
    page: &QueuePage,
) -> Result<Vec<Listing>, Error> {
    let mut found: Vec<Listing> = Vec::new();
    let mut after = page.after.clone();
    let filtered = page.name.is_some() || !page.with.is_empty();
    let at_once = if filtered { 500 } else { page.limit };
    loop {
        let query = sqlx::query(
            "SELECT name, metadata FROM queue WHERE project = ? AND name > ? \
             ORDER BY name LIMIT ?",
        );
        let query = query.bind(project.to_owned()).bind(after.clone());
        let rows = query.bind(signed(at_once as u64)).fetch_all(&mut *conn).await?;
        for row in &rows {
            let (name, metadata): (String, Metadata) =
                (row.try_get(0)?, metadata(row.try_get(1)?)?);
            after.clone_from(&name);
            let listing = Listing { name, metadata };
            if page.admits(&listing) {
                found.push(listing);
            }
            if found.len() == page.limit {
                return Ok(found);
            }
        }
        if rows.len() < at_once {
            return Ok(found);
        }
    }
}

pub(super) async fn count_queues(conn: &mut SqliteConnection, project: &str) -> Result<u64, Error> {
    let query = sqlx::query("SELECT count(*) FROM queue WHERE project = ?");
    let row = query.bind(project.to_owned()).fetch_one(conn).await?;
    Ok(unsigned(row.try_get(0)?))
}

pub(super) async fn all_queues(
    conn: &mut SqliteConnection,
    after: Option<&Place>,
    limit: usize,
) -> Result<Vec<Place>, Error> {
    let query = sqlx::query(
        "SELECT project, name FROM queue WHERE (project, name) > (?, ?) \
         ORDER BY project, name LIMIT ?",
    );
    let (project, name) = after.map_or(("", ""), |at| (at.project(), at.name()));
    let query = query.bind(project.to_owned()).bind(name.to_owned());
    let rows = query.bind(signed(limit as u64)).fetch_all(conn).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let (project, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        found.extend(Place::new(project.into(), &name, &Limits::default()));
    }
    Ok(found)
}

/// The free ones are found in their order; those that others hold, or that are held back, are few, and
/// are put between them.
pub(super) async fn list(
    conn: &mut SqliteConnection,
    queue: i64,
    page: &Page,
    now: Millis,
) -> Result<Listed, Error> {
    const REST: &str =
        "AND seq > ?2 AND expires_ms > ?3 AND (?4 IS NULL OR client <> ?4) ORDER BY seq LIMIT ?5";
    let sql = format!(
        "SELECT * FROM (SELECT {COLUMNS} FROM message WHERE queue = ?1 AND free_ms = 0 {REST}) \
         UNION ALL \
         SELECT * FROM (SELECT {COLUMNS} FROM message WHERE queue = ?1 AND free_ms > 0 \
         AND (free_ms <= ?3 OR (claim IS NULL AND ?6) OR (claim IS NOT NULL AND ?7)) {REST}) \
         ORDER BY seq LIMIT ?5"
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(queue)
        .bind(signed(page.after))
        .bind(signed(now))
        .bind(page.not_by.map(|client| client.as_bytes().to_vec()))
        .bind(signed(page.limit as u64))
        .bind(page.delayed)
        .bind(page.claimed);
    query.fetch_all(conn).await?.iter().map(|row| message(row, now)).collect()
}

pub(super) async fn stats(
    conn: &mut SqliteConnection,
    queue: i64,
    now: Millis,
) -> Result<Stats, Error> {
    let query = sqlx::query(
        "SELECT count(*), coalesce(sum(free_ms > ?2), 0), min(seq), max(seq) FROM message \
         WHERE queue = ?1 AND expires_ms > ?2",
    );
    let row = query.bind(queue).bind(signed(now)).fetch_one(&mut *conn).await?;
    let (all, busy): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let (oldest, newest): (Option<i64>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
    Ok(Stats {
        busy: unsigned(busy),
        free: unsigned(all - busy),
        oldest: one(conn, oldest, now).await?,
        newest: one(conn, newest, now).await?,
    })
}

async fn one(
    conn: &mut SqliteConnection,
    seq: Option<i64>,
    now: Millis,
) -> Result<Option<Message>, Error> {
    let Some(seq) = seq else { return Ok(None) };
    let sql = format!("SELECT {COLUMNS} FROM message WHERE seq = ?");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(seq).fetch_optional(conn).await?;
    row.as_ref().map(|row| message(row, now)).transpose()
}

pub(super) async fn next_free(
    conn: &mut SqliteConnection,
    queue: i64,
    now: Millis,
) -> Result<Option<Millis>, Error> {
    let query = sqlx::query(
        "SELECT free_ms FROM message WHERE queue = ? AND free_ms > ? ORDER BY free_ms LIMIT 1",
    );
    let row = query.bind(queue).bind(signed(now)).fetch_optional(conn).await?;
    row.map(|row| row.try_get(0).map(unsigned)).transpose()
}
