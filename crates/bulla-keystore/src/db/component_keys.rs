//! Rows of `component_keys`: copies of keys for the hosts of component types that have a database
//! role of their own, each under the type's own KEK.

use super::pairs::PairRow;
use super::{Conn, Dialect, args};
use crate::error::Result;

/// A copy, about to be stored.
pub(crate) struct CopyRow<'a> {
    pub(crate) component: &'a str,
    /// With the type before it.
    pub(crate) name: &'a str,
    pub(crate) incarnation: u32,
    pub(crate) epoch: u32,
    pub(crate) kid: Option<&'a [u8]>,
    pub(crate) encrypted_key: &'a [u8],
}

/// Stores a copy in the place of what was there.
pub(crate) async fn put(conn: &mut Conn, row: &CopyRow<'_>, now: i64) -> Result<()> {
    let before = "DELETE FROM component_keys WHERE name = ? AND incarnation = ? AND epoch = ?";
    conn.execute(before, args![row.name, row.incarnation, row.epoch]).await?;
    let sql = "INSERT INTO component_keys
                   (component, name, incarnation, epoch, kid, encrypted_key, created)
               VALUES (?, ?, ?, ?, ?, ?, ?)";
    let kid = super::Arg::Bytes(row.kid);
    let key = row.encrypted_key;
    let values: &[super::Arg<'_>] = &[
        row.component.into(),
        row.name.into(),
        row.incarnation.into(),
        row.epoch.into(),
        kid,
        key.into(),
        now.into(),
    ];
    conn.execute(sql, values).await?;
    Ok(())
}

/// Whether there is a copy.
pub(crate) async fn is_there(conn: &mut Conn, name: &str, epoch: u32) -> Result<bool> {
    let sql = "SELECT count(*) FROM component_keys
               WHERE name = ? AND incarnation = 0 AND epoch = ?";
    Ok(conn.one::<i64>(sql, args![name, epoch]).await? > 0)
}

/// Takes away every copy of that name.
pub(crate) async fn delete(conn: &mut Conn, name: &str) -> Result<()> {
    conn.execute("DELETE FROM component_keys WHERE name = ?", args![name]).await?;
    Ok(())
}

/// Takes away a type's pair keys.
pub(crate) async fn delete_pairs(conn: &mut Conn, component: &str) -> Result<()> {
    let sql = "DELETE FROM component_keys WHERE component = ? AND kid IS NOT NULL";
    conn.execute(sql, args![component]).await?;
    Ok(())
}

/// The types that have a role and read copies: all but the control plane, which makes them.
pub(crate) async fn components(conn: &mut Conn) -> Result<Vec<String>> {
    let sql = "SELECT component FROM database_roles
               WHERE kind = 'component' AND component <> 'control' ORDER BY component";
    conn.all(sql, &[]).await
}

/// Up to `limit` living shared-key agents after a name of whose current pair with a type there is
/// no copy.
pub(crate) async fn pairs_without(
    conn: &mut Conn,
    component: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<PairRow>> {
    let sql = "SELECT a.id, a.name, a.incarnation, c.id, c.name, c.pair_epoch, k.epoch,
                   k.encrypted_key, p.kid
               FROM principals a
               JOIN instance_keys k ON k.principal_id = a.id AND k.deleted = 0
               JOIN principals c ON c.kind = 'component' AND c.name = ?2 AND c.state = 'active'
               LEFT JOIN pair_keys p ON p.agent_id = a.id AND p.component_id = c.id
                   AND p.pair_epoch = c.pair_epoch
               WHERE a.kind = 'agent' AND a.name > ?1 AND a.state = 'active'
                   AND NOT EXISTS (SELECT 1 FROM component_keys x WHERE x.kid = p.kid)
               ORDER BY a.name LIMIT ?3";
    super::pairs::read_rows(conn, sql, args![after, component, limit]).await
}

/// What holds the rows that a host reads: MariaDB has no row security, there it is a view of the
/// rows of whoever looks.
fn own(dialect: Dialect, table: &str) -> String {
    match dialect {
        Dialect::MariaDb => format!("own_{table}"),
        _ => table.to_owned(),
    }
}

/// Incarnation, epoch, kid and wrapped key of a type's current pair with an agent, if both live.
pub(crate) async fn pair(
    conn: &mut Conn,
    name: &str,
    agent: &str,
    component: &str,
) -> Result<Option<(u32, u32, Vec<u8>, Vec<u8>)>> {
    let sql = format!(
        "SELECT k.incarnation, k.epoch, k.kid, k.encrypted_key FROM {} k
         JOIN principals a ON a.kind = 'agent' AND a.name = ?2 AND a.state = 'active'
             AND a.incarnation = k.incarnation
         JOIN principals c ON c.kind = 'component' AND c.name = ?3 AND c.state = 'active'
             AND c.pair_epoch = k.epoch
         WHERE k.name = ?1",
        own(conn.dialect(), "component_keys")
    );
    conn.optional(&sql, args![name, agent, component]).await
}

/// Name, incarnation, epoch and wrapped key of the pair that a kid names.
pub(crate) async fn by_kid(
    conn: &mut Conn,
    component: &str,
    kid: &[u8],
) -> Result<Option<(String, u32, u32, Vec<u8>)>> {
    let sql = format!(
        "SELECT name, incarnation, epoch, encrypted_key FROM {} WHERE kid = ? AND component = ?",
        own(conn.dialect(), "component_keys")
    );
    conn.optional(&sql, args![kid, component]).await
}

/// Epoch and wrapped key of what is no pair: of an epoch, or of the highest.
pub(crate) async fn find(
    conn: &mut Conn,
    name: &str,
    epoch: Option<u32>,
) -> Result<Option<(u32, Vec<u8>)>> {
    let sql = format!(
        "SELECT epoch, encrypted_key FROM {}
         WHERE name = ?1 AND incarnation = 0 AND epoch = coalesce(?2, epoch)
         ORDER BY epoch DESC LIMIT 1",
        own(conn.dialect(), "component_keys")
    );
    conn.optional(&sql, args![name, epoch]).await
}

/// [`rotation::receive`](super::rotation::receive) by a host of the type.
pub(crate) fn receive_sql(dialect: Dialect) -> String {
    super::rotation::RECEIVE.replace("audience_keys", &own(dialect, "audience_keys"))
}
