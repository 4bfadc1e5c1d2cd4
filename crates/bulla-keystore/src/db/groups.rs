//! Rows of `member_groups`, `group_members` and `group_keys`.

use super::{Conn, Taken, args, listed, news};
use crate::error::Result;

/// Row id and current epoch of a group.
pub(crate) type GroupRow = (i64, u32);

pub(crate) async fn find(conn: &mut Conn, name: &str) -> Result<Option<GroupRow>> {
    let sql = "SELECT id, epoch FROM member_groups WHERE name = ?";
    conn.optional(sql, args![name]).await
}

/// A new group, without a key yet.
pub(crate) async fn insert(conn: &mut Conn, name: &str, epoch: u32, now: i64) -> Result<i64> {
    let sql = "INSERT INTO member_groups (name, epoch, created, updated)
               VALUES (?1, ?2, ?3, ?3) RETURNING id";
    conn.one(sql, args![name, epoch, now]).await
}

pub(crate) async fn set_epoch(conn: &mut Conn, id: i64, epoch: u32, now: i64) -> Result<()> {
    let sql = "UPDATE member_groups SET epoch = ?, updated = ? WHERE id = ?";
    conn.execute(sql, args![epoch, now, id]).await?;
    news::tell(conn).await
}

pub(crate) async fn insert_key(
    conn: &mut Conn,
    id: i64,
    epoch: u32,
    encrypted_key: &[u8],
    now: i64,
) -> Result<()> {
    let sql = "INSERT INTO group_keys (group_id, epoch, encrypted_key, created)
               VALUES (?, ?, ?, ?)";
    conn.execute(sql, args![id, epoch, encrypted_key, now]).await?;
    Ok(())
}

pub(crate) const KEY: &str = "SELECT k.epoch, k.encrypted_key FROM member_groups g
     JOIN group_keys k ON k.group_id = g.id AND k.epoch = coalesce(?2, g.epoch)
     WHERE g.name = ?1";

/// The key of an epoch, or of the current one.
pub(crate) async fn key(
    conn: &mut Conn,
    name: &str,
    epoch: Option<u32>,
) -> Result<Option<(u32, Vec<u8>)>> {
    conn.optional(KEY, args![name, epoch]).await
}

/// `false` if it was a member already.
pub(crate) async fn add(conn: &mut Conn, id: i64, principal_id: i64, now: i64) -> Result<bool> {
    let sql = "INSERT INTO group_members (group_id, principal_id, created)
               VALUES (?, ?, ?)";
    conn.insert_new(sql, args![id, principal_id, now], Taken::Any).await
}

/// Makes principals members that were made just now.
pub(crate) async fn add_new(conn: &mut Conn, id: i64, principals: &[i64], now: i64) -> Result<()> {
    let sql = format!(
        "INSERT INTO group_members (group_id, principal_id, created) VALUES {}",
        listed("(?, ?, ?)", principals.len())
    );
    let mut values = Vec::with_capacity(3 * principals.len());
    for principal in principals {
        values.extend(args![id, *principal, now]);
    }
    conn.execute(&sql, &values).await?;
    Ok(())
}

/// Makes every living agent a member.
pub(crate) async fn add_every_agent(conn: &mut Conn, id: i64, now: i64) -> Result<()> {
    let sql = "INSERT INTO group_members (group_id, principal_id, created)
               SELECT ?1, p.id, ?2 FROM principals p
               WHERE p.kind = 'agent' AND p.state = 'active' AND NOT EXISTS
                   (SELECT 1 FROM group_members m WHERE m.group_id = ?1 AND m.principal_id = p.id)";
    conn.execute(sql, args![id, now]).await?;
    Ok(())
}

/// `false` if it was no member.
pub(crate) async fn remove(conn: &mut Conn, id: i64, principal_id: i64) -> Result<bool> {
    let sql = "DELETE FROM group_members WHERE group_id = ? AND principal_id = ?";
    Ok(conn.execute(sql, args![id, principal_id]).await? == 1)
}

pub(crate) const OF: &str = "SELECT g.id, g.name, g.epoch FROM principals p
     JOIN group_members m ON m.principal_id = p.id
     JOIN member_groups g ON g.id = m.group_id
     WHERE p.kind = ?1 AND p.name = ?2 AND p.state = 'active' ORDER BY g.name";

/// The groups of a living principal: row id, name, current epoch.
pub(crate) async fn of(conn: &mut Conn, kind: &str, name: &str) -> Result<Vec<(i64, String, u32)>> {
    conn.all(OF, args![kind, name]).await
}

/// Every group: name, current epoch, how many members, when made.
pub(crate) async fn list(conn: &mut Conn) -> Result<Vec<(String, u32, i64, i64)>> {
    let sql = "SELECT g.name, g.epoch,
                   (SELECT count(*) FROM group_members m WHERE m.group_id = g.id), g.created
               FROM member_groups g ORDER BY g.name";
    conn.all(sql, &[]).await
}

/// The living members of a group, kind and name, in order.
pub(crate) async fn members(conn: &mut Conn, id: i64) -> Result<Vec<(String, String)>> {
    let sql = "SELECT p.kind, p.name FROM group_members m
               JOIN principals p ON p.id = m.principal_id AND p.state = 'active'
               WHERE m.group_id = ? ORDER BY p.kind, p.name";
    conn.all(sql, args![id]).await
}

/// Every group whose epoch rose since it was made, in the order of their names: of others there is
/// nothing lower.
pub(crate) async fn raised(conn: &mut Conn) -> Result<Vec<(String, u32)>> {
    let sql = "SELECT name, epoch FROM member_groups WHERE epoch > 1 ORDER BY name";
    conn.all(sql, &[]).await
}
