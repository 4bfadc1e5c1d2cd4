//! A database on a PostgreSQL server.

use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions, Postgres};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::{BUSY, Conn, Handle, Pools, READERS};
use crate::address::Server;
use crate::error::{KeystoreError, Result};

/// What writers lock, by a number: "Bulla" in ASCII.
const LOCK: &str = "SELECT pg_advisory_xact_lock(285437881441)";

pub(super) async fn connect(server: &Server) -> Result<Pools<Postgres>> {
    let options = PgConnectOptions::from_str(server.url()).map_err(|_| KeystoreError::Address {
        why: format!("`{}` is not understood; write postgres://user@host/database", server.shown),
    })?;
    let options = options.application_name("bulla").disable_statement_logging();
    examine(server, &options).await?;
    let pool = |connections: u32, writes: bool| {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(BUSY)
            .after_connect(move |conn, _| Box::pin(set_up(conn, writes)))
            .connect_lazy_with(options.clone())
    };
    Ok(Pools { readers: pool(READERS, false), writer: pool(1, true) })
}

/// At once and not through a pool, which would try until its time is over.
async fn examine(server: &Server, options: &PgConnectOptions) -> Result<()> {
    let failed = |error: sqlx::Error| KeystoreError::Unreachable {
        place: server.shown.clone(),
        why: error.to_string(),
    };
    let unfit = |why| Err(KeystoreError::Unfit { place: server.shown.clone(), why });
    let mut conn = options.connect().await.map_err(failed)?;
    let asked = "SELECT current_setting('fsync') AS fsync, pg_is_in_recovery() AS standby";
    let row = conn.fetch_one(asked).await.map_err(failed)?;
    let (fsync, standby) = (row.try_get::<String, _>(0)?, row.try_get::<bool, _>(1)?);
    conn.close().await.map_err(failed)?;
    match (fsync.as_str(), standby) {
        (_, true) => unfit("it is a standby; give the primary's address"),
        ("on", _) => Ok(()),
        _ => unfit("its fsync is off, so it may forget which keys it gave out; set `fsync = on`"),
    }
}

async fn set_up(conn: &mut PgConnection, writes: bool) -> Result<(), sqlx::Error> {
    // A process that hangs in a transaction must not stop the others for long, and a power cut
    // must not bring back an incarnation that was given out already.
    conn.execute(
        "SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = '30s'; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') IN ('off', 'local')",
    )
    .await?;
    if !writes {
        conn.execute("SET default_transaction_read_only = on").await?;
    }
    Ok(())
}

/// A transaction that holds the lock, and whose statements each see what was committed before
/// them: with the lock, that is one state.
pub(super) async fn write(pools: &Pools<Postgres>) -> Result<Conn> {
    let begin = ["BEGIN ISOLATION LEVEL READ COMMITTED", LOCK];
    let conn = pools.writer.acquire().await?;
    Ok(Conn::Postgres(Handle::begin(conn, &begin).await?))
}
