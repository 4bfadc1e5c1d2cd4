//! Rows that rotating and revoking a component type's keys reads and changes.

use super::credentials::AudienceRow;
use super::{Conn, args};
use crate::error::Result;

/// The kids of one host's signing credentials, with their ends.
pub(crate) async fn signing_of(
    conn: &mut Conn,
    principal_id: i64,
    instance: &str,
) -> Result<Vec<(Vec<u8>, i64)>> {
    let sql = "SELECT kid, not_after FROM credentials
               WHERE principal_id = ? AND purpose = 'signing' AND instance = ?";
    conn.all(sql, args![principal_id, instance]).await
}

/// The kids of a type's audience credentials, with their ends.
pub(crate) async fn audiences_of(
    conn: &mut Conn,
    principal_id: i64,
) -> Result<Vec<(Vec<u8>, i64)>> {
    let sql = "SELECT kid, not_after FROM credentials
               WHERE principal_id = ? AND purpose = 'audience'";
    conn.all(sql, args![principal_id]).await
}

pub(crate) const RECEIVE: &str =
    "SELECT p.incarnation, k.epoch, k.suite, k.encrypted_key, c.bytes FROM principals p
     JOIN credentials c ON c.principal_id = p.id AND c.purpose = 'audience'
         AND c.not_after > ?2
     JOIN audience_keys k ON k.kid = c.kid
     LEFT JOIN revoked_kids r ON r.kid = c.kid
     WHERE p.kind = 'component' AND p.name = ?1 AND p.state = 'active' AND r.kid IS NULL
     ORDER BY c.epoch DESC";

type Columns = (u32, u32, u32, Vec<u8>, Vec<u8>);

/// Every KEM key of a component type that may be sealed to now or soon, newest first.
pub(crate) async fn receive(
    conn: &mut Conn,
    component: &str,
    now: i64,
) -> Result<Vec<AudienceRow>> {
    receive_by(conn, RECEIVE, component, now).await
}

/// The same by another text.
pub(crate) async fn receive_by(
    conn: &mut Conn,
    sql: &str,
    component: &str,
    now: i64,
) -> Result<Vec<AudienceRow>> {
    let rows: Vec<Columns> = conn.all(sql, args![component, now]).await?;
    let row = |(incarnation, epoch, suite, encrypted_key, credential)| AudienceRow {
        incarnation,
        epoch,
        suite,
        encrypted_key,
        credential,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Begins a component type's next pair epoch, and gives it.
pub(crate) async fn next_pair_epoch(conn: &mut Conn, principal_id: i64, now: i64) -> Result<u32> {
    let sql = "UPDATE principals SET pair_epoch = pair_epoch + 1, updated = ? WHERE id = ?";
    conn.execute(sql, args![now, principal_id]).await?;
    let sql = "SELECT pair_epoch FROM principals WHERE id = ?";
    conn.one(sql, args![principal_id]).await
}
