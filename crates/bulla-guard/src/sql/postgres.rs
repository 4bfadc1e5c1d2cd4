//! PostgreSQL.

use std::collections::HashMap;
use std::sync::LazyLock;

use bulla_seal::Party;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection, Error, Executor, Row};

use super::{Migration, SqlOptions, ended, io_error, judge};
use crate::batch::backend::{
    COLUMNS, Columns, Ended, Purged, read_claim, read_ledger, signed, unsigned,
};
use crate::batch::{Backend, Claim, Ledger, Sender};
use crate::store::StoreError;

const MIGRATIONS: &[Migration] = &[Migration {
    up: include_str!("../../migrations/postgres/0001_claims.up.sql"),
    down: include_str!("../../migrations/postgres/0001_claims.down.sql"),
}];

/// Keeps two hosts from making the tables at one time ("BLCL").
const LOCK: i64 = 0x424c_434c;

static SELECT: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM claim WHERE claim_key = ANY($1)"));

static EXPIRED: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM claim WHERE state = 0 AND until_ms <= $1"));

static UPSERT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO claim ({COLUMNS}) SELECT * FROM unnest($1::bytea[], $2::int8[], \
         $3::bytea[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[], \
         $10::bytea[], $11::bytea[], $12::bytea[]) ON CONFLICT (claim_key) DO UPDATE SET \
         state = excluded.state, worker = excluded.worker, attempt = excluded.attempt, \
         until_ms = excluded.until_ms, idempotent = excluded.idempotent, \
         envelope = excluded.envelope, reply_digest = excluded.reply_digest, \
         reply = excluded.reply"
    )
});

pub(super) struct Rows {
    conn: Option<PgConnection>,
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
        // The timeline, which a promotion or a restore to a point in time changes.
        let timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline";
        let generation = conn.fetch_one(timeline).await?.try_get("timeline")?;
        let (mut ledger, now_ms) = begin(conn).await?;
        judge(&mut ledger, &self.options, is_new, Some(generation), now_ms);
        // Quotas may have been set anew since the last start.
        let shared = sqlx::query(
            "SELECT coalesce(sum(greatest(ids - $1, 0)), 0)::int8 AS shared FROM claim_sender",
        );
        let shared = shared.bind(signed(self.options.store.limits.per_sender));
        ledger.shared = unsigned(shared.fetch_one(&mut *conn).await?.try_get("shared")?);
        self.save_ledger(&ledger).await?;
        self.commit().await
    }

    fn conn(&mut self) -> Result<&mut PgConnection, Error> {
        self.conn.as_mut().ok_or(Error::PoolClosed)
    }

    /// The connection, made again if it was lost.
    async fn connected(&mut self) -> Result<(), Error> {
        if self.conn.is_some() {
            return Ok(());
        }
        let options = self.options.url.parse::<PgConnectOptions>()?;
        let mut conn = PgConnection::connect_with(&options).await?;
        set_up(&mut conn).await?;
        self.conn = Some(conn);
        if let Err(error) = self.settle(false).await {
            self.conn = None;
            return Err(error);
        }
        Ok(())
    }
}

async fn connect(url: &str, address: &str) -> Result<PgConnection, StoreError> {
    let failed = |error: Error| io_error(address, &error);
    let unfit = |why: &str| StoreError::Unfit { path: address.to_owned(), why: why.to_owned() };
    let options = url.parse::<PgConnectOptions>().map_err(|_| StoreError::Address {
        why: format!("`{address}` is not understood; write postgres://user@host:5432/database"),
    })?;
    let mut conn = PgConnection::connect_with(&options).await.map_err(failed)?;
    let asked = "SELECT current_setting('fsync') AS fsync, pg_is_in_recovery() AS standby";
    let row = conn.fetch_one(asked).await.map_err(failed)?;
    if row.try_get::<&str, _>("fsync").map_err(failed)? != "on" {
        return Err(unfit("its fsync is off, so it may forget what ran; set `fsync = on`"));
    }
    if row.try_get::<bool, _>("standby").map_err(failed)? {
        return Err(unfit("it is a standby; give the primary's address"));
    }
    set_up(&mut conn).await.map_err(failed)?;
    Ok(conn)
}

async fn set_up(conn: &mut PgConnection) -> Result<(), Error> {
    // A host that hangs in a transaction must not stop the others for long.
    conn.execute(
        "SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = '10s'; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') IN ('off', 'local')",
    )
    .await
    .map(drop)
}

async fn begin(conn: &mut PgConnection) -> Result<(Ledger, u64), Error> {
    conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let ledger = sqlx::query("SELECT * FROM claim_ledger WHERE one = 1 FOR UPDATE");
    let ledger = read_ledger(&ledger.fetch_one(&mut *conn).await?)?;
    // Read when the row is ours: the wait for it may be long.
    let now = sqlx::query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8 AS now_ms");
    let now_ms: i64 = now.fetch_one(conn).await?.try_get("now_ms")?;
    Ok((ledger, unsigned(now_ms)))
}

/// Brings the tables up to date; says whether there were none.
async fn upgrade(conn: &mut PgConnection, address: &str) -> Result<bool, StoreError> {
    let failed = |error: Error| io_error(address, &error);
    let there = "SELECT to_regclass('claim_schema') IS NOT NULL AS there";
    let there: bool =
        conn.fetch_one(there).await.and_then(|row| row.try_get("there")).map_err(failed)?;
    if there && version(conn, address).await? == MIGRATIONS.len() as i64 {
        // Nothing to do, for which no right to make tables is needed.
        return Ok(false);
    }
    let mut tx = conn.begin().await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    tx.execute("CREATE TABLE IF NOT EXISTS claim_schema (version BIGINT NOT NULL)")
        .await
        .map_err(failed)?;
    let found = version(&mut tx, address).await?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.execute(migration.up).await.map_err(failed)?;
    }
    set_version(&mut tx, MIGRATIONS.len() as i64).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(found == 0)
}

async fn version(conn: &mut PgConnection, address: &str) -> Result<i64, StoreError> {
    let failed = |error: Error| io_error(address, &error);
    let row = conn.fetch_optional("SELECT version FROM claim_schema").await.map_err(failed)?;
    let found: i64 = row.map_or(Ok(0), |row| row.try_get("version")).map_err(failed)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { path: address.to_owned(), found, known });
    }
    Ok(found)
}

async fn set_version(conn: &mut PgConnection, version: i64) -> Result<(), Error> {
    conn.execute("DELETE FROM claim_schema").await?;
    let query = sqlx::query("INSERT INTO claim_schema VALUES ($1)").bind(version);
    query.execute(conn).await.map(drop)
}

pub(super) async fn revert(url: &str, address: String, target: i64) -> Result<(), StoreError> {
    let failed = |error: Error| io_error(&address, &error);
    let mut conn = connect(url, &address).await?;
    let mut tx = conn.begin().await.map_err(failed)?;
    let found = version(&mut tx, &address).await?;
    for (below, migration) in (0i64..).zip(MIGRATIONS).collect::<Vec<_>>().into_iter().rev() {
        if below < found && below >= target {
            tx.execute(migration.down).await.map_err(failed)?;
            set_version(&mut tx, below).await.map_err(failed)?;
        }
    }
    tx.commit().await.map_err(failed)?;
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
        let query = sqlx::query(SELECT.as_str()).bind(keys);
        query.fetch_all(self.conn()?).await?.iter().map(read_claim).collect()
    }

    async fn save_claims(&mut self, claims: &[(&Vec<u8>, &Claim)]) -> Result<(), Error> {
        if claims.is_empty() {
            return Ok(());
        }
        let columns: Vec<Columns<'_>> =
            claims.iter().map(|(_, claim)| Columns::of(claim)).collect();
        let numbers = |of: fn(&Columns<'_>) -> Option<i64>| columns.iter().map(of).collect();
        let worker: Vec<Option<i64>> = numbers(|row| row.worker);
        let attempt: Vec<Option<i64>> = numbers(|row| row.attempt);
        let until_ms: Vec<Option<i64>> = numbers(|row| row.until_ms);
        let idempotent: Vec<Option<i64>> = numbers(|row| row.idempotent);
        let bytes = |of: for<'a> fn(&'a Columns<'_>) -> Option<&'a [u8]>| {
            columns.iter().map(of).collect::<Vec<Option<&[u8]>>>()
        };
        let query = sqlx::query(UPSERT.as_str())
            .bind(claims.iter().map(|(key, _)| key.as_slice()).collect::<Vec<&[u8]>>())
            .bind(claims.iter().map(|(_, claim)| claim.sender).collect::<Vec<_>>())
            .bind(claims.iter().map(|(_, c)| &c.record.digest.0[..]).collect::<Vec<&[u8]>>())
            .bind(claims.iter().map(|(_, claim)| signed(claim.exp)).collect::<Vec<_>>())
            .bind(columns.iter().map(|row| row.state).collect::<Vec<_>>())
            .bind(worker)
            .bind(attempt)
            .bind(until_ms)
            .bind(idempotent)
            .bind(bytes(|row| row.envelope.map(|bytes| &bytes[..])))
            .bind(bytes(|row| row.reply_digest.as_ref().map(|digest| &digest.0[..])))
            .bind(bytes(|row| row.reply.map(|bytes| &bytes[..])));
        let conn = self.conn.as_mut().ok_or(Error::PoolClosed)?;
        query.execute(conn).await.map(drop)
    }

    async fn senders(&mut self, parties: &[&Party]) -> Result<Vec<(Party, Sender)>, Error> {
        if parties.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(
            "SELECT id, principal, incarnation, ids FROM claim_sender \
             WHERE (principal, incarnation) IN (SELECT * FROM unnest($1::text[], $2::int8[]))",
        );
        let names = parties.iter().map(|party| party.principal.as_str()).collect::<Vec<_>>();
        let incarnations = parties.iter().map(|party| i64::from(party.incarnation));
        let query = query.bind(names).bind(incarnations.collect::<Vec<_>>());
        let rows = query.fetch_all(self.conn.as_mut().ok_or(Error::PoolClosed)?).await?;
        rows.iter()
            .map(|row| {
                let (name, incarnation) = (row.try_get("principal")?, row.try_get("incarnation")?);
                let (name, incarnation): (&str, i64) = (name, incarnation);
                let named = |party: &&&Party| {
                    party.principal.as_str() == name && i64::from(party.incarnation) == incarnation
                };
                let party = parties.iter().find(named).ok_or(Error::RowNotFound)?;
                let ids = unsigned(row.try_get("ids")?);
                Ok(((*party).clone(), Sender { id: row.try_get("id")?, ids, changed: false }))
            })
            .collect()
    }

    async fn save_senders(&mut self, senders: &[(&Party, &Sender)]) -> Result<(), Error> {
        if senders.is_empty() {
            return Ok(());
        }
        let query = sqlx::query(
            "INSERT INTO claim_sender (id, principal, incarnation, ids) \
             SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[], $4::int8[]) \
             ON CONFLICT (id) DO UPDATE SET ids = excluded.ids",
        );
        let names = senders.iter().map(|(party, _)| party.principal.as_str());
        let query = query
            .bind(senders.iter().map(|(_, sender)| sender.id).collect::<Vec<_>>())
            .bind(names.collect::<Vec<_>>())
            .bind(senders.iter().map(|(p, _)| i64::from(p.incarnation)).collect::<Vec<_>>())
            .bind(senders.iter().map(|(_, sender)| signed(sender.ids)).collect::<Vec<_>>());
        query.execute(self.conn.as_mut().ok_or(Error::PoolClosed)?).await.map(drop)
    }

    async fn save_ledger(&mut self, ledger: &Ledger) -> Result<(), Error> {
        let query = sqlx::query(
            "UPDATE claim_ledger SET purged_exp = $1, blind_until = $2, entries = $3, \
             senders = $4, next_sender = $5, shared = $6, reply_bytes = $7, generation = $8",
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
            "DELETE FROM claim WHERE claim_key IN (SELECT claim_key FROM claim WHERE exp < $1 \
             AND NOT (state = 0 AND until_ms > $2) ORDER BY exp LIMIT $3) \
             RETURNING sender, exp, coalesce(octet_length(reply), 0)::int8 AS bytes",
        );
        let query = query.bind(bound).bind(signed(now_ms)).bind(signed(limit));
        let purged = |row: &PgRow| {
            let (exp, bytes) = (row.try_get("exp")?, row.try_get("bytes")?);
            let (exp, bytes) = (unsigned(exp), unsigned(bytes));
            Ok(Purged { sender: row.try_get("sender")?, exp, bytes })
        };
        query.fetch_all(self.conn()?).await?.iter().map(purged).collect()
    }

    async fn give_back(&mut self, sender: i64, gone: u64) -> Result<u64, Error> {
        let query = sqlx::query(
            "UPDATE claim_sender SET ids = greatest(ids - $1, 0) WHERE id = $2 RETURNING ids",
        );
        let row = query.bind(signed(gone)).bind(sender).fetch_one(self.conn()?).await?;
        let left = unsigned(row.try_get("ids")?);
        if left == 0 {
            let query = sqlx::query("DELETE FROM claim_sender WHERE id = $1").bind(sender);
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
