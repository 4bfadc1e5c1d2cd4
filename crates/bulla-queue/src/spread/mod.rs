//! Queues spread over pools.

mod draw;
mod flavors;
mod moving;

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard};

pub use self::draw::{SPREAD_KEY, SpreadKey};
use self::flavors::{Flavored, flavor_of};
pub use self::moving::Progress;
use self::moving::{Layout, Share};
use crate::id::Id;
use crate::metadata::{FLAVOR, Patch, PatchFault, Settings};
use crate::name::{ClientId, Place};
use crate::once::{Once, Posted};
use crate::record::{Before, Record, RecordKind};
use crate::store::{
    Claim, ClaimTerms, Deletion, Doomed, Heard, Holding, Listed, Listing, Message, Metadata,
    Millis, NewMessage, Page, QueuePage, Stats, Store, StoreError,
};

/// Queues are locked by so many locks.
const LOCKS: usize = 256;

/// Messages that are carried at a time.
const AT_ONCE: usize = 20;

/// Where a queue belongs, and where else it may be.
type Homes<'a> = (&'a Arc<dyn Store>, Option<&'a Arc<dyn Store>>);

/// A store of a [`SpreadQueues`].
#[derive(Clone)]
pub struct Pool {
    /// Its name, which decides which queues it has; its address may change.
    pub name: String,
    /// How many queues it is to have beside the others; none if 0.
    pub weight: u32,
    /// The flavor that it belongs to: it has queues that name it, and no others.
    pub flavor: Option<String>,
    /// Where its store is, as operators are shown it: without credentials.
    pub shown: String,
    /// The store.
    pub store: Arc<dyn Store>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name)
            .field("weight", &self.weight)
            .finish_non_exhaustive()
    }
}

/// Queues spread over pools, by weight, under a secret key: who makes queues can't choose their pool.
///
/// The first pool also keeps the records, among them which pools there are. When a pool is added, or
/// another weight given, the queues that belong elsewhere from then on are moved, each when it is empty,
/// while all of them are used: no message is copied, so none is lost or doubled. A pool goes by the
/// weight 0, and can be left out when all is moved.
///
/// A queue whose metadata name a flavor lies in one of the flavor's pools, all others in one without a
/// flavor. It gets another flavor only while it is empty.
///
/// One process at a time uses the pools so.
pub struct SpreadQueues {
    key: SpreadKey,
    pools: Vec<Pool>,
    layout: parking_lot::RwLock<Layout>,
    locks: Vec<RwLock<()>>,
    hasher: RandomState,
    /// Queues that are where they belong, while others are moved.
    settled: Mutex<HashSet<Place>>,
    progress: Mutex<Progress>,
    carrying: tokio::sync::Mutex<()>,
    /// Which queues have flavors.
    flavored: Flavored,
}

impl fmt::Debug for SpreadQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpreadQueues").field("pools", &self.pools).finish_non_exhaustive()
    }
}

impl SpreadQueues {
    /// Takes the pools into use. What has to move since they were used before is moved by a task, of
    /// which [`SpreadQueues::progress`] tells.
    ///
    /// # Errors
    /// A pool that may still have queues is missing, or the first is not the one with the records.
    pub async fn open(key: SpreadKey, pools: Vec<Pool>) -> Result<Arc<Self>, StoreError> {
        let layout = Layout::arrange(&pools).await?;
        let is_moving = layout.before.is_some();
        let flavored = match pools.first() {
            Some(home) => Flavored::load(home.store.as_ref()).await?,
            None => Flavored::default(),
        };
        let locks = std::iter::repeat_with(RwLock::default).take(LOCKS).collect();
        let spread = Arc::new(Self {
            key,
            pools,
            layout: parking_lot::RwLock::new(layout),
            locks,
            hasher: RandomState::new(),
            settled: Mutex::default(),
            progress: Mutex::default(),
            carrying: tokio::sync::Mutex::default(),
            flavored,
        });
        if is_moving {
            tokio::spawn(Self::move_all(Arc::downgrade(&spread)));
        }
        Ok(spread)
    }

    fn home(&self) -> Result<&dyn Store, StoreError> {
        self.pools.first().map(|pool| pool.store.as_ref()).ok_or(StoreError::Closed)
    }

    fn lock(&self, at: &Place) -> Result<&RwLock<()>, StoreError> {
        let n = self.hasher.hash_one(at) as usize % LOCKS;
        self.locks.get(n).ok_or(StoreError::Closed)
    }

    fn named(&self, name: Option<&str>) -> Result<&Arc<dyn Store>, StoreError> {
        let found = self.pools.iter().find(|pool| Some(pool.name.as_str()) == name);
        found.map(|pool| &pool.store).ok_or_else(|| StoreError::Unfit {
            at: "pools".to_owned(),
            why: "no pool has a weight above 0".to_owned(),
        })
    }

    fn drawn(&self, at: &Place, shares: &[Share]) -> Result<&Arc<dyn Store>, StoreError> {
        self.drawn_as(at, shares, self.flavored.of(at).as_deref())
    }

    /// From a flavor's pools; from those without one if it has none any more.
    fn drawn_as(
        &self,
        at: &Place,
        shares: &[Share],
        flavor: Option<&str>,
    ) -> Result<&Arc<dyn Store>, StoreError> {
        let draw = |flavor: Option<&str>| {
            let of = shares.iter().filter(|share| share.flavor.as_deref() == flavor);
            self.key.draw(at, of.map(|share| (share.name.as_str(), share.weight)))
        };
        self.named(draw(flavor).or_else(|| draw(None)))
    }

    /// Where a queue belongs, and where it was before if it may still be there.
    fn homes(&self, at: &Place) -> Result<Homes<'_>, StoreError> {
        let layout = self.layout.read();
        let now = self.drawn(at, &layout.now)?;
        let Some(before) = &layout.before else { return Ok((now, None)) };
        let before = self.drawn(at, before)?;
        let is_settled = Arc::ptr_eq(now, before) || self.settled.lock().contains(at);
        Ok((now, (!is_settled).then_some(before)))
    }

    /// While queues are moved: where a queue was before.
    fn former(&self, at: &Place) -> Result<Option<&Arc<dyn Store>>, StoreError> {
        let layout = self.layout.read();
        layout.before.as_ref().map(|before| self.drawn(at, before)).transpose()
    }

    /// The store that has a queue, which stays there as long as the guard is held.
    async fn of(
        &self,
        at: &Place,
    ) -> Result<(RwLockReadGuard<'_, ()>, &Arc<dyn Store>), StoreError> {
        let guard = self.lock(at)?.read().await;
        Ok((guard, self.has(at).await?))
    }

    /// The store that has a queue, for whoever holds its lock.
    async fn has(&self, at: &Place) -> Result<&Arc<dyn Store>, StoreError> {
        let (now, before) = self.homes(at)?;
        let Some(before) = before else { return Ok(now) };
        // As long as it is there, that one counts.
        if before.metadata(at).await?.is_some() {
            return Ok(before);
        }
        self.settled.lock().insert(at.clone());
        Ok(now)
    }

    /// A store puts messages that were claimed too often into a queue of its own; they go where that
    /// queue belongs. If this is broken off, some come twice.
    async fn carry_over(&self, from: &Arc<dyn Store>, at: &Place) -> Result<(), StoreError> {
        let (_held, to) = self.of(at).await?;
        if Arc::ptr_eq(from, to) || from.metadata(at).await?.is_none() {
            return Ok(());
        }
        let _alone = self.carrying.lock().await;
        let page = Page { limit: AT_ONCE, ..Page::default() };
        loop {
            let found = from.list(at, &page, crate::service::now()).await?;
            let doomed = |id| Doomed { id, holding: Holding::Any };
            let doomed: Vec<_> = found.iter().map(|message| doomed(message.id)).collect();
            let new = |it: Message| NewMessage { body: it.body, ttl: it.ttl, delay: 0 };
            let new: Vec<_> = found.into_iter().map(new).collect();
            if new.is_empty() {
                return from.remove(at).await;
            }
            to.post(at, ClientId::NOBODY, new, crate::service::now()).await?;
            from.delete(at, doomed, crate::service::now()).await?;
        }
    }
}

#[async_trait]
impl Store for SpreadQueues {
    fn name(&self) -> &'static str {
        "pools"
    }

    fn on_arrival(&self, heard: Heard) {
        for pool in &self.pools {
            pool.store.on_arrival(heard.clone());
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        for pool in &self.pools {
            pool.store.ping().await?;
        }
        Ok(())
    }

    async fn create(&self, at: &Place, metadata: &Metadata) -> Result<bool, StoreError> {
        if flavor_of(metadata).is_some() || self.flavored.of(at).is_some() {
            return self.create_flavored(at, metadata).await;
        }
        let (_held, store) = self.of(at).await?;
        store.create(at, metadata).await
    }

    async fn metadata(&self, at: &Place) -> Result<Option<Arc<Metadata>>, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.metadata(at).await
    }

    async fn settings(&self, at: &Place) -> Result<Arc<Settings>, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.settings(at).await
    }

    async fn patch(
        &self,
        at: &Place,
        patch: &Patch,
    ) -> Result<Option<Result<Metadata, PatchFault>>, StoreError> {
        if patch.concerns(FLAVOR) {
            return self.patch_flavored(at, patch).await;
        }
        let (_held, store) = self.of(at).await?;
        store.patch(at, patch).await
    }

    async fn remove(&self, at: &Place) -> Result<(), StoreError> {
        if self.flavored.of(at).is_some() {
            return self.remove_flavored(at).await;
        }
        let (_held, store) = self.of(at).await?;
        store.remove(at).await
    }

    async fn purge(&self, at: &Place) -> Result<(), StoreError> {
        let (_held, store) = self.of(at).await?;
        store.purge(at).await
    }

    async fn queues(&self, project: &str, page: &QueuePage) -> Result<Vec<Listing>, StoreError> {
        let mut found = Vec::new();
        for pool in &self.pools {
            found.extend(pool.store.queues(project, page).await?);
        }
        // One that is being moved is in two of them.
        found.sort_by(|a: &Listing, b: &Listing| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        found.truncate(page.limit);
        Ok(found)
    }

    async fn count_queues(&self, project: &str) -> Result<u64, StoreError> {
        let mut count = 0;
        for pool in &self.pools {
            count += pool.store.count_queues(project).await?;
        }
        Ok(count)
    }

    async fn all_queues(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let mut found = Vec::new();
        for pool in &self.pools {
            found.extend(pool.store.all_queues(after, limit).await?);
        }
        found.sort_by(|a: &Place, b: &Place| (a.project(), a.name()).cmp(&(b.project(), b.name())));
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }

    async fn stats(&self, at: &Place, now: Millis) -> Result<Stats, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.stats(at, now).await
    }

    async fn post(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        now: Millis,
    ) -> Result<Vec<Id>, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.post(at, by, messages, now).await
    }

    /// In the store that has the queue, so that it is done with the record of it, or not at all.
    async fn post_once(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        once: Once,
        now: Millis,
    ) -> Result<Posted, StoreError> {
        let (_held, store) = self.of(at).await?;
        // The queue may have been removed where it was before, and what was done there is still known.
        if let Some(before) = self.former(at)?.filter(|before| !Arc::ptr_eq(before, store)) {
            let Record { kind, owner, name, .. } = once.record(at, &[]);
            if let Some(there) = before.record(kind, &owner, &name, now).await? {
                return Ok(once.judge(&there));
            }
        }
        store.post_once(at, by, messages, once, now).await
    }

    async fn list(&self, at: &Place, page: &Page, now: Millis) -> Result<Listed, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.list(at, page, now).await
    }

    async fn get(&self, at: &Place, ids: &[Id], now: Millis) -> Result<Listed, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.get(at, ids, now).await
    }

    async fn delete(
        &self,
        at: &Place,
        doomed: Vec<Doomed>,
        now: Millis,
    ) -> Result<Vec<Deletion>, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.delete(at, doomed, now).await
    }

    async fn pop(&self, at: &Place, limit: usize, now: Millis) -> Result<Listed, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.pop(at, limit, now).await
    }

    async fn claim(
        &self,
        at: &Place,
        limit: usize,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<Option<Claim>, StoreError> {
        let (held, store) = self.of(at).await?;
        let dead_letter = store.settings(at).await?.dead_letter.clone();
        let claimed = store.claim(at, limit, terms, now).await?;
        drop(held);
        let aside = dead_letter.map(|rule| rule.queue);
        let aside = aside.and_then(|name| at.beside(&name, &crate::limits::Limits::default()));
        if let Some(aside) = aside {
            self.carry_over(store, &aside).await?;
        }
        Ok(claimed)
    }

    async fn claimed(&self, at: &Place, id: Id, now: Millis) -> Result<Option<Claim>, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.claimed(at, id, now).await
    }

    async fn renew(
        &self,
        at: &Place,
        id: Id,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.renew(at, id, terms, now).await
    }

    async fn release(&self, at: &Place, id: Id, now: Millis) -> Result<(), StoreError> {
        let (_held, store) = self.of(at).await?;
        store.release(at, id, now).await
    }

    async fn next_free(&self, at: &Place, now: Millis) -> Result<Option<Millis>, StoreError> {
        let (_held, store) = self.of(at).await?;
        store.next_free(at, now).await
    }

    async fn keep(
        &self,
        record: Record,
        before: Before,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        self.home()?.keep(record, before, now).await
    }

    async fn record(
        &self,
        kind: RecordKind,
        owner: &str,
        name: &str,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        self.home()?.record(kind, owner, name, now).await
    }

    async fn records(
        &self,
        kind: RecordKind,
        owner: &str,
        page: (&str, usize),
        now: Millis,
    ) -> Result<Vec<Record>, StoreError> {
        self.home()?.records(kind, owner, page, now).await
    }

    async fn forget(
        &self,
        kind: RecordKind,
        owner: &str,
        name: Option<&str>,
    ) -> Result<(), StoreError> {
        self.home()?.forget(kind, owner, name).await
    }

    fn pools(&self) -> Option<Vec<(String, crate::pool::Pool)>> {
        let shown = |pool: &Pool| {
            let (uri, weight, flavor) = (pool.shown.clone(), pool.weight, pool.flavor.clone());
            let shown = crate::pool::Pool { uri, weight, flavor, options: Metadata::new() };
            (pool.name.clone(), shown)
        };
        Some(self.pools.iter().map(shown).collect())
    }

    fn is_shared(&self) -> bool {
        self.pools.first().is_some_and(|pool| pool.store.is_shared())
    }

    fn has_own_clock(&self) -> bool {
        self.pools.iter().any(|pool| pool.store.has_own_clock())
    }

    async fn close(&self) {
        for pool in &self.pools {
            pool.store.close().await;
        }
    }
}
