//! Claims in PostgreSQL or MariaDB, for any number of hosts.

#[cfg(feature = "mariadb")]
mod mariadb;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use sqlx::Error;
use url::Url;

use crate::address::{demanding_tls, without_credentials};
use crate::batch::backend::Ended;
use crate::batch::{Batches, Ledger, store_of_batches};
use crate::store::{NewStore, StoreError, StoreOptions};

/// How to open a store in a SQL database.
#[derive(Clone)]
pub struct SqlOptions {
    /// `postgres://user[:password]@host[:port]/database` or `mysql://…` for MariaDB. TLS with
    /// the server's certificate checked is demanded of servers on other machines
    /// ([`demanding_tls`](crate::demanding_tls)); `sslrootcert` (`ssl-ca`) names the certificate
    /// authority.
    pub url: String,
    /// Limits and skew; the same on every host.
    pub store: StoreOptions,
    /// What it means that the tables are not there yet. On a bus that was there before, they may
    /// be lost.
    pub new_store: NewStore,
}

impl SqlOptions {
    /// With default limits and skew.
    pub fn new(url: impl Into<String>, new_store: NewStore) -> Self {
        Self { url: url.into(), store: StoreOptions::default(), new_store }
    }
}

impl fmt::Debug for SqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL holds the password.
        f.debug_struct("SqlOptions")
            .field("store", &self.store)
            .field("new_store", &self.new_store)
            .finish_non_exhaustive()
    }
}

/// Claims in PostgreSQL or MariaDB. Everything that waits while one transaction is written goes
/// into the next together, on each host; transactions of several hosts come one after the other,
/// in the order in which they get the ledger's row. The database's clock decides.
///
/// # What has to hold
///
/// The database must have on disk what it committed: [`SqlClaims::open`] refuses PostgreSQL with
/// `fsync` off, a standby, and MariaDB with `innodb_flush_log_at_trx_commit` other than 1.
///
/// # What a failover costs
///
/// A PostgreSQL that was promoted or restored to a point in time (its timeline changed), or a
/// MariaDB of another host name (outside of a Galera cluster), may lack what was committed before:
/// that counts as a lost store, and everything issued up to then and the skew after is refused.
/// A backup that was put back on the same server shows no sign: call
/// [`ClaimStore::declare_lost`](crate::ClaimStore::declare_lost) after it.
///
/// Must be used inside a Tokio runtime. Dropping it lets the writer finish what is queued;
/// [`SqlClaims::close`] waits for that.
#[derive(Clone)]
pub struct SqlClaims {
    address: Arc<str>,
    batches: Batches,
}

/// Which database an address names.
enum Database {
    Postgres,
    MariaDb,
}

impl SqlClaims {
    /// Connects, checks that the database keeps what it is given, brings its tables up to date,
    /// and judges what their state means.
    pub async fn open(options: SqlOptions) -> Result<Self, StoreError> {
        Self::open_by(options, false).await
    }

    /// Goes by the clock of requests instead of the database's, for the conformance module.
    #[cfg(any(test, feature = "conformance"))]
    pub async fn open_with_clock_of_requests(options: SqlOptions) -> Result<Self, StoreError> {
        Self::open_by(options, true).await
    }

    async fn open_by(mut options: SqlOptions, of_request: bool) -> Result<Self, StoreError> {
        let (database, address, url) = parse(&options.url)?;
        options.url = url;
        let store = options.store;
        let batches = match database {
            #[cfg(feature = "postgres")]
            Database::Postgres => {
                let rows = postgres::Rows::open(options, address.clone(), of_request).await?;
                Batches::start(rows, store)
            }
            #[cfg(feature = "mariadb")]
            Database::MariaDb => {
                let rows = mariadb::Rows::open(options, address.clone(), of_request).await?;
                Batches::start(rows, store)
            }
            #[cfg(not(all(feature = "mariadb", feature = "postgres")))]
            _ => return Err(not_built(&database, of_request)),
        };
        Ok(Self { address: address.into(), batches })
    }

    /// Takes the tables back to an older schema (0: none), for an older program. No host may use
    /// them.
    pub async fn revert(url: &str, version: u32) -> Result<(), StoreError> {
        let (database, address, url) = parse(url)?;
        match database {
            #[cfg(feature = "postgres")]
            Database::Postgres => postgres::revert(&url, address, version.into()).await,
            #[cfg(feature = "mariadb")]
            Database::MariaDb => mariadb::revert(&url, address, version.into()).await,
            #[cfg(not(all(feature = "mariadb", feature = "postgres")))]
            _ => Err(not_built(&database, version == 0)),
        }
    }

    /// Finishes what is queued and closes the connection.
    pub async fn close(&self) {
        self.batches.close().await;
    }
}

store_of_batches!(SqlClaims, shared: true);

impl fmt::Debug for SqlClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlClaims").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Which database `url` names, and its address without user and password.
/// Which database, its address for messages, and the one to connect to.
fn parse(url: &str) -> Result<(Database, String, String), StoreError> {
    let bad = |why: &str| StoreError::Address { why: why.to_owned() };
    // What the parser says could quote the password.
    let parsed = Url::parse(url).map_err(|_| bad("it can't be parsed"))?;
    let database = match parsed.scheme() {
        "postgres" | "postgresql" => Database::Postgres,
        "mysql" | "mariadb" => Database::MariaDb,
        _ => return Err(bad("it begins with neither postgres:// nor mysql://")),
    };
    Ok((database, without_credentials(&parsed), demanding_tls(parsed).into()))
}

#[cfg(not(all(feature = "mariadb", feature = "postgres")))]
fn not_built(database: &Database, _: bool) -> StoreError {
    let feature = match database {
        Database::Postgres => "postgres",
        Database::MariaDb => "mariadb",
    };
    StoreError::Address { why: format!("this program was built without the feature `{feature}`") }
}

struct Migration {
    up: &'static str,
    down: &'static str,
}

/// Settles what the tables mean at this start or to this connection. Says whether the ledger
/// changed.
fn judge(
    ledger: &mut Ledger,
    options: &SqlOptions,
    is_new: bool,
    generation: Option<String>,
    now_ms: u64,
) -> bool {
    let moved = ledger.generation.is_some() && generation != ledger.generation;
    if moved || is_new && options.new_store == NewStore::MayBeLost {
        tracing::warn!("the claim store counts as lost: what was issued before now is refused");
        ledger.gate.lose(now_ms, options.store.skew_s);
    }
    let changed = moved || is_new || ledger.generation != generation;
    ledger.generation = generation;
    changed
}

/// What a failure means to the operator.
fn io_error(address: &str, error: &Error) -> StoreError {
    let (path, why) = (address.to_owned(), error.to_string());
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        // Who we are, and what we may do (SQLSTATE classes 28 and 42501 and 3D000; MariaDB gives
        // 42000 with them).
        Some("28000" | "28P01" | "42501" | "3D000") => StoreError::Unfit { path, why },
        _ => StoreError::Io { path, why },
    }
}

/// What became of a transaction that met `error`, by SQLSTATE.
fn ended(error: &Error) -> Ended {
    let Some(told) = error.as_database_error() else {
        return match error {
            Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => Ended::Cut,
            _ => Ended::ForGood,
        };
    };
    match told.code().as_deref() {
        // Serialization failure, deadlock, lock timeout.
        Some("40001" | "40P01" | "55P03") => Ended::InTheWay,
        // The server goes down or comes up, or tired of waiting for us.
        Some("57P01" | "57P02" | "57P03" | "25P03" | "08S01") => Ended::Cut,
        // MariaDB gives HY000 to a lock that could not be had in time (1205), and to a server
        // that goes down (1053).
        Some("HY000") if told.message().contains("Lock wait timeout") => Ended::InTheWay,
        _ => Ended::ForGood,
    }
}
