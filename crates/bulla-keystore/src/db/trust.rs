//! Rows of `trust_domain` and `issuers`.

use super::{Conn, Taken, args};
use crate::error::Result;

pub(crate) struct DomainRow {
    pub(crate) name: String,
    pub(crate) encrypted_root: Vec<u8>,
    pub(crate) kek_id: Vec<u8>,
}

pub(crate) async fn insert_domain(conn: &mut Conn, row: &DomainRow, now: i64) -> Result<()> {
    let sql = "INSERT INTO trust_domain (id, name, encrypted_root, kek_id, created)
               VALUES (1, ?, ?, ?, ?)";
    conn.execute(sql, args![&row.name, &row.encrypted_root, &row.kek_id, now]).await?;
    Ok(())
}

pub(crate) async fn domain(conn: &mut Conn) -> Result<Option<DomainRow>> {
    let sql = "SELECT name, encrypted_root, kek_id FROM trust_domain WHERE id = 1";
    let row: Option<(String, Vec<u8>, Vec<u8>)> = conn.optional(sql, &[]).await?;
    Ok(row.map(|(name, encrypted_root, kek_id)| DomainRow { name, encrypted_root, kek_id }))
}

/// The trust domain's name alone.
pub(crate) async fn domain_name(conn: &mut Conn) -> Result<Option<String>> {
    conn.optional("SELECT name FROM trust_domain WHERE id = 1", &[]).await
}

pub(crate) struct IssuerRow {
    pub(crate) right: String,
    pub(crate) epoch: u32,
    pub(crate) credential: Vec<u8>,
    pub(crate) encrypted_seed: Vec<u8>,
    /// Its end; while a former root counts, the end that that one gave it.
    pub(crate) not_after: i64,
}

/// `false` if the kid was taken.
pub(crate) async fn insert_issuer(
    conn: &mut Conn,
    kid: &[u8],
    row: &IssuerRow,
    now: i64,
) -> Result<bool> {
    let sql = "INSERT INTO issuers
                   (kid, issuer_right, epoch, credential, encrypted_seed, not_after, created)
               VALUES (?, ?, ?, ?, ?, ?, ?)";
    let (credential, seed) = (&row.credential, &row.encrypted_seed);
    let values = args![kid, &row.right, row.epoch, credential, seed, row.not_after, now];
    conn.insert_new(sql, values, Taken::PrimaryKid).await
}

/// Epoch, credential, wrapped seed, end, and the end of the former root.
type IssuerColumns = (u32, Vec<u8>, Vec<u8>, i64, i64);

/// The newest issuer with that right, and until when a former root counts.
pub(crate) async fn issuer(conn: &mut Conn, right: &str) -> Result<Option<(IssuerRow, i64)>> {
    let sql = "SELECT epoch, credential, encrypted_seed, not_after,
                   (SELECT coalesce(max(former_until), 0) FROM roots) FROM issuers
               WHERE issuer_right = ? ORDER BY epoch DESC LIMIT 1";
    let row: Option<IssuerColumns> = conn.optional(sql, args![right]).await?;
    Ok(row.map(|(epoch, credential, encrypted_seed, not_after, former_until)| {
        let right = right.to_owned();
        (IssuerRow { right, epoch, credential, encrypted_seed, not_after }, former_until)
    }))
}

/// Every issuer's credential as signed.
pub(crate) async fn issuer_credentials(conn: &mut Conn) -> Result<Vec<Vec<u8>>> {
    let sql = "SELECT credential FROM issuers ORDER BY issuer_right, epoch";
    conn.all(sql, &[]).await
}

/// What the new root signed in the place of what the former one did, and the end that it had then.
pub(crate) async fn set_issuer(
    conn: &mut Conn,
    kid: &[u8],
    credential: &[u8],
    former_end: i64,
) -> Result<()> {
    let sql = "UPDATE issuers SET credential = ?, not_after = ? WHERE kid = ?";
    conn.execute(sql, args![credential, former_end, kid]).await?;
    Ok(())
}

/// A root that followed another.
pub(crate) struct RootRow {
    pub(crate) sequence: u32,
    pub(crate) encrypted_root: Vec<u8>,
    pub(crate) announcement: Vec<u8>,
    pub(crate) former_until: i64,
}

pub(crate) async fn insert_root(conn: &mut Conn, row: &RootRow, now: i64) -> Result<()> {
    let sql = "INSERT INTO roots (sequence, encrypted_root, announcement, former_until, created)
               VALUES (?, ?, ?, ?, ?)";
    let (root, announcement) = (&row.encrypted_root, &row.announcement);
    conn.execute(sql, args![row.sequence, root, announcement, row.former_until, now]).await?;
    Ok(())
}

/// The newest root that followed another, wrapped, with its sequence.
pub(crate) async fn root(conn: &mut Conn) -> Result<Option<(u32, Vec<u8>)>> {
    let sql = "SELECT sequence, encrypted_root FROM roots ORDER BY sequence DESC LIMIT 1";
    conn.optional(sql, &[]).await
}

/// The sequence of the root that is trusted now.
pub(crate) async fn newest_root(conn: &mut Conn) -> Result<u32> {
    conn.one("SELECT coalesce(max(sequence), 1) FROM roots", &[]).await
}

/// The announcements of roots after `sequence`, in their order, up to `limit`.
pub(crate) async fn announcements(
    conn: &mut Conn,
    sequence: u32,
    limit: u32,
) -> Result<Vec<(u32, Vec<u8>)>> {
    let sql = "SELECT sequence, announcement FROM roots WHERE sequence > ?
               ORDER BY sequence LIMIT ?";
    conn.all(sql, args![sequence, limit]).await
}
