//! One shard: entries of 40 bytes, found through an index of 4-byte places and forgotten through
//! lists by expiry. What only few entries need (a lease, a reply) lies beside them.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashbrown::HashTable;

use super::slab::Slab;
use crate::claim::{Action, Event, Gate, Lease, Record, State, step};
use crate::key::ClaimKey;
use crate::store::{ClaimRequest, Reply};

/// Seconds of expiry that share a list. An id stays up to this much longer than it must.
const BUCKET_S: u32 = 16;
const NONE: u32 = u32::MAX;

pub(super) struct Shard {
    index: HashTable<u32>,
    entries: Slab<Entry>,
    in_flight: Slab<InFlight>,
    replies: Slab<Reply>,
    /// First entry of the list for each bucket of expiry.
    buckets: BTreeMap<u32, u32>,
}

struct Entry {
    key: [u64; 2],
    digest: u64,
    /// Next entry of the same bucket.
    next: u32,
    sender: u32,
    /// Unix seconds, good until 2106.
    exp: u32,
    state: Place,
}

/// A state, as where its details lie.
#[derive(Clone, Copy)]
struct Place(u32);

const KIND: u32 = 0b11 << 30;
const CLAIMED: u32 = 0;
const DONE: u32 = 1 << 30;
const IN_DOUBT: u32 = 2 << 30;

impl Place {
    fn new(kind: u32, place: Option<u32>) -> Self {
        Self(kind | place.unwrap_or(NONE) & !KIND)
    }

    fn kind(self) -> u32 {
        self.0 & KIND
    }

    fn place(self) -> u32 {
        self.0 & !KIND
    }
}

/// A claim that a worker holds.
struct InFlight {
    lease: Lease,
    entry: u32,
    custody: Custody,
}

/// What is needed to run or answer a message whose worker was lost.
#[derive(Clone)]
pub(super) struct Custody {
    pub(super) key: ClaimKey,
    pub(super) envelope: Option<Bytes>,
}

/// What a transition did beside its answer.
pub(super) struct Transition {
    pub(super) action: Action,
    /// It fell in doubt.
    pub(super) in_doubt: bool,
    /// The byte budget was used up.
    pub(super) reply_dropped: bool,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            index: HashTable::new(),
            entries: Slab::new(),
            in_flight: Slab::new(),
            replies: Slab::new(),
            buckets: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn find(&self, key: u128) -> Option<u32> {
        let (hash, words) = split(key);
        let same = |place: &u32| self.entries.get(*place).is_some_and(|entry| entry.key == words);
        self.index.find(hash, same).copied()
    }

    /// Puts in a message never seen, in the state that a first claim gives it.
    pub(super) fn insert(
        &mut self,
        key: u128,
        digest: u64,
        sender: u32,
        request: &ClaimRequest,
    ) -> Action {
        let (record, action) = step(None, claim_event(digest, request));
        // Before the index is written to: counting references waits until such a write is through.
        let custody = Custody { key: request.key.clone(), envelope: request.envelope.clone() };
        let (hash, words) = split(key);
        let exp = u32::try_from(request.exp).unwrap_or(u32::MAX);
        let state = Place::new(DONE, None);
        let entry = Entry { key: words, digest, next: NONE, sender, exp, state };
        let place = self.entries.insert(entry);
        let entries = &self.entries;
        let rehash = |place: &u32| entries.get(*place).map_or(0, |entry| split_words(entry.key));
        self.index.insert_unique(hash, place, rehash);
        self.link(place, exp / BUCKET_S);
        if let Some(record) = record {
            self.put(place, record.state, Some(custody));
        }
        action
    }

    /// Drives one entry through `event`. `reserve(more)` finds room in the reply budget, and
    /// `reserve(-less)` gives it back.
    pub(super) fn transition(
        &mut self,
        place: u32,
        event: Event<u64>,
        reserve: &impl Fn(i64) -> bool,
    ) -> Transition {
        let Some((record, custody)) = self.take(place) else {
            let (_, action) = step(None, event);
            return Transition { action, in_doubt: false, reply_dropped: false };
        };
        let (before, doubted) = (size(&record.state), is_in_doubt(&record.state));
        let (record, action) = step(Some(record), event);
        let mut reply_dropped = false;
        let Some(Record { mut state, .. }) = record else {
            return Transition { action, in_doubt: false, reply_dropped };
        };
        let grown = size(&state) - before;
        if grown != 0 && !reserve(grown) {
            reply_dropped = true;
            drop_bytes(&mut state);
        }
        let in_doubt = is_in_doubt(&state) && !doubted;
        self.put(place, state, custody);
        Transition { action, in_doubt, reply_dropped }
    }

    /// Entries whose lease is over at `now_ms`, and whether their envelope was kept.
    pub(super) fn expired(&self, now_ms: u64) -> Vec<(u32, Custody)> {
        let over = self.in_flight.values().filter(|held| !held.lease.is_live(now_ms));
        over.map(|held| (held.entry, held.custody.clone())).collect()
    }

    /// Forgets what is past its expiry and the skew, but for claims with a live lease. Calls
    /// `forgotten(sender, exp, bytes of reply)` for each.
    pub(super) fn purge(
        &mut self,
        now_ms: u64,
        skew_s: u64,
        mut forgotten: impl FnMut(u32, u32, i64),
    ) {
        let is_over = |bucket: u32| {
            let last = u64::from(bucket) * u64::from(BUCKET_S) + u64::from(BUCKET_S - 1);
            Gate::is_over(last, skew_s, now_ms)
        };
        let mut kept = Vec::new();
        while let Some(first) = self.buckets.first_entry() {
            if !is_over(*first.key()) {
                break;
            }
            let mut place = first.remove();
            while let Some(entry) = self.entries.get(place) {
                let next = entry.next;
                match self.live_until(entry, now_ms) {
                    Some(until_ms) => kept.push((place, until_ms)),
                    None => self.forget(place, &mut forgotten),
                }
                place = next;
            }
        }
        for (place, until_ms) in kept {
            let again_s = (until_ms / 1000).saturating_sub(skew_s);
            let bucket = u32::try_from(again_s).unwrap_or(u32::MAX) / BUCKET_S;
            self.link(place, bucket);
        }
    }

    fn live_until(&self, entry: &Entry, now_ms: u64) -> Option<u64> {
        if entry.state.kind() != CLAIMED {
            return None;
        }
        let held = self.in_flight.get(entry.state.place())?;
        held.lease.is_live(now_ms).then_some(held.lease.until_ms)
    }

    fn forget(&mut self, place: u32, forgotten: &mut impl FnMut(u32, u32, i64)) {
        let bytes = self.take(place).map_or(0, |(record, _)| size(&record.state));
        let Some(entry) = self.entries.remove(place) else { return };
        if let Ok(found) = self.index.find_entry(split_words(entry.key), |other| *other == place) {
            found.remove();
        }
        forgotten(entry.sender, entry.exp, bytes);
    }

    fn link(&mut self, place: u32, bucket: u32) {
        let first = self.buckets.entry(bucket).or_insert(NONE);
        if let Some(entry) = self.entries.get_mut(place) {
            entry.next = std::mem::replace(first, place);
        }
    }

    fn take(&mut self, place: u32) -> Option<(Record<u64>, Option<Custody>)> {
        let entry = self.entries.get(place)?;
        let (digest, at) = (entry.digest, entry.state);
        let (state, custody) = match at.kind() {
            CLAIMED => {
                let held = self.in_flight.remove(at.place())?;
                (State::Claimed(held.lease), Some(held.custody))
            }
            DONE => (State::Done(self.replies.remove(at.place())), None),
            _ => (State::InDoubt(self.replies.remove(at.place())), None),
        };
        Some((Record { digest, state }, custody))
    }

    /// Stores `state`; what the claim came with is dropped once it is no longer in flight.
    fn put(&mut self, entry: u32, state: State, custody: Option<Custody>) {
        let state = match (state, custody) {
            (State::Claimed(lease), Some(custody)) => {
                let held = InFlight { lease, entry, custody };
                Place::new(CLAIMED, Some(self.in_flight.insert(held)))
            }
            // No transition leads back to claimed; without its key nobody could run it anyway.
            (State::Claimed(_), None) => Place::new(IN_DOUBT, None),
            (State::Done(reply), _) => {
                Place::new(DONE, reply.map(|reply| self.replies.insert(reply)))
            }
            (State::InDoubt(error), _) => {
                Place::new(IN_DOUBT, error.map(|error| self.replies.insert(error)))
            }
        };
        if let Some(entry) = self.entries.get_mut(entry) {
            entry.state = state;
        }
    }
}

/// What a request means to the machine, with the digest in the store's short form.
pub(super) fn claim_event(digest: u64, request: &ClaimRequest) -> Event<u64> {
    Event::Claim {
        digest,
        worker: request.worker,
        now_ms: request.now_ms,
        lease_ms: request.lease_ms,
        idempotent: request.idempotent,
    }
}

fn split(key: u128) -> (u64, [u64; 2]) {
    let words = [(key >> 64) as u64, key as u64];
    (split_words(words), words)
}

fn split_words([_, low]: [u64; 2]) -> u64 {
    low
}

fn size(state: &State) -> i64 {
    match state {
        State::Done(Some(reply)) | State::InDoubt(Some(reply)) => reply.size() as i64,
        _ => 0,
    }
}

fn drop_bytes(state: &mut State) {
    if let State::Done(Some(reply)) | State::InDoubt(Some(reply)) = state {
        reply.drop_bytes();
    }
}

fn is_in_doubt(state: &State) -> bool {
    matches!(state, State::InDoubt(_))
}
