//! Claims in memory: the fastest store, which forgets with its process.

mod ledger;
mod shard;
mod sip;
mod slab;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use bulla_seal::mutants::{Check, off};
use bulla_seal::{Digest, Party};
use parking_lot::Mutex;

use self::ledger::Ledger;
use self::shard::{Custody, Shard, claim_event};
use self::sip::{Sip128, SipKey};
use crate::cbor;
use crate::claim::{Action, Event, Gate};
use crate::counters::Counters;
use crate::key::ClaimKey;
use crate::store::{
    ClaimOutcome, ClaimRequest, ClaimStore, Completed, Completion, Expired, Grant, Lost, Refused,
    Reply, Stats, StoreError, StoreOptions, SweepRequest, Swept,
};

const SHARDS: usize = 64;

/// Claims in memory.
///
/// Keys and envelope digests are held as SipHash-2-4 values under a key drawn for each store
/// (128 and 64 bits): a chance collision makes the store refuse a message, never run one twice.
pub struct MemoryClaims {
    /// Hashers under that key that have taken in what all keys, and all digests, begin with.
    keys: Sip128,
    digests: Sip128,
    shards: Box<[Mutex<Shard>]>,
    // Taken inside a shard's lock, never the other way round.
    ledger: Mutex<Ledger>,
    options: StoreOptions,
    purged_exp: AtomicU64,
    /// First `iat` that is taken; 0 if nothing was lost.
    sighted_from: AtomicU64,
    reply_bytes: AtomicU64,
    counters: Counters,
}

impl MemoryClaims {
    /// A store on a bus that was there before: what is issued up to `now_ms` (Unix milliseconds)
    /// and the skew after may have been received by an earlier life of this process and is
    /// refused (protocol section 7).
    pub fn new(options: StoreOptions, now_ms: u64) -> Self {
        let store = Self::for_new_bus(options);
        store.lose(now_ms);
        store
    }

    /// A store on a bus that was born with this process, as the in-memory bus is: nothing can
    /// have been received before, so nothing is refused for its age.
    ///
    /// On any other bus this lets everything be replayed that is still valid.
    pub fn for_new_bus(options: StoreOptions) -> Self {
        let sip = SipKey::random();
        let (mut keys, mut digests) = (sip.hasher(), sip.hasher());
        ClaimKey::encode_label(&mut keys);
        cbor::array(&mut digests, 2);
        cbor::text(&mut digests, "bulla/1 digest");
        Self {
            keys,
            digests,
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect(),
            ledger: Mutex::new(Ledger::new()),
            options,
            purged_exp: AtomicU64::new(0),
            sighted_from: AtomicU64::new(0),
            reply_bytes: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    /// [`ClaimStore::claim`] without a future: it never waits for anything but a short lock.
    pub fn try_claim(&self, request: &ClaimRequest) -> ClaimOutcome {
        let key = self.key(&request.key);
        let mut shard = self.shard(key).lock();
        let place = shard.find(key);
        // Hashed only now: the processor does it while it waits for the index to come from memory.
        let digest = self.digest(&request.digest);
        let outcome = match place {
            Some(place) => {
                let event = claim_event(digest, request);
                match self.drive(&mut shard, place, event) {
                    Action::Claim(outcome) => outcome,
                    // The state machine answers a claim with nothing else.
                    _ => ClaimOutcome::Refused(Refused::IdConflict),
                }
            }
            None => self.first_claim(&mut shard, key, digest, request),
        };
        drop(shard);
        self.counters.claimed(&outcome);
        outcome
    }

    /// [`ClaimStore::complete`] without a future.
    pub fn try_complete(&self, key: &ClaimKey, grant: Grant, completion: Completion) -> Completed {
        let completed = match self.event(key, Event::Complete { grant, completion }) {
            Action::Complete(completed) => completed,
            _ => Completed::Lost(Lost::Unknown),
        };
        self.counters.completed(completed);
        completed
    }

    pub(crate) fn try_extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Grant, Lost> {
        match self.event(key, Event::Extend { grant, until_ms }) {
            Action::Extend(extended) => extended,
            _ => Err(Lost::Unknown),
        }
    }

    pub(crate) fn try_answer(&self, key: &ClaimKey, error: Reply) -> Option<Reply> {
        match self.event(key, Event::Answer(error)) {
            Action::Answer(standing) => standing,
            _ => None,
        }
    }

    /// Whether that claim is still held, in whatever state.
    pub(crate) fn knows(&self, key: &ClaimKey) -> bool {
        let key = self.key(key);
        self.shard(key).lock().find(key).is_some()
    }

    /// Refuses what another store refused beside what it knew.
    pub(crate) fn restore(&self, gate: Gate) {
        self.purged_exp.fetch_max(gate.purged_exp, Relaxed);
        let from = gate.blind_until.map_or(0, |until| until.saturating_add(1));
        self.sighted_from.fetch_max(from, Relaxed);
    }

    pub(crate) fn replies_dropped(&self) -> u64 {
        self.counters.read().replies_dropped
    }

    /// What was counted so far was counted before.
    pub(crate) fn forget_counts(&mut self) {
        self.counters = Counters::default();
    }

    fn first_claim(
        &self,
        shard: &mut Shard,
        key: u128,
        digest: u64,
        request: &ClaimRequest,
    ) -> ClaimOutcome {
        if let Err(refused) = self.gate().judge(request.iat, request.exp) {
            return ClaimOutcome::Refused(refused);
        }
        let sender = match self.ledger.lock().take(&self.options.limits, &request.key.sender) {
            Ok(sender) => sender,
            Err(_) if off(Check::NoEviction) => {
                *shard = Shard::new();
                0
            }
            Err(refused) => return ClaimOutcome::Refused(refused),
        };
        match shard.insert(key, digest, sender, request) {
            Action::Claim(outcome) => outcome,
            _ => ClaimOutcome::Refused(Refused::IdConflict),
        }
    }

    fn event(&self, key: &ClaimKey, event: Event<u64>) -> Action {
        let key = self.key(key);
        let mut shard = self.shard(key).lock();
        match shard.find(key) {
            Some(place) => self.drive(&mut shard, place, event),
            None => crate::claim::step(None, event).1,
        }
    }

    fn drive(&self, shard: &mut Shard, place: u32, event: Event<u64>) -> Action {
        let done = shard.transition(place, event, &|bytes| self.reserve(bytes));
        if done.reply_dropped {
            self.counters.reply_dropped();
        }
        // The sweeper's own are counted with its report; a worker may say in doubt itself.
        if done.in_doubt && matches!(done.action, Action::Claim(_)) {
            self.counters.fell_in_doubt();
        }
        done.action
    }

    /// Finds room for stored replies, or gives it back.
    fn reserve(&self, bytes: i64) -> bool {
        let budget = self.options.limits.reply_bytes;
        let update = |used: u64| {
            let used = used.checked_add_signed(bytes)?;
            (bytes <= 0 || used <= budget).then_some(used)
        };
        self.reply_bytes.fetch_update(Relaxed, Relaxed, update).is_ok()
    }

    pub(crate) fn sweep_now(&self, request: &SweepRequest) -> Swept {
        let mut swept = Swept::default();
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.settle_leases(&mut shard, request, &mut swept);
            shard.purge(request.now_ms, self.options.skew_s, |sender, exp, bytes| {
                // Under the shard's lock: whoever misses the id from here on sees the mark.
                self.purged_exp.fetch_max(exp.into(), Relaxed);
                self.reserve(-bytes);
                self.ledger.lock().give_back(&self.options.limits, sender);
                swept.purged += 1;
            });
        }
        self.counters.swept(&swept);
        swept
    }

    fn settle_leases(&self, shard: &mut Shard, request: &SweepRequest, swept: &mut Swept) {
        for (place, custody) in shard.expired(request.now_ms) {
            let runner = custody.envelope.as_ref().map(|_| (request.worker, request.lease_ms));
            let event = Event::Sweep { now_ms: request.now_ms, runner };
            let Custody { key, envelope } = custody;
            match self.drive(shard, place, event) {
                Action::InDoubt => swept.in_doubt.push(Expired { key, envelope }),
                Action::Run(grant) => swept.taken_over.push((Expired { key, envelope }, grant)),
                _ => {}
            }
        }
    }

    pub(crate) fn lose(&self, now_ms: u64) {
        let mut gate = Gate::default();
        gate.lose(now_ms, self.options.skew_s);
        let from = gate.blind_until.map_or(0, |until| until.saturating_add(1));
        self.sighted_from.fetch_max(from, Relaxed);
    }

    pub(crate) fn gate(&self) -> Gate {
        let purged_exp = self.purged_exp.load(Relaxed);
        Gate { purged_exp, blind_until: self.sighted_from.load(Relaxed).checked_sub(1) }
    }

    fn read_stats(&self) -> Stats {
        let (mut entries, mut in_flight) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            entries += shard.len() as u64;
            in_flight += shard.in_flight() as u64;
        }
        let gate = self.gate();
        Stats {
            entries,
            in_flight,
            senders: self.ledger.lock().senders(),
            reply_bytes: self.reply_bytes.load(Relaxed),
            purged_exp: gate.purged_exp,
            blind_until: gate.blind_until,
            ..self.counters.read()
        }
    }

    fn key(&self, key: &ClaimKey) -> u128 {
        let mut hasher = self.keys;
        key.encode_rest(&mut hasher);
        hasher.finish()
    }

    fn digest(&self, digest: &Digest) -> u64 {
        let mut hasher = self.digests;
        cbor::bytes(&mut hasher, digest.as_bytes());
        hasher.finish() as u64
    }

    #[allow(clippy::indexing_slicing, reason = "64 shards, six bits")]
    fn shard(&self, key: u128) -> &Mutex<Shard> {
        // The index inside the shard goes by the low word.
        &self.shards[(key >> 122) as usize]
    }
}

impl fmt::Debug for MemoryClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryClaims").field("options", &self.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl ClaimStore for MemoryClaims {
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        Ok(self.try_claim(&request))
    }

    fn claim_now(&self, request: &ClaimRequest) -> Option<ClaimOutcome> {
        Some(self.try_claim(request))
    }

    fn complete_now(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, Completion> {
        Ok(self.try_complete(key, grant, completion))
    }

    async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError> {
        Ok(self.try_complete(key, grant, completion))
    }

    async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError> {
        Ok(self.try_extend(key, grant, until_ms))
    }

    async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError> {
        Ok(self.try_answer(key, error))
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError> {
        Ok(self.sweep_now(&request))
    }

    async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError> {
        self.lose(now_ms);
        Ok(())
    }

    async fn held_by(&self, sender: &Party) -> Result<u64, StoreError> {
        Ok(self.ledger.lock().held_by(sender))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(self.read_stats())
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::conformance::{self, NOW_MS, NOW_S, request};

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms() {
        let fresh = |options| async move {
            Ok(Arc::new(MemoryClaims::for_new_bus(options)) as Arc<dyn ClaimStore>)
        };
        conformance::run(fresh).await.unwrap();
    }

    #[test]
    fn a_start_forgets() {
        let store = MemoryClaims::new(StoreOptions::default(), NOW_MS);
        let before = ClaimRequest { iat: NOW_S + 120, exp: NOW_S + 600, ..request(1) };
        assert_eq!(store.try_claim(&before), ClaimOutcome::Refused(Refused::BeforeStart));
        let after = ClaimRequest { iat: NOW_S + 121, ..before };
        assert!(matches!(store.try_claim(&after), ClaimOutcome::Granted(_)));
    }
}
