//! The keystore's tables: all SQL, and nothing but rows. What a row means, and every key, is the
//! caller's business. One text serves every database; [`dialect`] has what they say differently,
//! [`sqlite`], `postgres` and `mariadb` how one is opened.

pub(crate) mod access_keys;
pub(crate) mod component_keys;
pub(crate) mod credentials;
pub(crate) mod floors;
pub(crate) mod groups;
pub(crate) mod join;
pub(crate) mod keys;
pub(crate) mod legacy;
pub(crate) mod migrations;
pub(crate) mod news;
pub(crate) mod pairs;
pub(crate) mod policies;
pub(crate) mod principals;
pub(crate) mod recalls;
pub(crate) mod revocation;
pub(crate) mod roles;
pub(crate) mod rotation;
pub(crate) mod services;
pub(crate) mod summary;
pub(crate) mod trust;
pub(crate) mod wrapped;

mod conn;
mod dialect;
#[cfg(feature = "mariadb")]
mod mariadb;
#[cfg(feature = "postgres")]
mod postgres;
mod row;
#[cfg(test)]
#[cfg(any(feature = "postgres", feature = "mariadb"))]
mod server_tests;
mod sqlite;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Database, Pool, Sqlite};

pub(crate) use conn::{Arg, Conn, args};
pub(crate) use dialect::listed;
pub(crate) use dialect::{Dialect, Taken};
pub(crate) use sqlite::{discard, mark};

use crate::address::{Place, StoreAddress};
use crate::error::{KeystoreError, Result};
use conn::Handle;

/// Rows that one statement inserts: so many that the way to a server is paid seldom.
pub(crate) const ROWS_AT_ONCE: usize = 250;
/// How long a writer waits for another process's transaction.
pub(crate) const BUSY: Duration = Duration::from_secs(30);
/// Connections for look-ups; SQLite answers each in its own thread.
const READERS: u32 = 4;

/// Connections to one database: many readers, one writer, so that writers of one process queue up
/// here and not at the database's lock, and never keep a look-up waiting for a connection.
pub(crate) struct Pools<D: Database> {
    readers: Pool<D>,
    writer: Pool<D>,
}

impl<D: Database> Clone for Pools<D> {
    fn clone(&self) -> Self {
        Self { readers: self.readers.clone(), writer: self.writer.clone() }
    }
}

impl<D: Database> Pools<D> {
    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// The open database. Transactions that write hold a lock from their beginning until their end,
/// one in the whole database at a time, so that what they read still holds when they write:
/// SQLite's own, an advisory lock in PostgreSQL, a row's in MariaDB. They are short and rare, and
/// with the one lock none is ever refused for what another did meanwhile (a serialization failure,
/// a deadlock), so that nothing has to be tried again; but on the nodes of a Galera cluster.
#[derive(Clone)]
#[allow(clippy::enum_variant_names, reason = "MariaDB is called so")]
pub(crate) enum Db {
    Sqlite(Pools<Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(Pools<sqlx::Postgres>),
    #[cfg(feature = "mariadb")]
    MariaDb(Pools<sqlx::MySql>),
}

/// A transaction that writes. Dropped without [`commit`](Tx::commit), it is undone.
pub(crate) struct Tx(Conn);

/// A change of the schema, which keeps other changes of it out. What is not committed is undone,
/// but for MariaDB: there the next one goes on where it ended (see [`migrations`]).
pub(crate) struct Alter(Conn);

impl Db {
    /// Makes the SQLite file, or connects to a server's database that has no keystore yet.
    pub(crate) async fn create(address: &StoreAddress) -> Result<Self> {
        match &address.0 {
            Place::File(path) => Ok(Self::Sqlite(sqlite::create(path).await?)),
            Place::Server(_) => Self::connect(address).await,
        }
    }

    /// Opens an existing keystore, whatever its schema version.
    pub(crate) async fn open(address: &StoreAddress) -> Result<Self> {
        let db = match &address.0 {
            Place::File(path) => return Ok(Self::Sqlite(sqlite::open(path).await?)),
            Place::Server(_) => Self::connect(address).await?,
        };
        let mut conn = db.read().await?;
        if conn.has_table("schema_version").await? && conn.has_table("trust_domain").await? {
            return Ok(db);
        }
        Err(KeystoreError::Missing { place: address.to_string() })
    }

    async fn connect(address: &StoreAddress) -> Result<Self> {
        let Place::Server(server) = &address.0 else {
            return Err(KeystoreError::NotAKeystore { place: address.to_string() });
        };
        match server.dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => Ok(Self::Postgres(postgres::connect(server).await?)),
            #[cfg(feature = "mariadb")]
            Dialect::MariaDb => Ok(Self::MariaDb(mariadb::connect(server).await?)),
            #[allow(unreachable_patterns, reason = "by features")]
            _ => Err(KeystoreError::NotBuilt { feature: server.feature() }),
        }
    }

    /// A connection for look-ups.
    pub(crate) async fn read(&self) -> Result<Conn> {
        Ok(match self {
            Self::Sqlite(pools) => Conn::Sqlite(Handle::pooled(pools.readers.acquire().await?)),
            #[cfg(feature = "postgres")]
            Self::Postgres(pools) => Conn::Postgres(Handle::pooled(pools.readers.acquire().await?)),
            #[cfg(feature = "mariadb")]
            Self::MariaDb(pools) => Conn::MariaDb(Handle::pooled(pools.readers.acquire().await?)),
        })
    }

    /// A transaction that holds the write lock from its beginning.
    pub(crate) async fn write(&self) -> Result<Tx> {
        match self {
            Self::Sqlite(pools) => {
                let conn = pools.writer.acquire().await?;
                Ok(Tx(Conn::Sqlite(Handle::begin(conn, &["BEGIN IMMEDIATE"]).await?)))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(pools) => Ok(Tx(postgres::write(pools).await?)),
            #[cfg(feature = "mariadb")]
            Self::MariaDb(pools) => Ok(Tx(mariadb::write(pools).await?)),
        }
    }

    /// Begins a change of the schema.
    pub(crate) async fn alter(&self) -> Result<Alter> {
        match self {
            #[cfg(feature = "mariadb")]
            Self::MariaDb(pools) => Ok(Alter(mariadb::alter(pools).await?)),
            _ => Ok(Alter(self.write().await?.0)),
        }
    }

    /// Writes a table anew, so that nothing is left in it of what was overwritten: in SQLite the
    /// whole file, and its log.
    pub(crate) async fn rebuild(&self, table: &'static str) -> Result<()> {
        let mut conn = self.writer().await?;
        conn.script(AssertSqlSafe(conn.dialect().rebuild(table))).await?;
        if conn.dialect() == Dialect::Sqlite {
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            let (busy, ..) = conn.one::<(i64, i64, i64)>(sql, &[]).await?;
            if busy != 0 {
                return Err(KeystoreError::Busy { secs: BUSY.as_secs() });
            }
        }
        Ok(())
    }

    /// The connection that writes, without a transaction.
    async fn writer(&self) -> Result<Conn> {
        Ok(match self {
            Self::Sqlite(pools) => Conn::Sqlite(Handle::pooled(pools.writer.acquire().await?)),
            #[cfg(feature = "postgres")]
            Self::Postgres(pools) => Conn::Postgres(Handle::pooled(pools.writer.acquire().await?)),
            #[cfg(feature = "mariadb")]
            Self::MariaDb(pools) => Conn::MariaDb(Handle::pooled(pools.writer.acquire().await?)),
        })
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pools) => pools.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(pools) => pools.close().await,
            #[cfg(feature = "mariadb")]
            Self::MariaDb(pools) => pools.close().await,
        }
    }
}

impl Tx {
    /// Makes it last.
    pub(crate) async fn commit(self) -> Result<()> {
        self.0.commit().await
    }
}

impl Alter {
    /// From here on rows are changed and no tables; all of it lasts or nothing does.
    pub(crate) async fn rows(&mut self) -> Result<()> {
        match self.0.dialect() {
            Dialect::MariaDb => self.0.script("START TRANSACTION").await,
            _ => Ok(()),
        }
    }

    /// Makes it last.
    pub(crate) async fn commit(mut self) -> Result<()> {
        if self.0.dialect() == Dialect::MariaDb {
            migrations::finish(&mut self.0).await?;
            self.0.script("COMMIT").await?;
            self.0.script("SELECT RELEASE_LOCK(concat(database(), '.bulla'))").await?;
        }
        self.0.commit().await
    }
}

macro_rules! is_a_connection {
    ($($holder:ty),*) => {$(
        impl Deref for $holder {
            type Target = Conn;

            fn deref(&self) -> &Conn {
                &self.0
            }
        }

        impl DerefMut for $holder {
            fn deref_mut(&mut self) -> &mut Conn {
                &mut self.0
            }
        }
    )*};
}

is_a_connection!(Tx, Alter);

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;

    /// Every look-up that a message may cause.
    pub(crate) const LOOK_UPS: &[&str] = &[
        access_keys::FIND,
        credentials::CURRENT,
        groups::KEY,
        groups::OF,
        pairs::BY_KID,
        pairs::CURRENT,
        pairs::OF_AGENT,
        pairs::PEER,
        principals::ACTIVE,
        principals::PAGE,
        rotation::RECEIVE,
    ];

    pub(crate) async fn empty_file(folder: &Path) -> Db {
        Db::create(&StoreAddress::from(folder.join("keystore.db"))).await.unwrap()
    }

    /// Every look-up goes through indexes only, so that it costs the same with 100,000 agents.
    #[tokio::test]
    async fn look_ups_never_scan_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let db = empty_file(folder.path()).await;
        let mut alter = db.alter().await.unwrap();
        migrations::prepare(&mut alter).await.unwrap();
        migrations::up(&mut alter, 0).await.unwrap();
        for sql in LOOK_UPS {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let plan: Vec<(i64, i64, i64, String)> = alter.all(&explain, &[]).await.unwrap();
            let steps: Vec<_> = plan.iter().map(|step| step.3.as_str()).collect();
            assert!(steps.iter().any(|step| step.contains("SEARCH")), "{steps:?}");
            assert!(!steps.iter().any(|step| step.contains("SCAN")), "{sql}: {steps:?}");
        }
    }
}
