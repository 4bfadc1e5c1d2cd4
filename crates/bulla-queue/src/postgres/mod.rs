//! Queues in PostgreSQL, for any number of hosts.

mod link;
mod records;
mod rows;
mod schema;
mod sql;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Error, Postgres, Row};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::link::Link;
use self::rows::{messages, signed, small, unsigned};
use crate::id::Id;
use crate::limits::Limits;
use crate::metadata::{Patch, PatchFault, Settings};
use crate::name::{ClientId, Place};
use crate::once::{Once, Posted};
use crate::recent::Recent;
use crate::record::{Before, Record, RecordKind};
use crate::store::{
    Claim, ClaimTerms, Deletion, Doomed, Heard, Holding, Listed, Listing, Metadata, Millis,
    NewMessage, Page, QueuePage, Stats, Store, StoreError,
};

/// Posts that wait to be told of; what does not fit is told of by the next one.
const TELL: usize = 1024;

/// How to open a store in PostgreSQL.
#[derive(Clone)]
pub struct PostgresOptions {
    url: String,
    authorities: Option<PathBuf>,
    clock: Clock,
}

/// Whose clock decides.
#[derive(Debug, Clone, Copy)]
enum Clock {
    Own,
    /// The requests': for the conformance module, which makes time up.
    #[cfg(feature = "conformance")]
    OfRequest,
}

impl PostgresOptions {
    /// `postgres://user[:password]@host[:port]/database`. A server on another machine has to show a
    /// certificate, unless the address says otherwise (`sslmode`).
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), authorities: None, clock: Clock::Own }
    }

    /// Demands a certificate, and believes these authorities (a PEM file) alone.
    #[must_use]
    pub fn authorities(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities = Some(path.into());
        self
    }

    /// Goes by the clock of requests instead of the server's, for the conformance module.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub fn with_clock_of_requests(mut self) -> Self {
        self.clock = Clock::OfRequest;
        self
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL holds the password.
        f.debug_struct("PostgresOptions").finish_non_exhaustive()
    }
}

/// Queues in the schema `bulla_queue` of a PostgreSQL database: each call is one transaction with
/// synchronous commit, by the server's clock. Any number of hosts can use one.
pub struct PostgresQueues {
    link: Arc<Link>,
    recent: Recent,
    heard: Arc<Mutex<Option<Heard>>>,
    posted: mpsc::Sender<Place>,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl PostgresQueues {
    /// Connects, checks that the server keeps what it is given, and makes the tables if there are none.
    ///
    /// # Errors
    /// It can't be reached, does not believe the password, or is not fit.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let link = Arc::new(Link::open(&options).await?);
        let (stop, heard) = (CancellationToken::new(), Arc::default());
        let (posted, to_tell) = mpsc::channel(TELL);
        tokio::spawn(stop.clone().run_until_cancelled_owned(link.clone().sweep()));
        let listening = link.clone().listen(Arc::clone(&heard));
        tokio::spawn(stop.clone().run_until_cancelled_owned(listening));
        tokio::spawn(stop.clone().run_until_cancelled_owned(link.clone().tell(to_tell)));
        let recent = Recent::default();
        Ok(Self { link, recent, heard, posted, _stop: stop.clone().drop_guard(), stop })
    }

    fn failed(&self, error: &Error) -> StoreError {
        self.link.failed(error)
    }

    /// A statement on a queue.
    fn on<'q>(&self, text: &'q str, at: &Place, now: Millis) -> Query<'q> {
        on(&self.link, text, at, now)
    }

    async fn all(&self, query: Query<'_>) -> Result<Vec<PgRow>, StoreError> {
        query.fetch_all(&self.link.pool).await.map_err(|error| self.failed(&error))
    }

    async fn run(&self, query: Query<'_>) -> Result<u64, StoreError> {
        let done = query.execute(&self.link.pool).await;
        done.map(|done| done.rows_affected()).map_err(|error| self.failed(&error))
    }

    async fn listed(&self, query: Query<'_>) -> Result<Listed, StoreError> {
        messages(&self.all(query).await?).map_err(|error| self.failed(&error))
    }

    async fn text(&self, at: &Place) -> Result<Option<String>, StoreError> {
        let query = sqlx::query("SELECT metadata FROM queue WHERE project = $1 AND name = $2");
        let query = query.bind(at.project().to_owned()).bind(at.name().to_owned());
        let row = query.fetch_optional(&self.link.pool).await;
        let text = row.and_then(|row| row.map(|row| row.try_get(0)).transpose());
        text.map_err(|error| self.failed(&error))
    }

    fn read(&self, text: &str) -> Result<Metadata, StoreError> {
        serde_json::from_str(text).map_err(|error| StoreError::Foreign {
            at: self.link.at.clone(),
            why: format!("metadata of a queue can't be read: {error}"),
        })
    }
}

impl fmt::Debug for PostgresQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresQueues").field("at", &self.link.at).finish_non_exhaustive()
    }
}

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

fn on<'q>(link: &Link, text: &'q str, at: &Place, now: Millis) -> Query<'q> {
    // Texts of ours alone.
    let query = sqlx::query(sqlx::AssertSqlSafe(text.to_owned()));
    query.bind(link.now(now)).bind(at.project().to_owned()).bind(at.name().to_owned())
}

fn io_error(at: &str, error: &Error) -> StoreError {
    let (at, why) = (at.to_owned(), error.to_string());
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        // Who asks is not believed, or has no such database.
        Some("28000" | "28P01" | "3D000") => StoreError::Unfit { at, why },
        _ => StoreError::Io { at, why },
    }
}

fn new_tag(at: &str) -> Result<u64, StoreError> {
    let none = |_| StoreError::Io { at: at.to_owned(), why: "there is no randomness".to_owned() };
    Ok(Id::new(0).map_err(none)?.tag())
}

fn new_tags(new: &[NewMessage], at: &str) -> Result<Vec<u64>, StoreError> {
    new.iter().map(|_| new_tag(at)).collect()
}

/// Posts messages; answers their places, see [`ids`].
fn post<'q>(
    link: &Link,
    (at, by): (&Place, ClientId),
    (new, tags): (Vec<NewMessage>, &[u64]),
    now: Millis,
) -> Query<'q> {
    let query = on(link, &sql::POST, at, now).bind(signed(new.len() as u64));
    let query = query.bind(by.as_bytes().to_vec());
    let query = query.bind(tags.iter().copied().map(signed).collect::<Vec<_>>());
    let query = query.bind(new.iter().map(|it| i64::from(it.ttl)).collect::<Vec<_>>());
    let query = query.bind(new.iter().map(|it| i64::from(it.delay)).collect::<Vec<_>>());
    query.bind(new.into_iter().map(|it| it.body).collect::<Vec<_>>())
}

fn ids(rows: &[PgRow], tags: Vec<u64>) -> Result<Vec<Id>, Error> {
    let seqs = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    let first = unsigned(seqs.into_iter().min().unwrap_or_default());
    Ok((first..).zip(tags).map(|(seq, tag)| Id::from_parts(seq, tag)).collect())
}

async fn release(link: &Link, at: &Place, id: Id, now: Millis) -> Result<(), StoreError> {
    let query = on(link, &sql::RELEASE, at, now).bind(signed(id.seq())).bind(signed(id.tag()));
    query.execute(&link.pool).await.map(drop).map_err(|error| link.failed(&error))
}

async fn claim(
    link: &Link,
    at: &Place,
    limit: usize,
    terms: ClaimTerms,
    now: Millis,
) -> Result<Option<Claim>, StoreError> {
    let tag = new_tag(&link.at)?;
    // Nobody asks in which order claims were made.
    let id = Id::from_parts(now.saturating_mul(1000) + tag % 1000, tag);
    let query = on(link, &sql::CLAIM, at, now).bind(signed(limit as u64));
    let query = query.bind(signed(id.seq())).bind(signed(id.tag()));
    let query = query.bind(i64::from(terms.ttl)).bind(i64::from(terms.grace));
    let read = async || {
        let rows = query.fetch_all(&link.pool).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let created: i64 = first.try_get("now")?;
        Ok(Some((unsigned(created), messages(&rows)?)))
    };
    let found = read().await.map_err(|error| link.failed(&error))?;
    Ok(found.map(|(created, messages)| Claim { id, ttl: terms.ttl, created, messages }))
}

#[async_trait]
impl Store for PostgresQueues {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn on_arrival(&self, heard: Heard) {
        *self.heard.lock() = Some(heard);
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.run(sqlx::query("SELECT 1")).await.map(drop)
    }

    async fn create(&self, at: &Place, metadata: &Metadata) -> Result<bool, StoreError> {
        let query = sqlx::query(
            "INSERT INTO queue (project, name, metadata, max_claims, dead, dead_ttl) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        );
        let query = query.bind(at.project().to_owned()).bind(at.name().to_owned());
        let made = self.run(bind_metadata(query, metadata)).await? == 1;
        self.recent.forget(at);
        Ok(made)
    }

    async fn metadata(&self, at: &Place) -> Result<Option<Arc<Metadata>>, StoreError> {
        let text = self.text(at).await?;
        text.map(|text| self.read(&text).map(Arc::new)).transpose()
    }

    async fn settings(&self, at: &Place) -> Result<Arc<Settings>, StoreError> {
        let (known, mark) = self.recent.find(at);
        if let Some(known) = known {
            return Ok(known);
        }
        let metadata = self.metadata(at).await?;
        let settings = Arc::new(metadata.map(|it| Settings::of(&it)).unwrap_or_default());
        self.recent.learn(at, &settings, mark);
        Ok(settings)
    }

    async fn patch(
        &self,
        at: &Place,
        patch: &Patch,
    ) -> Result<Option<Result<Metadata, PatchFault>>, StoreError> {
        loop {
            let Some(before) = self.text(at).await? else { return Ok(None) };
            let after = match patch.apply(&self.read(&before)?) {
                Ok(after) => after,
                Err(fault) => return Ok(Some(Err(fault))),
            };
            let query = sqlx::query(
                "UPDATE queue SET metadata = $3, max_claims = $4, dead = $5, dead_ttl = $6 \
                 WHERE project = $1 AND name = $2 AND metadata = $7",
            );
            let query = query.bind(at.project().to_owned()).bind(at.name().to_owned());
            // Otherwise somebody else was quicker.
            if self.run(bind_metadata(query, &after).bind(before)).await? == 1 {
                self.recent.forget(at);
                return Ok(Some(Ok(after)));
            }
        }
    }

    async fn remove(&self, at: &Place) -> Result<(), StoreError> {
        let query = sqlx::query(
            "WITH q AS (DELETE FROM queue WHERE project = $1 AND name = $2 RETURNING n) \
             INSERT INTO gone SELECT n FROM q",
        );
        self.run(query.bind(at.project().to_owned()).bind(at.name().to_owned())).await?;
        self.recent.forget(at);
        Ok(())
    }

    async fn purge(&self, at: &Place) -> Result<(), StoreError> {
        // Another number, and nothing is in it.
        let query = sqlx::query(
            "WITH old AS (SELECT n FROM queue WHERE project = $1 AND name = $2 FOR UPDATE), \
             new AS (UPDATE queue SET n = nextval('queue_number') \
             WHERE project = $1 AND name = $2 AND EXISTS (SELECT FROM old)) \
             INSERT INTO gone SELECT n FROM old",
        );
        let query = query.bind(at.project().to_owned()).bind(at.name().to_owned());
        self.run(query).await.map(drop)
    }

    async fn queues(&self, project: &str, page: &QueuePage) -> Result<Vec<Listing>, StoreError> {
        let mut found = Vec::new();
        let mut after = page.after.clone();
        let filtered = page.name.is_some() || !page.with.is_empty();
        let at_once = if filtered { 500 } else { page.limit };
        loop {
            let query = sqlx::query(
                "SELECT name, metadata FROM queue WHERE project = $1 AND name > $2 \
                 ORDER BY name LIMIT $3",
            );
            let query = query.bind(project.to_owned()).bind(after.clone());
            let rows = self.all(query.bind(signed(at_once as u64))).await?;
            for row in &rows {
                let read = || Ok((row.try_get(0)?, row.try_get(1)?));
                let (name, text): (String, String) = read().map_err(|error| self.failed(&error))?;
                after.clone_from(&name);
                let listing = Listing { name, metadata: self.read(&text)? };
                if page.admits(&listing) {
                    found.push(listing);
                }
                if found.len() == page.limit {
                    return Ok(found);
                }
            }
            if rows.len() < at_once {
                return Ok(found);
            }
        }
    }

    async fn count_queues(&self, project: &str) -> Result<u64, StoreError> {
        let query = sqlx::query("SELECT count(*) FROM queue WHERE project = $1");
        let row = query.bind(project.to_owned()).fetch_one(&self.link.pool).await;
        let count = row.and_then(|row| row.try_get(0)).map_err(|error| self.failed(&error))?;
        Ok(unsigned(count))
    }

    async fn all_queues(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let query = sqlx::query(
            "SELECT project, name FROM queue WHERE (project COLLATE \"C\", name) > ($1, $2) \
             ORDER BY project COLLATE \"C\", name LIMIT $3",
        );
        let (project, name) = after.map_or(("", ""), |at| (at.project(), at.name()));
        let query = query.bind(project.to_owned()).bind(name.to_owned());
        let rows = self.all(query.bind(signed(limit as u64))).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?));
            let (project, name): (String, String) = read().map_err(|error| self.failed(&error))?;
            found.extend(Place::new(project.into(), &name, &Limits::default()));
        }
        Ok(found)
    }

    async fn stats(&self, at: &Place, now: Millis) -> Result<Stats, StoreError> {
        let rows = self.all(self.on(&sql::STATS, at, now)).await?;
        let Some(row) = rows.first() else { return Ok(Stats::default()) };
        let counts = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
        let (all, busy, first, last): (i64, i64, Option<i64>, Option<i64>) =
            counts().map_err(|error| self.failed(&error))?;
        let ends: Vec<i64> = first.into_iter().chain(last).collect();
        let found = self.listed(self.on(&sql::GET, at, now).bind(ends)).await?;
        Ok(Stats {
            busy: unsigned(busy),
            free: unsigned(all - busy),
            oldest: found.first().cloned(),
            newest: found.last().cloned(),
        })
    }

    async fn post(
        &self,
        at: &Place,
        by: ClientId,
        new: Vec<NewMessage>,
        now: Millis,
    ) -> Result<Vec<Id>, StoreError> {
        let tags = new_tags(&new, &self.link.at)?;
        let rows = post(&self.link, (at, by), (new, &tags), now).fetch_all(&self.link.pool).await;
        let rows = rows.map_err(|error| self.failed(&error))?;
        // If too much is to be told of, who waits elsewhere asks again in time.
        let _ = self.posted.try_send(at.clone());
        ids(&rows, tags).map_err(|error| self.failed(&error))
    }

    /// In one transaction.
    async fn post_once(
        &self,
        at: &Place,
        by: ClientId,
        new: Vec<NewMessage>,
        once: Once,
        now: Millis,
    ) -> Result<Posted, StoreError> {
        let tags = new_tags(&new, &self.link.at)?;
        let record = once.record(at, &[]);
        let work = async || {
            let mut tx = self.link.pool.begin().await?;
            let clock = self.link.now(now);
            if let Some(there) = records::locked(&mut tx, &record, clock).await? {
                return Ok(once.judge(&there));
            }
            let posted = post(&self.link, (at, by), (new, &tags), now);
            let ids = ids(&posted.fetch_all(&mut *tx).await?, tags)?;
            records::put(&mut tx, once.record(at, &ids)).await?;
            tx.commit().await?;
            Ok(Posted::Now(ids))
        };
        let posted = work().await.map_err(|error: Error| self.failed(&error))?;
        if matches!(posted, Posted::Now(_)) {
            let _ = self.posted.try_send(at.clone());
        }
        Ok(posted)
    }

    async fn list(&self, at: &Place, page: &Page, now: Millis) -> Result<Listed, StoreError> {
        let query = self.on(&sql::LIST, at, now).bind(signed(page.after));
        let query = query.bind(page.not_by.map(|client| client.as_bytes().to_vec()));
        let query = query.bind(signed(page.limit as u64)).bind(page.delayed).bind(page.claimed);
        self.listed(query).await
    }

    async fn get(&self, at: &Place, ids: &[Id], now: Millis) -> Result<Listed, StoreError> {
        let seqs: Vec<i64> = ids.iter().map(|id| signed(id.seq())).collect();
        let mut found = self.listed(self.on(&sql::GET, at, now).bind(seqs)).await?;
        found.retain(|message| ids.contains(&message.id));
        Ok(found)
    }

    async fn delete(
        &self,
        at: &Place,
        doomed: Vec<Doomed>,
        now: Millis,
    ) -> Result<Vec<Deletion>, StoreError> {
        let column = |of: &dyn Fn(&Doomed) -> u64| -> Vec<i64> {
            doomed.iter().map(|it| signed(of(it))).collect()
        };
        let by = |it: &Doomed| match it.holding {
            Holding::By(id) => (2, id.seq(), id.tag()),
            Holding::Nobody => (1, 0, 0),
            Holding::Any => (0, 0, 0),
        };
        let query = self.on(&sql::DELETE, at, now);
        let query = query.bind(column(&|it| it.id.seq())).bind(column(&|it| it.id.tag()));
        let query = query.bind(column(&|it| by(it).0)).bind(column(&|it| by(it).1));
        let rows = self.all(query.bind(column(&|it| by(it).2))).await?;
        let mut answers = vec![Deletion::Gone; doomed.len()];
        for row in &rows {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?));
            let (place, said): (i64, i64) = read().map_err(|error| self.failed(&error))?;
            let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if let Some(answer) = answers.get_mut(place) {
                *answer = match said {
                    0 => Deletion::Gone,
                    1 => Deletion::Held,
                    2 => Deletion::NotHeld,
                    _ => Deletion::NoClaim,
                };
            }
        }
        Ok(answers)
    }

    async fn pop(&self, at: &Place, limit: usize, now: Millis) -> Result<Listed, StoreError> {
        self.listed(self.on(&sql::POP, at, now).bind(signed(limit as u64))).await
    }

    /// If nobody is there any more to take the claim, it is given up again.
    async fn claim(
        &self,
        at: &Place,
        limit: usize,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<Option<Claim>, StoreError> {
        if self.settings(at).await?.dead_letter.is_some() {
            self.run(self.on(&sql::BURY, at, now)).await?;
        }
        let (to, answer) = tokio::sync::oneshot::channel();
        let (link, at) = (self.link.clone(), at.clone());
        tokio::spawn(async move {
            let claimed = claim(&link, &at, limit, terms, now).await;
            if let Err(Ok(Some(claim))) = to.send(claimed) {
                // It ends by itself at the latest.
                let _ = release(&link, &at, claim.id, now).await;
            }
        });
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn claimed(&self, at: &Place, id: Id, now: Millis) -> Result<Option<Claim>, StoreError> {
        let bound = |text| self.on(text, at, now).bind(signed(id.seq())).bind(signed(id.tag()));
        let rows = self.all(bound(&sql::CLAIMED)).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let (ttl, created, seqs): (i64, i64, Vec<i64>) =
            read().map_err(|error| self.failed(&error))?;
        let messages = self.listed(bound(&sql::HELD).bind(seqs)).await?;
        Ok(Some(Claim { id, ttl: small(ttl), created: unsigned(created), messages }))
    }

    async fn renew(
        &self,
        at: &Place,
        id: Id,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let query = self.on(&sql::RENEW, at, now).bind(signed(id.seq())).bind(signed(id.tag()));
        let query = query.bind(i64::from(terms.ttl)).bind(i64::from(terms.grace));
        let rows = self.all(query).await?;
        let count = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>(0));
        Ok(count.map_err(|error| self.failed(&error))? == 1)
    }

    async fn release(&self, at: &Place, id: Id, now: Millis) -> Result<(), StoreError> {
        release(&self.link, at, id, now).await
    }

    async fn next_free(&self, at: &Place, now: Millis) -> Result<Option<Millis>, StoreError> {
        let rows = self.all(self.on(&sql::NEXT_FREE, at, now)).await?;
        let next = rows.first().map_or(Ok(None), |row| row.try_get::<Option<i64>, _>(0));
        Ok(next.map_err(|error| self.failed(&error))?.map(unsigned))
    }

    async fn keep(
        &self,
        record: Record,
        before: Before,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        let work = async || {
            let mut tx = self.link.pool.begin().await?;
            let found = records::locked(&mut tx, &record, self.link.now(now)).await?;
            if before.is(found.as_ref()) {
                records::put(&mut tx, record).await?;
            }
            tx.commit().await?;
            Ok(found)
        };
        work().await.map_err(|error: Error| self.failed(&error))
    }

    async fn record(
        &self,
        kind: RecordKind,
        owner: &str,
        name: &str,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        let found = records::one(&self.link.pool, (kind, owner, name), self.link.now(now)).await;
        found.map_err(|error| self.failed(&error))
    }

    async fn records(
        &self,
        kind: RecordKind,
        owner: &str,
        page: (&str, usize),
        now: Millis,
    ) -> Result<Vec<Record>, StoreError> {
        let found = records::some(&self.link.pool, (kind, owner), page, self.link.now(now)).await;
        found.map_err(|error| self.failed(&error))
    }

    async fn forget(
        &self,
        kind: RecordKind,
        owner: &str,
        name: Option<&str>,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(
            "DELETE FROM record WHERE kind = $1 AND owner = $2 AND ($3::text IS NULL OR name = $3)",
        );
        let query = query.bind(kind.text()).bind(owner.to_owned());
        self.run(query.bind(name.map(str::to_owned))).await.map(drop)
    }

    async fn close(&self) {
        self.stop.cancel();
        self.link.pool.close().await;
    }
}

/// Metadata, and what of them statements go by.
fn bind_metadata<'q>(query: Query<'q>, metadata: &Metadata) -> Query<'q> {
    let dead_letter = Settings::of(metadata).dead_letter;
    let query = query.bind(serde_json::Value::Object(metadata.clone()).to_string());
    let query = query.bind(dead_letter.as_ref().map(|rule| i64::from(rule.max_claims)));
    let ttl = dead_letter.as_ref().and_then(|rule| rule.ttl).map(i64::from);
    query.bind(dead_letter.map(|rule| rule.queue)).bind(ttl)
}
