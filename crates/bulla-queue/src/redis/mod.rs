//! Queues in Redis, for any number of hosts.

mod link;
mod read;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::link::{Act, Args, Link};
use self::read::Reader;
use crate::id::Id;
use crate::limits::Limits;
use crate::metadata::{Patch, PatchFault, Settings};
use crate::name::{ClientId, Place};
use crate::once::{Once, Posted};
use crate::recent::Recent;
use crate::record::{Before, NEVER, Record, RecordKind};
use crate::store::{
    Claim, ClaimTerms, Deletion, Doomed, Heard, Holding, Listed, Listing, Metadata, Millis,
    NewMessage, Page, QueuePage, Stats, Store, StoreError,
};

/// How often is swept away what is over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// What one script takes away at the most: Redis does nothing else meanwhile.
const SWEEP: u64 = 500;
/// How long until it is tried again to hear what other hosts post.
const AGAIN: Duration = Duration::from_secs(1);

/// How to open a store in Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// `rediss://[user][:password@]host[:port][/number]`; `redis://` on this machine alone.
    url: String,
    prefix: String,
    authorities: Option<Vec<u8>>,
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

impl RedisOptions {
    /// With the machine's certificate authorities, and the prefix `bulla-queue`.
    pub fn new(url: impl Into<String>) -> Self {
        let prefix = "bulla-queue".to_owned();
        Self { url: url.into(), prefix, authorities: None, clock: Clock::Own }
    }

    /// Goes before the name of every key, so that several stores can be on one Redis.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// Believes these certificate authorities (PEM) alone.
    #[must_use]
    pub fn authorities(mut self, pem: Vec<u8>) -> Self {
        self.authorities = Some(pem);
        self
    }

    /// Goes by the clock of requests instead of Redis's, for the conformance module.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub fn with_clock_of_requests(mut self) -> Self {
        self.clock = Clock::OfRequest;
        self
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL holds the password.
        f.debug_struct("RedisOptions").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Queues in Redis 6.2 or later: each call is one script, which runs whole or not at all, by Redis's
/// clock. Any number of hosts can use one.
///
/// Redis must never evict: [`RedisQueues::open`] refuses any `maxmemory-policy` but `noeviction`.
/// With `appendonly yes` and `appendfsync always` what was answered is on its disk. With other
/// settings a crash of Redis loses what they allow to be lost (`everysec`: about a second), and so
/// does a failover to a replica that lacks the last writes.
pub struct RedisQueues {
    link: Arc<Link>,
    recent: Recent,
    heard: Arc<Mutex<Option<Heard>>>,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl RedisQueues {
    /// Connects, and checks that Redis keeps what it is given.
    ///
    /// # Errors
    /// It can't be reached, does not believe the password, or is not fit.
    pub async fn open(options: RedisOptions) -> Result<Self, StoreError> {
        let link = Arc::new(Link::open(&options).await?);
        let (stop, heard) = (CancellationToken::new(), Arc::default());
        let sweeping = stop.clone().run_until_cancelled_owned(sweep(link.clone()));
        tokio::spawn(sweeping);
        let listening = listen(link.clone(), Arc::clone(&heard));
        tokio::spawn(stop.clone().run_until_cancelled_owned(listening));
        Ok(Self { link, recent: Recent::default(), heard, _stop: stop.clone().drop_guard(), stop })
    }

    async fn run(
        &self,
        act: Act,
        at: &Place,
        now: Millis,
        args: Args,
    ) -> Result<Reader, StoreError> {
        if self.stop.is_cancelled() {
            return Err(StoreError::Closed);
        }
        self.link.run(act, at, now, args).await
    }

    async fn text(&self, at: &Place) -> Result<Option<String>, StoreError> {
        let answer = self.link.metadata(at).await?;
        Ok(answer.text(0)?.map(str::to_owned))
    }

    /// Who posts, and whom to tell of it.
    fn who(&self, at: &Place, by: ClientId) -> Args {
        let told = format!("{} {}", at.name(), at.project());
        let (hosts, own) = self.link.told();
        Args::default().arg(by.as_bytes().to_vec()).arg(told).arg(hosts).arg(own)
    }

    /// Whether what was posted is there is not known: who waits here looks.
    fn tell_if_failed<T>(&self, at: &Place, posted: &Result<T, StoreError>) {
        let heard = self.heard.lock().clone();
        if let (Err(_), Some(heard)) = (posted, heard) {
            heard(Some(at));
        }
    }

    /// Where a record is, and its name.
    fn record_args(&self, args: Args, record: &Record) -> Args {
        let index = self.link.records(record.kind, &record.owner);
        let key = format!("{index}\0{}", record.name);
        args.arg(key).arg(index).arg(self.link.record_ends()).arg(record.name.as_str())
    }

    fn read(&self, text: &str) -> Result<Metadata, StoreError> {
        serde_json::from_str(text).map_err(|error| StoreError::Foreign {
            at: self.link.at().to_owned(),
            why: format!("metadata of a queue can't be read: {error}"),
        })
    }
}

impl fmt::Debug for RedisQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQueues").field("at", &self.link.at()).finish_non_exhaustive()
    }
}

/// Sweeps away what is over.
async fn sweep(link: Arc<Link>) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        every.tick().await;
        if let Err(error) = link.say_that_it_listens().await {
            tracing::debug!(%error, "other hosts can't be told that this one listens");
        }
        loop {
            let now = crate::service::now();
            let args = Args::default().number(SWEEP).arg(link.record_ends());
            let swept = link.run_in(Act::Sweep, "", "", now, args).await;
            match swept.and_then(|answer| answer.number(0)) {
                Ok(SWEEP) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "what is over can't be swept out of the queue store");
                    break;
                }
            }
        }
    }
}

/// Hears what any host posts.
async fn listen(link: Arc<Link>, heard: Arc<Mutex<Option<Heard>>>) {
    let tell = |at: Option<&Place>| {
        let heard = heard.lock().clone();
        if let Some(heard) = heard {
            heard(at);
        }
    };
    loop {
        match link.listen().await {
            Ok(mut posted) => {
                // Something may have been posted while nobody listened.
                tell(None);
                let mut messages = posted.on_message();
                while let Some(message) = messages.next().await {
                    let text = std::str::from_utf8(message.get_payload_bytes()).unwrap_or_default();
                    let at = text.split_once(' ').and_then(|(name, project)| {
                        Place::new(project.into(), name, &Limits::default())
                    });
                    tell(at.as_ref());
                }
                link.is_deaf();
                tracing::warn!(store = link.at(), "posts of other hosts are not heard for now");
            }
            Err(error) => {
                tracing::warn!(store = link.at(), %error, "posts of other hosts can't be heard");
            }
        }
        tokio::time::sleep(AGAIN).await;
        tell(None);
    }
}

/// As scripts take them.
fn metadata_args(args: Args, metadata: &Metadata) -> Args {
    let dead_letter = Settings::of(metadata).dead_letter;
    let text = |number: Option<u32>| number.map(|n| n.to_string()).unwrap_or_default();
    let args = args.arg(serde_json::Value::Object(metadata.clone()).to_string());
    let args = args.arg(text(dead_letter.as_ref().map(|rule| rule.max_claims)));
    let ttl = dead_letter.as_ref().and_then(|rule| rule.ttl);
    args.arg(dead_letter.map(|rule| rule.queue).unwrap_or_default()).arg(text(ttl))
}

fn id_bytes(id: Id) -> Vec<u8> {
    [id.seq().to_be_bytes(), id.tag().to_be_bytes()].concat()
}

fn new_tag(at: &str) -> Result<u64, StoreError> {
    let none = |_| StoreError::Io { at: at.to_owned(), why: "there is no randomness".to_owned() };
    Ok(Id::new(0).map_err(none)?.tag())
}

/// As scripts take messages, and their tags.
fn with_messages(
    mut args: Args,
    messages: Vec<NewMessage>,
    at: &str,
) -> Result<(Args, Vec<u64>), StoreError> {
    let mut tags = Vec::with_capacity(messages.len());
    for message in messages {
        let tag = new_tag(at)?;
        tags.push(tag);
        args.push(tag.to_be_bytes());
        args = args.number(message.ttl.into()).number(message.delay.into()).arg(message.body);
    }
    Ok((args, tags))
}

fn ids(first: u64, tags: Vec<u64>) -> Vec<Id> {
    (first..).zip(tags).map(|(seq, tag)| Id::from_parts(seq, tag)).collect()
}

async fn release(link: &Link, at: &Place, id: Id, now: Millis) -> Result<(), StoreError> {
    link.run(Act::Release, at, now, Args::default().arg(id_bytes(id))).await.map(drop)
}

async fn claim(
    link: &Link,
    at: &Place,
    limit: usize,
    terms: ClaimTerms,
    now: Millis,
) -> Result<Option<Claim>, StoreError> {
    let tag = new_tag(link.at())?;
    let args = Args::default().number(limit as u64);
    let args = args.number(terms.ttl.into()).number(terms.grace.into());
    let answer = link.run(Act::Claim, at, now, args.arg(tag.to_be_bytes())).await?;
    if answer.len() == 0 {
        return Ok(None);
    }
    let id = Id::from_parts(answer.number(0)?, tag);
    let (created, messages) = (answer.number(1)?, answer.messages(2)?);
    Ok(Some(Claim { id, ttl: terms.ttl, created, messages }))
}

type Claimed = (Arc<Link>, Place, Result<Option<Claim>, StoreError>);

/// A claim on its way. If nobody waits for it any more it goes on in a task of its own, and is given up; a
/// task for each would be handed to another thread each time.
struct Claiming(Option<Pin<Box<dyn Future<Output = Claimed> + Send>>>);

impl Claiming {
    fn new(claiming: impl Future<Output = Claimed> + Send + 'static) -> Self {
        Self(Some(Box::pin(claiming)))
    }
}

impl Future for Claiming {
    type Output = Result<Option<Claim>, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(claiming) = &mut self.0 else { return Poll::Ready(Err(StoreError::Closed)) };
        let (_, _, claimed) = std::task::ready!(claiming.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(claimed)
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        let (Some(claiming), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            if let (link, at, Ok(Some(claim))) = claiming.await {
                // It ends by itself at the latest.
                let _ = release(&link, &at, claim.id, crate::service::now()).await;
            }
        });
    }
}

/// What there is of a record, with value and end at these places of an answer.
fn read_record(
    answer: &Reader,
    (kind, owner, name): (RecordKind, &str, String),
    (value, end): (usize, usize),
) -> Result<Option<Record>, StoreError> {
    let Some(value) = answer.text(value)? else { return Ok(None) };
    let until = match answer.text(end)? {
        None | Some("") => NEVER,
        Some(_) => answer.number(end)?,
    };
    Ok(Some(Record { kind, owner: owner.to_owned(), name, value: value.to_owned(), until }))
}

#[async_trait]
impl Store for RedisQueues {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn on_arrival(&self, heard: Heard) {
        *self.heard.lock() = Some(heard);
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.link.query(&redis::cmd("PING")).await.map(drop)
    }

    async fn create(&self, at: &Place, metadata: &Metadata) -> Result<bool, StoreError> {
        let args = metadata_args(Args::default(), metadata);
        let made = self.run(Act::Create, at, crate::service::now(), args).await?.number(0)? == 1;
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
            let args = metadata_args(Args::default().arg(before), &after);
            let done = self.run(Act::Patch, at, crate::service::now(), args).await?;
            // Otherwise somebody else was quicker.
            if done.number(0)? == 1 {
                self.recent.forget(at);
                return Ok(Some(Ok(after)));
            }
        }
    }

    async fn remove(&self, at: &Place) -> Result<(), StoreError> {
        self.run(Act::Remove, at, crate::service::now(), Args::default()).await?;
        self.recent.forget(at);
        Ok(())
    }

    async fn purge(&self, at: &Place) -> Result<(), StoreError> {
        self.run(Act::Purge, at, crate::service::now(), Args::default()).await.map(drop)
    }

    async fn queues(&self, project: &str, page: &QueuePage) -> Result<Vec<Listing>, StoreError> {
        let mut found = Vec::new();
        let mut after = page.after.clone();
        let filtered = page.name.is_some() || !page.with.is_empty();
        let at_once = if filtered { 500 } else { page.limit };
        loop {
            let begin = if after.is_empty() { "-".to_owned() } else { format!("({after}") };
            let args = Args::default().arg(begin).number(at_once as u64);
            let now = crate::service::now();
            let answer = self.link.run_in(Act::Queues, project, "", now, args).await?;
            for at in (0..answer.len()).step_by(2) {
                let name = answer.text(at)?.ok_or_else(|| answer.strange())?.to_owned();
                after.clone_from(&name);
                let metadata = self.read(answer.text(at + 1)?.unwrap_or("{}"))?;
                let listing = Listing { name, metadata };
                if page.admits(&listing) {
                    found.push(listing);
                }
                if found.len() == page.limit {
                    return Ok(found);
                }
            }
            if answer.len() / 2 < at_once {
                return Ok(found);
            }
        }
    }

    async fn count_queues(&self, project: &str) -> Result<u64, StoreError> {
        self.link.count(project).await?.number(0)
    }

    async fn all_queues(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let answer = self.link.all(after, limit).await?;
        let mut found = Vec::with_capacity(answer.len());
        for at in 0..answer.len() {
            let text = answer.text(at)?.ok_or_else(|| answer.strange())?;
            let (project, name) = text.split_once('\0').ok_or_else(|| answer.strange())?;
            found.extend(Place::new(project.into(), name, &Limits::default()));
        }
        Ok(found)
    }

    async fn stats(&self, at: &Place, now: Millis) -> Result<Stats, StoreError> {
        let answer = self.run(Act::Stats, at, now, Args::default()).await?;
        let (free, busy) = (answer.number(0)?, answer.number(1)?);
        let mut ends = answer.messages(2)?.into_iter();
        Ok(Stats { free, busy, oldest: ends.next(), newest: ends.next() })
    }

    async fn post(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        now: Millis,
    ) -> Result<Vec<Id>, StoreError> {
        let (args, tags) = with_messages(self.who(at, by), messages, self.link.at())?;
        let posted = self.run(Act::Post, at, now, args).await;
        self.tell_if_failed(at, &posted);
        Ok(ids(posted?.number(0)?, tags))
    }

    /// In one script.
    async fn post_once(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        once: Once,
        now: Millis,
    ) -> Result<Posted, StoreError> {
        let record = once.record(at, &[]);
        let args = self.record_args(self.who(at, by), &record).arg(once.digest.as_str());
        let args = args.number(once.until);
        let (args, tags) = with_messages(args, messages, self.link.at())?;
        let answer = self.run(Act::PostOnce, at, now, args).await;
        self.tell_if_failed(at, &answer);
        let answer = answer?;
        if let Some(value) = answer.text(1)? {
            return Ok(once.judge(&Record { value: value.to_owned(), ..record }));
        }
        Ok(Posted::Now(ids(answer.number(0)?, tags)))
    }

    async fn list(&self, at: &Place, page: &Page, now: Millis) -> Result<Listed, StoreError> {
        let flag = |on: bool| if on { "1" } else { "0" };
        let mut found = Vec::new();
        let mut after = page.after;
        loop {
            let limit = page.limit.saturating_sub(found.len());
            let args = Args::default().number(after).number(limit as u64);
            let args = args.arg(page.not_by.map(|by| by.as_bytes().to_vec()).unwrap_or_default());
            let args = args.arg(flag(page.claimed)).arg(flag(page.delayed));
            let answer = self.run(Act::List, at, now, args).await?;
            found.extend(answer.messages(1)?);
            match answer.text(0)? {
                None | Some("") => return Ok(found),
                Some(_) => after = answer.number(0)?,
            }
        }
    }

    async fn get(&self, at: &Place, ids: &[Id], now: Millis) -> Result<Listed, StoreError> {
        let mut args = Args::default();
        for id in ids {
            args = args.number(id.seq()).arg(id.tag().to_be_bytes());
        }
        let mut found = self.run(Act::Get, at, now, args).await?.messages(0)?;
        found.sort_by_key(|message| message.id);
        found.dedup_by_key(|message| message.id);
        Ok(found)
    }

    async fn delete(
        &self,
        at: &Place,
        doomed: Vec<Doomed>,
        now: Millis,
    ) -> Result<Vec<Deletion>, StoreError> {
        let mut args = Args::default();
        for Doomed { id, holding } in &doomed {
            let (how, claim) = match holding {
                Holding::Any => ("any", Vec::new()),
                Holding::Nobody => ("nobody", Vec::new()),
                Holding::By(claim) => ("claim", id_bytes(*claim)),
            };
            args = args.number(id.seq()).arg(id.tag().to_be_bytes()).arg(how).arg(claim);
        }
        let answer = self.run(Act::Delete, at, now, args).await?;
        let read = |at| {
            Ok(match answer.number(at)? {
                0 => Deletion::Gone,
                1 => Deletion::Held,
                2 => Deletion::NotHeld,
                _ => Deletion::NoClaim,
            })
        };
        (0..doomed.len()).map(read).collect()
    }

    async fn pop(&self, at: &Place, limit: usize, now: Millis) -> Result<Listed, StoreError> {
        let args = Args::default().number(limit as u64);
        self.run(Act::Pop, at, now, args).await?.messages(0)
    }

    /// If nobody is there any more to take the claim, it is given up again.
    async fn claim(
        &self,
        at: &Place,
        limit: usize,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<Option<Claim>, StoreError> {
        if self.stop.is_cancelled() {
            return Err(StoreError::Closed);
        }
        let (link, at) = (self.link.clone(), at.clone());
        Claiming::new(async move {
            let claimed = claim(&link, &at, limit, terms, now).await;
            (link, at, claimed)
        })
        .await
    }

    async fn claimed(&self, at: &Place, id: Id, now: Millis) -> Result<Option<Claim>, StoreError> {
        let args = Args::default().arg(id_bytes(id));
        let answer = self.run(Act::Claimed, at, now, args).await?;
        if answer.len() == 0 {
            return Ok(None);
        }
        let (ttl, created) = answer.record(0)?;
        Ok(Some(Claim { id, ttl, created, messages: answer.messages(1)? }))
    }

    async fn renew(
        &self,
        at: &Place,
        id: Id,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let args = Args::default().arg(id_bytes(id));
        let args = args.number(terms.ttl.into()).number(terms.grace.into());
        Ok(self.run(Act::Renew, at, now, args).await?.number(0)? == 1)
    }

    async fn release(&self, at: &Place, id: Id, now: Millis) -> Result<(), StoreError> {
        release(&self.link, at, id, now).await
    }

    async fn next_free(&self, at: &Place, now: Millis) -> Result<Option<Millis>, StoreError> {
        let answer = self.run(Act::Next, at, now, Args::default()).await?;
        if answer.len() == 0 { Ok(None) } else { answer.number(0).map(Some) }
    }

    async fn keep(
        &self,
        record: Record,
        before: Before,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        let args = self.record_args(Args::default(), &record);
        let Record { kind, owner, name, value, until } = record;
        let until = if until == NEVER { String::new() } else { until.to_string() };
        let args = args.arg(value).arg(until);
        let args = match before {
            Before::Any => args.arg("any").arg(""),
            Before::Nothing => args.arg("nothing").arg(""),
            Before::Value(value) => args.arg("value").arg(value),
        };
        let answer = self.link.run_in(Act::Keep, "", "", now, args).await?;
        read_record(&answer, (kind, &owner, name), (0, 1))
    }

    async fn record(
        &self,
        kind: RecordKind,
        owner: &str,
        name: &str,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        let key = format!("{}\0{name}", self.link.records(kind, owner));
        let answer = self.link.record(&key).await?;
        let found = read_record(&answer, (kind, owner, name.to_owned()), (0, 1))?;
        Ok(found.filter(|record| record.until > now))
    }

    async fn records(
        &self,
        kind: RecordKind,
        owner: &str,
        (after, limit): (&str, usize),
        now: Millis,
    ) -> Result<Vec<Record>, StoreError> {
        let begin = if after.is_empty() { "-".to_owned() } else { format!("({after}") };
        let args = Args::default().arg(self.link.records(kind, owner)).arg(begin);
        let args = args.number(limit as u64);
        let answer = self.link.run_in(Act::Records, "", "", now, args).await?;
        let read = |at: usize| {
            let name = answer.text(at)?.unwrap_or_default().to_owned();
            let record = read_record(&answer, (kind, owner, name), (at + 1, at + 2))?;
            record.ok_or_else(|| answer.strange())
        };
        (0..answer.len()).step_by(3).map(read).collect()
    }

    async fn forget(
        &self,
        kind: RecordKind,
        owner: &str,
        name: Option<&str>,
    ) -> Result<(), StoreError> {
        let args = Args::default().arg(self.link.records(kind, owner));
        let args = args.arg(self.link.record_ends()).arg(name.unwrap_or_default());
        self.link.run_in(Act::Forget, "", "", crate::service::now(), args).await.map(drop)
    }

    async fn close(&self) {
        self.stop.cancel();
    }
}
