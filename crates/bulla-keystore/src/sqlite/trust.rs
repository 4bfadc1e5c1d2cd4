//! Rows of `trust_domain` and `issuers`.

use sqlx::sqlite::SqliteConnection;

use crate::error::Result;

pub(crate) struct DomainRow {
    pub(crate) name: String,
    pub(crate) encrypted_root: Vec<u8>,
    pub(crate) kek_id: Vec<u8>,
}

pub(crate) async fn insert_domain(
    conn: &mut SqliteConnection,
    row: &DomainRow,
    now: i64,
) -> Result<()> {
    let sql = "INSERT INTO trust_domain (id, name, encrypted_root, kek_id, created)
               VALUES (1, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(&row.name)
        .bind(&row.encrypted_root)
        .bind(&row.kek_id)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

pub(crate) async fn domain(conn: &mut SqliteConnection) -> Result<Option<DomainRow>> {
    let sql = "SELECT name, encrypted_root, kek_id FROM trust_domain WHERE id = 1";
    let row: Option<(String, Vec<u8>, Vec<u8>)> = sqlx::query_as(sql).fetch_optional(conn).await?;
    Ok(row.map(|(name, encrypted_root, kek_id)| DomainRow { name, encrypted_root, kek_id }))
}

pub(crate) struct IssuerRow {
    pub(crate) right: String,
    pub(crate) epoch: u32,
    pub(crate) credential: Vec<u8>,
    pub(crate) encrypted_seed: Vec<u8>,
    pub(crate) not_after: i64,
}

/// `false` if the kid was taken.
pub(crate) async fn insert_issuer(
    conn: &mut SqliteConnection,
    kid: &[u8],
    row: &IssuerRow,
    now: i64,
) -> Result<bool> {
    let sql = "INSERT INTO issuers
                   (kid, issuer_right, epoch, credential, encrypted_seed, not_after, created)
               VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kid) DO NOTHING";
    let done = sqlx::query(sql)
        .bind(kid)
        .bind(&row.right)
        .bind(row.epoch)
        .bind(&row.credential)
        .bind(&row.encrypted_seed)
        .bind(row.not_after)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The newest issuer with that right.
pub(crate) async fn issuer(conn: &mut SqliteConnection, right: &str) -> Result<Option<IssuerRow>> {
    let sql = "SELECT epoch, credential, encrypted_seed, not_after FROM issuers
               WHERE issuer_right = ? ORDER BY epoch DESC LIMIT 1";
    let row: Option<(u32, Vec<u8>, Vec<u8>, i64)> =
        sqlx::query_as(sql).bind(right).fetch_optional(conn).await?;
    Ok(row.map(|(epoch, credential, encrypted_seed, not_after)| IssuerRow {
        right: right.to_owned(),
        epoch,
        credential,
        encrypted_seed,
        not_after,
    }))
}

/// Every issuer's credential as signed.
pub(crate) async fn issuer_credentials(conn: &mut SqliteConnection) -> Result<Vec<Vec<u8>>> {
    let sql = "SELECT credential FROM issuers ORDER BY issuer_right, epoch";
    Ok(sqlx::query_scalar(sql).fetch_all(conn).await?)
}
