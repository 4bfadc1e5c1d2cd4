//! Finding a queue without a global lock and without an allocation.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;
use parking_lot::RwLock;

use super::queue::Queue;
use crate::address::{Address, Inbox};

const SHARDS: usize = 32;

/// By hash; the hash is a keyed one already.
type Shard = RwLock<HashMap<u64, Vec<Arc<Queue>>, BuildHasherDefault<AsItIs>>>;
type Members = HashMap<String, HashMap<String, Vec<Arc<Queue>>>>;

/// A hash of a hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

pub(super) struct Table {
    hasher: RandomState,
    shards: [Shard; SHARDS],
    /// Exchange, topic, members: a fanout is rare, so one lock does.
    fanouts: RwLock<Members>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: std::array::from_fn(|_| Shard::default()),
            fanouts: RwLock::default(),
        }
    }

    fn hash(&self, kind: u8, words: [&str; 3]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u8(kind);
        for word in words {
            hasher.write(word.as_bytes());
            // No name has it, so no two lists of names are the same bytes.
            hasher.write_u8(0xff);
        }
        hasher.finish()
    }

    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the length")]
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[hash as usize % SHARDS]
    }

    fn inbox_hash(&self, inbox: &Inbox) -> u64 {
        match inbox {
            Inbox::Topic { exchange, topic } => self.hash(0, [exchange, topic, ""]),
            Inbox::Server { exchange, topic, server } => self.hash(1, [exchange, topic, server]),
            Inbox::Fanout { exchange, topic, member } => self.hash(2, [exchange, topic, member]),
            Inbox::Reply { exchange, name } => self.hash(3, [exchange, name.as_str(), ""]),
            Inbox::Foreign(queue) => {
                let (exchange, key) = queue.route();
                self.hash(4, [exchange.map_or("", |exchange| &exchange.name), key, ""])
            }
        }
    }

    /// The queue that takes messages to this address; not for fanouts.
    pub(super) fn route(&self, to: &Address) -> Option<Arc<Queue>> {
        let hash = match to {
            Address::Topic { exchange, topic } => self.hash(0, [exchange, topic, ""]),
            Address::Server { exchange, topic, server } => self.hash(1, [exchange, topic, server]),
            Address::Fanout { .. } => return None,
            Address::Reply { exchange, to, .. } => self.hash(3, [exchange, to.as_str(), ""]),
            Address::Foreign { exchange, key } => {
                self.hash(4, [exchange.as_ref().map_or("", |exchange| &exchange.name), key, ""])
            }
        };
        let shard = self.shard(hash).read();
        shard.get(&hash)?.iter().find(|queue| takes(&queue.inbox, to)).cloned()
    }

    /// The queues of everybody behind a fanout.
    pub(super) fn members(&self, exchange: &str, topic: &str) -> Vec<Arc<Queue>> {
        let fanouts = self.fanouts.read();
        fanouts.get(exchange).and_then(|topics| topics.get(topic)).cloned().unwrap_or_default()
    }

    pub(super) fn get(&self, inbox: &Inbox) -> Option<Arc<Queue>> {
        let hash = self.inbox_hash(inbox);
        let shard = self.shard(hash).read();
        shard.get(&hash)?.iter().find(|queue| *queue.inbox == *inbox).cloned()
    }

    /// The queue of an inbox, made if it is not there.
    pub(super) fn get_or_make(&self, inbox: &Inbox, make: impl FnOnce() -> Queue) -> Arc<Queue> {
        let hash = self.inbox_hash(inbox);
        let mut shard = self.shard(hash).write();
        let same = shard.entry(hash).or_default();
        if let Some(queue) = same.iter().find(|queue| *queue.inbox == *inbox) {
            return Arc::clone(queue);
        }
        let queue = Arc::new(make());
        same.push(Arc::clone(&queue));
        if let Some((exchange, topic)) = fanned_out(inbox) {
            let mut fanouts = self.fanouts.write();
            let topics = fanouts.entry(exchange.to_owned()).or_default();
            topics.entry(topic.to_owned()).or_default().push(Arc::clone(&queue));
        }
        queue
    }

    /// Deletes this very queue with what is in it.
    pub(super) fn remove(&self, queue: &Arc<Queue>) {
        let hash = self.inbox_hash(&queue.inbox);
        let mut shard = self.shard(hash).write();
        if let Some(same) = shard.get_mut(&hash) {
            same.retain(|other| !Arc::ptr_eq(other, queue));
            if same.is_empty() {
                shard.remove(&hash);
            }
        }
        if let Some((exchange, topic)) = fanned_out(&queue.inbox) {
            let mut fanouts = self.fanouts.write();
            if let Some(members) =
                fanouts.get_mut(exchange).and_then(|topics| topics.get_mut(topic))
            {
                members.retain(|other| !Arc::ptr_eq(other, queue));
            }
        }
    }
}

/// The exchange and topic of what every member gets.
fn fanned_out(inbox: &Inbox) -> Option<(&str, &str)> {
    match inbox {
        Inbox::Fanout { exchange, topic, .. } => Some((exchange, topic)),
        Inbox::Foreign(queue) => {
            let exchange = queue.route().0.filter(|exchange| exchange.fanout)?;
            Some((&exchange.name, ""))
        }
        _ => None,
    }
}

fn takes(inbox: &Inbox, address: &Address) -> bool {
    match (inbox, address) {
        (Inbox::Topic { exchange, topic }, Address::Topic { exchange: e, topic: t }) => {
            exchange == e && topic == t
        }
        (
            Inbox::Server { exchange, topic, server },
            Address::Server { exchange: e, topic: t, server: s },
        ) => exchange == e && topic == t && server == s,
        (Inbox::Reply { exchange, name }, Address::Reply { exchange: e, to, .. }) => {
            exchange == e && name == to
        }
        (Inbox::Foreign(queue), Address::Foreign { exchange, key }) => {
            queue.route() == (exchange.as_ref(), key)
        }
        _ => false,
    }
}
