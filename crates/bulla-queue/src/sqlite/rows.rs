//! Rows of messages and claims, as readers and the writer both need them.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Error, Row};

use crate::id::Id;
use crate::store::{Claim, Listed, Message, Millis};

/// What [`message`] reads.
pub(super) const COLUMNS: &str =
    "seq, tag, ttl, created_ms, free_ms, claim, claim_tag, claims, body";

pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}

/// `?, ?, ?`
pub(super) fn places(count: usize) -> String {
    vec!["?"; count].join(", ")
}

pub(super) fn message(row: &SqliteRow, now: Millis) -> Result<Message, Error> {
    let (seq, tag): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let (ttl, created): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
    let (free, claims): (i64, i64) = (row.try_get(4)?, row.try_get(7)?);
    let (claim, claim_tag): (Option<i64>, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
    let claim = claim.zip(claim_tag).filter(|_| unsigned(free) > now);
    Ok(Message {
        id: Id::from_parts(unsigned(seq), unsigned(tag)),
        body: row.try_get(8)?,
        ttl: u32::try_from(ttl).unwrap_or_default(),
        created: unsigned(created),
        claim: claim.map(|(seq, tag)| Id::from_parts(unsigned(seq), unsigned(tag))),
        claims: u32::try_from(claims).unwrap_or_default(),
    })
}

/// Those of these messages of a queue that are there.
pub(super) async fn get(
    conn: &mut SqliteConnection,
    queue: i64,
    ids: &[Id],
    now: Millis,
) -> Result<Listed, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM message WHERE seq IN ({}) AND queue = ? AND expires_ms > ? \
         ORDER BY seq",
        places(ids.len())
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for id in ids {
        query = query.bind(signed(id.seq()));
    }
    let rows = query.bind(queue).bind(signed(now)).fetch_all(conn).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let message = message(row, now)?;
        if ids.contains(&message.id) {
            found.push(message);
        }
    }
    Ok(found)
}

/// A claim of a queue that holds, and what it holds.
pub(super) async fn claimed(
    conn: &mut SqliteConnection,
    queue: i64,
    id: Id,
    now: Millis,
) -> Result<Option<Claim>, Error> {
    let query = sqlx::query(
        "SELECT ttl, created_ms, messages FROM claim \
         WHERE seq = ? AND tag = ? AND queue = ? AND until_ms > ?",
    );
    let query = query.bind(signed(id.seq())).bind(signed(id.tag())).bind(queue).bind(signed(now));
    let Some(row) = query.fetch_optional(&mut *conn).await? else { return Ok(None) };
    let (ttl, created): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let seqs = read_seqs(row.try_get(2)?);
    let sql = format!(
        "SELECT {COLUMNS} FROM message WHERE seq IN ({}) AND queue = ? AND expires_ms > ? \
         AND claim = ? AND claim_tag = ? ORDER BY seq",
        places(seqs.len())
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for seq in seqs {
        query = query.bind(seq);
    }
    let query = query.bind(queue).bind(signed(now));
    let query = query.bind(signed(id.seq())).bind(signed(id.tag()));
    let messages = query.fetch_all(conn).await?;
    let messages = messages.iter().map(|row| message(row, now)).collect::<Result<_, _>>()?;
    Ok(Some(Claim {
        id,
        ttl: u32::try_from(ttl).unwrap_or_default(),
        created: unsigned(created),
        messages,
    }))
}

/// The messages that a claim was made for, eight bytes each.
pub(super) fn write_seqs(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(|message| signed(message.id.seq()).to_le_bytes()).collect()
}

pub(super) fn read_seqs(bytes: Vec<u8>) -> Vec<i64> {
    bytes.as_chunks::<8>().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect()
}
