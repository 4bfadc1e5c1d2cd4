//! The keys that Trove's own database has, as they are stored there.

use std::fmt;
use std::str::FromStr;

use sqlx::{ConnectOptions, Connection, SqliteConnection};
use zeroize::Zeroizing;

use crate::address::{Place, StoreAddress};
#[cfg(any(feature = "postgres", feature = "mariadb"))]
use crate::db::Dialect;
use crate::error::{KeystoreError, Result};

/// Rows that are in use and have a key.
const KEYS: &str = "SELECT id, encrypted_key FROM instances
    WHERE (deleted IS NULL OR NOT deleted) AND encrypted_key IS NOT NULL AND encrypted_key <> ''
    ORDER BY id";
/// Rows that are in use and have none.
const WITHOUT: &str = "SELECT count(*) FROM instances
    WHERE (deleted IS NULL OR NOT deleted) AND (encrypted_key IS NULL OR encrypted_key = '')";
/// Rows of deleted instances.
const DELETED: &str = "SELECT count(*) FROM instances WHERE deleted";

/// What `instances.encrypted_key` holds.
pub struct TroveKeys {
    /// Instances in use, by id, each with its key as Trove wrapped it.
    pub keys: Vec<(String, Zeroizing<String>)>,
    /// Instances in use without a key: they talk in clear.
    pub without: u64,
    /// Deleted instances; theirs are not read.
    pub deleted: u64,
}

impl fmt::Debug for TroveKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, Self { without, deleted, .. }) = (self.keys.len(), self);
        write!(f, "TroveKeys({keys} keys, {without} without, {deleted} deleted)")
    }
}

macro_rules! read {
    ($connected:expr) => {{
        let mut conn = $connected;
        let rows: Vec<(String, String)> = sqlx::query_as(KEYS).fetch_all(&mut conn).await?;
        let (without,): (i64,) = sqlx::query_as(WITHOUT).fetch_one(&mut conn).await?;
        let (deleted,): (i64,) = sqlx::query_as(DELETED).fetch_one(&mut conn).await?;
        conn.close().await?;
        Ok(TroveKeys {
            keys: rows.into_iter().map(|(id, key)| (id, Zeroizing::new(key))).collect(),
            without: without.unsigned_abs(),
            deleted: deleted.unsigned_abs(),
        })
    }};
}

impl TroveKeys {
    /// Reads them, and changes nothing there: MariaDB (or MySQL), PostgreSQL or SQLite, also as
    /// SQLAlchemy writes addresses (`mysql+pymysql://…`).
    ///
    /// # Errors
    /// It can't be reached, or it is not Trove's.
    pub async fn read(address: &StoreAddress) -> Result<Self> {
        let failed = |error: sqlx::Error| KeystoreError::Trove {
            place: address.to_string(),
            why: error.to_string(),
        };
        match &address.0 {
            Place::File(path) => Self::of_file(path).await.map_err(failed),
            Place::Server(server) => match server.dialect {
                #[cfg(feature = "postgres")]
                Dialect::Postgres => Self::of_postgres(server.url()).await.map_err(failed),
                #[cfg(feature = "mariadb")]
                Dialect::MariaDb => Self::of_mariadb(server.url()).await.map_err(failed),
                #[allow(unreachable_patterns, reason = "by features")]
                _ => Err(KeystoreError::NotBuilt { feature: server.feature() }),
            },
        }
    }

    async fn of_file(path: &std::path::Path) -> Result<Self, sqlx::Error> {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
        let conn: SqliteConnection = options.disable_statement_logging().connect().await?;
        read!(conn)
    }

    #[cfg(feature = "postgres")]
    async fn of_postgres(url: &str) -> Result<Self, sqlx::Error> {
        use sqlx::Executor;
        let options = sqlx::postgres::PgConnectOptions::from_str(url)?;
        let mut conn = options.disable_statement_logging().connect().await?;
        conn.execute("SET default_transaction_read_only = on").await?;
        read!(conn)
    }

    #[cfg(feature = "mariadb")]
    async fn of_mariadb(url: &str) -> Result<Self, sqlx::Error> {
        use sqlx::Executor;
        let options = sqlx::mysql::MySqlConnectOptions::from_str(url)?;
        let mut conn = options.disable_statement_logging().connect().await?;
        conn.execute("SET SESSION TRANSACTION READ ONLY").await?;
        read!(conn)
    }

    /// An address as Trove's own settings have it (`[database] connection`).
    ///
    /// # Errors
    /// It is no address of such a database.
    pub fn address(text: &str) -> Result<StoreAddress> {
        let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
        match scheme.split_once('+') {
            // SQLAlchemy names the library after the database.
            Some((database, _)) => StoreAddress::from_str(&format!("{database}://{rest}")),
            None => StoreAddress::from_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_in_troves_settings() {
        for (text, shown) in [
            ("mysql+pymysql://trove:pw@db.example/trove?charset=utf8", "mysql://db.example/trove"),
            ("postgresql+psycopg2://trove:pw@db.example/trove", "postgresql://db.example/trove"),
            ("postgres://trove@db.example/trove", "postgres://db.example/trove"),
        ] {
            assert_eq!(TroveKeys::address(text).unwrap().to_string(), shown);
        }
        let file = TroveKeys::address("sqlite:////var/lib/trove.sqlite").unwrap();
        assert!(file.file().is_some());
        assert!(TroveKeys::address("redis+x://h/d").is_err());
    }
}
