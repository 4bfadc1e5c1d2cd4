//! Sums over tables: never a row for each agent.

use super::{Conn, args};
use crate::error::Result;

/// Reads what is always there.
pub(crate) async fn ping(conn: &mut Conn) -> Result<()> {
    let _: i64 = conn.one("SELECT COUNT(*) FROM trust_domain", &[]).await?;
    Ok(())
}

/// Principals that are there, by kind and key type.
pub(crate) async fn principals(conn: &mut Conn) -> Result<Vec<(String, String, i64)>> {
    let sql = "SELECT kind, key_type, COUNT(*) FROM principals WHERE state = 'active'
               GROUP BY kind, key_type ORDER BY kind, key_type";
    conn.all(sql, &[]).await
}

/// What a key is for; how many there are; when the next of them that is not over ends; how many
/// are over, and by each of five later times.
pub(crate) type EndsRow = (String, i64, Option<i64>, i64, i64, i64, i64, i64, i64);

/// The ends of each principal's newest credential, and of each right's newest issuer.
pub(crate) async fn ends(conn: &mut Conn, times: [i64; 6]) -> Result<Vec<EndsRow>> {
    let sql = "SELECT purpose, COUNT(*), MIN(CASE WHEN ends > ?1 THEN ends END),
                   COUNT(CASE WHEN ends <= ?1 THEN 1 END), COUNT(CASE WHEN ends <= ?2 THEN 1 END),
                   COUNT(CASE WHEN ends <= ?3 THEN 1 END), COUNT(CASE WHEN ends <= ?4 THEN 1 END),
                   COUNT(CASE WHEN ends <= ?5 THEN 1 END), COUNT(CASE WHEN ends <= ?6 THEN 1 END)
               FROM (SELECT c.principal_id AS holder, c.purpose AS purpose,
                         MAX(c.not_after) AS ends
                     FROM credentials c JOIN principals p ON p.id = c.principal_id
                     WHERE p.state = 'active' AND c.purpose <> 'signing'
                     GROUP BY c.principal_id, c.purpose
                     UNION ALL
                     SELECT 0 AS holder, 'issuer' AS purpose, MAX(not_after) AS ends
                     FROM issuers GROUP BY issuer_right) newest
               GROUP BY purpose ORDER BY purpose";
    let [now, a, b, c, d, e] = times;
    conn.all(sql, args![now, a, b, c, d, e]).await
}

/// Peers by the lowest level that is taken from them, and for how many of those more is rehearsed.
pub(crate) async fn floors(conn: &mut Conn) -> Result<Vec<(i64, i64, i64)>> {
    let sql = "SELECT accepts, COUNT(*), COUNT(target) FROM peer_floors
               GROUP BY accepts ORDER BY accepts";
    conn.all(sql, &[]).await
}

/// Peers that were seen at each level, and how many of those below what is rehearsed, or by an
/// exemption.
pub(crate) async fn seen(conn: &mut Conn) -> Result<Vec<(i64, i64, i64)>> {
    let sql = "SELECT level, COUNT(*), COUNT(CASE WHEN below > 0 THEN 1 END)
               FROM (SELECT peer, incarnation, level, MAX(below) AS below FROM peer_census
                     GROUP BY peer, incarnation, level) peers
               GROUP BY level ORDER BY level";
    conn.all(sql, &[]).await
}
