//! Rows of `legacy_keys`: keys of peers that do not seal yet.

use super::{Conn, args};
use crate::error::Result;

/// An instance's key: its epoch, and the key as wrapped.
pub(crate) async fn find(conn: &mut Conn, name: &str) -> Result<Option<(u32, Vec<u8>)>> {
    let sql = "SELECT epoch, encrypted_key FROM legacy_keys WHERE name = ?";
    conn.optional(sql, args![name]).await
}

/// Stores the first key of an instance.
pub(crate) async fn insert(conn: &mut Conn, name: &str, wrapped: &[u8], now: i64) -> Result<()> {
    let sql = "INSERT INTO legacy_keys (name, epoch, encrypted_key, created, updated)
               VALUES (?, 1, ?, ?, ?)";
    conn.execute(sql, args![name, wrapped, now, now]).await?;
    Ok(())
}

/// Stores another key in the place of the one before.
pub(crate) async fn set(
    conn: &mut Conn,
    name: &str,
    (epoch, wrapped): (u32, &[u8]),
    now: i64,
) -> Result<()> {
    let sql = "UPDATE legacy_keys SET epoch = ?, encrypted_key = ?, updated = ? WHERE name = ?";
    conn.execute(sql, args![epoch, wrapped, now, name]).await?;
    Ok(())
}

/// The keys of living agents: name, epoch, key as wrapped.
pub(crate) async fn of_the_living(conn: &mut Conn) -> Result<Vec<(String, u32, Vec<u8>)>> {
    let sql = "SELECT k.name, k.epoch, k.encrypted_key FROM legacy_keys k
               JOIN principals p ON p.kind = 'agent' AND p.name = k.name AND p.state = 'active'
               ORDER BY k.name";
    conn.all(sql, &[]).await
}

/// How many keys there are of instances that are no living agent.
pub(crate) async fn without_agent(conn: &mut Conn) -> Result<i64> {
    let sql = "SELECT count(*) FROM legacy_keys k WHERE NOT EXISTS (
                   SELECT 1 FROM principals p
                   WHERE p.kind = 'agent' AND p.name = k.name AND p.state = 'active')";
    conn.one(sql, &[]).await
}
