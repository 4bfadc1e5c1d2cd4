//! Rows of `pair_keys`, joined with what their keys are derived from.

use super::{Conn, Taken, args};
use crate::error::Result;

pub(crate) struct PairRow {
    pub(crate) agent_id: i64,
    pub(crate) agent: String,
    pub(crate) incarnation: u32,
    pub(crate) component_id: i64,
    pub(crate) component: String,
    pub(crate) pair_epoch: u32,
    pub(crate) key_epoch: Option<u32>,
    pub(crate) encrypted_key: Option<String>,
    pub(crate) kid: Option<Vec<u8>>,
}

type Columns = (i64, String, u32, i64, String, u32, Option<u32>, Option<String>, Option<Vec<u8>>);

/// With a credential.
type PeerColumns = (
    i64,
    String,
    u32,
    i64,
    String,
    u32,
    Option<u32>,
    Option<String>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

impl From<Columns> for PairRow {
    fn from(columns: Columns) -> Self {
        let (agent_id, agent, incarnation, component_id, component, ..) = columns;
        let (.., pair_epoch, key_epoch, encrypted_key, kid) = columns;
        Self {
            agent_id,
            agent,
            incarnation,
            component_id,
            component,
            pair_epoch,
            key_epoch,
            encrypted_key,
            kid,
        }
    }
}

pub(crate) const CURRENT: &str =
    "SELECT a.id, a.name, a.incarnation, c.id, c.name, c.pair_epoch, k.epoch, k.encrypted_key,
         p.kid
     FROM principals a
     JOIN principals c ON c.kind = 'component' AND c.name = ?2 AND c.state = 'active'
     LEFT JOIN instance_keys k ON k.principal_id = a.id AND k.deleted = 0
     LEFT JOIN pair_keys p ON p.agent_id = a.id AND p.component_id = c.id
         AND p.pair_epoch = c.pair_epoch
     WHERE a.kind = 'agent' AND a.name = ?1 AND a.state = 'active'";

/// The current pair of two living principals; without kid if it has no name yet.
pub(crate) async fn current(
    conn: &mut Conn,
    agent: &str,
    component: &str,
) -> Result<Option<PairRow>> {
    let row: Option<Columns> = conn.optional(CURRENT, args![agent, component]).await?;
    Ok(row.map(Into::into))
}

pub(crate) const PEER: &str =
    "SELECT a.id, a.name, a.incarnation, c.id, c.name, c.pair_epoch, k.epoch, k.encrypted_key,
         p.kid,
         (SELECT bytes FROM credentials r WHERE r.principal_id = a.id AND r.purpose = 'agent'
             AND r.not_before <= ?3 AND r.not_after > ?3 ORDER BY r.epoch DESC LIMIT 1)
     FROM principals a
     JOIN principals c ON c.kind = 'component' AND c.name = ?2 AND c.state = 'active'
     LEFT JOIN instance_keys k ON k.principal_id = a.id AND k.deleted = 0
     LEFT JOIN pair_keys p ON p.agent_id = a.id AND p.component_id = c.id
         AND p.pair_epoch = c.pair_epoch
     WHERE a.kind = 'agent' AND a.name = ?1 AND a.state = 'active'";

/// As [`current`], with the agent's credential that is valid `now`.
pub(crate) async fn peer(
    conn: &mut Conn,
    agent: &str,
    component: &str,
    now: i64,
) -> Result<Option<(PairRow, Option<Vec<u8>>)>> {
    let row: Option<PeerColumns> = conn.optional(PEER, args![agent, component, now]).await?;
    Ok(row.map(|(a, b, c, d, e, f, g, h, i, credential)| {
        (Columns::into((a, b, c, d, e, f, g, h, i)), credential)
    }))
}

pub(crate) const BY_KID: &str =
    "SELECT a.id, a.name, a.incarnation, c.id, c.name, p.pair_epoch, k.epoch, k.encrypted_key,
         p.kid
     FROM pair_keys p
     JOIN principals a ON a.id = p.agent_id AND a.state = 'active'
     JOIN principals c ON c.id = p.component_id AND c.state = 'active'
     JOIN instance_keys k ON k.principal_id = a.id AND k.deleted = 0
     WHERE p.kid = ?1";

/// The pair that a kid names, if both its ends live.
pub(crate) async fn by_kid(conn: &mut Conn, kid: &[u8]) -> Result<Option<PairRow>> {
    let row: Option<Columns> = conn.optional(BY_KID, args![kid]).await?;
    Ok(row.map(Into::into))
}

/// The rows that a statement like [`CURRENT`] gives.
pub(super) async fn read_rows(
    conn: &mut Conn,
    sql: &str,
    args: &[super::Arg<'_>],
) -> Result<Vec<PairRow>> {
    let rows: Vec<Columns> = conn.all(sql, args).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Names a pair, unless it has a name or the kid is taken.
pub(crate) async fn insert(
    conn: &mut Conn,
    kid: &[u8],
    agent_id: i64,
    component_id: i64,
    pair_epoch: u32,
    now: i64,
) -> Result<()> {
    let sql = "INSERT INTO pair_keys (kid, agent_id, component_id, pair_epoch, created)
               VALUES (?, ?, ?, ?, ?)";
    let values = args![kid, agent_id, component_id, pair_epoch, now];
    conn.insert_new(sql, values, Taken::Any).await?;
    Ok(())
}

/// The name of a pair.
pub(crate) async fn kid(
    conn: &mut Conn,
    agent_id: i64,
    component_id: i64,
    pair_epoch: u32,
) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT kid FROM pair_keys
               WHERE agent_id = ? AND component_id = ? AND pair_epoch = ?";
    conn.optional(sql, args![agent_id, component_id, pair_epoch]).await
}

/// Every living component type with its current pair epoch: row id, name, epoch.
pub(crate) async fn components(conn: &mut Conn) -> Result<Vec<(i64, String, u32)>> {
    let sql = "SELECT id, name, pair_epoch FROM principals
               WHERE kind = 'component' AND state = 'active' ORDER BY name";
    conn.all(sql, &[]).await
}

pub(crate) const OF_AGENT: &str = "SELECT p.kid, c.name, p.pair_epoch FROM pair_keys p
     JOIN principals c ON c.id = p.component_id AND c.state = 'active'
         AND c.pair_epoch = p.pair_epoch
     WHERE p.agent_id = ? ORDER BY c.name";

/// The current pairs of an agent: kid, component, epoch.
pub(crate) async fn of_agent(
    conn: &mut Conn,
    agent_id: i64,
) -> Result<Vec<(Vec<u8>, String, u32)>> {
    conn.all(OF_AGENT, args![agent_id]).await
}
