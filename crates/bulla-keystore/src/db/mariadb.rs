//! A database on a MariaDB server.

use std::str::FromStr;

use sqlx::mysql::{MySql, MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::{BUSY, Conn, Handle, Pools, READERS};
use crate::address::Server;
use crate::error::{KeystoreError, Result};

pub(super) async fn connect(server: &Server) -> Result<Pools<MySql>> {
    let options =
        MySqlConnectOptions::from_str(server.url()).map_err(|_| KeystoreError::Address {
            why: format!("`{}` is not understood; write mysql://user@host/database", server.shown),
        })?;
    let options = options.disable_statement_logging();
    examine(server, &options).await?;
    let pool = |connections: u32, writes: bool| {
        MySqlPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(BUSY)
            .after_connect(move |conn, _| Box::pin(set_up(conn, writes)))
            .connect_lazy_with(options.clone())
    };
    Ok(Pools { readers: pool(READERS, false), writer: pool(1, true) })
}

/// At once and not through a pool, which would try until its time is over.
async fn examine(server: &Server, options: &MySqlConnectOptions) -> Result<()> {
    let failed = |error: sqlx::Error| KeystoreError::Unreachable {
        place: server.shown.clone(),
        why: error.to_string(),
    };
    let unfit = |why| Err(KeystoreError::Unfit { place: server.shown.clone(), why });
    let mut conn = options.connect().await.map_err(failed)?;
    let asked = "SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), \
                 CAST(@@read_only AS SIGNED)";
    let row = conn.fetch_one(asked).await.map_err(failed)?;
    let (flush, read_only) = (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
    conn.close().await.map_err(failed)?;
    match (flush, read_only) {
        (1, 0) => Ok(()),
        (1, _) => unfit("it is read-only; give the primary's address"),
        _ => unfit(
            "its innodb_flush_log_at_trx_commit is not 1, so it may forget which keys it gave \
             out; set it to 1",
        ),
    }
}

async fn set_up(conn: &mut MySqlConnection, writes: bool) -> Result<(), sqlx::Error> {
    // A process that hangs in a transaction must not stop the others for long. Nothing that does
    // not fit is cut to fit.
    conn.execute(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
         SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'); \
         SET SESSION innodb_lock_wait_timeout = 30; SET SESSION lock_wait_timeout = 30; \
         SET SESSION idle_transaction_timeout = 30",
    )
    .await?;
    if !writes {
        conn.execute("SET SESSION TRANSACTION READ ONLY").await?;
    }
    Ok(())
}

/// A transaction that holds the row that all writers lock, and whose statements each see what was
/// committed before them: with the lock, that is one state. The row is changed and not only locked,
/// so that of two transactions on two nodes of a Galera cluster, which share no locks, one fails.
pub(super) async fn write(pools: &Pools<MySql>) -> Result<Conn> {
    let begin = ["START TRANSACTION", "UPDATE write_lock SET n = n + 1 WHERE one = 1"];
    let conn = pools.writer.acquire().await?;
    Ok(Conn::MariaDb(Handle::begin(conn, &begin).await?))
}

/// The connection for a change of the schema: statements that make tables end a transaction, so a
/// named lock keeps other changes out.
pub(super) async fn alter(pools: &Pools<MySql>) -> Result<Conn> {
    // As a transaction: given up, its connection is closed, and with that the lock is free.
    let conn = pools.writer.acquire().await?;
    let mut conn = Conn::MariaDb(Handle::begin(conn, &[]).await?);
    let lock = "SELECT coalesce(GET_LOCK(concat(database(), '.bulla'), 30), 0)";
    match conn.one::<i64>(lock, &[]).await? {
        1 => Ok(conn),
        _ => Err(KeystoreError::Busy { secs: BUSY.as_secs() }),
    }
}
