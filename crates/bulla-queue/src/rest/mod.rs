//! Queues that lie encrypted, whatever the store: bodies of messages, and records that hold secrets.
//!
//! What a client posts is sealed here before any store sees it, and opened here on its way out. What
//! does not open is never given out: it is told to the operator.

mod key;
mod records;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::key::RestKey;
use self::key::{Sealed, Shut};
use crate::id::Id;
use crate::limits::Limits;
use crate::metadata::{DEAD_LETTER, Patch, PatchFault, Settings};
use crate::name::{ClientId, Place};
use crate::once::{Once, Posted};
use crate::pool::Pool;
use crate::record::{Before, Record, RecordKind};
use crate::store::{
    Claim, ClaimTerms, Deletion, Doomed, Heard, Holding, Listed, Listing, Message, Metadata,
    Millis, NewMessage, Page, QueuePage, Stats, Store, StoreError,
};

/// How a pop holds messages until they are opened, in seconds.
const POPS: ClaimTerms = ClaimTerms { ttl: 60, grace: 60 };

/// How far the clock of a store may be off this host's, in milliseconds: what is posted beyond half of
/// that is refused, because it might not open.
const CLOCKS: Millis = 600_000;

/// What was stored before it was encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// Is not given out: who can write into the store could have put it there.
    Refused,
    /// Is given out; only for as long as there is some.
    Taken,
}

/// A [`Store`] in which bodies of messages lie encrypted, each queue's under a key of its own, and
/// subscriptions and addresses of pools, which may hold secrets. Names, metadata, times, sizes and who
/// posted are as before.
///
/// A body is tied to its project, its queue and the time of its post (to the millisecond, or to ten minutes
/// in a store with a clock of its own); one that was moved or changed does
/// not open. It is left out where there are others, so that one does not hold up a queue, and stays in
/// the store. A queue's messages open in the queue to which those go that were claimed too often, if that
/// was set through here.
pub struct EncryptedQueues {
    inner: Arc<dyn Store>,
    key: RestKey,
    plain: Plain,
    /// Whether what comes is sealed.
    seals: bool,
}

impl fmt::Debug for EncryptedQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedQueues").field("inner", &self.inner.name()).finish_non_exhaustive()
    }
}

impl EncryptedQueues {
    /// Encrypts what goes into this store.
    ///
    /// # Errors
    /// The store can't be used, or was encrypted with another key.
    pub async fn open(
        inner: Arc<dyn Store>,
        key: RestKey,
        plain: Plain,
    ) -> Result<Self, StoreError> {
        let encrypted = Self { inner, key, plain, seals: true };
        encrypted.check_key().await?;
        Ok(encrypted)
    }

    /// Opens what is encrypted in this store, and encrypts nothing more.
    ///
    /// # Errors
    /// See [`open`](Self::open).
    pub async fn leave(inner: Arc<dyn Store>, key: RestKey) -> Result<Self, StoreError> {
        let leaving = Self { inner, key, plain: Plain::Taken, seals: false };
        leaving.check_key().await?;
        Ok(leaving)
    }

    fn no_randomness(&self) -> StoreError {
        StoreError::Io {
            at: self.inner.name().to_owned(),
            why: "there is no randomness".to_owned(),
        }
    }

    fn sealed(
        &self,
        at: &Place,
        messages: Vec<NewMessage>,
        now: Millis,
    ) -> Result<Vec<NewMessage>, StoreError> {
        if !self.seals {
            return Ok(messages);
        }
        let seal = |message: NewMessage| {
            let body = self.key.seal_body(at, &message.body, now);
            Ok(NewMessage { body: body.ok_or_else(|| self.no_randomness())?, ..message })
        };
        messages.into_iter().map(seal).collect()
    }

    /// What was posted is of the time that it is tied to, as the store has it; otherwise it is taken back.
    async fn check_time(&self, at: &Place, ids: &[Id], now: Millis) -> Result<(), StoreError> {
        let Some(id) = ids.first().copied() else { return Ok(()) };
        let is_near = |time: Millis| time.abs_diff(now) <= CLOCKS / 2;
        if !self.seals || !self.inner.has_own_clock() || is_near(id.seq() / 1000) {
            return Ok(());
        }
        // An id may be ahead of the time, as none is before another.
        let found = self.inner.get(at, &[id], now).await?;
        let Some(posted) = found.first().map(|message| message.created) else { return Ok(()) };
        if is_near(posted) {
            return Ok(());
        }
        let holding = Holding::Any;
        let doomed = ids.iter().map(|id| Doomed { id: *id, holding }).collect();
        self.inner.delete(at, doomed, now).await?;
        let off = posted.abs_diff(now) / 1000;
        let why = format!(
            "its clock is {off} s off this host's, and what is encrypted is tied to the time"
        );
        Err(StoreError::Io { at: self.inner.name().to_owned(), why })
    }

    /// The body of a message of a queue; why not, if it does not open.
    async fn body(
        &self,
        at: &Place,
        message: &Message,
    ) -> Result<Result<String, Shut>, StoreError> {
        let sealed = match Sealed::parse(&message.body) {
            Ok(sealed) => sealed,
            Err(Shut::Plain) if self.plain == Plain::Taken => return Ok(Ok(message.body.clone())),
            Err(shut) => return Ok(Err(shut)),
        };
        let off = if self.inner.has_own_clock() { CLOCKS } else { 0 };
        if message.created.abs_diff(sealed.posted) > off {
            return Ok(Err(Shut::Time));
        }
        if sealed.queue == at.name() {
            return Ok(self.key.open_body(at, &sealed));
        }
        let Some(posted_to) = at.beside(sealed.queue, &Limits::default()) else {
            return Ok(Err(Shut::Malformed));
        };
        if !self.may_go(&posted_to, at).await? {
            return Ok(Err(Shut::Elsewhere));
        }
        Ok(self.key.open_body(&posted_to, &sealed))
    }

    /// Those that open.
    async fn opened(&self, at: &Place, messages: Listed) -> Result<Listed, StoreError> {
        let mut opened = Vec::with_capacity(messages.len());
        for mut message in messages {
            match self.body(at, &message).await? {
                Ok(body) => {
                    message.body = body;
                    opened.push(message);
                }
                Err(shut) => tracing::error!(
                    project = at.tenant(),
                    queue = at.name(),
                    id = %message.id,
                    why = shut.why(),
                    "a stored message does not open, and is not given out"
                ),
            }
        }
        Ok(opened)
    }

    /// Lets messages of a queue be opened where those go that were claimed too often. It is known before
    /// the first one goes.
    async fn let_go(&self, at: &Place, to: Option<&str>) -> Result<(), StoreError> {
        let to = to.and_then(|to| at.beside(to, &Limits::default()));
        match to {
            Some(to) if to != *at => self.note_way(at, &to).await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Store for EncryptedQueues {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn on_arrival(&self, heard: Heard) {
        self.inner.on_arrival(heard);
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn create(&self, at: &Place, metadata: &Metadata) -> Result<bool, StoreError> {
        self.let_go(at, metadata.get(DEAD_LETTER).and_then(|to| to.as_str())).await?;
        self.inner.create(at, metadata).await
    }

    async fn metadata(&self, at: &Place) -> Result<Option<Arc<Metadata>>, StoreError> {
        self.inner.metadata(at).await
    }

    async fn settings(&self, at: &Place) -> Result<Arc<Settings>, StoreError> {
        self.inner.settings(at).await
    }

    async fn patch(
        &self,
        at: &Place,
        patch: &Patch,
    ) -> Result<Option<Result<Metadata, PatchFault>>, StoreError> {
        self.let_go(at, patch.value(DEAD_LETTER).and_then(|to| to.as_str())).await?;
        self.inner.patch(at, patch).await
    }

    async fn remove(&self, at: &Place) -> Result<(), StoreError> {
        self.inner.remove(at).await?;
        self.end_ways(at).await
    }

    async fn purge(&self, at: &Place) -> Result<(), StoreError> {
        self.inner.purge(at).await
    }

    async fn queues(&self, project: &str, page: &QueuePage) -> Result<Vec<Listing>, StoreError> {
        self.inner.queues(project, page).await
    }

    async fn count_queues(&self, project: &str) -> Result<u64, StoreError> {
        self.inner.count_queues(project).await
    }

    async fn all_queues(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        self.inner.all_queues(after, limit).await
    }

    /// What does not open is counted like the others, and has no body.
    async fn stats(&self, at: &Place, now: Millis) -> Result<Stats, StoreError> {
        let mut stats = self.inner.stats(at, now).await?;
        for message in stats.oldest.iter_mut().chain(&mut stats.newest) {
            let opened = self.body(at, message).await?;
            message.body = opened.unwrap_or_else(|_| "null".to_owned());
        }
        Ok(stats)
    }

    async fn post(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        now: Millis,
    ) -> Result<Vec<Id>, StoreError> {
        let messages = self.sealed(at, messages, now)?;
        let ids = self.inner.post(at, by, messages, now).await?;
        self.check_time(at, &ids, now).await?;
        Ok(ids)
    }

    async fn post_once(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        once: Once,
        now: Millis,
    ) -> Result<Posted, StoreError> {
        let messages = self.sealed(at, messages, now)?;
        // By the digest of a short body anybody could find the body.
        let once = match self.seals {
            true => Once { digest: self.key.digest(at, &once.digest), ..once },
            false => once,
        };
        let name = once.name.clone();
        let posted = self.inner.post_once(at, by, messages, once, now).await?;
        if let Posted::Now(ids) = &posted
            && let Err(error) = self.check_time(at, ids, now).await
        {
            self.inner.forget(RecordKind::Once, &at.owner(), Some(&name)).await?;
            return Err(error);
        }
        Ok(posted)
    }

    async fn list(&self, at: &Place, page: &Page, now: Millis) -> Result<Listed, StoreError> {
        let mut page = *page;
        loop {
            let found = self.inner.list(at, &page, now).await?;
            let Some(last) = found.last() else { return Ok(found) };
            page.after = last.id.seq();
            let opened = self.opened(at, found).await?;
            if !opened.is_empty() {
                return Ok(opened);
            }
        }
    }

    async fn get(&self, at: &Place, ids: &[Id], now: Millis) -> Result<Listed, StoreError> {
        let found = self.inner.get(at, ids, now).await?;
        let (is_there, opened) = (!found.is_empty(), self.opened(at, found).await?);
        if is_there && opened.is_empty() {
            let what = format!("what was asked for in queue {}", at.name());
            return Err(StoreError::Unreadable { at: self.inner.name().to_owned(), what });
        }
        Ok(opened)
    }

    async fn delete(
        &self,
        at: &Place,
        doomed: Vec<Doomed>,
        now: Millis,
    ) -> Result<Vec<Deletion>, StoreError> {
        self.inner.delete(at, doomed, now).await
    }

    /// By a claim, so that what does not open is not lost.
    async fn pop(&self, at: &Place, limit: usize, now: Millis) -> Result<Listed, StoreError> {
        while let Some(claim) = self.inner.claim(at, limit, POPS, now).await? {
            let mut opened = self.opened(at, claim.messages).await?;
            if opened.is_empty() {
                continue;
            }
            let holding = Holding::By(claim.id);
            let doomed = opened.iter().map(|message| Doomed { id: message.id, holding });
            let gone = self.inner.delete(at, doomed.collect(), now).await?;
            let mut gone = gone.into_iter();
            opened.retain(|_| gone.next() == Some(Deletion::Gone));
            for message in &mut opened {
                message.claim = None;
                message.claims = message.claims.saturating_sub(1);
            }
            return Ok(opened);
        }
        Ok(Vec::new())
    }

    async fn claim(
        &self,
        at: &Place,
        limit: usize,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<Option<Claim>, StoreError> {
        // What does not open stays claimed, and out of the way, for as long.
        while let Some(mut claim) = self.inner.claim(at, limit, terms, now).await? {
            claim.messages = self.opened(at, claim.messages).await?;
            if !claim.messages.is_empty() {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    async fn claimed(&self, at: &Place, id: Id, now: Millis) -> Result<Option<Claim>, StoreError> {
        let Some(mut claim) = self.inner.claimed(at, id, now).await? else { return Ok(None) };
        claim.messages = self.opened(at, claim.messages).await?;
        Ok(Some(claim))
    }

    async fn renew(
        &self,
        at: &Place,
        id: Id,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<bool, StoreError> {
        self.inner.renew(at, id, terms, now).await
    }

    async fn release(&self, at: &Place, id: Id, now: Millis) -> Result<(), StoreError> {
        self.inner.release(at, id, now).await
    }

    async fn next_free(&self, at: &Place, now: Millis) -> Result<Option<Millis>, StoreError> {
        self.inner.next_free(at, now).await
    }

    async fn keep(
        &self,
        record: Record,
        before: Before,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        self.keep_sealed(record, before, now).await
    }

    async fn record(
        &self,
        kind: RecordKind,
        owner: &str,
        name: &str,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        match self.inner.record(kind, owner, name, now).await? {
            None => Ok(None),
            Some(record) => self.open_record(record, now).await.map(Some),
        }
    }

    async fn records(
        &self,
        kind: RecordKind,
        owner: &str,
        page: (&str, usize),
        now: Millis,
    ) -> Result<Vec<Record>, StoreError> {
        self.open_records(self.inner.records(kind, owner, page, now).await?, now).await
    }

    async fn forget(
        &self,
        kind: RecordKind,
        owner: &str,
        name: Option<&str>,
    ) -> Result<(), StoreError> {
        self.inner.forget(kind, owner, name).await
    }

    fn pools(&self) -> Option<Vec<(String, Pool)>> {
        self.inner.pools()
    }

    fn has_own_clock(&self) -> bool {
        self.inner.has_own_clock()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
