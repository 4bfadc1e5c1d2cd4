//! Rows of `access_keys`.

use zeroize::Zeroizing;

use super::migrations::DataStep;
use super::{Conn, Taken, args};
use crate::error::Result;

/// A key as it is stored.
pub(crate) struct AccessKeyRow {
    pub(crate) id: String,
    pub(crate) api_user: String,
    pub(crate) epoch: u32,
    pub(crate) created: i64,
    pub(crate) last_used: Option<i64>,
    pub(crate) expires: Option<i64>,
    pub(crate) disabled: bool,
}

type Columns = (String, String, u32, i64, Option<i64>, Option<i64>, i64);

impl From<Columns> for AccessKeyRow {
    fn from(columns: Columns) -> Self {
        let (id, api_user, epoch, created, last_used, expires, disabled) = columns;
        let disabled = disabled != 0;
        Self { id, api_user, epoch, created, last_used, expires, disabled }
    }
}

/// `false` if the id was taken.
pub(crate) async fn insert(
    conn: &mut Conn,
    row: &AccessKeyRow,
    encrypted_secret: &[u8],
) -> Result<bool> {
    let sql = "INSERT INTO access_keys
                   (access_key_id, api_user, epoch, encrypted_secret_key, created, expires)
               VALUES (?, ?, ?, ?, ?, ?)";
    let values =
        args![&row.id, &row.api_user, row.epoch, encrypted_secret, row.created, row.expires];
    conn.insert_new(sql, values, Taken::Any).await
}

/// The highest epoch that a user's keys ever had.
pub(crate) async fn last_epoch(conn: &mut Conn, api_user: &str) -> Result<u32> {
    let sql = "SELECT coalesce(max(epoch), 0) FROM access_keys WHERE api_user = ?";
    conn.one(sql, args![api_user]).await
}

pub(crate) const FIND: &str =
    "SELECT access_key_id, api_user, epoch, created, last_used, expires, disabled,
         encrypted_secret_key
     FROM access_keys WHERE access_key_id = ? AND removed IS NULL";

/// A key that was not removed, with its wrapped secret.
pub(crate) async fn find(conn: &mut Conn, id: &str) -> Result<Option<(AccessKeyRow, Vec<u8>)>> {
    type Found = (String, String, u32, i64, Option<i64>, Option<i64>, i64, Option<Vec<u8>>);
    let row: Option<Found> = conn.optional(FIND, args![id]).await?;
    Ok(row.map(|(a, b, c, d, e, f, g, wrapped)| {
        ((a, b, c, d, e, f, g).into(), wrapped.unwrap_or_default())
    }))
}

/// Every key that was not removed, by user.
pub(crate) async fn list(conn: &mut Conn) -> Result<Vec<AccessKeyRow>> {
    let sql = "SELECT access_key_id, api_user, epoch, created, last_used, expires, disabled
               FROM access_keys WHERE removed IS NULL ORDER BY api_user, epoch";
    let rows: Vec<Columns> = conn.all(sql, &[]).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// `false` if there is no such key.
pub(crate) async fn set_disabled(conn: &mut Conn, id: &str, disabled: bool) -> Result<bool> {
    let sql = "UPDATE access_keys SET disabled = ? WHERE access_key_id = ? AND removed IS NULL";
    Ok(conn.execute(sql, args![i64::from(disabled), id]).await? == 1)
}

/// Wipes a key's secret and leaves the rest, so that its epoch is not given again; `false` if there
/// is no such key.
pub(crate) async fn remove(conn: &mut Conn, id: &str, now: i64) -> Result<bool> {
    let sql = "UPDATE access_keys SET encrypted_secret_key = NULL, removed = ?
               WHERE access_key_id = ? AND removed IS NULL";
    Ok(conn.execute(sql, args![now, id]).await? == 1)
}

/// Keeps the latest.
pub(crate) async fn set_used(conn: &mut Conn, id: &str, at: i64) -> Result<()> {
    let sql = "UPDATE access_keys SET last_used = ?1
               WHERE access_key_id = ?2 AND (last_used IS NULL OR last_used < ?1)";
    conn.execute(sql, args![at, id]).await?;
    Ok(())
}

/// A secret in clear, as versions 7 and 8 of the schema have them.
pub(crate) struct ClearRow {
    pub(crate) id: String,
    pub(crate) api_user: String,
    pub(crate) epoch: u32,
    pub(crate) secret: Zeroizing<String>,
}

/// Up to `limit` of them after an id.
pub(crate) async fn in_clear(conn: &mut Conn, after: &str, limit: u32) -> Result<Vec<ClearRow>> {
    let sql = "SELECT access_key_id, api_user, epoch, secret_key FROM access_keys
               WHERE access_key_id > ? AND secret_key IS NOT NULL
               ORDER BY access_key_id LIMIT ?";
    let rows: Vec<(String, String, u32, String)> = conn.all(sql, args![after, limit]).await?;
    let row = |(id, api_user, epoch, secret)| ClearRow {
        id,
        api_user,
        epoch,
        secret: Zeroizing::new(secret),
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Puts the wrapped secret in the place of the one in clear, unless somebody else changed it.
pub(crate) async fn set_encrypted(
    conn: &mut Conn,
    row: &ClearRow,
    encrypted_secret: &[u8],
) -> Result<bool> {
    let sql = "UPDATE access_keys SET encrypted_secret_key = ?, secret_key = NULL
               WHERE access_key_id = ? AND secret_key = ?";
    let values = args![encrypted_secret, &row.id, row.secret.as_str()];
    Ok(conn.execute(sql, values).await? == 1)
}

/// A wrapped secret, for versions 7 and 8 of the schema.
pub(crate) struct EncryptedRow {
    pub(crate) id: String,
    pub(crate) api_user: String,
    pub(crate) epoch: u32,
    pub(crate) encrypted_secret: Vec<u8>,
}

/// Up to `limit` of them after an id.
pub(crate) async fn encrypted(
    conn: &mut Conn,
    after: &str,
    limit: u32,
) -> Result<Vec<EncryptedRow>> {
    let sql = "SELECT access_key_id, api_user, epoch, encrypted_secret_key FROM access_keys
               WHERE access_key_id > ? AND encrypted_secret_key IS NOT NULL
               ORDER BY access_key_id LIMIT ?";
    let rows: Vec<(String, String, u32, Vec<u8>)> = conn.all(sql, args![after, limit]).await?;
    let row = |(id, api_user, epoch, encrypted_secret)| EncryptedRow {
        id,
        api_user,
        epoch,
        encrypted_secret,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Puts the secret in clear in the place of the wrapped one, unless somebody else changed it.
pub(crate) async fn set_in_clear(
    conn: &mut Conn,
    row: &EncryptedRow,
    secret: &str,
) -> Result<bool> {
    let sql = "UPDATE access_keys SET secret_key = ?, encrypted_secret_key = NULL
               WHERE access_key_id = ? AND encrypted_secret_key = ?";
    Ok(conn.execute(sql, args![secret, &row.id, &row.encrypted_secret]).await? == 1)
}

/// How many rows a step has before it.
pub(crate) async fn count_to_convert(conn: &mut Conn, step: DataStep) -> Result<u64> {
    let column = match step {
        DataStep::EncryptAccessKeys => "secret_key",
        DataStep::DecryptAccessKeys => "encrypted_secret_key",
    };
    let sql = format!("SELECT count(*) FROM access_keys WHERE {column} IS NOT NULL");
    let count: i64 = conn.one(&sql, &[]).await?;
    Ok(count.unsigned_abs())
}
