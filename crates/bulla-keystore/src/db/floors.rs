//! Rows of `peer_floors`, `exemptions`, `peer_census` and `floor_generation`.

use super::{Conn, args};
use crate::error::Result;

/// Levels are numbers of the wire here.
pub(crate) struct FloorRow {
    pub(crate) accepts: i64,
    pub(crate) sends: i64,
    pub(crate) target: Option<i64>,
}

/// What is kept of one peer.
pub(crate) async fn find(
    conn: &mut Conn,
    peer: &str,
    incarnation: u32,
) -> Result<Option<FloorRow>> {
    let sql = "SELECT accepts, sends, target FROM peer_floors WHERE peer = ? AND incarnation = ?";
    let row: Option<(i64, i64, Option<i64>)> = conn.optional(sql, args![peer, incarnation]).await?;
    Ok(row.map(|(accepts, sends, target)| FloorRow { accepts, sends, target }))
}

/// Every peer's name and incarnation with what is kept of it.
pub(crate) async fn all(conn: &mut Conn) -> Result<Vec<(String, u32, FloorRow)>> {
    let sql = "SELECT peer, incarnation, accepts, sends, target FROM peer_floors
               ORDER BY peer, incarnation";
    let rows: Vec<(String, u32, i64, i64, Option<i64>)> = conn.all(sql, &[]).await?;
    let row = |(peer, incarnation, accepts, sends, target)| {
        (peer, incarnation, FloorRow { accepts, sends, target })
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Sets what is kept of a peer.
pub(crate) async fn set(
    conn: &mut Conn,
    peer: &str,
    incarnation: u32,
    row: &FloorRow,
) -> Result<()> {
    let before = "DELETE FROM peer_floors WHERE peer = ? AND incarnation = ?";
    conn.execute(before, args![peer, incarnation]).await?;
    let sql = "INSERT INTO peer_floors (peer, incarnation, accepts, sends, target)
               VALUES (?, ?, ?, ?, ?)";
    conn.execute(sql, args![peer, incarnation, row.accepts, row.sends, row.target]).await?;
    Ok(())
}

/// Tells other processes that there is news.
pub(crate) async fn turn(conn: &mut Conn) -> Result<()> {
    conn.execute("UPDATE floor_generation SET n = n + 1", &[]).await?;
    Ok(())
}

pub(crate) async fn generation(conn: &mut Conn) -> Result<i64> {
    conn.one("SELECT n FROM floor_generation", &[]).await
}

/// Every exemption as signed.
pub(crate) async fn exemptions(conn: &mut Conn) -> Result<Vec<Vec<u8>>> {
    conn.all("SELECT signed FROM exemptions ORDER BY id", &[]).await
}

pub(crate) async fn set_exemption(conn: &mut Conn, id: &[u8], signed: &[u8]) -> Result<()> {
    remove_exemption(conn, id).await?;
    conn.execute("INSERT INTO exemptions (id, signed) VALUES (?, ?)", args![id, signed]).await?;
    Ok(())
}

/// Whether it was there.
pub(crate) async fn remove_exemption(conn: &mut Conn, id: &[u8]) -> Result<bool> {
    Ok(conn.execute("DELETE FROM exemptions WHERE id = ?", args![id]).await? > 0)
}

pub(crate) struct SeenRow {
    pub(crate) peer: String,
    pub(crate) incarnation: u32,
    pub(crate) method: String,
    pub(crate) level: i64,
    pub(crate) count: i64,
    pub(crate) last: i64,
    pub(crate) below: i64,
    pub(crate) last_below: i64,
}

/// Adds to what was seen of a peer, method and level.
pub(crate) async fn add_seen(conn: &mut Conn, row: &SeenRow) -> Result<()> {
    let values = args![
        &row.peer,
        row.incarnation,
        &row.method,
        row.level,
        row.count,
        row.last,
        row.below,
        row.last_below,
    ];
    let add = "UPDATE peer_census SET count = count + ?5, below = below + ?7,
                   last = CASE WHEN last < ?6 THEN ?6 ELSE last END,
                   last_below = CASE WHEN last_below < ?8 THEN ?8 ELSE last_below END
               WHERE peer = ?1 AND incarnation = ?2 AND method = ?3 AND level = ?4";
    if conn.execute(add, values).await? == 0 {
        let sql = "INSERT INTO peer_census
                       (peer, incarnation, method, level, count, last, below, last_below)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        conn.execute(sql, values).await?;
    }
    Ok(())
}

/// What was last seen of a peer: method, level, when.
pub(crate) async fn last_seen(
    conn: &mut Conn,
    peer: &str,
    incarnation: u32,
) -> Result<Option<(String, i64, i64)>> {
    let sql = "SELECT method, level, last FROM peer_census WHERE peer = ? AND incarnation = ?
               ORDER BY last DESC LIMIT 1";
    conn.optional(sql, args![peer, incarnation]).await
}

/// Everything that was seen.
pub(crate) async fn seen(conn: &mut Conn) -> Result<Vec<SeenRow>> {
    let sql = "SELECT peer, incarnation, method, level, count, last, below, last_below
               FROM peer_census ORDER BY peer, incarnation, method, level";
    type Columns = (String, u32, String, i64, i64, i64, i64, i64);
    let rows: Vec<Columns> = conn.all(sql, &[]).await?;
    let row = |(peer, incarnation, method, level, count, last, below, last_below)| SeenRow {
        peer,
        incarnation,
        method,
        level,
        count,
        last,
        below,
        last_below,
    };
    Ok(rows.into_iter().map(row).collect())
}
