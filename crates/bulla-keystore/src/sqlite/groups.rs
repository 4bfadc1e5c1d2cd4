//! Rows of `member_groups`, `group_members` and `group_keys`.

use sqlx::sqlite::SqliteConnection;

use crate::error::Result;

/// Row id and current epoch of a group.
pub(crate) type GroupRow = (i64, u32);

pub(crate) async fn find(conn: &mut SqliteConnection, name: &str) -> Result<Option<GroupRow>> {
    let sql = "SELECT id, epoch FROM member_groups WHERE name = ?";
    Ok(sqlx::query_as(sql).bind(name).fetch_optional(conn).await?)
}

/// A new group of epoch 1, without a key yet.
pub(crate) async fn insert(conn: &mut SqliteConnection, name: &str, now: i64) -> Result<i64> {
    let sql = "INSERT INTO member_groups (name, epoch, created, updated)
               VALUES (?1, 1, ?2, ?2) RETURNING id";
    Ok(sqlx::query_scalar(sql).bind(name).bind(now).fetch_one(conn).await?)
}

pub(crate) async fn set_epoch(
    conn: &mut SqliteConnection,
    id: i64,
    epoch: u32,
    now: i64,
) -> Result<()> {
    let sql = "UPDATE member_groups SET epoch = ?, updated = ? WHERE id = ?";
    sqlx::query(sql).bind(epoch).bind(now).bind(id).execute(conn).await?;
    Ok(())
}

pub(crate) async fn insert_key(
    conn: &mut SqliteConnection,
    id: i64,
    epoch: u32,
    encrypted_key: &[u8],
    now: i64,
) -> Result<()> {
    let sql = "INSERT INTO group_keys (group_id, epoch, encrypted_key, created)
               VALUES (?, ?, ?, ?)";
    sqlx::query(sql).bind(id).bind(epoch).bind(encrypted_key).bind(now).execute(conn).await?;
    Ok(())
}

pub(crate) const KEY: &str = "SELECT k.epoch, k.encrypted_key FROM member_groups g
     JOIN group_keys k ON k.group_id = g.id AND k.epoch = coalesce(?2, g.epoch)
     WHERE g.name = ?1";

/// The key of an epoch, or of the current one.
pub(crate) async fn key(
    conn: &mut SqliteConnection,
    name: &str,
    epoch: Option<u32>,
) -> Result<Option<(u32, Vec<u8>)>> {
    Ok(sqlx::query_as(KEY).bind(name).bind(epoch).fetch_optional(conn).await?)
}

/// `false` if it was a member already.
pub(crate) async fn add(
    conn: &mut SqliteConnection,
    id: i64,
    principal_id: i64,
    now: i64,
) -> Result<bool> {
    let sql = "INSERT INTO group_members (group_id, principal_id, created)
               VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
    let done = sqlx::query(sql).bind(id).bind(principal_id).bind(now).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// Makes every living agent a member.
pub(crate) async fn add_every_agent(conn: &mut SqliteConnection, id: i64, now: i64) -> Result<()> {
    let sql = "INSERT INTO group_members (group_id, principal_id, created)
               SELECT ?, id, ? FROM principals WHERE kind = 'agent' AND state = 'active'
               ON CONFLICT DO NOTHING";
    sqlx::query(sql).bind(id).bind(now).execute(conn).await?;
    Ok(())
}

/// `false` if it was no member.
pub(crate) async fn remove(
    conn: &mut SqliteConnection,
    id: i64,
    principal_id: i64,
) -> Result<bool> {
    let sql = "DELETE FROM group_members WHERE group_id = ? AND principal_id = ?";
    let done = sqlx::query(sql).bind(id).bind(principal_id).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) const OF: &str = "SELECT g.id, g.name, g.epoch FROM principals p
     JOIN group_members m ON m.principal_id = p.id
     JOIN member_groups g ON g.id = m.group_id
     WHERE p.kind = ?1 AND p.name = ?2 AND p.state = 'active' ORDER BY g.name";

/// The groups of a living principal: row id, name, current epoch.
pub(crate) async fn of(
    conn: &mut SqliteConnection,
    kind: &str,
    name: &str,
) -> Result<Vec<(i64, String, u32)>> {
    Ok(sqlx::query_as(OF).bind(kind).bind(name).fetch_all(conn).await?)
}

/// Every group: name, current epoch, how many members, when made.
pub(crate) async fn list(conn: &mut SqliteConnection) -> Result<Vec<(String, u32, i64, i64)>> {
    let sql = "SELECT g.name, g.epoch,
                   (SELECT count(*) FROM group_members m WHERE m.group_id = g.id), g.created
               FROM member_groups g ORDER BY g.name";
    Ok(sqlx::query_as(sql).fetch_all(conn).await?)
}

/// The living members of a group, kind and name, in order.
pub(crate) async fn members(conn: &mut SqliteConnection, id: i64) -> Result<Vec<(String, String)>> {
    let sql = "SELECT p.kind, p.name FROM group_members m
               JOIN principals p ON p.id = m.principal_id AND p.state = 'active'
               WHERE m.group_id = ? ORDER BY p.kind, p.name";
    Ok(sqlx::query_as(sql).bind(id).fetch_all(conn).await?)
}

/// Every group whose epoch rose since it was made, in the order of their names: of others there is
/// nothing lower.
pub(crate) async fn raised(conn: &mut SqliteConnection) -> Result<Vec<(String, u32)>> {
    let sql = "SELECT name, epoch FROM member_groups WHERE epoch > 1 ORDER BY name";
    Ok(sqlx::query_as(sql).fetch_all(conn).await?)
}
