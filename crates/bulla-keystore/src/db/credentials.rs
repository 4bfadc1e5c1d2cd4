//! Rows of `credentials` and `audience_keys`.

use bulla_seal::Kid;

use super::{Arg, Conn, Taken, args, listed};
use crate::error::Result;

pub(crate) struct CredentialRow<'a> {
    pub(crate) kid: &'a [u8],
    pub(crate) principal_id: i64,
    pub(crate) purpose: &'a str,
    pub(crate) instance: Option<&'a str>,
    pub(crate) epoch: u32,
    pub(crate) bytes: &'a [u8],
    /// Since when it is handed out: later than its own beginning while its holder does not have it.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// `false` if the kid was taken.
pub(crate) async fn insert(conn: &mut Conn, row: &CredentialRow<'_>, now: i64) -> Result<bool> {
    let sql = "INSERT INTO credentials (kid, principal_id, purpose, instance, epoch, bytes,
                   not_before, not_after, created)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = args![
        row.kid,
        row.principal_id,
        row.purpose,
        row.instance,
        row.epoch,
        row.bytes,
        row.not_before,
        row.not_after,
        now,
    ];
    conn.insert_new(sql, values, Taken::PrimaryKid).await
}

/// The same for many whose kids are free.
pub(crate) async fn insert_many(
    conn: &mut Conn,
    rows: &[CredentialRow<'_>],
    now: i64,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO credentials (kid, principal_id, purpose, instance, epoch, bytes,
             not_before, not_after, created)
         VALUES {}",
        listed("(?, ?, ?, ?, ?, ?, ?, ?, ?)", rows.len())
    );
    let mut values = Vec::with_capacity(9 * rows.len());
    for row in rows {
        values.extend(args![
            row.kid,
            row.principal_id,
            row.purpose,
            row.instance,
            row.epoch,
            row.bytes,
            row.not_before,
            row.not_after,
            now,
        ]);
    }
    conn.execute(&sql, &values).await?;
    Ok(())
}

/// Those of `kids` that a credential has.
pub(crate) async fn taken(conn: &mut Conn, kids: &[Kid]) -> Result<Vec<Vec<u8>>> {
    let sql = format!("SELECT kid FROM credentials WHERE kid IN ({})", listed("?", kids.len()));
    let values: Vec<Arg<'_>> = kids.iter().map(|kid| Arg::from(kid.as_bytes())).collect();
    conn.all(&sql, &values).await
}

pub(crate) const CURRENT: &str = "SELECT p.incarnation, c.bytes FROM principals p
     JOIN credentials c ON c.principal_id = p.id AND c.purpose = ?3
         AND c.not_before <= ?4 AND c.not_after > ?4
     WHERE p.kind = ?1 AND p.name = ?2 AND p.state = 'active'
     ORDER BY c.epoch DESC, c.not_after DESC LIMIT 1";

/// The credential of the highest epoch that is valid `now`, with its holder's incarnation.
pub(crate) async fn current(
    conn: &mut Conn,
    kind: &str,
    name: &str,
    purpose: &str,
    now: i64,
) -> Result<Option<(u32, Vec<u8>)>> {
    conn.optional(CURRENT, args![kind, name, purpose, now]).await
}

pub(crate) const NEWEST: &str = "SELECT kid, epoch, bytes, not_before, not_after, created
     FROM credentials WHERE principal_id = ? AND purpose = ? ORDER BY epoch DESC, created DESC LIMIT 1";

/// A credential as it is stored.
pub(crate) struct StoredRow {
    pub(crate) kid: Vec<u8>,
    pub(crate) epoch: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) created: i64,
}

type StoredColumns = (Vec<u8>, u32, Vec<u8>, i64, i64, i64);

impl From<StoredColumns> for StoredRow {
    fn from((kid, epoch, bytes, not_before, not_after, created): StoredColumns) -> Self {
        Self { kid, epoch, bytes, not_before, not_after, created }
    }
}

/// The credential of the highest epoch, whether it is handed out, valid or neither.
pub(crate) async fn newest(
    conn: &mut Conn,
    principal_id: i64,
    purpose: &str,
) -> Result<Option<StoredRow>> {
    let row: Option<StoredColumns> = conn.optional(NEWEST, args![principal_id, purpose]).await?;
    Ok(row.map(Into::into))
}

/// Every credential of a principal that is not over by `now`, newest first.
pub(crate) async fn living(conn: &mut Conn, principal_id: i64, now: i64) -> Result<Vec<StoredRow>> {
    let sql = "SELECT kid, epoch, bytes, not_before, not_after, created FROM credentials
               WHERE principal_id = ? AND not_after > ? ORDER BY epoch DESC, created DESC";
    let rows: Vec<StoredColumns> = conn.all(sql, args![principal_id, now]).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Hands a principal's credential out from `now` on; `false` if it is not its, or it was handed out
/// before.
pub(crate) async fn hand_out(
    conn: &mut Conn,
    principal_id: i64,
    kid: &[u8],
    now: i64,
) -> Result<bool> {
    let sql = "UPDATE credentials SET not_before = ?1
               WHERE principal_id = ?2 AND kid = ?3 AND not_before > ?1";
    Ok(conn.execute(sql, args![now, principal_id, kid]).await? == 1)
}

pub(crate) struct AudienceRow {
    pub(crate) incarnation: u32,
    pub(crate) epoch: u32,
    pub(crate) suite: u32,
    pub(crate) encrypted_key: Vec<u8>,
    pub(crate) credential: Vec<u8>,
}

pub(crate) async fn insert_audience_key(
    conn: &mut Conn,
    kid: &[u8],
    principal_id: i64,
    row: &AudienceRow,
    now: i64,
) -> Result<()> {
    let sql = "INSERT INTO audience_keys
                   (kid, principal_id, epoch, suite, encrypted_key, created)
               VALUES (?, ?, ?, ?, ?, ?)";
    let values = args![kid, principal_id, row.epoch, row.suite, &row.encrypted_key, now];
    conn.execute(sql, values).await?;
    Ok(())
}
