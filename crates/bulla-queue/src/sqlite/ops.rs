//! What is done in one transaction.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Error, Row as _, Sqlite};

use super::known::{Known, Row};
use super::rows::{COLUMNS, claimed, message, places, read_seqs, signed, unsigned, write_seqs};
use super::writer::{Due, Job, Simple};
use super::{reads, records};
use crate::id::Id;
use crate::metadata::DeadLetter;
use crate::name::{ClientId, Place};
use crate::once::Posted;
use crate::record::{Before, RecordKind};
use crate::store::{
    Claim, ClaimTerms, Deletion, Doomed, Holding, Listed, Message, Metadata, Millis, NewMessage,
};

/// Places in the order that are set aside at a time: about ten seconds of them.
const AHEAD: u64 = 10_000_000;
/// Rows by statement: the largest size that fits is used first, so that few texts are prepared.
const SIZES: [usize; 4] = [64, 16, 4, 1];
/// What is swept away at a time.
const SWEEP: i64 = 1000;
/// How often it is gone on with before others have their turn.
const SWEEPS: usize = 20;

/// Places in the order: about the time in microseconds, and never one twice.
pub(super) struct Seqs {
    last: u64,
    aside: u64,
    due: Dues,
}

/// When the next message of a queue will be anybody's, at the earliest, as far as that is known.
#[derive(Default)]
struct Dues(HashMap<i64, i64>);

impl Dues {
    /// Queues that are known at the most; beyond that it begins anew.
    const MAX: usize = 65_536;

    /// Whether a message may be anybody's by now of which the rows do not say so.
    fn may_be(&self, queue: i64, now: i64) -> bool {
        self.0.get(&queue).is_none_or(|next| *next <= now)
    }

    /// A message will be at this time.
    fn note(&mut self, queue: i64, at: i64) {
        if let Some(next) = self.0.get_mut(&queue) {
            *next = (*next).min(at);
        }
    }

    fn learn(&mut self, queue: i64, next: Option<i64>) {
        if self.0.len() >= Self::MAX {
            self.0.clear();
        }
        self.0.insert(queue, next.unwrap_or(i64::MAX));
    }
}

impl Seqs {
    pub(super) async fn load(conn: &mut SqliteConnection, now: Millis) -> Result<Self, Error> {
        let row = sqlx::query("SELECT next_seq FROM ledger").fetch_one(conn).await?;
        let last = unsigned(row.try_get(0)?).max(now.saturating_mul(1000));
        Ok(Self { last, aside: 0, due: Dues::default() })
    }

    fn next(&mut self, now: Millis) -> u64 {
        self.last = now.saturating_mul(1000).max(self.last + 1);
        self.last
    }

    /// What was set aside is not on the disk.
    pub(super) fn taken_back(&mut self) {
        self.aside = 0;
        self.due = Dues::default();
    }
}

/// One transaction.
pub(super) struct Turn<'t> {
    conn: &'t mut SqliteConnection,
    seqs: &'t mut Seqs,
    known: &'t Known,
    due: &'t mut Due,
    /// Queues as they are in this transaction, where it changed them.
    fresh: HashMap<Place, Option<Row>>,
    changed: Vec<Place>,
    /// Claims that are to be written.
    claims: Vec<NewClaim>,
}

/// A claim as it is inserted.
struct NewClaim {
    id: Id,
    queue: i64,
    ttl: u32,
    now: Millis,
    until: Millis,
    messages: Vec<u8>,
}

/// A message as it is inserted.
struct NewRow {
    id: Id,
    queue: i64,
    by: ClientId,
    message: NewMessage,
    now: Millis,
}

impl<'t> Turn<'t> {
    pub(super) fn new(
        conn: &'t mut SqliteConnection,
        seqs: &'t mut Seqs,
        known: &'t Known,
        due: &'t mut Due,
    ) -> Self {
        let (fresh, changed, claims) = (HashMap::new(), Vec::new(), Vec::new());
        Self { conn, seqs, known, due, fresh, changed, claims }
    }

    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        self.conn.execute_simple("BEGIN IMMEDIATE").await
    }

    /// Queues that were changed, and what is known of them now.
    pub(super) async fn commit(mut self) -> Result<(Vec<Place>, Vec<(Place, Row)>), Error> {
        self.set_aside().await?;
        self.conn.execute_simple("COMMIT").await?;
        let fresh = self.fresh.into_iter().filter_map(|(at, row)| Some((at, row?)));
        Ok((self.changed, fresh.collect()))
    }

    async fn set_aside(&mut self) -> Result<(), Error> {
        if self.seqs.last < self.seqs.aside {
            return Ok(());
        }
        let aside = self.seqs.last.saturating_add(AHEAD);
        let query = sqlx::query("UPDATE ledger SET next_seq = ?").bind(signed(aside));
        query.execute(&mut *self.conn).await?;
        self.seqs.aside = aside;
        Ok(())
    }

    fn id(&mut self, now: Millis) -> Result<Id, Error> {
        let seq = self.seqs.next(now);
        Id::new(seq).map_err(|_| Error::Io(std::io::Error::other("there is no randomness")))
    }

    async fn queue(&mut self, at: &Place) -> Result<Option<Row>, Error> {
        if let Some(row) = self.fresh.get(at) {
            return Ok(row.clone());
        }
        let (found, mark) = self.known.find(at);
        if found.is_some() {
            return Ok(found);
        }
        let row = reads::queue(self.conn, at).await?;
        if let Some(row) = &row {
            self.known.learn(at, row.clone(), mark);
        }
        Ok(row)
    }

    /// The queue, which is made if there is none.
    async fn made(&mut self, at: &Place, now: Millis) -> Result<Row, Error> {
        match self.queue(at).await? {
            Some(row) => Ok(row),
            None => self.make(at, Metadata::new(), now).await,
        }
    }

    async fn make(&mut self, at: &Place, metadata: Metadata, now: Millis) -> Result<Row, Error> {
        let n = signed(self.seqs.next(now));
        let text = text(&metadata)?;
        let query =
            sqlx::query("INSERT INTO queue (n, project, name, metadata) VALUES (?, ?, ?, ?)");
        let query = query.bind(n).bind(at.project().to_owned()).bind(at.name().to_owned());
        query.bind(text).execute(&mut *self.conn).await?;
        let row = Row::new(n, metadata);
        self.change(at, Some(row.clone()));
        Ok(row)
    }

    fn change(&mut self, at: &Place, row: Option<Row>) {
        self.fresh.insert(at.clone(), row);
        self.changed.push(at.clone());
    }

    pub(super) async fn queues(&mut self, jobs: Vec<Job>) -> Result<(), Error> {
        for job in jobs {
            match job {
                Job::Ping { to } => self.due.push(to, ()),
                Job::Create { at, metadata, to } => {
                    let is_new = self.queue(&at).await?.is_none();
                    if is_new {
                        self.make(&at, metadata, 0).await?;
                    }
                    self.due.push(to, is_new);
                }
                Job::Patch { at, patch, to } => {
                    let Some(row) = self.queue(&at).await? else {
                        self.due.push(to, None);
                        continue;
                    };
                    let patched = patch.apply(&row.metadata);
                    if let Ok(metadata) = &patched {
                        let query = sqlx::query("UPDATE queue SET metadata = ? WHERE n = ?");
                        let query = query.bind(text(metadata)?).bind(row.n);
                        query.execute(&mut *self.conn).await?;
                        self.change(&at, Some(Row::new(row.n, metadata.clone())));
                    }
                    self.due.push(to, Some(patched));
                }
                Job::Remove { at, to } => {
                    if let Some(row) = self.queue(&at).await? {
                        let query = sqlx::query("DELETE FROM queue WHERE n = ?").bind(row.n);
                        query.execute(&mut *self.conn).await?;
                        self.abandon(row.n).await?;
                        self.change(&at, None);
                    }
                    self.due.push(to, ());
                }
                Job::Purge { at, to } => {
                    // Another number, and nothing is in it.
                    if let Some(row) = self.queue(&at).await? {
                        let n = signed(self.seqs.next(0));
                        let query = sqlx::query("UPDATE queue SET n = ? WHERE n = ?");
                        query.bind(n).bind(row.n).execute(&mut *self.conn).await?;
                        self.abandon(row.n).await?;
                        self.change(&at, Some(Row { n, ..row }));
                    }
                    self.due.push(to, ());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The messages of this queue are swept away in time.
    async fn abandon(&mut self, queue: i64) -> Result<(), Error> {
        let query = sqlx::query("INSERT INTO gone (queue) VALUES (?)").bind(queue);
        query.execute(&mut *self.conn).await.map(drop)
    }

    pub(super) async fn posts(&mut self, jobs: Vec<Job>) -> Result<(), Error> {
        let mut rows = Vec::with_capacity(jobs.len());
        for job in jobs {
            let Job::Post { at, by, messages, once, now, to } = job else { continue };
            if let Some(once) = &once {
                let owner = at.owner();
                let of = (RecordKind::Once, owner.as_str(), once.name.as_str());
                if let Some(there) = records::one(self.conn, of, now).await? {
                    self.due.push(to, once.judge(&there));
                    continue;
                }
            }
            let queue = self.made(&at, now).await?.n;
            let mut ids = Vec::with_capacity(messages.len());
            for message in messages {
                let id = self.id(now)?;
                ids.push(id);
                if message.delay > 0 {
                    self.seqs.due.note(queue, signed(now + u64::from(message.delay) * 1000));
                }
                rows.push(NewRow { id, queue, by, message, now });
            }
            if let Some(once) = once {
                records::keep(self.conn, once.record(&at, &ids), &Before::Any, now).await?;
            }
            self.due.push(to, Posted::Now(ids));
        }
        self.insert(rows).await
    }

    async fn insert(&mut self, rows: Vec<NewRow>) -> Result<(), Error> {
        static TEXTS: LazyLock<[String; SIZES.len()]> = LazyLock::new(|| {
            SIZES.map(|size| {
                let rows = vec!["(?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"; size].join(", ");
                format!(
                    "INSERT INTO message (seq, tag, queue, client, ttl, created_ms, expires_ms, \
                     free_ms, claims, body) VALUES {rows}"
                )
            })
        });
        let mut rows = rows.into_iter();
        for (size, text) in SIZES.iter().zip(TEXTS.iter()) {
            while rows.len() >= *size {
                let mut query = sqlx::query(text.as_str());
                for row in rows.by_ref().take(*size) {
                    query = row.bind(query);
                }
                query.execute(&mut *self.conn).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn deletions(&mut self, jobs: Vec<Job>) -> Result<(), Error> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut asked = Vec::with_capacity(jobs.len());
        let mut seqs = Vec::with_capacity(jobs.len());
        for job in jobs {
            let Job::Delete { at, doomed, now, to } = job else { continue };
            let queue = self.queue(&at).await?.map(|row| row.n);
            seqs.extend(doomed.iter().map(|doomed| signed(doomed.id.seq())));
            asked.push((queue, doomed, now, to));
        }
        let held = self.held(&seqs).await?;
        let mut gone = Vec::with_capacity(seqs.len());
        for (queue, doomed, now, to) in asked {
            let mut answers = Vec::with_capacity(doomed.len());
            for Doomed { id, holding } in doomed {
                let held = held.get(&signed(id.seq())).filter(|held| {
                    let there = Some(held.queue) == queue && held.tag == signed(id.tag());
                    there && held.expires > signed(now)
                });
                let answer = match held {
                    None => Deletion::Gone,
                    Some(held) => self.may_go(held, holding, now).await?,
                };
                if held.is_some() && answer == Deletion::Gone {
                    gone.push(signed(id.seq()));
                }
                answers.push(answer);
            }
            self.due.push(to, answers);
        }
        for (sql, chunk) in chunks("DELETE FROM message WHERE seq IN (", ")", &gone) {
            sql.bind_all(chunk).execute(&mut *self.conn).await?;
        }
        Ok(())
    }

    async fn may_go(&mut self, held: &Held, by: Holding, now: Millis) -> Result<Deletion, Error> {
        let holder = held.holder.filter(|_| held.free > signed(now));
        Ok(match (by, holder) {
            (Holding::Any, _) | (Holding::Nobody, None) => Deletion::Gone,
            (Holding::Nobody, Some(_)) => Deletion::Held,
            (Holding::By(id), Some(holder)) if holder == id => Deletion::Gone,
            (Holding::By(id), holder) => {
                let queue = held.queue;
                match (claimed(self.conn, queue, id, now).await?, holder) {
                    (None, _) => Deletion::NoClaim,
                    (Some(_), None) => Deletion::NotHeld,
                    (Some(_), Some(_)) => Deletion::Held,
                }
            }
        })
    }

    async fn held(&mut self, seqs: &[i64]) -> Result<HashMap<i64, Held>, Error> {
        let mut found = HashMap::with_capacity(seqs.len());
        let select = "SELECT seq, tag, queue, expires_ms, free_ms, claim, claim_tag FROM message \
                      WHERE seq IN (";
        for (sql, chunk) in chunks(select, ")", seqs) {
            for row in sql.bind_all(chunk).fetch_all(&mut *self.conn).await? {
                let (claim, tag): (Option<i64>, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
                let holder = claim.zip(tag);
                let held = Held {
                    tag: row.try_get(1)?,
                    queue: row.try_get(2)?,
                    expires: row.try_get(3)?,
                    free: row.try_get(4)?,
                    holder: holder.map(|(seq, tag)| Id::from_parts(unsigned(seq), unsigned(tag))),
                };
                found.insert(row.try_get(0)?, held);
            }
        }
        Ok(found)
    }

    pub(super) async fn others(&mut self, jobs: Vec<Job>) -> Result<(), Error> {
        for job in jobs {
            match job {
                Job::Pop { at, limit, now, to } => {
                    let popped = self.pop(&at, limit, now).await?;
                    self.due.push(to, popped);
                }
                Job::Claim { at, limit, terms, now, to } => {
                    let claim = self.claim(&at, limit, terms, now).await?;
                    self.due.push_claim(at, now, to, claim);
                }
                Job::Renew { at, id, terms, now, to } => {
                    let renewed = self.renew(&at, id, terms, now).await?;
                    self.due.push(to, renewed);
                }
                Job::Release { at, id, now, to } => {
                    self.release(&at, id, now).await?;
                    self.due.push(to, ());
                }
                Job::Keep { record, before, now, to } => {
                    let there = records::keep(self.conn, record, &before, now).await?;
                    self.due.push(to, there);
                }
                Job::Forget { kind, owner, name, to } => {
                    records::forget(self.conn, (kind, &owner, name.as_deref())).await?;
                    self.due.push(to, ());
                }
                _ => {}
            }
        }
        self.insert_claims().await
    }

    /// What was held or held back long enough is anybody's, and its row says so.
    async fn free_due(&mut self, queue: i64, now: Millis) -> Result<(), Error> {
        let now = signed(now);
        if !self.seqs.due.may_be(queue, now) {
            return Ok(());
        }
        let query = sqlx::query(
            "UPDATE message SET free_ms = 0, claim = NULL, claim_tag = NULL \
             WHERE queue = ? AND free_ms BETWEEN 1 AND ?",
        );
        query.bind(queue).bind(now).execute(&mut *self.conn).await?;
        let next = sqlx::query("SELECT min(free_ms) FROM message WHERE queue = ? AND free_ms > 0");
        let next = next.bind(queue).fetch_one(&mut *self.conn).await?.try_get(0)?;
        self.seqs.due.learn(queue, next);
        Ok(())
    }

    /// The first messages that anybody may have.
    async fn free(&mut self, queue: i64, limit: usize, now: Millis) -> Result<Listed, Error> {
        self.free_due(queue, now).await?;
        static TEXT: LazyLock<String> = LazyLock::new(|| {
            format!(
                "SELECT {COLUMNS} FROM message WHERE queue = ? AND free_ms = 0 AND expires_ms > ? \
                 ORDER BY seq LIMIT ?"
            )
        });
        let query = sqlx::query(TEXT.as_str()).bind(queue).bind(signed(now));
        let rows = query.bind(signed(limit as u64)).fetch_all(&mut *self.conn).await?;
        rows.iter().map(|row| message(row, now)).collect()
    }

    async fn pop(&mut self, at: &Place, limit: usize, now: Millis) -> Result<Listed, Error> {
        let Some(queue) = self.queue(at).await? else { return Ok(Vec::new()) };
        let messages = self.free(queue.n, limit, now).await?;
        let seqs: Vec<_> = messages.iter().map(|message| signed(message.id.seq())).collect();
        for (sql, chunk) in chunks("DELETE FROM message WHERE seq IN (", ")", &seqs) {
            sql.bind_all(chunk).execute(&mut *self.conn).await?;
        }
        Ok(messages)
    }

    async fn claim(
        &mut self,
        at: &Place,
        limit: usize,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<Option<Claim>, Error> {
        let Some(queue) = self.queue(at).await? else { return Ok(None) };
        if let Some(dead_letter) = &queue.settings.dead_letter {
            let mut messages = self.free(queue.n, limit, now).await?;
            // Each round takes at least one away.
            while messages.iter().any(|message| message.claims >= dead_letter.max_claims) {
                self.bury(at, dead_letter, &messages, now).await?;
                messages = self.free(queue.n, limit, now).await?;
            }
        }
        self.free_due(queue.n, now).await?;
        static TEXT: LazyLock<String> = LazyLock::new(|| {
            format!(
                "UPDATE message SET claim = ?, claim_tag = ?, free_ms = ?, claims = claims + 1 \
                 WHERE seq IN (SELECT seq FROM message \
                 WHERE queue = ? AND free_ms = 0 AND expires_ms > ? ORDER BY seq LIMIT ?) \
                 RETURNING {COLUMNS}, expires_ms < ?"
            )
        });
        let id = self.id(now)?;
        let until = now + u64::from(terms.ttl) * 1000;
        let alive = until + u64::from(terms.grace) * 1000;
        let query = sqlx::query(TEXT.as_str()).bind(signed(id.seq())).bind(signed(id.tag()));
        let query = query.bind(signed(until)).bind(queue.n).bind(signed(now));
        let query = query.bind(signed(limit as u64)).bind(signed(alive));
        let rows = query.fetch_all(&mut *self.conn).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let (mut messages, mut short) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in &rows {
            let message = message(row, now)?;
            if row.try_get(COLUMNS.split(',').count())? {
                short.push(signed(message.id.seq()));
            }
            messages.push(message);
        }
        // Apart: whoever lives long enough keeps its place among the ends, which is a page elsewhere.
        for (mut sql, chunk) in
            chunks("UPDATE message SET expires_ms = ? WHERE seq IN (", ")", &short)
        {
            sql.query = sql.query.bind(signed(alive));
            sql.bind_all(chunk).execute(&mut *self.conn).await?;
        }
        messages.sort_unstable_by_key(|message| message.id.seq());
        self.seqs.due.note(queue.n, signed(until));
        let (ttl, seqs) = (terms.ttl, write_seqs(&messages));
        self.claims.push(NewClaim { id, queue: queue.n, ttl, now, until, messages: seqs });
        Ok(Some(Claim { id, ttl, created: now, messages }))
    }

    async fn insert_claims(&mut self) -> Result<(), Error> {
        static TEXTS: LazyLock<[String; SIZES.len()]> = LazyLock::new(|| {
            SIZES.map(|size| {
                let rows = vec!["(?, ?, ?, ?, ?, ?, ?)"; size].join(", ");
                format!(
                    "INSERT INTO claim (seq, tag, queue, ttl, created_ms, until_ms, messages) \
                     VALUES {rows}"
                )
            })
        });
        let mut claims = std::mem::take(&mut self.claims).into_iter();
        for (size, text) in SIZES.iter().zip(TEXTS.iter()) {
            while claims.len() >= *size {
                let mut query = sqlx::query(text.as_str());
                for NewClaim { id, queue, ttl, now, until, messages } in claims.by_ref().take(*size)
                {
                    query = query.bind(signed(id.seq())).bind(signed(id.tag())).bind(queue);
                    query = query.bind(i64::from(ttl)).bind(signed(now)).bind(signed(until));
                    query = query.bind(messages);
                }
                query.execute(&mut *self.conn).await?;
            }
        }
        Ok(())
    }

    /// Moves those that were claimed too often to where such messages go.
    async fn bury(
        &mut self,
        at: &Place,
        dead_letter: &DeadLetter,
        messages: &[Message],
        now: Millis,
    ) -> Result<(), Error> {
        let too_often = |message: &&Message| message.claims >= dead_letter.max_claims;
        let seqs: Vec<_> = messages.iter().filter(too_often).map(|m| signed(m.id.seq())).collect();
        let there = at.beside(&dead_letter.queue, &crate::limits::Limits::default());
        let there = there.filter(|there| there != at);
        let Some(there) = there else {
            // A queue can't be its own: they go.
            for (sql, chunk) in chunks("DELETE FROM message WHERE seq IN (", ")", &seqs) {
                sql.bind_all(chunk).execute(&mut *self.conn).await?;
            }
            return Ok(());
        };
        let queue = self.made(&there, now).await?.n;
        let ends = dead_letter.ttl.map(|ttl| now + u64::from(ttl) * 1000);
        let update = "UPDATE message SET queue = ?, claims = 0, ttl = coalesce(?, ttl), \
                      expires_ms = coalesce(?, expires_ms) WHERE seq IN (";
        for (mut sql, chunk) in chunks(update, ")", &seqs) {
            sql.query = sql.query.bind(queue).bind(dead_letter.ttl.map(i64::from));
            sql.query = sql.query.bind(ends.map(signed));
            sql.bind_all(chunk).execute(&mut *self.conn).await?;
        }
        Ok(())
    }

    async fn renew(
        &mut self,
        at: &Place,
        id: Id,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<bool, Error> {
        let Some(queue) = self.queue(at).await? else { return Ok(false) };
        let until = now + u64::from(terms.ttl) * 1000;
        let query = sqlx::query(
            "UPDATE claim SET ttl = ?, created_ms = ?, until_ms = ? \
             WHERE seq = ? AND tag = ? AND queue = ? AND until_ms > ? RETURNING messages",
        );
        let query = query.bind(i64::from(terms.ttl)).bind(signed(now)).bind(signed(until));
        let query = query.bind(signed(id.seq())).bind(signed(id.tag())).bind(queue.n);
        let row = query.bind(signed(now)).fetch_optional(&mut *self.conn).await?;
        let Some(row) = row else { return Ok(false) };
        self.seqs.due.note(queue.n, signed(until));
        let seqs = read_seqs(row.try_get(0)?);
        let alive = until + u64::from(terms.grace) * 1000;
        let update = "UPDATE message SET free_ms = ?, expires_ms = max(expires_ms, ?) \
                      WHERE claim = ? AND claim_tag = ? AND seq IN (";
        for (mut sql, chunk) in chunks(update, ")", &seqs) {
            sql.query = sql.query.bind(signed(until)).bind(signed(alive));
            sql.query = sql.query.bind(signed(id.seq())).bind(signed(id.tag()));
            sql.bind_all(chunk).execute(&mut *self.conn).await?;
        }
        Ok(true)
    }

    async fn release(&mut self, at: &Place, id: Id, now: Millis) -> Result<(), Error> {
        let Some(queue) = self.queue(at).await? else { return Ok(()) };
        let query = sqlx::query(
            "DELETE FROM claim WHERE seq = ? AND tag = ? AND queue = ? AND until_ms > ? \
             RETURNING messages",
        );
        let query = query.bind(signed(id.seq())).bind(signed(id.tag())).bind(queue.n);
        let row = query.bind(signed(now)).fetch_optional(&mut *self.conn).await?;
        let Some(row) = row else { return Ok(()) };
        let seqs = read_seqs(row.try_get(0)?);
        let update = "UPDATE message SET free_ms = 0, claim = NULL, claim_tag = NULL \
                      WHERE claim = ? AND claim_tag = ? AND seq IN (";
        for (mut sql, chunk) in chunks(update, ")", &seqs) {
            sql.query = sql.query.bind(signed(id.seq())).bind(signed(id.tag()));
            sql.bind_all(chunk).execute(&mut *self.conn).await?;
        }
        Ok(())
    }

    /// Sweeps away what is over, and what was in queues that are gone, a little at a time.
    pub(super) async fn sweep(mut self, now: Millis) -> Result<(), Error> {
        for _ in 0..SWEEPS {
            let swept = self.sweep_once(now).await?;
            if swept < u64::try_from(SWEEP).unwrap_or_default() {
                break;
            }
        }
        Ok(())
    }

    async fn sweep_once(&mut self, now: Millis) -> Result<u64, Error> {
        let mut most = 0;
        for sql in [
            "DELETE FROM message WHERE seq IN \
             (SELECT seq FROM message WHERE expires_ms <= ? LIMIT ?)",
            "DELETE FROM claim WHERE seq IN (SELECT seq FROM claim WHERE until_ms <= ? LIMIT ?)",
            "DELETE FROM record WHERE (kind, owner, name) IN \
             (SELECT kind, owner, name FROM record WHERE until_ms <= ? LIMIT ?)",
        ] {
            let query = sqlx::query(sql).bind(signed(now)).bind(SWEEP);
            most = most.max(query.execute(&mut *self.conn).await?.rows_affected());
        }
        let row = sqlx::query("SELECT queue FROM gone LIMIT 1");
        let Some(row) = row.fetch_optional(&mut *self.conn).await? else { return Ok(most) };
        let queue: i64 = row.try_get(0)?;
        let query = sqlx::query(
            "DELETE FROM message WHERE seq IN (SELECT seq FROM message WHERE queue = ? LIMIT ?)",
        );
        let swept = query.bind(queue).bind(SWEEP).execute(&mut *self.conn).await?.rows_affected();
        if swept == 0 {
            let query = sqlx::query("DELETE FROM gone WHERE queue = ?").bind(queue);
            query.execute(&mut *self.conn).await?;
        }
        // There may be another one.
        Ok(most.max(unsigned(SWEEP)))
    }
}

/// What decides whether a message may go.
struct Held {
    tag: i64,
    queue: i64,
    expires: i64,
    free: i64,
    holder: Option<Id>,
}

type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

impl NewRow {
    fn bind(self, query: Query) -> Query {
        let Self { id, queue, by, message, now } = self;
        let ms = |seconds: u32| u64::from(seconds) * 1000;
        let free = if message.delay > 0 { now + ms(message.delay) } else { 0 };
        query
            .bind(signed(id.seq()))
            .bind(signed(id.tag()))
            .bind(queue)
            .bind(by.as_bytes().to_vec())
            .bind(i64::from(message.ttl))
            .bind(signed(now))
            .bind(signed(now + ms(message.ttl)))
            .bind(signed(free))
            .bind(message.body)
    }
}

/// A statement with a list of places in the order.
struct Listing {
    query: Query,
    size: usize,
}

impl Listing {
    /// Fills the list; the last place fills what is left of it, which changes nothing.
    fn bind_all(self, seqs: &[i64]) -> Query {
        let mut query = self.query;
        let last = seqs.last().copied().unwrap_or_default();
        for at in 0..self.size {
            query = query.bind(seqs.get(at).copied().unwrap_or(last));
        }
        query
    }
}

/// Cuts `seqs` into pieces, each with the statement for it: of few sizes, so that few texts are
/// prepared.
fn chunks<'a>(before: &str, after: &str, seqs: &'a [i64]) -> Vec<(Listing, &'a [i64])> {
    let most = SIZES.first().copied().unwrap_or(1);
    let cut = seqs.chunks(most).map(|chunk| {
        let fits = |size: &&usize| **size >= chunk.len();
        let size = SIZES.iter().rev().find(fits).copied().unwrap_or(most);
        let sql = format!("{before}{}{after}", places(size));
        (Listing { query: sqlx::query(AssertSqlSafe(sql)), size }, chunk)
    });
    cut.collect()
}

fn text(metadata: &Metadata) -> Result<String, Error> {
    serde_json::to_string(metadata).map_err(|error| Error::Encode(error.into()))
}
