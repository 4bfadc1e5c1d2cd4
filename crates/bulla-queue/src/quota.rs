//! How much an agent may have in queues for anybody: those are not its own, and each post makes one.
//!
//! Counted in memory, by each process for itself; what is over, or gone by another process's doing, is
//! found out before an agent is refused.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::caller::{AgentMay, AgentRule};
use crate::fault::Fault;
use crate::name::Place;
use crate::store::{Millis, QueuePage, Store, StoreError};

/// Queues that are looked for at a time before an agent is refused.
const LOOKS: usize = 8;
/// Queues that are looked at in one go when what is empty is removed.
const PAGE: usize = 100;

/// What an agent may have in queues for anybody (the parts of large messages), until they are taken or
/// over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Queues at a time.
    pub queues: usize,
    /// Bytes of all messages in them.
    pub bytes: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self { queues: 256, bytes: 256 << 20 }
    }
}

/// What all agents have.
#[derive(Default)]
pub(crate) struct Quotas {
    pub(crate) quota: Quota,
    held: Mutex<Held>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Held {
    of: HashMap<Arc<str>, VecDeque<Made>>,
    by: HashMap<Place, Arc<str>>,
}

/// A queue that an agent posted to.
struct Made {
    at: Place,
    bytes: u64,
    /// When its last message is over.
    until: Millis,
}

impl Quotas {
    /// How often agents were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts what an agent is about to post to a queue, if it may.
    pub(crate) async fn take(
        &self,
        store: &dyn Store,
        agent: &str,
        (at, bytes, until): (&Place, u64, Millis),
        now: Millis,
    ) -> Result<(), Fault> {
        if self.fits(agent, (at, bytes, until), now) {
            return Ok(());
        }
        for at in self.some(agent) {
            if store.metadata(&at).await?.is_none() {
                self.gone(&at);
            }
        }
        if self.fits(agent, (at, bytes, until), now) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let Quota { queues, bytes } = self.quota;
        tracing::warn!(agent, queue = at.name(), "refused: its quota of queues for parts is full");
        Err(Fault::unavailable(format!(
            "{agent} has as much in queues for parts of large messages as it may ({queues} queues, \
             {bytes} bytes); what is there has to be taken first, or to end."
        )))
    }

    fn fits(&self, agent: &str, (at, bytes, until): (&Place, u64, Millis), now: Millis) -> bool {
        let Held { of, by } = &mut *self.held.lock();
        let made = of.entry(agent.into()).or_default();
        made.retain(|made| made.until > now || by.remove(&made.at).is_none());
        let sum: u64 = made.iter().map(|made| made.bytes).sum();
        let more_bytes = sum.saturating_add(bytes) <= self.quota.bytes;
        let more_queues = made.len() < self.quota.queues;
        let there = made.iter_mut().find(|made| made.at == *at);
        match there {
            Some(there) if more_bytes => {
                there.bytes = there.bytes.saturating_add(bytes);
                there.until = there.until.max(until);
                true
            }
            None if more_bytes && more_queues => {
                made.push_back(Made { at: at.clone(), bytes, until });
                by.insert(at.clone(), agent.into());
                true
            }
            _ => false,
        }
    }

    /// Some of an agent's queues, others each time.
    fn some(&self, agent: &str) -> Vec<Place> {
        let mut held = self.held.lock();
        let Some(made) = held.of.get_mut(agent) else { return Vec::new() };
        let some = made.iter().take(LOOKS).map(|made| made.at.clone()).collect();
        made.rotate_left(LOOKS.min(made.len()));
        some
    }

    /// A queue was removed.
    pub(crate) fn gone(&self, at: &Place) {
        let Held { of, by } = &mut *self.held.lock();
        let Some(agent) = by.remove(at) else { return };
        if let Some(made) = of.get_mut(&agent) {
            made.retain(|made| made.at != *at);
        }
    }

    /// Forgets what is over, of agents that do not come again, too.
    fn forget(&self, now: Millis) {
        let Held { of, by } = &mut *self.held.lock();
        of.retain(|_, made| {
            made.retain(|made| made.until > now || by.remove(&made.at).is_none());
            !made.is_empty()
        });
    }

    /// Removes queues for anybody in which nothing is any more. One that is in use holds something: who
    /// posts makes it, and who takes the last part removes it.
    pub(crate) async fn tidy(
        &self,
        store: &dyn Store,
        (project, rule): (&str, AgentRule),
        now: Millis,
    ) -> Result<u64, StoreError> {
        self.forget(now);
        let (mut page, mut removed) = (QueuePage { limit: PAGE, ..QueuePage::default() }, 0);
        loop {
            let found = store.queues(project, &page).await?;
            for queue in &found {
                if rule(&queue.name, "") != AgentMay::Share {
                    continue;
                }
                let at = Place::new(project.into(), &queue.name, &crate::limits::Limits::default());
                let Some(at) = at else { continue };
                let stats = store.stats(&at, now).await?;
                if stats.free + stats.busy == 0 {
                    store.remove(&at).await?;
                    self.gone(&at);
                    removed += 1;
                }
            }
            match found.last() {
                Some(last) if found.len() == PAGE => page.after.clone_from(&last.name),
                _ => return Ok(removed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn what_is_over_or_gone_counts_no_more() {
        let quota = Quota { queues: 2, bytes: 100 };
        let quotas = Quotas { quota, ..Quotas::default() };
        let at = |name: &str| Place::new("p".into(), name, &Limits::default()).unwrap();
        let take = |agent: &str, name: &str, bytes, until, now| {
            quotas.fits(agent, (&at(name), bytes, until), now)
        };
        assert!(take("a", "1", 40, 10, 0) && take("a", "2", 40, 20, 0));
        assert!(!take("a", "3", 1, 10, 0), "a third queue");
        assert!(!take("a", "2", 21, 10, 0), "too many bytes");
        assert!(take("a", "2", 20, 10, 0) && take("b", "3", 100, 10, 0));
        // The first is over; the second has until 20.
        assert!(take("a", "4", 40, 30, 10) && !take("a", "5", 1, 30, 10));
        quotas.gone(&at("2"));
        assert!(take("a", "5", 60, 30, 10));
        quotas.forget(30);
        let held = quotas.held.lock();
        assert!(held.of.is_empty() && held.by.is_empty());
    }
}
