//! Chance against two stores at once: whatever happens, they must say the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulla_seal::Digest;
use bytes::Bytes;

use super::{NOW_MS, NOW_S, digest, key};
use crate::claim::Limits;
use crate::key::{ClaimKey, Worker};
use crate::memory::MemoryClaims;
use crate::store::{
    ClaimOutcome, ClaimRequest, ClaimStore, Completion, Grant, Reply, StoreError, StoreOptions,
    SweepRequest, Swept,
};

/// The memory store forgets in steps of so many seconds, and what was held past its expiry later
/// still: times here fall where both are exact, and nothing is claimed or extended past its expiry.
const STEP_S: u64 = 16;
const OPTIONS: StoreOptions = StoreOptions {
    limits: Limits { senders: 3, per_sender: 3, shared: 4, reply_bytes: 100 },
    skew_s: 8 * STEP_S,
};

/// Drives a fresh store and a [`MemoryClaims`] through `steps` random happenings for each seed.
///
/// # Panics
/// When the two do not say the same.
pub async fn agrees_with_memory<F>(
    fresh: impl Fn(StoreOptions) -> F,
    seeds: std::ops::Range<u64>,
    steps: usize,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<Arc<dyn ClaimStore>, StoreError>>,
{
    for seed in seeds {
        let store = fresh(OPTIONS).await?;
        let memory = MemoryClaims::for_new_bus(OPTIONS);
        let mut world = World {
            seed,
            chance: Chance(seed),
            now_s: NOW_S,
            grants: Vec::new(),
            ends: BTreeMap::new(),
            swept_s: 0,
        };
        for step in 0..steps {
            world.happen(step, &*store, &memory).await?;
        }
    }
    Ok(())
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

struct World {
    seed: u64,
    chance: Chance,
    now_s: u64,
    grants: Vec<(ClaimKey, Grant)>,
    /// The `exp` that each key has for now.
    ends: BTreeMap<ClaimKey, u64>,
    /// When the sweeper last came by.
    swept_s: u64,
}

impl World {
    fn now_ms(&self) -> u64 {
        NOW_MS + (self.now_s - NOW_S) * 1000
    }

    fn lease_ms(&mut self) -> u64 {
        (1 + STEP_S * self.chance.below(6)) * 1000
    }

    fn worker(&mut self) -> Worker {
        Worker(u64::MAX - self.chance.below(3))
    }

    fn reply(&mut self) -> Option<Reply> {
        let (named, size) = (self.chance.below(3), self.chance.below(40));
        let digest = Digest([named as u8; Digest::LEN]);
        match self.chance.below(5) {
            0 => None,
            1 => Some(Reply::with_digest(digest, None)),
            _ => Some(Reply::new(Bytes::from(vec![named as u8; size as usize]))),
        }
    }

    fn request(&mut self) -> ClaimRequest {
        let n = u128::from(self.chance.below(9));
        let senders = ["agent/a", "agent/b", "component/c", "agent/d"];
        let sender = senders.get(self.chance.below(4) as usize).copied().unwrap_or("agent/a");
        let conflict = u128::from(self.chance.one_in(12)) << 64;
        let envelope = Bytes::from(n.to_be_bytes().to_vec());
        let key = key(sender, n);
        let exp = self.now_s + STEP_S * self.chance.below(12) + STEP_S - 1;
        let exp = *self.ends.entry(key.clone()).or_insert(exp);
        ClaimRequest {
            key,
            digest: digest(n | conflict),
            iat: self.now_s - self.chance.below(2 * OPTIONS.skew_s),
            exp,
            // As methods are: what a message asks for is idempotent or not.
            idempotent: n % 2 == 0 || self.chance.one_in(20),
            worker: self.worker(),
            now_ms: self.now_ms(),
            lease_ms: self.lease_ms(),
            envelope: self.chance.one_in(2).then_some(envelope),
        }
    }

    /// A grant of some time, perhaps long lost.
    fn grant(&mut self) -> Option<(ClaimKey, Grant)> {
        let count = self.grants.len() as u64;
        let at = self.chance.below(count.max(1)) as usize;
        let (key, mut grant) = self.grants.get(at).cloned()?;
        grant.attempt += u32::from(self.chance.one_in(12));
        Some((key, grant))
    }

    async fn happen(
        &mut self,
        step: usize,
        store: &dyn ClaimStore,
        memory: &MemoryClaims,
    ) -> Result<(), StoreError> {
        let at = format!("seed {}, step {step}", self.seed);
        match self.chance.below(20) {
            0..8 => self.claim(&at, store, memory).await?,
            8..13 => {
                let Some((key, grant)) = self.grant() else { return Ok(()) };
                let reply = self.reply();
                let completion = match self.chance.one_in(8) {
                    false => Completion::Done { reply },
                    true => Completion::InDoubt { error: reply },
                };
                let expected = memory.complete(&key, grant, completion.clone()).await?;
                let said = store.complete(&key, grant, completion.clone()).await?;
                assert_eq!(said, expected, "{at}: {key:?} {grant:?} {completion:?}");
            }
            13 => {
                let Some((key, grant)) = self.grant() else { return Ok(()) };
                if self.ends.get(&key).is_none_or(|end| *end < self.now_s) {
                    return Ok(());
                }
                let until_ms = self.now_ms() + self.lease_ms();
                let expected = memory.extend(&key, grant, until_ms).await?;
                assert_eq!(store.extend(&key, grant, until_ms).await?, expected, "{at}");
            }
            14 => {
                let request = self.request();
                let Some(reply) = self.reply() else { return Ok(()) };
                let expected = memory.answer_in_doubt(&request.key, reply.clone()).await?;
                let said = store.answer_in_doubt(&request.key, reply).await?;
                assert_eq!(said, expected, "{at}: {:?}", request.key);
            }
            15 if self.swept_s < self.now_s => self.sweep(&at, store, memory).await?,
            16 if self.chance.one_in(12) => {
                let now_ms = self.now_ms();
                memory.declare_lost(now_ms).await?;
                store.declare_lost(now_ms).await?;
            }
            _ => self.now_s += STEP_S * self.chance.below(3),
        }
        assert_eq!(store.stats().await?, memory.stats().await?, "{at}");
        Ok(())
    }

    async fn claim(
        &mut self,
        at: &str,
        store: &dyn ClaimStore,
        memory: &MemoryClaims,
    ) -> Result<(), StoreError> {
        let request = self.request();
        if request.exp < self.now_s {
            return Ok(());
        }
        let expected = memory.claim(request.clone()).await?;
        let said = store.claim(request.clone()).await?;
        assert_eq!(said, expected, "{at}: {request:?}");
        if let ClaimOutcome::Granted(grant) = said {
            self.grants.push((request.key.clone(), grant));
        }
        let sender = &request.key.sender;
        assert_eq!(store.held_by(sender).await?, memory.held_by(sender).await?, "{at}: {sender}");
        Ok(())
    }

    async fn sweep(
        &mut self,
        at: &str,
        store: &dyn ClaimStore,
        memory: &MemoryClaims,
    ) -> Result<(), StoreError> {
        let (now_ms, worker, lease_ms) = (self.now_ms(), self.worker(), 1000);
        // What was over when the sweeper last came is gone now: its key may be a new message's.
        let gone_s = std::mem::replace(&mut self.swept_s, self.now_s);
        self.ends.retain(|_, end| *end + OPTIONS.skew_s >= gone_s);
        let request = SweepRequest { now_ms, worker, lease_ms };
        let expected = memory.sweep(request).await?;
        let said = store.sweep(request).await?;
        assert_eq!(said.purged, expected.purged, "{at}");
        assert_eq!(by_key(&said), by_key(&expected), "{at}");
        for (expired, grant) in said.taken_over {
            // It stays for a while, however old it is.
            self.ends.entry(expired.key.clone()).or_insert(0);
            self.grants.push((expired.key, grant));
        }
        Ok(())
    }
}

/// In no order but the keys'.
fn by_key(swept: &Swept) -> BTreeMap<&ClaimKey, (Option<&Bytes>, Option<Grant>)> {
    let doubted = swept.in_doubt.iter().map(|expired| (expired, None));
    let taken = swept.taken_over.iter().map(|(expired, grant)| (expired, Some(*grant)));
    let all = doubted.chain(taken);
    all.map(|(expired, grant)| (&expired.key, (expired.envelope.as_ref(), grant))).collect()
}
