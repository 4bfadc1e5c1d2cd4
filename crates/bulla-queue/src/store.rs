//! What a store of queues does.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::id::Id;
use crate::metadata::{Patch, PatchFault, Settings};
use crate::name::{ClientId, Place};
use crate::once::{Once, Posted};
use crate::pool::Pool;
use crate::record::{Before, Record, RecordKind};

/// A time, in milliseconds since 1970.
pub type Millis = u64;

/// A queue's metadata, as its owner wrote it.
pub type Metadata = Map<String, Value>;

/// The store can't be used.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It could not be read or written.
    #[error("the queue store {at} can't be used: {why}")]
    Io {
        /// Which, without secrets.
        at: String,
        /// The cause.
        why: String,
    },
    /// It holds something else than queues.
    #[error("{at} is not a queue store of ours: {why}")]
    Foreign {
        /// Which.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version of this program wrote it.
    #[error("the queue store {at} has schema {found}, and this program knows {known}; update it")]
    Newer {
        /// Which.
        at: String,
        /// Its schema.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// Another process uses it.
    #[error(
        "the queue store {at} is in use by another process; stop it, or give this one another file"
    )]
    InUse {
        /// Which.
        at: String,
    },
    /// It is not fit to keep queues.
    #[error("the queue store {at} can't be used: {why}")]
    Unfit {
        /// Which.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// Its address can't be one. Says nothing of passwords.
    #[error("the address of the queue store is wrong: {why}")]
    Address {
        /// What is wrong.
        why: String,
    },
    /// It was closed.
    #[error("the queue store is closed")]
    Closed,
    /// What is stored does not open.
    #[error("{what} in the queue store {at} does not open")]
    Unreadable {
        /// Which store.
        at: String,
        /// What.
        what: String,
    },
}

/// A message to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// JSON.
    pub body: String,
    /// How long it lives, in seconds.
    pub ttl: u32,
    /// How long it is held back, in seconds.
    pub delay: u32,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id within its queue.
    pub id: Id,
    /// JSON.
    pub body: String,
    /// How long it was to live when it was posted, in seconds.
    pub ttl: u32,
    /// When it was posted.
    pub created: Millis,
    /// Who holds it, if somebody does.
    pub claim: Option<Id>,
    /// How often it was claimed.
    pub claims: u32,
}

/// Which messages of a queue to list, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// After this one.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
    /// Leaves out what this client posted.
    pub not_by: Option<ClientId>,
    /// Those that somebody holds, too.
    pub claimed: bool,
    /// Those that are held back, too.
    pub delayed: bool,
}

/// Messages of a page, and where the next one begins.
pub type Listed = Vec<Message>;

/// What is asked of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimTerms {
    /// How long it holds, in seconds.
    pub ttl: u32,
    /// How much longer its messages live at the least, in seconds.
    pub grace: u32,
}

/// Messages in somebody's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its id within its queue.
    pub id: Id,
    /// How long it was to hold when it was made or renewed, in seconds.
    pub ttl: u32,
    /// Since when it holds.
    pub created: Millis,
    /// What it holds.
    pub messages: Vec<Message>,
}

/// Whether a message goes although somebody may hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Whoever holds it.
    Any,
    /// Only if nobody does.
    Nobody,
    /// Only if this claim does.
    By(Id),
}

/// What became of a message that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone, or was before.
    Gone,
    /// Somebody else holds it.
    Held,
    /// Nobody holds it, so the claim does not.
    NotHeld,
    /// There is no such claim, or it does not hold any more.
    NoClaim,
}

/// How many messages a queue has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Those in somebody's hands, or held back.
    pub busy: u64,
    /// Those that anybody may take.
    pub free: u64,
    /// The first.
    pub oldest: Option<Message>,
    /// The last.
    pub newest: Option<Message>,
}

/// A queue in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Its name.
    pub name: String,
    /// What its owner wrote of it.
    pub metadata: Metadata,
}

/// Which queues of a project to list, by name.
#[derive(Debug, Clone, Default)]
pub struct QueuePage {
    /// After this name.
    pub after: String,
    /// At most so many.
    pub limit: usize,
    /// Names that hold this.
    pub name: Option<String>,
    /// Metadata that has these.
    pub with: Metadata,
}

impl QueuePage {
    /// Whether name and metadata are what is asked for.
    pub(crate) fn admits(&self, queue: &Listing) -> bool {
        let named = self.name.as_ref().is_none_or(|part| queue.name.contains(part.as_str()));
        named && self.with.iter().all(|(key, value)| queue.metadata.get(key) == Some(value))
    }
}

/// Hears to which queue somebody posted; without one: to any, perhaps.
pub type Heard = Arc<dyn Fn(Option<&Place>) + Send + Sync>;

/// What is to be deleted in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// The message.
    pub id: Id,
    /// Who may hold it.
    pub holding: Holding,
}

/// Queues, messages and claims. What a call changed is durable when it returns, unless the store's
/// page says otherwise. `now` is the caller's clock; what is over by then is not there any more.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// A short name: `sqlite`.
    fn name(&self) -> &'static str;

    /// Tells of what others post, where others use the store, too. One alone is told.
    fn on_arrival(&self, heard: Heard) {
        drop(heard);
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// It does not. So for all calls.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Makes a queue; false if there is one, which is left as it is.
    async fn create(&self, at: &Place, metadata: &Metadata) -> Result<bool, StoreError>;

    /// A queue's metadata; `None` if there is none.
    async fn metadata(&self, at: &Place) -> Result<Option<Arc<Metadata>>, StoreError>;

    /// What a queue's metadata mean; the defaults if there is no queue.
    async fn settings(&self, at: &Place) -> Result<Arc<Settings>, StoreError>;

    /// Changes a queue's metadata; `None` if there is no queue.
    async fn patch(
        &self,
        at: &Place,
        patch: &Patch,
    ) -> Result<Option<Result<Metadata, PatchFault>>, StoreError>;

    /// Removes a queue with all that is in it. One that is not there is as good.
    async fn remove(&self, at: &Place) -> Result<(), StoreError>;

    /// Removes all messages of a queue.
    async fn purge(&self, at: &Place) -> Result<(), StoreError>;

    /// Queues of a project.
    async fn queues(&self, project: &str, page: &QueuePage) -> Result<Vec<Listing>, StoreError>;

    /// How many queues a project has.
    async fn count_queues(&self, project: &str) -> Result<u64, StoreError>;

    /// Queues of all projects after this one, in an order of the store's own; at most `limit`.
    async fn all_queues(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError>;

    /// How many messages a queue has.
    async fn stats(&self, at: &Place, now: Millis) -> Result<Stats, StoreError>;

    /// Posts messages, all or none, and makes the queue if there is none. They keep their order.
    async fn post(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        now: Millis,
    ) -> Result<Vec<Id>, StoreError>;

    /// Posts messages unless that was done before. Where this is not one transaction with the record of
    /// it, a post that did not get to its end is not tried again.
    async fn post_once(
        &self,
        at: &Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        once: Once,
        now: Millis,
    ) -> Result<Posted, StoreError> {
        if let Some(there) = self.keep(once.record(at, &[]), Before::Nothing, now).await? {
            return Ok(once.judge(&there));
        }
        let ids = self.post(at, by, messages, now).await?;
        self.keep(once.record(at, &ids), Before::Any, now).await?;
        Ok(Posted::Now(ids))
    }

    /// Messages of a queue in the order in which they were posted.
    async fn list(&self, at: &Place, page: &Page, now: Millis) -> Result<Listed, StoreError>;

    /// Those of these messages that are there.
    async fn get(&self, at: &Place, ids: &[Id], now: Millis) -> Result<Listed, StoreError>;

    /// Removes messages, one answer for each.
    async fn delete(
        &self,
        at: &Place,
        doomed: Vec<Doomed>,
        now: Millis,
    ) -> Result<Vec<Deletion>, StoreError>;

    /// Takes the first messages that nobody holds out of the queue for good.
    async fn pop(&self, at: &Place, limit: usize, now: Millis) -> Result<Listed, StoreError>;

    /// Gives the first messages that nobody holds into somebody's hands; `None` if there are none.
    async fn claim(
        &self,
        at: &Place,
        limit: usize,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<Option<Claim>, StoreError>;

    /// A claim that holds; `None` if there is none.
    async fn claimed(&self, at: &Place, id: Id, now: Millis) -> Result<Option<Claim>, StoreError>;

    /// Begins a claim anew; false if it does not hold any more.
    async fn renew(
        &self,
        at: &Place,
        id: Id,
        terms: ClaimTerms,
        now: Millis,
    ) -> Result<bool, StoreError>;

    /// Ends a claim: what it holds is anybody's. One that does not hold is as good.
    async fn release(&self, at: &Place, id: Id, now: Millis) -> Result<(), StoreError>;

    /// When the next message that is in somebody's hands or held back will be anybody's, if nothing
    /// happens to it: for those who wait.
    async fn next_free(&self, at: &Place, now: Millis) -> Result<Option<Millis>, StoreError>;

    /// Keeps a record if `before` is there, at once and for good; otherwise changes nothing. What was
    /// there is answered, as far as it had not ended.
    async fn keep(
        &self,
        record: Record,
        before: Before,
        now: Millis,
    ) -> Result<Option<Record>, StoreError>;

    /// A record; `None` if there is none.
    async fn record(
        &self,
        kind: RecordKind,
        owner: &str,
        name: &str,
        now: Millis,
    ) -> Result<Option<Record>, StoreError>;

    /// An owner's records of a kind whose names come after `after`, by name; at most `limit`.
    async fn records(
        &self,
        kind: RecordKind,
        owner: &str,
        (after, limit): (&str, usize),
        now: Millis,
    ) -> Result<Vec<Record>, StoreError>;

    /// Removes a record, or all of the owner's of that kind if no name is given. What is not there is
    /// as good.
    async fn forget(
        &self,
        kind: RecordKind,
        owner: &str,
        name: Option<&str>,
    ) -> Result<(), StoreError>;

    /// The pools that this store is made of; `None` if it is made of none.
    fn pools(&self) -> Option<Vec<(String, Pool)>> {
        None
    }

    /// Whether other processes use this store, too: what was read may be another in a moment.
    fn is_shared(&self) -> bool {
        true
    }

    /// Whether it goes by a clock of its own, and not by that of requests.
    fn has_own_clock(&self) -> bool {
        self.is_shared()
    }

    /// Ends what is begun, and closes.
    async fn close(&self);
}
