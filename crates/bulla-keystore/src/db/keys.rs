//! Rows of `instance_keys`.

use super::{Conn, Taken, args};
use crate::error::Result;

pub(crate) struct InstanceKeyRow<'a> {
    pub(crate) id: &'a str,
    pub(crate) instance_id: &'a str,
    pub(crate) encrypted_key: &'a str,
    pub(crate) incarnation: u32,
    pub(crate) epoch: u32,
    pub(crate) kid: &'a [u8],
    pub(crate) principal_id: i64,
}

/// Stores a shared key in place of a removed namesake's tombstone; `false` if the kid was taken.
pub(crate) async fn insert(conn: &mut Conn, row: &InstanceKeyRow<'_>, now: i64) -> Result<bool> {
    let tombstone = "DELETE FROM instance_keys WHERE instance_id = ? AND deleted = 1";
    conn.execute(tombstone, args![row.instance_id]).await?;
    let sql = "INSERT INTO instance_keys (id, instance_id, encrypted_key, created, updated,
                   deleted, incarnation, epoch, kid, principal_id)
               VALUES (?1, ?2, ?3, ?4, ?4, 0, ?5, ?6, ?7, ?8)";
    let values = args![
        row.id,
        row.instance_id,
        row.encrypted_key,
        now,
        row.incarnation,
        row.epoch,
        row.kid,
        row.principal_id,
    ];
    conn.insert_new(sql, values, Taken::Kid).await
}

/// Epoch of an agent's shared key, and when it was made.
pub(crate) async fn of(conn: &mut Conn, principal_id: i64) -> Result<Option<(u32, i64)>> {
    let sql = "SELECT epoch, created FROM instance_keys WHERE principal_id = ? AND deleted = 0";
    conn.optional(sql, args![principal_id]).await
}

/// An agent's shared key as it is stored, and its epoch.
pub(crate) async fn wrapped(conn: &mut Conn, principal_id: i64) -> Result<Option<(String, u32)>> {
    let sql =
        "SELECT encrypted_key, epoch FROM instance_keys WHERE principal_id = ? AND deleted = 0";
    conn.optional(sql, args![principal_id]).await
}

/// Wipes a removed agent's key and leaves the tombstone.
pub(crate) async fn delete(conn: &mut Conn, principal_id: i64, now: i64) -> Result<()> {
    let sql = "UPDATE instance_keys
               SET encrypted_key = '', updated = ?1, deleted = 1, deleted_at = ?1
               WHERE principal_id = ?2";
    conn.execute(sql, args![now, principal_id]).await?;
    Ok(())
}
