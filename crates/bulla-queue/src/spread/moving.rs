//! How queues come to be in another pool.

use std::sync::Weak;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Pool, SpreadQueues};
use crate::name::Place;
use crate::record::{Before, NEVER, Record, RecordKind};
use crate::service::now;
use crate::store::{Store, StoreError};

/// Queues that are looked at at a time.
const QUEUES: usize = 500;
/// Records that are carried at a time.
const RECORDS: usize = 500;
/// How long until those are looked at again that were not empty.
const AGAIN: Duration = Duration::from_secs(1);
/// The name of the record.
const RECORD: &str = "pools";

/// A pool's part of the queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Share {
    pub(super) name: String,
    pub(super) weight: u32,
    #[serde(default)]
    pub(super) flavor: Option<String>,
}

/// Which pools there are, and were before until everything is moved. Kept as a record of the first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    pub(super) now: Vec<Share>,
    pub(super) before: Option<Vec<Share>>,
}

/// How far queues are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Queues that were moved since the start.
    pub moved: u64,
    /// Queues that were not empty when they were looked at, and are where they were.
    pub waiting: u64,
    /// Whether all are where they belong.
    pub done: bool,
}

impl Layout {
    /// What there is, after what there was.
    pub(super) async fn arrange(pools: &[Pool]) -> Result<Self, StoreError> {
        let unfit = |why: String| StoreError::Unfit { at: "pools".to_owned(), why };
        let share = |pool: &Pool| Share {
            name: pool.name.clone(),
            weight: pool.weight,
            flavor: pool.flavor.clone(),
        };
        let now: Vec<Share> = pools.iter().map(share).collect();
        let is_for_all = |share: &Share| share.weight > 0 && share.flavor.is_none();
        let Some(home) = pools.first().filter(|_| now.iter().any(is_for_all)) else {
            return Err(unfit(
                "no pool without a flavor has a weight above 0, and queues that name no flavor need \
                 one"
                    .to_owned(),
            ));
        };
        let mut flavors = now.iter().filter_map(|share| share.flavor.as_deref());
        if let Some(wrong) = flavors.find(|flavor| !crate::pool::is_name(flavor)) {
            return Err(unfit(format!(
                "{wrong:?} can't be a flavor's name: 1 to 255 letters, digits, _, - and ."
            )));
        }
        let mut names: Vec<_> = now.iter().map(|share| share.name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.get(1)) {
            return Err(unfit("two pools have the same name".to_owned()));
        }
        let layout = match Self::read(home.store.as_ref()).await? {
            None => Self { now, before: None },
            Some(before) if before.now == now => before,
            Some(Self { before: Some(_), .. }) => {
                return Err(unfit(
                    "queues are still being moved after the last change; start with the pools and \
                     weights as they were, and wait until that is done"
                        .to_owned(),
                ));
            }
            Some(before) => {
                let is_left_out = |it: &&Share| it.weight > 0 && !names.contains(&it.name.as_str());
                if let Some(missing) = before.now.iter().find(is_left_out) {
                    return Err(unfit(format!(
                        "the pool {} may have queues, and is left out; give it the weight 0 until \
                         its queues are moved",
                        missing.name
                    )));
                }
                Self { now, before: Some(before.now) }
            }
        };
        layout.write(home.store.as_ref()).await?;
        Ok(layout)
    }

    async fn read(home: &dyn Store) -> Result<Option<Self>, StoreError> {
        let record = home.record(RecordKind::Layout, "", RECORD, now()).await?;
        let read = |record: Record| {
            serde_json::from_str(&record.value).map_err(|error| StoreError::Foreign {
                at: "pools".to_owned(),
                why: format!("which there are can't be read: {error}"),
            })
        };
        record.map(read).transpose()
    }

    async fn write(&self, home: &dyn Store) -> Result<(), StoreError> {
        let value = serde_json::to_string(self)
            .map_err(|error| StoreError::Io { at: "pools".to_owned(), why: error.to_string() })?;
        let (owner, name) = (String::new(), RECORD.to_owned());
        let record = Record { kind: RecordKind::Layout, owner, name, value, until: NEVER };
        home.keep(record, Before::Any, now()).await.map(drop)
    }
}

/// What was done once in a queue goes with it.
pub(super) async fn carry_records(
    from: &dyn Store,
    to: &dyn Store,
    owner: &str,
) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let found = from.records(RecordKind::Once, owner, (&after, RECORDS), now()).await?;
        let Some(last) = found.last() else { return Ok(()) };
        after.clone_from(&last.name);
        for record in found {
            to.keep(record, Before::Any, now()).await?;
        }
    }
}

impl SpreadQueues {
    /// How far queues are moved.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let progress = *self.progress.lock();
        Progress { done: self.layout.read().before.is_none(), ..progress }
    }

    /// Moves a queue that is empty to where it belongs; whether it is there.
    async fn settle(&self, at: &Place) -> Result<bool, StoreError> {
        let _alone = self.lock(at)?.write().await;
        let (to, Some(from)) = self.homes(at)? else { return Ok(true) };
        if let Some(metadata) = from.metadata(at).await? {
            let stats = from.stats(at, now()).await?;
            if stats.free + stats.busy > 0 {
                return Ok(false);
            }
            // One that was made before a crash is not the one that counts, as long as the old one is there.
            to.remove(at).await?;
            to.create(at, &metadata).await?;
            carry_records(from.as_ref(), to.as_ref(), &at.owner()).await?;
            from.remove(at).await?;
            from.forget(RecordKind::Once, &at.owner(), None).await?;
            self.progress.lock().moved += 1;
        }
        self.settled.lock().insert(at.clone());
        Ok(true)
    }

    /// Moves all that belongs elsewhere.
    pub(super) async fn move_all(spread: Weak<Self>) {
        loop {
            let Some(this) = spread.upgrade() else { return };
            match this.move_some().await {
                Ok(true) | Err(StoreError::Closed) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "queues can't be moved to their pools for now");
                }
            }
            drop(this);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Whether all are where they belong.
    async fn move_some(&self) -> Result<bool, StoreError> {
        let (mut waiting, moved) = (0, self.progress.lock().moved);
        for pool in &self.pools {
            let mut after: Option<Place> = None;
            loop {
                let queues = pool.store.all_queues(after.as_ref(), QUEUES).await?;
                for at in &queues {
                    if !self.settle(at).await? {
                        waiting += 1;
                    }
                }
                if queues.len() < QUEUES {
                    break;
                }
                after = queues.last().cloned();
            }
        }
        let progress = {
            let mut progress = self.progress.lock();
            progress.waiting = waiting;
            *progress
        };
        if progress.moved > moved {
            tracing::info!(moved = progress.moved, waiting, "queues are moved to their pools");
        }
        if waiting > 0 {
            return Ok(false);
        }
        let done = Layout { before: None, ..self.layout.read().clone() };
        done.write(self.home()?).await?;
        *self.layout.write() = done;
        self.settled.lock().clear();
        tracing::info!(moved = progress.moved, "every queue is in its pool");
        Ok(true)
    }
}
