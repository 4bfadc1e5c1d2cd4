//! Rows of `revoked_kids`, `lowest_epochs` and `statement`.

use sqlx::sqlite::SqliteConnection;

use crate::error::Result;

/// Lists a kid, or lists it for longer.
pub(crate) async fn insert_kid(
    conn: &mut SqliteConnection,
    kid: &[u8],
    until: i64,
    now: i64,
) -> Result<()> {
    let sql = "INSERT INTO revoked_kids (kid, until, created) VALUES (?, ?, ?)
               ON CONFLICT (kid) DO UPDATE SET until = max(until, excluded.until)";
    sqlx::query(sql).bind(kid).bind(until).bind(now).execute(conn).await?;
    Ok(())
}

/// Every kid that has to be listed at `now`, in order, with its end.
pub(crate) async fn kids(conn: &mut SqliteConnection, now: i64) -> Result<Vec<(Vec<u8>, i64)>> {
    let sql = "SELECT kid, until FROM revoked_kids WHERE until > ? ORDER BY kid";
    Ok(sqlx::query_as(sql).bind(now).fetch_all(conn).await?)
}

pub(crate) struct LowestRow {
    pub(crate) principal: String,
    pub(crate) incarnation: u32,
    pub(crate) credential_epoch: u32,
    pub(crate) pair_epoch: u32,
    pub(crate) until: i64,
}

/// Sets what is lowest of a principal; the caller has made sure that nothing falls.
pub(crate) async fn set_lowest(
    conn: &mut SqliteConnection,
    row: &LowestRow,
    now: i64,
) -> Result<()> {
    let sql = "REPLACE INTO lowest_epochs
                   (principal, incarnation, credential_epoch, pair_epoch, until, created)
               VALUES (?, ?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(&row.principal)
        .bind(row.incarnation)
        .bind(row.credential_epoch)
        .bind(row.pair_epoch)
        .bind(row.until)
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

/// What is lowest of every principal that has to be listed at `now`, in the order of their names.
pub(crate) async fn lowest(conn: &mut SqliteConnection, now: i64) -> Result<Vec<LowestRow>> {
    let sql = "SELECT principal, incarnation, credential_epoch, pair_epoch, until
               FROM lowest_epochs WHERE until > ? ORDER BY principal";
    let rows: Vec<(String, u32, u32, u32, i64)> =
        sqlx::query_as(sql).bind(now).fetch_all(conn).await?;
    let row = |(principal, incarnation, credential_epoch, pair_epoch, until)| LowestRow {
        principal,
        incarnation,
        credential_epoch,
        pair_epoch,
        until,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The newest statement.
pub(crate) async fn statement(conn: &mut SqliteConnection) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT bytes FROM statement WHERE id = 1";
    Ok(sqlx::query_scalar(sql).fetch_optional(conn).await?)
}

/// The epoch of the newest statement, which nothing else may lower; 0 before the first.
pub(crate) async fn epoch(conn: &mut SqliteConnection) -> Result<u64> {
    let sql = "SELECT coalesce(max(epoch), 0) FROM statement";
    let epoch: i64 = sqlx::query_scalar(sql).fetch_one(conn).await?;
    Ok(epoch.unsigned_abs())
}

pub(crate) async fn set_statement(
    conn: &mut SqliteConnection,
    epoch: i64,
    issued_at: i64,
    bytes: &[u8],
) -> Result<()> {
    let sql = "REPLACE INTO statement (id, epoch, issued_at, bytes) VALUES (1, ?, ?, ?)";
    sqlx::query(sql).bind(epoch).bind(issued_at).bind(bytes).execute(conn).await?;
    Ok(())
}

/// The kids of a principal's credentials with their ends.
pub(crate) async fn credentials_of(
    conn: &mut SqliteConnection,
    principal_id: i64,
) -> Result<Vec<(Vec<u8>, i64)>> {
    let sql = "SELECT kid, not_after FROM credentials WHERE principal_id = ?";
    Ok(sqlx::query_as(sql).bind(principal_id).fetch_all(conn).await?)
}

/// The kids of a principal's pair keys.
pub(crate) async fn pairs_of(
    conn: &mut SqliteConnection,
    principal_id: i64,
) -> Result<Vec<Vec<u8>>> {
    let sql = "SELECT kid FROM pair_keys WHERE agent_id = ?1 OR component_id = ?1";
    Ok(sqlx::query_scalar(sql).bind(principal_id).fetch_all(conn).await?)
}

/// The end of the credential that a kid names; `None` within for a pair key, which has none.
pub(crate) async fn end_of_kid(
    conn: &mut SqliteConnection,
    kid: &[u8],
) -> Result<Option<Option<i64>>> {
    let sql = "SELECT not_after FROM credentials WHERE kid = ?1
               UNION ALL SELECT NULL FROM pair_keys WHERE kid = ?1";
    Ok(sqlx::query_scalar(sql).bind(kid).fetch_optional(conn).await?)
}
