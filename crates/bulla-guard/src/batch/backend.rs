//! What the writer needs of a database.

use std::collections::HashMap;

use bulla_seal::{Digest, Party};
use bytes::Bytes;
use sqlx::{ColumnIndex, Decode, Error, Row, Type};

use super::set::{Claim, Ledger, Sender};
use crate::claim::{Gate, Lease, Record, State};
use crate::key::Worker;
use crate::store::{Reply, StoreError};

/// The columns of a claim, in the order of [`Columns`].
pub(crate) const COLUMNS: &str = "claim_key, sender, digest, exp, state, worker, attempt, \
                                  until_ms, idempotent, envelope, reply_digest, reply";
#[cfg(any(feature = "mariadb", feature = "sqlite"))]
pub(crate) const WIDTH: usize = 12;

/// A claim that was forgotten.
pub(crate) struct Purged {
    pub(crate) sender: i64,
    pub(crate) exp: u64,
    /// Of its stored reply.
    pub(crate) bytes: u64,
}

/// What became of a transaction that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(any(feature = "mariadb", feature = "postgres")),
    expect(dead_code, reason = "a file has no connection to lose")
)]
pub(crate) enum Ended {
    /// It would fail again.
    ForGood,
    /// Another was in its way, and it was taken back for certain: it may be begun again.
    InTheWay,
    /// Its connection is gone: it may be begun again, unless it was being committed.
    Cut,
}

type Found<T> = Result<T, Error>;

/// One connection, and one transaction at a time on it.
pub(crate) trait Backend: Send + 'static {
    /// Begins a transaction that no other can come between, and reads the ledger. The clock in
    /// Unix milliseconds, if the store goes by its own.
    fn begin(&mut self) -> impl Future<Output = Found<(Ledger, Option<u64>)>> + Send;
    /// Ends it; on disk when this returns.
    fn commit(&mut self) -> impl Future<Output = Found<()>> + Send;
    /// Takes back what failed. Says what became of it.
    fn give_up(&mut self, error: &Error) -> impl Future<Output = Ended> + Send;
    /// The claims with these keys.
    fn claims(
        &mut self,
        keys: &[&[u8]],
    ) -> impl Future<Output = Found<HashMap<Vec<u8>, Claim>>> + Send;
    /// Inserts or updates.
    fn save_claims(
        &mut self,
        claims: &[(&Vec<u8>, &Claim)],
    ) -> impl Future<Output = Found<()>> + Send;
    /// Those that have ids.
    fn senders(
        &mut self,
        parties: &[&Party],
    ) -> impl Future<Output = Found<Vec<(Party, Sender)>>> + Send;
    /// Inserts or updates.
    fn save_senders(
        &mut self,
        senders: &[(&Party, &Sender)],
    ) -> impl Future<Output = Found<()>> + Send;
    /// Writes the one row.
    fn save_ledger(&mut self, ledger: &Ledger) -> impl Future<Output = Found<()>> + Send;
    /// Claims whose lease is over.
    fn expired(&mut self, now_ms: u64)
    -> impl Future<Output = Found<Vec<(Vec<u8>, Claim)>>> + Send;
    /// Forgets the claims that expire first, below `bound` (Unix seconds), but not those with a
    /// live lease.
    fn purge(
        &mut self,
        bound: i64,
        now_ms: u64,
        limit: u64,
    ) -> impl Future<Output = Found<Vec<Purged>>> + Send;
    /// Takes `gone` ids from a sender; returns how many are left.
    fn give_back(&mut self, sender: i64, gone: u64) -> impl Future<Output = Found<u64>> + Send;
    /// The ledger and the number of claims in flight, outside of a transaction.
    fn held(&mut self) -> impl Future<Output = Found<(Ledger, u64)>> + Send;
    /// How many ids a sender has.
    fn held_by(&mut self, party: &Party) -> impl Future<Output = Found<u64>> + Send;
    /// What an error means to the operator.
    fn failed(&self, error: &Error) -> StoreError;
    /// Ends the connection.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// What a claim looks like in columns.
pub(crate) struct Columns<'a> {
    pub(crate) state: i64,
    pub(crate) worker: Option<i64>,
    pub(crate) attempt: Option<i64>,
    pub(crate) until_ms: Option<i64>,
    pub(crate) idempotent: Option<i64>,
    pub(crate) envelope: Option<&'a Bytes>,
    pub(crate) reply_digest: Option<Digest>,
    pub(crate) reply: Option<&'a Bytes>,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(claim: &'a Claim) -> Self {
        let (state, lease, reply) = match &claim.record.state {
            State::Claimed(lease) => (0, Some(lease), None),
            State::Done(reply) => (1, None, reply.as_ref()),
            State::InDoubt(error) => (2, None, error.as_ref()),
        };
        Self {
            state,
            worker: lease.map(|lease| lease.worker.0.cast_signed()),
            attempt: lease.map(|lease| i64::from(lease.attempt)),
            until_ms: lease.map(|lease| signed(lease.until_ms)),
            idempotent: lease.map(|lease| i64::from(lease.idempotent)),
            // The envelope is only of use while somebody may still have to run it.
            envelope: lease.and(claim.envelope.as_ref()),
            reply_digest: reply.map(Reply::digest),
            reply: reply.and_then(Reply::sealed),
        }
    }
}

/// A row of [`COLUMNS`].
pub(crate) fn read_claim<'r, R>(row: &'r R) -> Result<(Vec<u8>, Claim), Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    let number = |name| row.try_get::<i64, &'static str>(name);
    let bytes = |name| row.try_get::<Option<Vec<u8>>, &'static str>(name);
    let reply = match bytes("reply_digest")? {
        Some(named) => Some(Reply::with_digest(digest(&named)?, bytes("reply")?.map(Bytes::from))),
        None => None,
    };
    let state = match number("state")? {
        0 => State::Claimed(Lease {
            worker: Worker(number("worker")?.cast_unsigned()),
            until_ms: unsigned(number("until_ms")?),
            attempt: u32::try_from(number("attempt")?).unwrap_or(u32::MAX),
            idempotent: number("idempotent")? == 1,
        }),
        1 => State::Done(reply),
        _ => State::InDoubt(reply),
    };
    let named: Vec<u8> = row.try_get("digest")?;
    let claim = Claim {
        sender: number("sender")?,
        exp: unsigned(number("exp")?),
        record: Record { digest: digest(&named)?, state },
        envelope: bytes("envelope")?.map(Bytes::from),
        changed: false,
    };
    Ok((row.try_get("claim_key")?, claim))
}

/// The row of the ledger.
pub(crate) fn read_ledger<'r, R>(row: &'r R) -> Result<Ledger, Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let number = |name| row.try_get::<i64, &'static str>(name);
    Ok(Ledger {
        gate: Gate {
            purged_exp: unsigned(number("purged_exp")?),
            blind_until: row.try_get::<Option<i64>, _>("blind_until")?.map(unsigned),
        },
        entries: unsigned(number("entries")?),
        senders: unsigned(number("senders")?),
        next_sender: number("next_sender")?,
        shared: unsigned(number("shared")?),
        reply_bytes: unsigned(number("reply_bytes")?),
        generation: row.try_get("generation")?,
    })
}

fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    Digest::from_slice(bytes).ok_or_else(|| Error::Decode("a digest of the wrong length".into()))
}

/// Times and counts, which databases hold as signed; the top half is past any real time.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
