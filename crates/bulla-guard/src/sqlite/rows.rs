//! Rows to records and back, many at a time.

use std::collections::HashMap;
use std::sync::LazyLock;

use bulla_seal::{Digest, Party};
use bytes::Bytes;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Error, Row};

use crate::claim::{Gate, Lease, Record, State};
use crate::key::Worker;
use crate::store::Reply;

/// Rows by statement: the largest size that fits is used first, so that few texts are prepared.
const SIZES: [usize; 3] = [64, 8, 1];

const COLUMNS: &str = "key, sender, digest, exp, state, worker, attempt, until_ms, idempotent, \
                       envelope, reply_digest, reply";
const WIDTH: usize = 12;

/// A claim as stored.
pub(super) struct Claim {
    pub(super) sender: i64,
    pub(super) exp: u64,
    pub(super) record: Record<Digest>,
    pub(super) envelope: Option<Bytes>,
    pub(super) changed: bool,
}

/// A sender as stored.
pub(super) struct Sender {
    pub(super) id: i64,
    pub(super) ids: u64,
    pub(super) changed: bool,
}

/// The one row about the store as a whole.
#[derive(Clone, PartialEq)]
pub(super) struct Ledger {
    pub(super) gate: Gate,
    pub(super) entries: u64,
    pub(super) senders: u64,
    pub(super) next_sender: i64,
    pub(super) shared: u64,
    pub(super) reply_bytes: u64,
    pub(super) generation: Option<String>,
}

type Text = LazyLock<[String; SIZES.len()]>;
type Bound = Query<'static, Sqlite, SqliteArguments>;

static SELECT: Text = LazyLock::new(|| {
    SIZES.map(|rows| {
        let places = vec!["?"; rows].join(", ");
        format!("SELECT {COLUMNS} FROM claim WHERE key IN ({places})")
    })
});

static UPSERT: Text = LazyLock::new(|| {
    let row = format!("({})", ["?"; WIDTH].join(", "));
    SIZES.map(|rows| {
        let values = vec![row.as_str(); rows].join(", ");
        format!(
            "INSERT INTO claim ({COLUMNS}) VALUES {values} ON CONFLICT (key) DO UPDATE SET \
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

/// The claims with these keys.
pub(super) async fn load(
    conn: &mut SqliteConnection,
    keys: &[&[u8]],
) -> Result<HashMap<Vec<u8>, Claim>, Error> {
    let mut claims = HashMap::with_capacity(keys.len());
    for (mut query, chunk) in chunks(&SELECT, keys) {
        for key in chunk {
            query = query.bind(key.to_vec());
        }
        for row in query.fetch_all(&mut *conn).await? {
            let (key, claim) = read(&row)?;
            claims.insert(key, claim);
        }
    }
    Ok(claims)
}

/// A row of [`COLUMNS`].
pub(super) fn read(row: &SqliteRow) -> Result<(Vec<u8>, Claim), Error> {
    let reply = match row.try_get::<Option<Vec<u8>>, _>("reply_digest")? {
        Some(bytes) => {
            let sealed = row.try_get::<Option<Vec<u8>>, _>("reply")?.map(Bytes::from);
            Some(Reply { digest: digest(&bytes)?, sealed })
        }
        None => None,
    };
    let state = match row.try_get::<i64, _>("state")? {
        0 => State::Claimed(Lease {
            worker: Worker(row.try_get::<i64, _>("worker")?.cast_unsigned()),
            until_ms: unsigned(row.try_get("until_ms")?),
            attempt: u32::try_from(row.try_get::<i64, _>("attempt")?).unwrap_or(u32::MAX),
            idempotent: row.try_get::<i64, _>("idempotent")? == 1,
        }),
        1 => State::Done(reply),
        _ => State::InDoubt(reply),
    };
    let digest = digest(&row.try_get::<Vec<u8>, _>("digest")?)?;
    let claim = Claim {
        sender: row.try_get("sender")?,
        exp: unsigned(row.try_get("exp")?),
        record: Record { digest, state },
        envelope: row.try_get::<Option<Vec<u8>>, _>("envelope")?.map(Bytes::from),
        changed: false,
    };
    Ok((row.try_get("key")?, claim))
}

/// Claims whose lease is over.
pub(super) async fn load_expired(
    conn: &mut SqliteConnection,
    now_ms: u64,
) -> Result<Vec<(Vec<u8>, Claim)>, Error> {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {COLUMNS} FROM claim WHERE state = 0 AND until_ms <= ?"));
    let rows = sqlx::query(TEXT.as_str()).bind(signed(now_ms)).fetch_all(conn).await?;
    rows.iter().map(read).collect()
}

/// Writes every changed claim.
pub(super) async fn save<'a>(
    conn: &mut SqliteConnection,
    claims: impl Iterator<Item = (&'a Vec<u8>, &'a Claim)>,
) -> Result<(), Error> {
    let changed: Vec<_> = claims.filter(|(_, claim)| claim.changed).collect();
    for (mut query, chunk) in chunks(&UPSERT, &changed) {
        for (key, claim) in chunk {
            query = bind(query, key, claim);
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

fn bind(query: Bound, key: &[u8], claim: &Claim) -> Bound {
    let (state, lease, reply) = match &claim.record.state {
        State::Claimed(lease) => (0, Some(lease), None),
        State::Done(reply) => (1, None, reply.as_ref()),
        State::InDoubt(error) => (2, None, error.as_ref()),
    };
    // The envelope is only of use while somebody may still have to run it.
    let envelope = lease.and(claim.envelope.as_ref());
    query
        .bind(key.to_vec())
        .bind(claim.sender)
        .bind(claim.record.digest.0.to_vec())
        .bind(signed(claim.exp))
        .bind(state)
        .bind(lease.map(|lease| lease.worker.0.cast_signed()))
        .bind(lease.map(|lease| i64::from(lease.attempt)))
        .bind(lease.map(|lease| signed(lease.until_ms)))
        .bind(lease.map(|lease| i64::from(lease.idempotent)))
        .bind(envelope.map(|bytes| bytes.to_vec()))
        .bind(reply.map(|reply| reply.digest.0.to_vec()))
        .bind(reply.and_then(|reply| reply.sealed.as_ref()).map(|bytes| bytes.to_vec()))
}

pub(super) async fn load_sender(
    conn: &mut SqliteConnection,
    party: &Party,
) -> Result<Option<Sender>, Error> {
    let query = sqlx::query("SELECT id, ids FROM sender WHERE principal = ? AND incarnation = ?");
    let query = query.bind(party.principal.as_str().to_owned()).bind(i64::from(party.incarnation));
    let Some(row) = query.fetch_optional(conn).await? else { return Ok(None) };
    let ids = unsigned(row.try_get("ids")?);
    Ok(Some(Sender { id: row.try_get("id")?, ids, changed: false }))
}

pub(super) async fn save_sender(
    conn: &mut SqliteConnection,
    party: &Party,
    sender: &Sender,
) -> Result<(), Error> {
    let query = sqlx::query(
        "INSERT INTO sender (id, principal, incarnation, ids) VALUES (?, ?, ?, ?) \
         ON CONFLICT (id) DO UPDATE SET ids = excluded.ids",
    );
    let query = query.bind(sender.id).bind(party.principal.as_str().to_owned());
    let query = query.bind(i64::from(party.incarnation)).bind(signed(sender.ids));
    query.execute(conn).await.map(drop)
}

pub(super) async fn load_ledger(conn: &mut SqliteConnection) -> Result<Ledger, Error> {
    let row = sqlx::query("SELECT * FROM ledger").fetch_one(conn).await?;
    Ok(Ledger {
        gate: Gate {
            purged_exp: unsigned(row.try_get("purged_exp")?),
            blind_until: row.try_get::<Option<i64>, _>("blind_until")?.map(unsigned),
        },
        entries: unsigned(row.try_get("entries")?),
        senders: unsigned(row.try_get("senders")?),
        next_sender: row.try_get("next_sender")?,
        shared: unsigned(row.try_get("shared")?),
        reply_bytes: unsigned(row.try_get("reply_bytes")?),
        generation: row.try_get("generation")?,
    })
}

pub(super) async fn save_ledger(conn: &mut SqliteConnection, ledger: &Ledger) -> Result<(), Error> {
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
        .execute(conn)
        .await
        .map(drop)
}

fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    Digest::from_slice(bytes).ok_or_else(|| Error::Decode("a digest of the wrong length".into()))
}

/// Times and counts, which SQLite holds as signed; the top half is past any real time.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
