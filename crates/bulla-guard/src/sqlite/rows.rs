//! Rows of SQLite, many at a time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use bulla_seal::Party;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection};
use sqlx::{Connection, Error, Row};

use crate::batch::backend::{
    COLUMNS, Columns, Ended, Purged, WIDTH, read_claim, read_ledger, signed, unsigned,
};
use crate::batch::{Backend, Claim, Ledger, Sender};
use crate::store::StoreError;

/// Rows by statement: the largest size that fits is used first, so that few texts are prepared.
const SIZES: [usize; 3] = [64, 8, 1];

type Text = LazyLock<[String; SIZES.len()]>;
type Bound = Query<'static, Sqlite, SqliteArguments>;

static SELECT: Text = LazyLock::new(|| {
    SIZES.map(|rows| {
        let places = vec!["?"; rows].join(", ");
        format!("SELECT {COLUMNS} FROM claim WHERE claim_key IN ({places})")
    })
});

static UPSERT: Text = LazyLock::new(|| {
    let row = format!("({})", ["?"; WIDTH].join(", "));
    SIZES.map(|rows| {
        let values = vec![row.as_str(); rows].join(", ");
        format!(
            "INSERT INTO claim ({COLUMNS}) VALUES {values} ON CONFLICT (claim_key) DO UPDATE SET \
             state = excluded.state, worker = excluded.worker, attempt = excluded.attempt, \
             until_ms = excluded.until_ms, idempotent = excluded.idempotent, \
             envelope = excluded.envelope, reply_digest = excluded.reply_digest, \
             reply = excluded.reply"
        )
    })
});

/// Cuts `items` into slices of the known sizes, each with the statement for it.
fn chunks<'a, T>(texts: &'static Text, mut items: &'a [T]) -> Vec<(Bound, &'a [T])> {
    let mut cut = Vec::new();
    for (size, text) in SIZES.iter().zip(texts.iter()) {
        while let Some((chunk, rest)) = items.split_at_checked(*size) {
            cut.push((sqlx::query(text.as_str()), chunk));
            items = rest;
        }
    }
    cut
}

/// The file.
pub(super) struct Rows {
    pub(super) conn: Option<SqliteConnection>,
    pub(super) path: PathBuf,
}

impl Rows {
    fn conn(&mut self) -> Result<&mut SqliteConnection, Error> {
        self.conn.as_mut().ok_or(Error::PoolClosed)
    }

    /// Shared places that are taken when each sender has `per_sender` of its own.
    pub(super) async fn shared(&mut self, per_sender: u64) -> Result<u64, Error> {
        let query = sqlx::query("SELECT total(max(ids - ?, 0)) AS shared FROM sender");
        let row = query.bind(signed(per_sender)).fetch_one(self.conn()?).await?;
        Ok(row.try_get::<f64, _>("shared")? as u64)
    }

    async fn ledger(&mut self) -> Result<Ledger, Error> {
        read_ledger(&sqlx::query("SELECT * FROM ledger").fetch_one(self.conn()?).await?)
    }
}

impl Backend for Rows {
    async fn begin(&mut self) -> Result<(Ledger, Option<u64>), Error> {
        sqlx::query("BEGIN IMMEDIATE").execute(self.conn()?).await?;
        Ok((self.ledger().await?, None))
    }

    async fn commit(&mut self) -> Result<(), Error> {
        sqlx::query("COMMIT").execute(self.conn()?).await.map(drop)
    }

    async fn give_up(&mut self, _: &Error) -> Ended {
        if let Ok(conn) = self.conn() {
            // There may be no transaction left to take back.
            let _ = sqlx::query("ROLLBACK").execute(conn).await;
        }
        Ended::ForGood
    }

    async fn claims(&mut self, keys: &[&[u8]]) -> Result<HashMap<Vec<u8>, Claim>, Error> {
        let mut claims = HashMap::with_capacity(keys.len());
        for (mut query, chunk) in chunks(&SELECT, keys) {
            for key in chunk {
                query = query.bind(key.to_vec());
            }
            for row in query.fetch_all(self.conn()?).await? {
                let (key, claim) = read_claim(&row)?;
                claims.insert(key, claim);
            }
        }
        Ok(claims)
    }

    async fn save_claims(&mut self, claims: &[(&Vec<u8>, &Claim)]) -> Result<(), Error> {
        for (mut query, chunk) in chunks(&UPSERT, claims) {
            for (key, claim) in chunk {
                query = bind(query, key, claim);
            }
            query.execute(self.conn()?).await?;
        }
        Ok(())
    }

    async fn senders(&mut self, parties: &[&Party]) -> Result<Vec<(Party, Sender)>, Error> {
        let mut found = Vec::with_capacity(parties.len());
        for party in parties {
            let query =
                sqlx::query("SELECT id, ids FROM sender WHERE principal = ? AND incarnation = ?");
            let query = query.bind(party.principal.as_str().to_owned());
            let query = query.bind(i64::from(party.incarnation));
            if let Some(row) = query.fetch_optional(self.conn()?).await? {
                let ids = unsigned(row.try_get("ids")?);
                let sender = Sender { id: row.try_get("id")?, ids, changed: false };
                found.push(((*party).clone(), sender));
            }
        }
        Ok(found)
    }

    async fn save_senders(&mut self, senders: &[(&Party, &Sender)]) -> Result<(), Error> {
        for (party, sender) in senders {
            let query = sqlx::query(
                "INSERT INTO sender (id, principal, incarnation, ids) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (id) DO UPDATE SET ids = excluded.ids",
            );
            let query = query.bind(sender.id).bind(party.principal.as_str().to_owned());
            let query = query.bind(i64::from(party.incarnation)).bind(signed(sender.ids));
            query.execute(self.conn()?).await?;
        }
        Ok(())
    }

    async fn save_ledger(&mut self, ledger: &Ledger) -> Result<(), Error> {
        let query = sqlx::query(
            "UPDATE ledger SET purged_exp = ?, blind_until = ?, entries = ?, senders = ?, \
             next_sender = ?, shared = ?, reply_bytes = ?, generation = ?",
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
        static TEXT: LazyLock<String> = LazyLock::new(|| {
            format!("SELECT {COLUMNS} FROM claim WHERE state = 0 AND until_ms <= ?")
        });
        let query = sqlx::query(TEXT.as_str()).bind(signed(now_ms));
        query.fetch_all(self.conn()?).await?.iter().map(read_claim).collect()
    }

    async fn purge(&mut self, bound: i64, now_ms: u64, limit: u64) -> Result<Vec<Purged>, Error> {
        let query = sqlx::query(
            "DELETE FROM claim WHERE n IN (SELECT n FROM claim WHERE exp < ? \
             AND NOT (state = 0 AND until_ms > ?) ORDER BY exp LIMIT ?) \
             RETURNING sender, exp, coalesce(length(reply), 0) AS bytes",
        );
        let query = query.bind(bound).bind(signed(now_ms)).bind(signed(limit));
        let purged = |row| {
            let row: &sqlx::sqlite::SqliteRow = row;
            let (exp, bytes) = (row.try_get("exp")?, row.try_get("bytes")?);
            let (exp, bytes) = (unsigned(exp), unsigned(bytes));
            Ok(Purged { sender: row.try_get("sender")?, exp, bytes })
        };
        query.fetch_all(self.conn()?).await?.iter().map(purged).collect()
    }

    async fn give_back(&mut self, sender: i64, gone: u64) -> Result<u64, Error> {
        let query =
            sqlx::query("UPDATE sender SET ids = max(ids - ?, 0) WHERE id = ? RETURNING ids");
        let row = query.bind(signed(gone)).bind(sender).fetch_one(self.conn()?).await?;
        let left = unsigned(row.try_get("ids")?);
        if left == 0 {
            let query = sqlx::query("DELETE FROM sender WHERE id = ?").bind(sender);
            query.execute(self.conn()?).await?;
        }
        Ok(left)
    }

    async fn held(&mut self) -> Result<(Ledger, u64), Error> {
        let ledger = self.ledger().await?;
        let query = sqlx::query("SELECT count(*) FROM claim WHERE state = 0");
        let in_flight: i64 = query.fetch_one(self.conn()?).await?.try_get(0)?;
        Ok((ledger, unsigned(in_flight)))
    }

    async fn held_by(&mut self, party: &Party) -> Result<u64, Error> {
        let found = self.senders(&[party]).await?;
        Ok(found.first().map_or(0, |(_, sender)| sender.ids))
    }

    fn failed(&self, error: &Error) -> StoreError {
        super::io_error(&self.path, error)
    }

    async fn close(&mut self) {
        if let Some(conn) = self.conn.take() {
            let _ = conn.close().await;
        }
    }
}

fn bind(query: Bound, key: &[u8], claim: &Claim) -> Bound {
    let columns = Columns::of(claim);
    query
        .bind(key.to_vec())
        .bind(claim.sender)
        .bind(claim.record.digest.0.to_vec())
        .bind(signed(claim.exp))
        .bind(columns.state)
        .bind(columns.worker)
        .bind(columns.attempt)
        .bind(columns.until_ms)
        .bind(columns.idempotent)
        .bind(columns.envelope.map(|bytes| bytes.to_vec()))
        .bind(columns.reply_digest.map(|digest| digest.0.to_vec()))
        .bind(columns.reply.map(|bytes| bytes.to_vec()))
}
