//! Rows of `service_keys`: what services of the control plane's protect their stores with.

use super::{Conn, args};
use crate::error::Result;

/// A service's key: its epoch, and the key as wrapped.
pub(crate) async fn find(conn: &mut Conn, name: &str) -> Result<Option<(u32, Vec<u8>)>> {
    let sql = "SELECT epoch, encrypted_key FROM service_keys WHERE name = ?";
    conn.optional(sql, args![name]).await
}

/// Stores a service's first key.
pub(crate) async fn insert(
    conn: &mut Conn,
    name: &str,
    (epoch, wrapped): (u32, &[u8]),
    now: i64,
) -> Result<()> {
    let sql = "INSERT INTO service_keys (name, epoch, encrypted_key, created) VALUES (?, ?, ?, ?)";
    conn.execute(sql, args![name, epoch, wrapped, now]).await?;
    Ok(())
}
