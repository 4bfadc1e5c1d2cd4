//! MariaDB.

use std::collections::HashMap;
use std::sync::LazyLock;

use bulla_seal::Party;
use sqlx::mysql::{MySql, MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::query::Query;
use sqlx::{Connection, Error, Executor, Row};

use super::{Migration, SqlOptions, ended, io_error, judge};
use crate::batch::backend::{
    COLUMNS, Columns, Ended, Purged, WIDTH, read_claim, read_ledger, signed, unsigned,
};
use crate::batch::{Backend, Claim, Ledger, Sender};
use crate::store::StoreError;

const MIGRATIONS: &[Migration] = &[Migration {
    up: include_str!("../../migrations/mariadb/0001_claims.up.sql"),
    down: include_str!("../../migrations/mariadb/0001_claims.down.sql"),
}];

/// Rows by statement: the largest size that fits is used first, so that few texts are prepared.
const SIZES: [usize; 3] = [64, 8, 1];
/// Bytes of replies and envelopes in one statement of more than one row: a packet may have 16 MiB.
const BYTES: usize = 4 << 20;

type Text = LazyLock<[String; SIZES.len()]>;
type Bound<'q> = Query<'q, MySql, MySqlArguments>;

static SELECT: Text = LazyLock::new(|| {
    SIZES.map(|rows| {
        let places = vec!["?"; rows].join(", ");
        format!("SELECT {COLUMNS} FROM claim WHERE claim_key IN ({places})")
    })
});

static EXPIRED: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM claim WHERE state = 0 AND until_ms <= ?"));

static UPSERT: Text = LazyLock::new(|| {
    let row = format!("({})", ["?"; WIDTH].join(", "));
    SIZES.map(|rows| {
        let values = vec![row.as_str(); rows].join(", ");
        format!(
            "INSERT INTO claim ({COLUMNS}) VALUES {values} ON DUPLICATE KEY UPDATE \
             state = VALUES(state), worker = VALUES(worker), attempt = VALUES(attempt), \
             until_ms = VALUES(until_ms), idempotent = VALUES(idempotent), \
             envelope = VALUES(envelope), reply_digest = VALUES(reply_digest), \
             reply = VALUES(reply)"
        )
    })
});

static SENDERS: Text = LazyLock::new(|| {
    SIZES.map(|rows| {
        let places = vec!["(?, ?)"; rows].join(", ");
        format!(
            "SELECT id, principal, incarnation, ids FROM claim_sender \
             WHERE (principal, incarnation) IN ({places})"
        )
    })
});

static SAVE_SENDERS: Text = LazyLock::new(|| {
    SIZES.map(|rows| {
        let places = vec!["(?, ?, ?, ?)"; rows].join(", ");
        format!(
            "INSERT INTO claim_sender (id, principal, incarnation, ids) VALUES {places} \
             ON DUPLICATE KEY UPDATE ids = VALUES(ids)"
        )
    })
});

/// Cuts `items` into slices of the known sizes, each with the statement for it.
fn chunks<'a, T>(
    texts: &'static Text,
    mut items: &'a [T],
    size_of: impl Fn(&T) -> usize,
) -> Vec<(Bound<'a>, &'a [T])> {
    let mut cut = Vec::new();
    for (size, text) in SIZES.iter().zip(texts.iter()) {
        while let Some((chunk, rest)) = items.split_at_checked(*size) {
            if *size > 1 && chunk.iter().map(&size_of).sum::<usize>() > BYTES {
                break;
            }
            cut.push((sqlx::query(text.as_str()), chunk));
            items = rest;
        }
    }
    cut
}

pub(super) struct Rows {
    conn: Option<MySqlConnection>,
    options: SqlOptions,
    address: String,
    of_request: bool,
}

impl Rows {
    pub(super) async fn open(
        options: SqlOptions,
        address: String,
        of_request: bool,
    ) -> Result<Self, StoreError> {
        let mut conn = connect(&options.url, &address).await?;
        let failed = |error: Error| io_error(&address, &error);
        let is_new = upgrade(&mut conn, &address).await?;
        let mut rows = Self { conn: Some(conn), options, address: address.clone(), of_request };
        rows.settle(is_new).await.map_err(failed)?;
        Ok(rows)
    }

    /// Judges what this server's state means, before anything is asked of it.
    async fn settle(&mut self, is_new: bool) -> Result<(), Error> {
        let conn = self.conn.as_mut().ok_or(Error::PoolClosed)?;
        // Another host may lack what this one committed, but for a Galera cluster.
        let named = "SELECT IF(@@wsrep_on, 'galera', @@hostname) AS generation";
        let generation = conn.fetch_one(named).await?.try_get("generation")?;
        let (mut ledger, now_ms) = begin(conn).await?;
        judge(&mut ledger, &self.options, is_new, Some(generation), now_ms);
        // Quotas may have been set anew since the last start.
        let shared = sqlx::query(
            "SELECT CAST(coalesce(sum(greatest(ids - ?, 0)), 0) AS SIGNED) AS shared \
             FROM claim_sender",
        );
        let shared = shared.bind(signed(self.options.store.limits.per_sender));
        ledger.shared = unsigned(shared.fetch_one(&mut *conn).await?.try_get("shared")?);
        self.save_ledger(&ledger).await?;
        self.commit().await
    }

    fn conn(&mut self) -> Result<&mut MySqlConnection, Error> {
        self.conn.as_mut().ok_or(Error::PoolClosed)
    }

    /// The connection, made again if it was lost.
    async fn connected(&mut self) -> Result<(), Error> {
        if self.conn.is_some() {
            return Ok(());
        }
        let options = parse(&self.options.url)?;
        let mut conn = MySqlConnection::connect_with(&options).await?;
        set_up(&mut conn).await?;
        self.conn = Some(conn);
        if let Err(error) = self.settle(false).await {
            self.conn = None;
            return Err(error);
        }
        Ok(())
    }
}

fn parse(url: &str) -> Result<MySqlConnectOptions, Error> {
    match url.strip_prefix("mariadb://") {
        Some(rest) => format!("mysql://{rest}").parse(),
        None => url.parse(),
    }
}

async fn connect(url: &str, address: &str) -> Result<MySqlConnection, StoreError> {
    let failed = |error: Error| io_error(address, &error);
    let unfit = |why: &str| StoreError::Unfit { path: address.to_owned(), why: why.to_owned() };
    let options = parse(url).map_err(|_| StoreError::Address {
        why: format!("`{address}` is not understood; write mysql://user@host:3306/database"),
    })?;
    let mut conn = MySqlConnection::connect_with(&options).await.map_err(failed)?;
    let asked = "SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED) AS flush, \
                 CAST(@@read_only AS SIGNED) AS read_only";
    let row = conn.fetch_one(asked).await.map_err(failed)?;
    if row.try_get::<i64, _>("flush").map_err(failed)? != 1 {
        return Err(unfit(
            "its innodb_flush_log_at_trx_commit is not 1, so it may forget what ran; set it to 1",
        ));
    }
    if row.try_get::<i64, _>("read_only").map_err(failed)? != 0 {
        return Err(unfit("it is read-only; give the primary's address"));
    }
    set_up(&mut conn).await.map_err(failed)?;
    Ok(conn)
}

async fn set_up(conn: &mut MySqlConnection) -> Result<(), Error> {
    // A host that hangs in a transaction must not stop the others for long.
    conn.execute(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
         SET SESSION innodb_lock_wait_timeout = 10; SET SESSION idle_transaction_timeout = 10",
    )
    .await
    .map(drop)
}

async fn begin(conn: &mut MySqlConnection) -> Result<(Ledger, u64), Error> {
    conn.execute("START TRANSACTION").await?;
    let ledger = sqlx::query("SELECT * FROM claim_ledger WHERE one = 1 FOR UPDATE");
    let ledger = read_ledger(&ledger.fetch_one(&mut *conn).await?)?;
    // Read when the row is ours: the wait for it may be long. The session's zone is UTC.
    let now = sqlx::query("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED) AS now_ms");
    let now_ms: i64 = now.fetch_one(conn).await?.try_get("now_ms")?;
    Ok((ledger, unsigned(now_ms)))
}

/// Brings the tables up to date; says whether there were none.
async fn upgrade(conn: &mut MySqlConnection, address: &str) -> Result<bool, StoreError> {
    let failed = |error: Error| io_error(address, &error);
    let there = "SELECT CAST(count(*) AS SIGNED) AS there FROM information_schema.tables \
                 WHERE table_schema = database() AND table_name = 'claim_schema'";
    let there: i64 =
        conn.fetch_one(there).await.and_then(|row| row.try_get("there")).map_err(failed)?;
    if there == 1 && version(conn, address).await? == MIGRATIONS.len() as i64 {
        // Nothing to do, for which no right to make tables is needed.
        return Ok(false);
    }
    // No statement that makes a table can be taken back here: a lock keeps others out, and each
    // may be repeated.
    conn.execute("SELECT GET_LOCK(concat(database(), '.claim'), 60)").await.map_err(failed)?;
    let upgraded = upgrade_alone(conn, address).await;
    conn.execute("SELECT RELEASE_LOCK(concat(database(), '.claim'))").await.map_err(failed)?;
    upgraded
}

async fn upgrade_alone(conn: &mut MySqlConnection, address: &str) -> Result<bool, StoreError> {
    let failed = |error: Error| io_error(address, &error);
    conn.execute(
        "CREATE TABLE IF NOT EXISTS claim_schema (version BIGINT NOT NULL) ENGINE = InnoDB",
    )
    .await
    .map_err(failed)?;
    let found = version(conn, address).await?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        conn.execute(migration.up).await.map_err(failed)?;
    }
    set_version(conn, MIGRATIONS.len() as i64).await.map_err(failed)?;
    Ok(found == 0)
}

async fn version(conn: &mut MySqlConnection, address: &str) -> Result<i64, StoreError> {
    let failed = |error: Error| io_error(address, &error);
    let row = conn
        .fetch_optional("SELECT max(version) AS version FROM claim_schema")
        .await
        .map_err(failed)?;
    let found = row.map_or(Ok(None), |row| row.try_get::<Option<i64>, _>("version"));
    let found = found.map_err(failed)?.unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { path: address.to_owned(), found, known });
    }
    Ok(found)
}

async fn set_version(conn: &mut MySqlConnection, version: i64) -> Result<(), Error> {
    let mut tx = conn.begin().await?;
    tx.execute("DELETE FROM claim_schema").await?;
    let query = sqlx::query("INSERT INTO claim_schema VALUES (?)").bind(version);
    query.execute(&mut *tx).await?;
    tx.commit().await
}

pub(super) async fn revert(url: &str, address: String, target: i64) -> Result<(), StoreError> {
    let failed = |error: Error| io_error(&address, &error);
    let mut conn = connect(url, &address).await?;
    let found = version(&mut conn, &address).await?;
    for (below, migration) in (0i64..).zip(MIGRATIONS).collect::<Vec<_>>().into_iter().rev() {
        if below < found && below >= target {
            conn.execute(migration.down).await.map_err(failed)?;
            set_version(&mut conn, below).await.map_err(failed)?;
        }
    }
    conn.close().await.map_err(failed)
}

impl Backend for Rows {
    async fn begin(&mut self) -> Result<(Ledger, Option<u64>), Error> {
        self.connected().await?;
        let of_request = self.of_request;
        let (ledger, now_ms) = begin(self.conn()?).await?;
        Ok((ledger, (!of_request).then_some(now_ms)))
    }

    async fn commit(&mut self) -> Result<(), Error> {
        self.conn()?.execute("COMMIT").await.map(drop)
    }

    async fn give_up(&mut self, error: &Error) -> Ended {
        let ended = ended(error);
        let Some(conn) = self.conn.as_mut() else { return Ended::Cut };
        if ended == Ended::Cut || conn.execute("ROLLBACK").await.is_err() {
            self.conn = None;
            return Ended::Cut;
        }
        ended
    }

    async fn claims(&mut self, keys: &[&[u8]]) -> Result<HashMap<Vec<u8>, Claim>, Error> {
        let mut claims = HashMap::with_capacity(keys.len());
        for (mut query, chunk) in chunks(&SELECT, keys, |key| key.len()) {
            for key in chunk {
                query = query.bind(*key);
            }
            let conn = self.conn.as_mut().ok_or(Error::PoolClosed)?;
            for row in query.fetch_all(conn).await? {
                let (key, claim) = read_claim(&row)?;
                claims.insert(key, claim);
            }
        }
        Ok(claims)
    }

    async fn save_claims(&mut self, claims: &[(&Vec<u8>, &Claim)]) -> Result<(), Error> {
        let bytes = |(_, claim): &(&Vec<u8>, &Claim)| {
            let columns = Columns::of(claim);
            columns.reply.map_or(0, |bytes| bytes.len())
                + columns.envelope.map_or(0, |bytes| bytes.len())
        };
        for (mut query, chunk) in chunks(&UPSERT, claims, bytes) {
            for (key, claim) in chunk {
                query = bind(query, key, claim);
            }
            query.execute(self.conn.as_mut().ok_or(Error::PoolClosed)?).await?;
        }
        Ok(())
    }

    async fn senders(&mut self, parties: &[&Party]) -> Result<Vec<(Party, Sender)>, Error> {
        let mut found = Vec::with_capacity(parties.len());
        for (mut query, chunk) in chunks(&SENDERS, parties, |_| 0) {
            for party in chunk {
                query = query.bind(party.principal.as_str()).bind(i64::from(party.incarnation));
            }
            let conn = self.conn.as_mut().ok_or(Error::PoolClosed)?;
            for row in query.fetch_all(conn).await? {
                let (name, incarnation) = (row.try_get("principal")?, row.try_get("incarnation")?);
                let (name, incarnation): (&str, i64) = (name, incarnation);
                let named = |party: &&&Party| {
                    party.principal.as_str() == name && i64::from(party.incarnation) == incarnation
                };
                let party = chunk.iter().find(named).ok_or(Error::RowNotFound)?;
                let ids = unsigned(row.try_get("ids")?);
                let sender = Sender { id: row.try_get("id")?, ids, changed: false };
                found.push(((*party).clone(), sender));
            }
        }
        Ok(found)
    }

    async fn save_senders(&mut self, senders: &[(&Party, &Sender)]) -> Result<(), Error> {
        for (mut query, chunk) in chunks(&SAVE_SENDERS, senders, |_| 0) {
            for (party, sender) in chunk {
                query = query.bind(sender.id).bind(party.principal.as_str());
                query = query.bind(i64::from(party.incarnation)).bind(signed(sender.ids));
            }
            query.execute(self.conn.as_mut().ok_or(Error::PoolClosed)?).await?;
        }
        Ok(())
    }

    async fn save_ledger(&mut self, ledger: &Ledger) -> Result<(), Error> {
        let query = sqlx::query(
            "UPDATE claim_ledger SET purged_exp = ?, blind_until = ?, entries = ?, \
             senders = ?, next_sender = ?, shared = ?, reply_bytes = ?, generation = ?",
        );
        query
            .bind(signed(ledger.gate.purged_exp))
            .bind(ledger.gate.blind_until.map(signed))
            .bind(signed(ledger.entries))
            .bind(signed(ledger.senders))
            .bind(ledger.next_sender)
            .bind(signed(ledger.shared))
            .bind(signed(ledger.reply_bytes))
            .bind(ledger.generation.clone())
            .execute(self.conn()?)
            .await
            .map(drop)
    }

    async fn expired(&mut self, now_ms: u64) -> Result<Vec<(Vec<u8>, Claim)>, Error> {
        let query = sqlx::query(EXPIRED.as_str()).bind(signed(now_ms));
        query.fetch_all(self.conn()?).await?.iter().map(read_claim).collect()
    }

    async fn purge(&mut self, bound: i64, now_ms: u64, limit: u64) -> Result<Vec<Purged>, Error> {
        let query = sqlx::query(
            "DELETE FROM claim WHERE exp < ? AND NOT (state = 0 AND until_ms > ?) \
             ORDER BY exp LIMIT ? RETURNING sender, exp, coalesce(octet_length(reply), 0) AS bytes",
        );
        let query = query.bind(bound).bind(signed(now_ms)).bind(signed(limit));
        let purged = |row: &MySqlRow| {
            let (exp, bytes) = (row.try_get("exp")?, row.try_get("bytes")?);
            let (exp, bytes) = (unsigned(exp), unsigned(bytes));
            Ok(Purged { sender: row.try_get("sender")?, exp, bytes })
        };
        query.fetch_all(self.conn()?).await?.iter().map(purged).collect()
    }

    async fn give_back(&mut self, sender: i64, gone: u64) -> Result<u64, Error> {
        let query = sqlx::query("UPDATE claim_sender SET ids = greatest(ids - ?, 0) WHERE id = ?");
        query.bind(signed(gone)).bind(sender).execute(self.conn()?).await?;
        let query = sqlx::query("SELECT ids FROM claim_sender WHERE id = ?").bind(sender);
        let left = unsigned(query.fetch_one(self.conn()?).await?.try_get("ids")?);
        if left == 0 {
            let query = sqlx::query("DELETE FROM claim_sender WHERE id = ?").bind(sender);
            query.execute(self.conn()?).await?;
        }
        Ok(left)
    }

    async fn held(&mut self) -> Result<(Ledger, u64), Error> {
        self.connected().await?;
        let row = sqlx::query("SELECT * FROM claim_ledger").fetch_one(self.conn()?).await?;
        let ledger = read_ledger(&row)?;
        let query = sqlx::query("SELECT count(*) AS held FROM claim WHERE state = 0");
        let in_flight: i64 = query.fetch_one(self.conn()?).await?.try_get("held")?;
        Ok((ledger, unsigned(in_flight)))
    }

    async fn held_by(&mut self, party: &Party) -> Result<u64, Error> {
        self.connected().await?;
        let found = self.senders(&[party]).await?;
        Ok(found.first().map_or(0, |(_, sender)| sender.ids))
    }

    fn failed(&self, error: &Error) -> StoreError {
        io_error(&self.address, error)
    }

    async fn close(&mut self) {
        if let Some(conn) = self.conn.take() {
            let _ = conn.close().await;
        }
    }
}

fn bind<'q>(query: Bound<'q>, key: &'q [u8], claim: &'q Claim) -> Bound<'q> {
    let columns = Columns::of(claim);
    query
        .bind(key)
        .bind(claim.sender)
        .bind(&claim.record.digest.0[..])
        .bind(signed(claim.exp))
        .bind(columns.state)
        .bind(columns.worker)
        .bind(columns.attempt)
        .bind(columns.until_ms)
        .bind(columns.idempotent)
        .bind(columns.envelope.map(|bytes| &bytes[..]))
        .bind(columns.reply_digest.as_ref().map(|digest| &digest.0[..]))
        .bind(columns.reply.map(|bytes| &bytes[..]))
}
