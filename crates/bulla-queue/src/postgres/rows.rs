//! Rows of messages.

use sqlx::postgres::PgRow;
use sqlx::{Error, Row};

use crate::id::Id;
use crate::store::Message;

pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}

pub(super) fn small(n: i64) -> u32 {
    u32::try_from(n).unwrap_or_default()
}

pub(super) fn message(row: &PgRow) -> Result<Message, Error> {
    let (seq, tag): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let (ttl, created): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
    let (held, claims): (bool, i64) = (row.try_get(4)?, row.try_get(7)?);
    let (claim, claim_tag): (Option<i64>, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
    let claim = claim.zip(claim_tag).filter(|_| held);
    Ok(Message {
        id: Id::from_parts(unsigned(seq), unsigned(tag)),
        body: row.try_get(8)?,
        ttl: small(ttl),
        created: unsigned(created),
        claim: claim.map(|(seq, tag)| Id::from_parts(unsigned(seq), unsigned(tag))),
        claims: small(claims),
    })
}

pub(super) fn messages(rows: &[PgRow]) -> Result<Vec<Message>, Error> {
    rows.iter().map(message).collect()
}
