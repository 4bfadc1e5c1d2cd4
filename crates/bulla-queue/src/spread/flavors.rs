//! Queues that name a flavor.
//!
//! Where such a queue lies can't be read from the queue itself, so the first pool has a record of each,
//! and one process uses the pools, so it knows them all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::SpreadQueues;
use super::moving::carry_records;
use crate::limits::Limits;
use crate::metadata::{FLAVOR, Patch, PatchFault};
use crate::name::Place;
use crate::record::{Before, NEVER, Record, RecordKind};
use crate::service::now;
use crate::store::{Metadata, Store, StoreError};

/// Records that are read at a time.
const RECORDS: usize = 500;

/// The flavor that a queue's metadata name.
pub(super) fn flavor_of(metadata: &Metadata) -> Option<&str> {
    metadata.get(FLAVOR).and_then(Value::as_str)
}

/// Which queues have flavors.
#[derive(Default)]
pub(super) struct Flavored(RwLock<HashMap<Place, Arc<str>>>);

impl Flavored {
    /// As the records say.
    pub(super) async fn load(home: &dyn Store) -> Result<Self, StoreError> {
        let (mut known, mut after) = (HashMap::new(), String::new());
        loop {
            let page = (after.as_str(), RECORDS);
            let found = home.records(RecordKind::Flavored, "", page, now()).await?;
            let Some(last) = found.last() else { return Ok(Self(RwLock::new(known))) };
            after.clone_from(&last.name);
            for record in found {
                let place = record.name.rsplit_once('/').and_then(|(project, name)| {
                    Place::new(project.into(), name, &Limits::default())
                });
                known.extend(place.map(|at| (at, record.value.into())));
            }
        }
    }

    pub(super) fn of(&self, at: &Place) -> Option<Arc<str>> {
        self.0.read().get(at).cloned()
    }

    /// From now on, for good.
    async fn set(
        &self,
        home: &dyn Store,
        at: &Place,
        flavor: Option<&str>,
    ) -> Result<(), StoreError> {
        let (kind, owner, name) = (RecordKind::Flavored, String::new(), at.owner());
        if let Some(flavor) = flavor {
            let record = Record { kind, owner, name, value: flavor.to_owned(), until: NEVER };
            home.keep(record, Before::Any, now()).await?;
            self.0.write().insert(at.clone(), flavor.into());
        } else {
            home.forget(kind, &owner, Some(&name)).await?;
            self.0.write().remove(at);
        }
        Ok(())
    }
}

impl SpreadQueues {
    pub(super) async fn create_flavored(
        &self,
        at: &Place,
        metadata: &Metadata,
    ) -> Result<bool, StoreError> {
        let _alone = self.lock(at)?.write().await;
        if self.has(at).await?.metadata(at).await?.is_some() {
            return Ok(false);
        }
        self.flavored.set(self.home()?, at, flavor_of(metadata)).await?;
        let store = self.has(at).await?;
        store.create(at, metadata).await
    }

    pub(super) async fn remove_flavored(&self, at: &Place) -> Result<(), StoreError> {
        let _alone = self.lock(at)?.write().await;
        self.has(at).await?.remove(at).await?;
        self.flavored.set(self.home()?, at, None).await
    }

    /// Metadata that may name another flavor. The queue goes there at once if it is empty.
    pub(super) async fn patch_flavored(
        &self,
        at: &Place,
        patch: &Patch,
    ) -> Result<Option<Result<Metadata, PatchFault>>, StoreError> {
        let _alone = self.lock(at)?.write().await;
        let from = self.has(at).await?;
        let Some(before) = from.metadata(at).await? else { return Ok(None) };
        let after = match patch.apply(&before) {
            Ok(after) => after,
            Err(fault) => return Ok(Some(Err(fault))),
        };
        let flavor = flavor_of(&after);
        if flavor == self.flavored.of(at).as_deref() {
            return from.patch(at, patch).await;
        }
        let to = {
            let layout = self.layout.read();
            self.drawn_as(at, &layout.now, flavor)?
        };
        if !Arc::ptr_eq(from, to) {
            let stats = from.stats(at, now()).await?;
            if stats.free + stats.busy > 0 {
                let why = format!("{FLAVOR} can be changed only while the queue is empty.");
                return Ok(Some(Err(PatchFault::Value(why))));
            }
            // One that was made before a crash is not the one that counts.
            to.remove(at).await?;
            to.create(at, &after).await?;
            carry_records(from.as_ref(), to.as_ref(), &at.owner()).await?;
        }
        self.flavored.set(self.home()?, at, flavor).await?;
        self.settled.lock().insert(at.clone());
        if Arc::ptr_eq(from, to) {
            return from.patch(at, patch).await;
        }
        from.remove(at).await?;
        from.forget(RecordKind::Once, &at.owner(), None).await?;
        Ok(Some(Ok(after)))
    }
}
