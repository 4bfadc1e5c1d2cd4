//! Floors in a SQLite file: for one machine, on disk before anything is done with a message.

use std::fmt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bulla_seal::{Kid, Level, Party, SignedExemption};
use bytes::Bytes;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Error, Row};

use super::store::unknown_peer;
use super::{Action, CensusRow, Event, FloorError, FloorStore, PeerRecord, step};

/// Marks a file as a store of floors ("BLFL").
const APPLICATION_ID: i64 = 0x424c_464c;
const BUSY: Duration = Duration::from_secs(30);

const TABLES: &str = "
    CREATE TABLE peer_floors (
        peer        TEXT    NOT NULL,
        incarnation INTEGER NOT NULL,
        accepts     INTEGER NOT NULL,
        sends       INTEGER NOT NULL,
        target      INTEGER,
        PRIMARY KEY (peer, incarnation)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE exemptions (
        id     BLOB PRIMARY KEY,
        signed BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE peer_census (
        peer        TEXT    NOT NULL,
        incarnation INTEGER NOT NULL,
        method      TEXT    NOT NULL,
        level       INTEGER NOT NULL,
        count       INTEGER NOT NULL,
        last        INTEGER NOT NULL,
        below       INTEGER NOT NULL,
        last_below  INTEGER NOT NULL,
        PRIMARY KEY (peer, incarnation, method, level)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE floor_generation (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        n   INTEGER NOT NULL
    ) STRICT;
    INSERT INTO floor_generation VALUES (1, 1);
    PRAGMA user_version = 1;
    PRAGMA application_id = 1112294988;
";

/// Floors in a file of mode 0600, in WAL mode with full synchronisation. Processes of one machine
/// may share it.
#[derive(Clone)]
pub struct SqliteFloors {
    place: String,
    pool: SqlitePool,
}

impl SqliteFloors {
    /// Opens the file, or makes it.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, FloorError> {
        let path = path.as_ref().to_owned();
        let place = format!("`{}`", path.display());
        let failed = |why: String| FloorError { place: place.clone(), why };
        let made = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        made.map_err(|error| failed(error.to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await;
        let pool = pool.map_err(|error| failed(error.to_string()))?;
        let ours = prepare(&pool).await.map_err(|error| failed(error.to_string()))?;
        if !ours {
            return Err(failed("it is a SQLite file of another program or version".into()));
        }
        Ok(Self { place, pool })
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    fn failed(&self, error: &Error) -> FloorError {
        FloorError { place: self.place.clone(), why: error.to_string() }
    }
}

impl fmt::Debug for SqliteFloors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteFloors({})", self.place)
    }
}

/// Makes the tables in an empty file; whether the file is a store of floors.
async fn prepare(pool: &SqlitePool) -> Result<bool, Error> {
    const { assert!(APPLICATION_ID == 1_112_294_988) };
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let number = async |tx: &mut SqliteConnection, sql: &'static str| {
        sqlx::query_scalar::<_, i64>(sql).fetch_one(tx).await
    };
    let application = number(&mut tx, "PRAGMA application_id").await?;
    let version = number(&mut tx, "PRAGMA user_version").await?;
    let tables = number(&mut tx, "SELECT count(*) FROM sqlite_schema").await?;
    if (application, version, tables) == (0, 0, 0) {
        sqlx::raw_sql(TABLES).execute(&mut *tx).await?;
        tx.commit().await?;
        return Ok(true);
    }
    Ok((application, version) == (APPLICATION_ID, 1))
}

fn level(row: &SqliteRow, column: &str) -> Result<Level, Error> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).ok().and_then(Level::from_wire).ok_or_else(|| damaged(column))
}

fn damaged(what: &str) -> Error {
    Error::Decode(format!("column {what} holds what was never written there").into())
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| damaged(column))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn party(row: &SqliteRow) -> Result<Party, Error> {
    let principal = row.try_get::<&str, _>("peer")?.parse().map_err(|_| damaged("peer"))?;
    let incarnation = row.try_get("incarnation")?;
    Ok(Party::new(principal, incarnation))
}

fn record(row: &SqliteRow, peer: &Party) -> Result<PeerRecord, Error> {
    let target = match row.try_get::<Option<i64>, _>("target")? {
        Some(_) => Some(level(row, "target")?),
        None => None,
    };
    let (accepts, sends) = (level(row, "accepts")?, level(row, "sends")?);
    Ok(PeerRecord { target, ..PeerRecord::new(peer.principal.kind(), accepts, sends) })
}

async fn read(conn: &mut SqliteConnection, peer: &Party) -> Result<Option<PeerRecord>, Error> {
    let sql = "SELECT accepts, sends, target FROM peer_floors WHERE peer = ? AND incarnation = ?";
    let row = sqlx::query(sql).bind(peer.principal.as_str()).bind(peer.incarnation);
    row.fetch_optional(conn).await?.map(|row| record(&row, peer)).transpose()
}

async fn write(
    conn: &mut SqliteConnection,
    peer: &Party,
    record: &PeerRecord,
) -> Result<(), Error> {
    sqlx::query(
        "REPLACE INTO peer_floors (peer, incarnation, accepts, sends, target) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(peer.principal.as_str())
    .bind(peer.incarnation)
    .bind(record.accepts.to_wire())
    .bind(record.sends.to_wire())
    .bind(record.target.map(Level::to_wire))
    .execute(conn)
    .await?;
    Ok(())
}

async fn turn(conn: &mut SqliteConnection) -> Result<(), Error> {
    sqlx::query("UPDATE floor_generation SET n = n + 1").execute(conn).await?;
    Ok(())
}

impl SqliteFloors {
    async fn stepped(&self, peer: &Party, event: Event) -> Result<(PeerRecord, Action), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let record = read(&mut tx, peer).await?.unwrap_or_else(|| unknown_peer(peer));
        let (record, action) = step(record, event);
        if action != Action::Keep {
            write(&mut tx, peer, &record).await?;
            turn(&mut tx).await?;
        }
        tx.commit().await?;
        Ok((record, action))
    }

    async fn exempted(&self, exemption: &SignedExemption) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("REPLACE INTO exemptions (id, signed) VALUES (?, ?)")
            .bind(exemption.id.as_bytes())
            .bind(&exemption.as_bytes()[..])
            .execute(&mut *tx)
            .await?;
        turn(&mut tx).await?;
        tx.commit().await
    }

    async fn unexempted(&self, id: Kid) -> Result<bool, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let gone = sqlx::query("DELETE FROM exemptions WHERE id = ?").bind(id.as_bytes());
        let was_there = gone.execute(&mut *tx).await?.rows_affected() > 0;
        turn(&mut tx).await?;
        tx.commit().await?;
        Ok(was_there)
    }

    async fn counted(&self, rows: &[CensusRow]) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for row in rows {
            let sql = "INSERT INTO peer_census VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET count = count + excluded.count,
                     last = max(last, excluded.last), below = below + excluded.below,
                     last_below = max(last_below, excluded.last_below)";
            sqlx::query(sql)
                .bind(row.peer.principal.as_str())
                .bind(row.peer.incarnation)
                .bind(&row.method)
                .bind(row.level.to_wire())
                .bind(signed(row.count))
                .bind(signed(row.last))
                .bind(signed(row.below))
                .bind(signed(row.last_below))
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    async fn all<T>(
        &self,
        sql: &'static str,
        read: impl Fn(&SqliteRow) -> Result<T, Error>,
    ) -> Result<Vec<T>, FloorError> {
        let rows = sqlx::query(sql).fetch_all(&self.pool).await;
        let items = rows.and_then(|rows| rows.iter().map(read).collect());
        items.map_err(|error| self.failed(&error))
    }
}

#[async_trait]
impl FloorStore for SqliteFloors {
    async fn record(&self, peer: &Party) -> Result<Option<PeerRecord>, FloorError> {
        let found = async { read(&mut *self.pool.acquire().await?, peer).await };
        found.await.map_err(|error| self.failed(&error))
    }

    async fn apply(&self, peer: &Party, event: Event) -> Result<(PeerRecord, Action), FloorError> {
        self.stepped(peer, event).await.map_err(|error| self.failed(&error))
    }

    async fn records(&self) -> Result<Vec<(Party, PeerRecord)>, FloorError> {
        let sql = "SELECT * FROM peer_floors ORDER BY peer, incarnation";
        let read = |row: &SqliteRow| {
            let peer = party(row)?;
            let record = record(row, &peer)?;
            Ok((peer, record))
        };
        self.all(sql, read).await
    }

    async fn exemptions(&self) -> Result<Vec<Bytes>, FloorError> {
        let sql = "SELECT signed FROM exemptions ORDER BY id";
        self.all(sql, |row| Ok(row.try_get::<Vec<u8>, _>("signed")?.into())).await
    }

    async fn add_exemption(&self, exemption: &SignedExemption) -> Result<(), FloorError> {
        self.exempted(exemption).await.map_err(|error| self.failed(&error))
    }

    async fn remove_exemption(&self, id: Kid) -> Result<bool, FloorError> {
        self.unexempted(id).await.map_err(|error| self.failed(&error))
    }

    async fn generation(&self) -> Result<u64, FloorError> {
        let n = sqlx::query("SELECT n FROM floor_generation").fetch_one(&self.pool).await;
        n.and_then(|row| unsigned(&row, "n")).map_err(|error| self.failed(&error))
    }

    async fn add_census(&self, rows: &[CensusRow]) -> Result<(), FloorError> {
        self.counted(rows).await.map_err(|error| self.failed(&error))
    }

    async fn census(&self) -> Result<Vec<CensusRow>, FloorError> {
        let sql = "SELECT * FROM peer_census ORDER BY peer, incarnation, method, level";
        let read = |row: &SqliteRow| {
            Ok(CensusRow {
                peer: party(row)?,
                method: row.try_get("method")?,
                level: level(row, "level")?,
                count: unsigned(row, "count")?,
                last: unsigned(row, "last")?,
                below: unsigned(row, "below")?,
                last_below: unsigned(row, "last_below")?,
            })
        };
        self.all(sql, read).await
    }
}
