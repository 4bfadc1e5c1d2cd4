//! Rows of `policies`, `policy_document` and `policy_differences`.

use super::{Conn, Taken, args, news};
use crate::error::Result;

/// One activation.
pub(crate) struct PolicyRow {
    pub(crate) version: u32,
    pub(crate) origin: String,
    pub(crate) again_of: Option<u32>,
    pub(crate) source: Option<String>,
    pub(crate) signed: Vec<u8>,
    pub(crate) created: i64,
}

type Columns = (u32, String, Option<u32>, Option<String>, Vec<u8>, i64);

impl From<Columns> for PolicyRow {
    fn from((version, origin, again_of, source, signed, created): Columns) -> Self {
        Self { version, origin, again_of, source, signed, created }
    }
}

const SELECT: &str = "SELECT version, origin, again_of, source, signed, created FROM policies";

pub(crate) async fn insert(conn: &mut Conn, row: &PolicyRow) -> Result<()> {
    let sql = "INSERT INTO policies (version, origin, again_of, source, signed, created)
               VALUES (?, ?, ?, ?, ?, ?)";
    let again_of = row.again_of.map(i64::from);
    let values = args![
        row.version,
        row.origin.as_str(),
        again_of,
        row.source.as_deref(),
        row.signed.as_slice(),
        row.created
    ];
    conn.execute(sql, values).await?;
    Ok(())
}

/// Every activation, the newest first.
pub(crate) async fn all(conn: &mut Conn) -> Result<Vec<PolicyRow>> {
    let rows: Vec<Columns> = conn.all(&format!("{SELECT} ORDER BY version DESC"), &[]).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

pub(crate) async fn find(conn: &mut Conn, version: u32) -> Result<Option<PolicyRow>> {
    let row: Option<Columns> =
        conn.optional(&format!("{SELECT} WHERE version = ?"), args![version]).await?;
    Ok(row.map(Into::into))
}

/// The newest activation that came from the file of the settings.
pub(crate) async fn newest_of_file(conn: &mut Conn) -> Result<Option<PolicyRow>> {
    let sql = format!(
        "{SELECT} WHERE version = (SELECT max(version) FROM policies WHERE origin = 'file')"
    );
    let row: Option<Columns> = conn.optional(&sql, &[]).await?;
    Ok(row.map(Into::into))
}

/// 0 before the first.
pub(crate) async fn newest_version(conn: &mut Conn) -> Result<u32> {
    conn.one("SELECT coalesce(max(version), 0) FROM policies", &[]).await
}

/// The sequence of the document; 0 before the first.
pub(crate) async fn sequence(conn: &mut Conn) -> Result<u64> {
    let sequence: i64 =
        conn.one("SELECT coalesce(max(sequence), 0) FROM policy_document", &[]).await?;
    Ok(sequence.unsigned_abs())
}

/// What receivers go by, and the text of the policy in the shadow.
pub(crate) async fn document(conn: &mut Conn) -> Result<Option<(Vec<u8>, Option<String>)>> {
    conn.optional("SELECT signed, shadow FROM policy_document WHERE id = 1", &[]).await
}

/// Sets what receivers go by. What was reported of an earlier shadow goes.
pub(crate) async fn set_document(
    conn: &mut Conn,
    sequence: i64,
    signed: &[u8],
    shadow: Option<&str>,
) -> Result<()> {
    conn.execute("DELETE FROM policy_document WHERE id = 1", &[]).await?;
    let sql = "INSERT INTO policy_document (id, sequence, signed, shadow) VALUES (1, ?, ?, ?)";
    conn.execute(sql, args![sequence, signed, shadow]).await?;
    conn.execute("DELETE FROM policy_differences", &[]).await?;
    news::tell(conn).await
}

/// A difference as it is counted.
pub(crate) struct DifferenceRow {
    pub(crate) receiver: String,
    pub(crate) sender: String,
    pub(crate) method: String,
    pub(crate) allowed: bool,
    pub(crate) rule: String,
    pub(crate) shadow_rule: String,
    pub(crate) count: i64,
    pub(crate) last: i64,
}

/// How many there are.
pub(crate) async fn count_differences(conn: &mut Conn) -> Result<i64> {
    conn.one("SELECT count(*) FROM policy_differences", &[]).await
}

pub(crate) async fn has_difference(conn: &mut Conn, id: &[u8]) -> Result<bool> {
    let sql = "SELECT sequence FROM policy_differences WHERE id = ?";
    let found: Option<i64> = conn.optional(sql, args![id]).await?;
    Ok(found.is_some())
}

/// Counts `row.count` more.
pub(crate) async fn add_difference(
    conn: &mut Conn,
    id: &[u8],
    sequence: i64,
    row: &DifferenceRow,
) -> Result<()> {
    let sql = "INSERT INTO policy_differences
                   (id, sequence, receiver, sender, method, allowed, rule, shadow_rule, count, last)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = args![
        id,
        sequence,
        row.receiver.as_str(),
        row.sender.as_str(),
        row.method.as_str(),
        i64::from(row.allowed),
        row.rule.as_str(),
        row.shadow_rule.as_str(),
        row.count,
        row.last
    ];
    if !conn.insert_new(sql, values, Taken::Any).await? {
        let more = "UPDATE policy_differences SET count = count + ?1, last = ?2 WHERE id = ?3";
        conn.execute(more, args![row.count, row.last, id]).await?;
    }
    Ok(())
}

/// All of them, the most frequent first.
pub(crate) async fn differences(conn: &mut Conn) -> Result<Vec<DifferenceRow>> {
    type Row = (String, String, String, i64, String, String, i64, i64);
    let sql = "SELECT receiver, sender, method, allowed, rule, shadow_rule, count, last
               FROM policy_differences ORDER BY count DESC, receiver, sender, method, id";
    let rows: Vec<Row> = conn.all(sql, &[]).await?;
    let row = |(receiver, sender, method, allowed, rule, shadow_rule, count, last)| DifferenceRow {
        receiver,
        sender,
        method,
        allowed: allowed != 0,
        rule,
        shadow_rule,
        count,
        last,
    };
    Ok(rows.into_iter().map(row).collect())
}
