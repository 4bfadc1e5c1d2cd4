//! Subscriptions: who is told of a queue's messages. Kept as records: one under the subscription's id,
//! and one under its subscriber's digest, by which two can't have the same.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::Id;
use crate::name::Place;
use crate::record::{Before, Record, RecordKind};
use crate::store::{Millis, Store, StoreError};

/// Subscriptions that a queue has at the most.
pub(crate) const MOST: usize = 1000;
/// How often it is tried anew when another was quicker.
const TRIES: usize = 8;

/// A subscription.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Subscription {
    pub(crate) id: Id,
    pub(crate) until: Millis,
    pub(crate) what: What,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct What {
    pub(crate) subscriber: String,
    /// In seconds.
    pub(crate) ttl: u64,
    pub(crate) options: Map<String, Value>,
    pub(crate) confirmed: bool,
    pub(crate) created_ms: Millis,
}

/// What became of one that was to be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Added {
    New(Subscription),
    /// It is there, and nobody confirmed it.
    Unconfirmed(Subscription),
    /// It is there.
    There,
    /// There are too many.
    TooMany,
}

/// What became of one that was to be changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Changed {
    Done(Subscription),
    NotThere,
    /// Another one has that subscriber.
    Taken,
}

/// The subscriptions of one queue.
#[derive(Clone, Copy)]
pub(crate) struct Subscriptions<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) at: &'a Place,
    pub(crate) now: Millis,
}

impl Subscription {
    fn of(record: &Record) -> Option<Self> {
        let what = serde_json::from_str(&record.value).ok()?;
        Some(Self { id: Id::parse(&record.name)?, until: record.until, what })
    }
}

impl Subscriptions<'_> {
    pub(crate) async fn get(&self, id: Id) -> Result<Option<Subscription>, StoreError> {
        let (kind, owner, name) = (RecordKind::Subscription, self.at.owner(), id.to_string());
        let found = self.store.record(kind, &owner, &name, self.now).await?;
        Ok(found.as_ref().and_then(Subscription::of))
    }

    pub(crate) async fn list(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Subscription>, StoreError> {
        let (kind, owner) = (RecordKind::Subscription, self.at.owner());
        let found = self.store.records(kind, &owner, (after, limit), self.now).await?;
        Ok(found.iter().filter_map(Subscription::of).collect())
    }

    /// Makes one. It is there before its subscriber is taken: what is unconfirmed does nothing yet.
    pub(crate) async fn add(&self, what: What) -> Result<Added, StoreError> {
        if self.list("", MOST).await?.len() >= MOST {
            return Ok(Added::TooMany);
        }
        let until = self.now.saturating_add(what.ttl.saturating_mul(1000));
        let id = Id::new(self.now.saturating_mul(1000)).map_err(|_| self.lost("no randomness"))?;
        let made = Subscription { id, until, what };
        self.store.keep(self.record(&made)?, Before::Nothing, self.now).await?;
        match self.take(&made).await? {
            None => Ok(Added::New(made)),
            Some(there) => {
                self.forget(RecordKind::Subscription, &id.to_string()).await?;
                let confirmed = there.what.confirmed;
                Ok(if confirmed { Added::There } else { Added::Unconfirmed(there) })
            }
        }
    }

    /// Changes one.
    pub(crate) async fn change(
        &self,
        id: Id,
        change: impl Fn(&mut What),
    ) -> Result<Changed, StoreError> {
        for _ in 0..TRIES {
            let Some(before) = self.get(id).await? else { return Ok(Changed::NotThere) };
            let mut after = before.clone();
            change(&mut after.what);
            if after.what.ttl != before.what.ttl {
                after.until = self.now.saturating_add(after.what.ttl.saturating_mul(1000));
            }
            if self.take(&after).await?.is_some() {
                return Ok(Changed::Taken);
            }
            let known = self.record(&before)?.value;
            let kept = self.record(&after)?;
            let there = self.store.keep(kept, Before::Value(known.clone()), self.now).await?;
            if there.is_some_and(|there| there.value == known) {
                if after.what.subscriber != before.what.subscriber {
                    let former = digest_of(&before.what.subscriber);
                    self.forget(RecordKind::Subscriber, &former).await?;
                }
                return Ok(Changed::Done(after));
            }
        }
        Err(self.lost("others change it at the same time"))
    }

    pub(crate) async fn remove(&self, id: Id) -> Result<(), StoreError> {
        let Some(there) = self.get(id).await? else { return Ok(()) };
        self.forget(RecordKind::Subscription, &id.to_string()).await?;
        self.forget(RecordKind::Subscriber, &digest_of(&there.what.subscriber)).await
    }

    pub(crate) async fn remove_all(&self) -> Result<(), StoreError> {
        let owner = self.at.owner();
        self.store.forget(RecordKind::Subscription, &owner, None).await?;
        self.store.forget(RecordKind::Subscriber, &owner, None).await
    }

    /// Takes a subscriber for a subscription; who has it, if it is another one.
    async fn take(&self, by: &Subscription) -> Result<Option<Subscription>, StoreError> {
        let claim = Record {
            kind: RecordKind::Subscriber,
            owner: self.at.owner(),
            name: digest_of(&by.what.subscriber),
            value: by.id.to_string(),
            until: by.until,
        };
        let mut before = Before::Nothing;
        for _ in 0..TRIES {
            let there = self.store.keep(claim.clone(), before.clone(), self.now).await?;
            if before.is(there.as_ref()) {
                return Ok(None);
            }
            let Some(there) = there else { continue };
            if there.value != claim.value
                && let Some(id) = Id::parse(&there.value)
                && let Some(holder) = self.get(id).await?
                && holder.what.subscriber == by.what.subscriber
            {
                return Ok(Some(holder));
            }
            // Its own, or left behind.
            before = Before::Value(there.value);
        }
        Err(self.lost("others change it at the same time"))
    }

    fn record(&self, of: &Subscription) -> Result<Record, StoreError> {
        let value = serde_json::to_string(&of.what).map_err(|_| self.lost("it has no form"))?;
        let (kind, owner) = (RecordKind::Subscription, self.at.owner());
        Ok(Record { kind, owner, name: of.id.to_string(), value, until: of.until })
    }

    async fn forget(&self, kind: RecordKind, name: &str) -> Result<(), StoreError> {
        self.store.forget(kind, &self.at.owner(), Some(name)).await
    }

    fn lost(&self, why: &str) -> StoreError {
        StoreError::Io { at: self.store.name().to_owned(), why: format!("a subscription: {why}") }
    }
}

fn digest_of(subscriber: &str) -> String {
    hex::encode(digest(&SHA256, subscriber.as_bytes()))
}
