//! Rows of `recalls`, and what a recall looks at and changes in other tables.

use super::{Conn, args, news};
use crate::error::Result;

/// What new incarnations and epochs have to be above.
pub(crate) async fn base(conn: &mut Conn) -> Result<u32> {
    conn.one("SELECT coalesce(max(base), 0) FROM recalls", &[]).await
}

pub(crate) async fn insert(conn: &mut Conn, base: u32, epoch: i64, now: i64) -> Result<()> {
    let sql = "INSERT INTO recalls (base, epoch, created) VALUES (?, ?, ?)";
    conn.execute(sql, args![base, epoch, now]).await?;
    news::tell(conn).await
}

/// Epoch and time of the newest one.
pub(crate) async fn newest(conn: &mut Conn) -> Result<Option<(i64, i64)>> {
    let sql = "SELECT epoch, created FROM recalls ORDER BY base DESC LIMIT 1";
    conn.optional(sql, &[]).await
}

/// The names of all living component types.
pub(crate) async fn components(conn: &mut Conn) -> Result<Vec<String>> {
    let sql = "SELECT name FROM principals WHERE kind = 'component' AND state = 'active'
               ORDER BY name";
    conn.all(sql, &[]).await
}

/// Raises a component type's pair epoch; `false` if it is as high already.
pub(crate) async fn raise_pair_epoch(
    conn: &mut Conn,
    principal_id: i64,
    epoch: u32,
    now: i64,
) -> Result<bool> {
    let sql = "UPDATE principals SET pair_epoch = ?1, updated = ?2
               WHERE id = ?3 AND pair_epoch < ?1";
    Ok(conn.execute(sql, args![epoch, now, principal_id]).await? == 1)
}

/// Deletes every token that nobody has used as far as this database knows.
pub(crate) async fn delete_open_tokens(conn: &mut Conn) -> Result<u64> {
    conn.execute("DELETE FROM join_tokens WHERE state = 'open'", &[]).await
}
