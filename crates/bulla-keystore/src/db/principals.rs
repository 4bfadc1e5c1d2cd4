//! Rows of `principals`.

use super::{Arg, Conn, args, listed};
use crate::error::Result;

pub(crate) struct PrincipalRow {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) incarnation: u32,
    pub(crate) key_type: String,
    pub(crate) suite: u32,
    pub(crate) created: i64,
    pub(crate) updated: i64,
}

type Columns = (i64, String, u32, String, u32, i64, i64);

impl From<Columns> for PrincipalRow {
    fn from((id, name, incarnation, key_type, suite, created, updated): Columns) -> Self {
        Self { id, name, incarnation, key_type, suite, created, updated }
    }
}

pub(crate) const ACTIVE: &str =
    "SELECT id, name, incarnation, key_type, suite, created, updated FROM principals
     WHERE kind = ? AND name = ? AND state = 'active'";

/// The living holder of a name.
pub(crate) async fn active(
    conn: &mut Conn,
    kind: &str,
    name: &str,
) -> Result<Option<PrincipalRow>> {
    let row: Option<Columns> = conn.optional(ACTIVE, args![kind, name]).await?;
    Ok(row.map(Into::into))
}

pub(crate) const PAGE: &str =
    "SELECT id, name, incarnation, key_type, suite, created, updated FROM principals
     WHERE kind = ? AND name > ? AND state = 'active' ORDER BY name LIMIT ?";

/// The living holders whose names come after `after`, in order.
pub(crate) async fn page(
    conn: &mut Conn,
    kind: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<PrincipalRow>> {
    let rows: Vec<Columns> = conn.all(PAGE, args![kind, after, limit]).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// How many hold a name of that kind.
pub(crate) async fn count(conn: &mut Conn, kind: &str) -> Result<u64> {
    let sql = "SELECT count(*) FROM principals WHERE kind = ? AND state = 'active'";
    let count: i64 = conn.one(sql, args![kind]).await?;
    Ok(count.unsigned_abs())
}

/// The highest incarnation that the name ever had, living or not, and that it may have had in a
/// database that was lost.
pub(crate) async fn last_incarnation(conn: &mut Conn, kind: &str, name: &str) -> Result<u32> {
    let sql = "SELECT coalesce(max(n), 0) FROM
                   (SELECT incarnation AS n FROM principals WHERE kind = ? AND name = ?
                    UNION ALL SELECT base FROM recalls) AS had";
    conn.one(sql, args![kind, name]).await
}

pub(crate) struct NewPrincipal<'a> {
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) incarnation: u32,
    pub(crate) key_type: &'a str,
    pub(crate) suite: u32,
}

/// Adds a living principal; gives its row id.
pub(crate) async fn insert(conn: &mut Conn, new: &NewPrincipal<'_>, now: i64) -> Result<i64> {
    let sql = "INSERT INTO principals
                   (kind, name, incarnation, key_type, suite, state, created, updated)
               VALUES (?, ?, ?, ?, ?, 'active', ?, ?) RETURNING id";
    let values = args![new.kind, new.name, new.incarnation, new.key_type, new.suite, now, now];
    conn.one(sql, values).await
}

/// Of names that are or were somebody's: the name, its highest incarnation, and whether somebody has
/// it now.
pub(crate) async fn known(
    conn: &mut Conn,
    kind: &str,
    names: &[&str],
) -> Result<Vec<(String, u32, bool)>> {
    // Name by name, so that each is two steps in an index. Asked for all at once, a database that has
    // not counted its rows yet thinks that it is asked for most of them, and reads them all.
    let mut list = "SELECT ?2 AS name".to_owned();
    for place in 3..names.len() + 2 {
        list.push_str(&format!(" UNION ALL SELECT ?{place}"));
    }
    let sql = format!(
        "SELECT asked.name,
             (SELECT max(p.incarnation) FROM principals p WHERE p.kind = ?1 AND p.name = asked.name),
             (SELECT count(*) FROM principals p
              WHERE p.kind = ?1 AND p.name = asked.name AND p.state = 'active')
         FROM ({list}) asked"
    );
    let values: Vec<_> =
        [Arg::from(kind)].into_iter().chain(names.iter().map(|n| Arg::from(*n))).collect();
    let rows: Vec<(String, Option<u32>, i64)> = conn.all(&sql, &values).await?;
    let known = |(name, incarnation, active): (String, Option<u32>, i64)| {
        Some((name, incarnation?, active != 0))
    };
    Ok(rows.into_iter().filter_map(known).collect())
}

/// [`insert`] for many; gives names with their row ids, in any order.
pub(crate) async fn insert_many(
    conn: &mut Conn,
    new: &[NewPrincipal<'_>],
    now: i64,
) -> Result<Vec<(String, i64)>> {
    let sql = format!(
        "INSERT INTO principals
             (kind, name, incarnation, key_type, suite, state, created, updated)
         VALUES {} RETURNING name, id",
        listed("(?, ?, ?, ?, ?, 'active', ?, ?)", new.len())
    );
    let mut values = Vec::with_capacity(7 * new.len());
    for new in new {
        values.extend(args![
            new.kind,
            new.name,
            new.incarnation,
            new.key_type,
            new.suite,
            now,
            now
        ]);
    }
    conn.all(&sql, &values).await
}

/// Marks a principal as removed.
pub(crate) async fn delete(conn: &mut Conn, id: i64, now: i64) -> Result<()> {
    let sql = "UPDATE principals SET state = 'deleted', updated = ?, deleted_at = ? WHERE id = ?";
    conn.execute(sql, args![now, now, id]).await?;
    Ok(())
}
