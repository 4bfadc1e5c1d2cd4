//! Rows of `credentials` and `audience_keys`.

use super::{Conn, Taken, args};
use crate::error::Result;

pub(crate) struct CredentialRow<'a> {
    pub(crate) kid: &'a [u8],
    pub(crate) principal_id: i64,
    pub(crate) purpose: &'a str,
    pub(crate) instance: Option<&'a str>,
    pub(crate) epoch: u32,
    pub(crate) bytes: &'a [u8],
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// `false` if the kid was taken.
pub(crate) async fn insert(conn: &mut Conn, row: &CredentialRow<'_>, now: i64) -> Result<bool> {
    let sql = "INSERT INTO credentials (kid, principal_id, purpose, instance, epoch, bytes,
                   not_before, not_after, created)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = args![
        row.kid,
        row.principal_id,
        row.purpose,
        row.instance,
        row.epoch,
        row.bytes,
        row.not_before,
        row.not_after,
        now,
    ];
    conn.insert_new(sql, values, Taken::PrimaryKid).await
}

pub(crate) const CURRENT: &str = "SELECT p.incarnation, c.bytes FROM principals p
     JOIN credentials c ON c.principal_id = p.id AND c.purpose = ?3
         AND c.not_before <= ?4 AND c.not_after > ?4
     WHERE p.kind = ?1 AND p.name = ?2 AND p.state = 'active'
     ORDER BY c.epoch DESC, c.not_after DESC LIMIT 1";

/// The credential of the highest epoch that is valid `now`, with its holder's incarnation.
pub(crate) async fn current(
    conn: &mut Conn,
    kind: &str,
    name: &str,
    purpose: &str,
    now: i64,
) -> Result<Option<(u32, Vec<u8>)>> {
    conn.optional(CURRENT, args![kind, name, purpose, now]).await
}

pub(crate) struct AudienceRow {
    pub(crate) incarnation: u32,
    pub(crate) epoch: u32,
    pub(crate) suite: u32,
    pub(crate) encrypted_key: Vec<u8>,
    pub(crate) credential: Vec<u8>,
}

pub(crate) async fn insert_audience_key(
    conn: &mut Conn,
    kid: &[u8],
    principal_id: i64,
    row: &AudienceRow,
    now: i64,
) -> Result<()> {
    let sql = "INSERT INTO audience_keys
                   (kid, principal_id, epoch, suite, encrypted_key, created)
               VALUES (?, ?, ?, ?, ?, ?)";
    let values = args![kid, principal_id, row.epoch, row.suite, &row.encrypted_key, now];
    conn.execute(sql, values).await?;
    Ok(())
}
