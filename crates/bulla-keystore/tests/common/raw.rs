//! SQL past the keystore.

use std::fmt::Write;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::Database;

pub enum Raw {
    Sqlite(sqlx::SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgConnection),
    #[cfg(feature = "mariadb")]
    MariaDb(sqlx::MySqlConnection),
}

macro_rules! on_each {
    ($raw:expr, |$conn:ident| $body:expr) => {
        match $raw {
            Raw::Sqlite($conn) => $body,
            #[cfg(feature = "postgres")]
            Raw::Postgres($conn) => $body,
            #[cfg(feature = "mariadb")]
            Raw::MariaDb($conn) => $body,
        }
    };
}

impl Raw {
    pub async fn connect(database: Database, url: &str) -> Self {
        match database {
            #[cfg(feature = "postgres")]
            Database::Postgres => Self::Postgres(sqlx::PgConnection::connect(url).await.unwrap()),
            #[cfg(feature = "mariadb")]
            Database::MariaDb => Self::MariaDb(sqlx::MySqlConnection::connect(url).await.unwrap()),
            _ => {
                let options = SqliteConnectOptions::new().filename(url).foreign_keys(false);
                Self::Sqlite(options.connect().await.unwrap())
            }
        }
    }

    /// How many rows it changed.
    pub async fn run(&mut self, sql: &str) -> u64 {
        let sql = AssertSqlSafe(sql.to_owned());
        on_each!(self, |conn| sqlx::query(sql).execute(conn).await.unwrap().rows_affected())
    }

    /// Statements that can't be prepared.
    pub async fn script(&mut self, sql: &str) {
        self.try_script(sql).await.unwrap();
    }

    /// What the database says against it.
    pub async fn try_script(&mut self, sql: &str) -> Result<(), String> {
        let sql = AssertSqlSafe(sql.to_owned());
        on_each!(self, |conn| sqlx::raw_sql(sql)
            .execute(conn)
            .await
            .map(drop)
            .map_err(|error| error.to_string()))
    }

    pub async fn text(&mut self, sql: &str) -> String {
        let sql = AssertSqlSafe(sql.to_owned());
        on_each!(self, |conn| sqlx::query(sql).fetch_one(conn).await.unwrap().get(0))
    }

    /// The first column of every row.
    pub async fn texts(&mut self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql.to_owned());
        on_each!(self, |conn| {
            let rows = sqlx::query(sql).fetch_all(conn).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        })
    }

    /// The same of bytes.
    pub async fn byte_rows(&mut self, sql: &str) -> Vec<Vec<u8>> {
        let sql = AssertSqlSafe(sql.to_owned());
        on_each!(self, |conn| {
            let rows = sqlx::query(sql).fetch_all(conn).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        })
    }

    pub async fn number(&mut self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        on_each!(self, |conn| sqlx::query(sql).fetch_one(conn).await.unwrap().get(0))
    }

    pub async fn bytes(&mut self, sql: &str) -> Vec<u8> {
        let sql = AssertSqlSafe(sql.to_owned());
        on_each!(self, |conn| sqlx::query(sql).fetch_one(conn).await.unwrap().get(0))
    }

    /// How a statement writes these bytes.
    pub fn literal(&self, bytes: &[u8]) -> String {
        let mut hex = String::new();
        for byte in bytes {
            write!(hex, "{byte:02x}").unwrap();
        }
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => format!("decode('{hex}', 'hex')"),
            _ => format!("X'{hex}'"),
        }
    }

    pub async fn close(self) {
        on_each!(self, |conn| conn.close().await.unwrap());
    }
}
