//! Rows of `instance_keys`.

use sqlx::sqlite::SqliteConnection;

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
pub(crate) async fn insert(
    conn: &mut SqliteConnection,
    row: &InstanceKeyRow<'_>,
    now: i64,
) -> Result<bool> {
    sqlx::query("DELETE FROM instance_keys WHERE instance_id = ? AND deleted = 1")
        .bind(row.instance_id)
        .execute(&mut *conn)
        .await?;
    let sql = "INSERT INTO instance_keys (id, instance_id, encrypted_key, created, updated,
                   deleted, incarnation, epoch, kid, principal_id)
               VALUES (?1, ?2, ?3, ?4, ?4, 0, ?5, ?6, ?7, ?8) ON CONFLICT (kid) DO NOTHING";
    let done = sqlx::query(sql)
        .bind(row.id)
        .bind(row.instance_id)
        .bind(row.encrypted_key)
        .bind(now)
        .bind(row.incarnation)
        .bind(row.epoch)
        .bind(row.kid)
        .bind(row.principal_id)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Wipes a removed agent's key and leaves the tombstone.
pub(crate) async fn delete(conn: &mut SqliteConnection, principal_id: i64, now: i64) -> Result<()> {
    let sql = "UPDATE instance_keys
               SET encrypted_key = '', updated = ?1, deleted = 1, deleted_at = ?1
               WHERE principal_id = ?2";
    sqlx::query(sql).bind(now).bind(principal_id).execute(conn).await?;
    Ok(())
}
