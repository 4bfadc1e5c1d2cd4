//! Rows of `revoked_kids`, `lowest_epochs` and `statement`.

use super::{Conn, Taken, args, news};
use crate::error::Result;

/// Lists a kid, or lists it for longer.
pub(crate) async fn insert_kid(conn: &mut Conn, kid: &[u8], until: i64, now: i64) -> Result<()> {
    let insert = "INSERT INTO revoked_kids (kid, until, created) VALUES (?, ?, ?)";
    if !conn.insert_new(insert, args![kid, until, now], Taken::PrimaryKid).await? {
        let longer = "UPDATE revoked_kids SET until = ?1 WHERE kid = ?2 AND until < ?1";
        conn.execute(longer, args![until, kid]).await?;
    }
    news::tell(conn).await
}

/// Every kid that has to be listed at `now`, in order, with its end.
pub(crate) async fn kids(conn: &mut Conn, now: i64) -> Result<Vec<(Vec<u8>, i64)>> {
    let sql = "SELECT kid, until FROM revoked_kids WHERE until > ? ORDER BY kid";
    conn.all(sql, args![now]).await
}

/// Whether a kid was ever listed: what was revoked once gets nothing more.
pub(crate) async fn is_listed(conn: &mut Conn, kid: &[u8]) -> Result<bool> {
    let sql = "SELECT kid FROM revoked_kids WHERE kid = ?";
    let listed: Option<Vec<u8>> = conn.optional(sql, args![kid]).await?;
    Ok(listed.is_some())
}

pub(crate) struct LowestRow {
    pub(crate) principal: String,
    pub(crate) incarnation: u32,
    pub(crate) credential_epoch: u32,
    pub(crate) pair_epoch: u32,
    pub(crate) until: i64,
}

/// Sets what is lowest of a principal; the caller has made sure that nothing falls.
pub(crate) async fn set_lowest(conn: &mut Conn, row: &LowestRow, now: i64) -> Result<()> {
    let before = "DELETE FROM lowest_epochs WHERE principal = ?";
    conn.execute(before, args![&row.principal]).await?;
    let sql = "INSERT INTO lowest_epochs
                   (principal, incarnation, credential_epoch, pair_epoch, until, created)
               VALUES (?, ?, ?, ?, ?, ?)";
    let (incarnation, until) = (row.incarnation, row.until);
    let (credential, pair) = (row.credential_epoch, row.pair_epoch);
    conn.execute(sql, args![&row.principal, incarnation, credential, pair, until, now]).await?;
    news::tell(conn).await
}

/// What is lowest of every principal that has to be listed at `now`, in the order of their names.
pub(crate) async fn lowest(conn: &mut Conn, now: i64) -> Result<Vec<LowestRow>> {
    let sql = "SELECT principal, incarnation, credential_epoch, pair_epoch, until
               FROM lowest_epochs WHERE until > ? ORDER BY principal";
    let rows: Vec<(String, u32, u32, u32, i64)> = conn.all(sql, args![now]).await?;
    let row = |(principal, incarnation, credential_epoch, pair_epoch, until)| LowestRow {
        principal,
        incarnation,
        credential_epoch,
        pair_epoch,
        until,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The newest statement.
pub(crate) async fn statement(conn: &mut Conn) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT bytes FROM statement WHERE id = 1";
    conn.optional(sql, &[]).await
}

/// The epoch of the newest statement, which nothing else may lower; 0 before the first.
pub(crate) async fn epoch(conn: &mut Conn) -> Result<u64> {
    let sql = "SELECT coalesce(max(epoch), 0) FROM statement";
    let epoch: i64 = conn.one(sql, &[]).await?;
    Ok(epoch.unsigned_abs())
}

pub(crate) async fn set_statement(
    conn: &mut Conn,
    epoch: i64,
    issued_at: i64,
    bytes: &[u8],
) -> Result<()> {
    conn.execute("DELETE FROM statement WHERE id = 1", &[]).await?;
    let sql = "INSERT INTO statement (id, epoch, issued_at, bytes) VALUES (1, ?, ?, ?)";
    conn.execute(sql, args![epoch, issued_at, bytes]).await?;
    Ok(())
}

/// The kids of a principal's credentials with their ends.
pub(crate) async fn credentials_of(
    conn: &mut Conn,
    principal_id: i64,
) -> Result<Vec<(Vec<u8>, i64)>> {
    let sql = "SELECT kid, not_after FROM credentials WHERE principal_id = ?";
    conn.all(sql, args![principal_id]).await
}

/// The kids of a principal's pair keys.
pub(crate) async fn pairs_of(conn: &mut Conn, principal_id: i64) -> Result<Vec<Vec<u8>>> {
    let sql = "SELECT kid FROM pair_keys WHERE agent_id = ?1 OR component_id = ?1";
    conn.all(sql, args![principal_id]).await
}

/// The end of the credential that a kid names; `None` within for a pair key, which has none.
pub(crate) async fn end_of_kid(conn: &mut Conn, kid: &[u8]) -> Result<Option<Option<i64>>> {
    let sql = "SELECT not_after FROM credentials WHERE kid = ?1
               UNION ALL SELECT NULL FROM pair_keys WHERE kid = ?1";
    conn.optional(sql, args![kid]).await
}
