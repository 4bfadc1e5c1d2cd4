//! Claims in Redis, for any number of hosts.

mod link;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use async_trait::async_trait;
use bulla_seal::{Digest, Party};

use self::link::{Call, Link};
use self::read::Reader;
use crate::counters::Counters;
use crate::key::{ClaimKey, Worker};
use crate::store::{
    ClaimOutcome, ClaimRequest, ClaimStore, Completed, Completion, Duplicate, Expired, Grant, Lost,
    NewStore, Reply, Stats, StoreError, StoreOptions, SweepRequest, Swept,
};

/// Claims that one script looks at when it sweeps: Redis does nothing else meanwhile.
const AT_A_TIME: u64 = 500;

/// How to open a store in Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user][:password@]host[:port][/number]`, or `rediss://` for TLS with the
    /// machine's certificate authorities.
    pub url: String,
    /// Limits and skew; the same on every host.
    pub store: StoreOptions,
    /// What it means that the store is empty. On a bus that was there before, it may be lost.
    pub new_store: NewStore,
    /// Goes before the name of every key, so that several stores can be on one Redis.
    pub prefix: String,
}

impl RedisOptions {
    /// With default limits and skew, and the prefix `bulla`.
    pub fn new(url: impl Into<String>, new_store: NewStore) -> Self {
        let (url, prefix) = (url.into(), "bulla".to_owned());
        Self { url, store: StoreOptions::default(), new_store, prefix }
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL holds the password.
        f.debug_struct("RedisOptions")
            .field("store", &self.store)
            .field("new_store", &self.new_store)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Claims in Redis: one round trip a claim, decided by a script inside Redis and by its clock.
///
/// # What has to hold
///
/// Redis must never evict: [`RedisClaims::open`] refuses any `maxmemory-policy` but `noeviction`.
///
/// # What a crash of Redis costs
///
/// With `appendonly yes` and `appendfsync always`, nothing: what was granted or completed is on
/// its disk before anybody hears of it. With any other settings a crash loses the last writes, and
/// so a restart counts as a lost store: everything issued up to then and the skew after is
/// refused. A store that was emptied counts as lost under any settings. A restart is noticed
/// because Redis forgets its scripts: no host runs one before a host has judged the restart. That
/// a *replica* was promoted is not noticed, and a replica may lack what its primary answered: run
/// claims without automatic failover.
///
/// # Clocks
///
/// `now_ms` of requests tells this host's clock only, in which answers are given: leases, purges
/// and losses go by Redis's.
pub struct RedisClaims {
    link: Link,
    options: StoreOptions,
    clock: StoreClock,
    /// How far Redis's clock was ahead of this host's at the last claim, in milliseconds.
    ahead_ms: AtomicI64,
    counters: Counters,
}

/// Whose clock decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreClock {
    Own,
    /// The requests': for the conformance module, which makes time up.
    #[cfg(any(test, feature = "conformance"))]
    OfRequest,
}

impl RedisClaims {
    /// Connects, checks that Redis keeps what it is given, and judges what its state means.
    pub async fn open(options: RedisOptions) -> Result<Self, StoreError> {
        let store = options.store;
        let link = Link::open(options).await?;
        Ok(Self {
            link,
            options: store,
            clock: StoreClock::Own,
            ahead_ms: AtomicI64::new(0),
            counters: Counters::default(),
        })
    }

    /// Goes by the clock of requests instead of Redis's, for the conformance module.
    #[cfg(any(test, feature = "conformance"))]
    #[must_use]
    pub fn with_clock_of_requests(mut self) -> Self {
        self.clock = StoreClock::OfRequest;
        self
    }

    #[cfg_attr(
        not(any(test, feature = "conformance")),
        expect(unused_variables, reason = "only a test looks at it")
    )]
    fn now(&self, now_ms: u64) -> Option<u64> {
        match self.clock {
            StoreClock::Own => None,
            #[cfg(any(test, feature = "conformance"))]
            StoreClock::OfRequest => Some(now_ms),
        }
    }

    fn call(&self, now_ms: u64) -> Call {
        Call::new(self.now(now_ms), self.options.skew_s)
    }

    /// In this host's clock.
    fn local(&self, store_ms: u64) -> u64 {
        store_ms.saturating_add_signed(self.ahead_ms.load(Relaxed).saturating_neg())
    }

    fn observe(&self, store_ms: u64, now_ms: u64) {
        let ahead = i128::from(store_ms) - i128::from(now_ms);
        self.ahead_ms.store(i64::try_from(ahead).unwrap_or_default(), Relaxed);
    }

    fn claimed(&self, worker: Worker, answer: &Reader) -> Result<ClaimOutcome, StoreError> {
        Ok(match answer.word(0)? {
            "granted" => {
                let attempt = u32::try_from(answer.number(2)?).unwrap_or(u32::MAX);
                let until_ms = self.local(answer.number(3)?);
                ClaimOutcome::Granted(Grant { worker, attempt, until_ms })
            }
            "held" => Duplicate::Held { until_ms: self.local(answer.number(2)?) }.into(),
            "done" => Duplicate::Done { reply: answer.reply(2)? }.into(),
            "in-doubt" => {
                if answer.has(4) {
                    self.counters.fell_in_doubt();
                }
                Duplicate::InDoubt { error: answer.reply(2)? }.into()
            }
            _ => ClaimOutcome::Refused(answer.refused(2)?),
        })
    }

    fn stored(&self, answer: &Reader) -> Result<(), StoreError> {
        if answer.number(1)? == 1 {
            self.counters.reply_dropped();
        }
        Ok(())
    }

    async fn settle(&self, request: &SweepRequest, swept: &mut Swept) -> Result<(), StoreError> {
        let mut left = 0;
        loop {
            let mut call = self.call(request.now_ms);
            call.arg(worker(request.worker)).number(request.lease_ms);
            call.arg(self.link.claim_prefix()).number(AT_A_TIME).number(left);
            let answer = self.link.run(self.link.scripts.settle(), None, &call).await?;
            self.observe(answer.number(0)?, request.now_ms);
            left += answer.number(2)?;
            for row in answer.rows(3)? {
                let expired = Expired { key: row.key(0)?, envelope: row.bytes(1)? };
                match u32::try_from(row.number(2)?).unwrap_or(u32::MAX) {
                    0 => swept.in_doubt.push(expired),
                    attempt => {
                        let until_ms = self.local(row.number(3)?);
                        let grant = Grant { worker: request.worker, attempt, until_ms };
                        swept.taken_over.push((expired, grant));
                    }
                }
            }
            if answer.number(1)? < AT_A_TIME {
                return Ok(());
            }
        }
    }

    async fn purge(&self, request: &SweepRequest, swept: &mut Swept) -> Result<(), StoreError> {
        let mut left = 0;
        loop {
            let mut call = self.call(request.now_ms);
            call.arg(self.link.claim_prefix()).number(AT_A_TIME).number(left);
            call.number(self.options.limits.per_sender);
            let answer = self.link.run(self.link.scripts.purge(), None, &call).await?;
            left += answer.number(1)?;
            swept.purged += answer.number(2)?;
            if answer.number(0)? < AT_A_TIME {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for RedisClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClaims").field("address", &self.link.address()).finish_non_exhaustive()
    }
}

#[async_trait]
impl ClaimStore for RedisClaims {
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        let ClaimRequest { key, digest, envelope, .. } = request;
        let (id, limits) = (id(&key), self.options.limits);
        let mut call = self.call(request.now_ms);
        call.arg(digest.as_bytes()).arg(worker(request.worker)).number(request.lease_ms);
        call.flag(request.idempotent).number(request.iat).number(request.exp);
        call.arg(key.sender.to_string()).arg(key.to_bytes());
        call.flag(envelope.is_some()).arg(envelope.as_deref().unwrap_or_default());
        call.number(limits.senders).number(limits.per_sender).number(limits.shared);
        call.arg(id.as_bytes());
        let answer = self.link.run(self.link.scripts.claim(), Some(&id), &call).await?;
        self.observe(answer.number(1)?, request.now_ms);
        let outcome = self.claimed(request.worker, &answer)?;
        self.counters.claimed(&outcome);
        Ok(outcome)
    }

    async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError> {
        let id = id(key);
        let (state, reply) = match &completion {
            Completion::Done { reply } => ("done", reply),
            Completion::InDoubt { error } => ("in-doubt", error),
        };
        let mut call = Call::new(None, self.options.skew_s);
        call.arg(worker(grant.worker)).number(grant.attempt.into()).arg(state);
        call.reply(reply.as_ref()).number(self.options.limits.reply_bytes).arg(id.as_bytes());
        let answer = self.link.run(self.link.scripts.complete(), Some(&id), &call).await?;
        let completed = match answer.lost(0)? {
            Some(lost) => Completed::Lost(lost),
            None => Completed::Stored,
        };
        self.stored(&answer)?;
        self.counters.completed(completed);
        Ok(completed)
    }

    async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError> {
        let id = id(key);
        let until_ms = until_ms.saturating_add_signed(self.ahead_ms.load(Relaxed));
        let mut call = Call::new(None, self.options.skew_s);
        call.arg(worker(grant.worker)).number(grant.attempt.into());
        call.number(until_ms).arg(id.as_bytes());
        let answer = self.link.run(self.link.scripts.extend(), Some(&id), &call).await?;
        if let Some(lost) = answer.lost(0)? {
            return Ok(Err(lost));
        }
        Ok(Ok(Grant { until_ms: self.local(answer.number(1)?), ..grant }))
    }

    async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError> {
        let id = id(key);
        let mut call = Call::new(None, self.options.skew_s);
        call.reply(Some(&error)).number(self.options.limits.reply_bytes);
        let answer = self.link.run(self.link.scripts.answer(), Some(&id), &call).await?;
        self.stored(&answer)?;
        match answer.word(0)? {
            "yours" => Ok(Some(error)),
            "standing" => answer.reply(2),
            _ => Ok(None),
        }
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        self.settle(&request, &mut swept).await?;
        self.purge(&request, &mut swept).await?;
        self.counters.swept(&swept);
        Ok(swept)
    }

    async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError> {
        let call = self.call(now_ms);
        self.link.run(self.link.scripts.lose(), None, &call).await.map(drop)
    }

    async fn held_by(&self, sender: &Party) -> Result<u64, StoreError> {
        self.link.held_by(&sender.to_string()).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let held = self.link.held().await?;
        Ok(Stats {
            entries: held.entries,
            in_flight: held.in_flight,
            senders: held.senders,
            reply_bytes: held.reply_bytes,
            purged_exp: held.gate.purged_exp,
            blind_until: held.gate.blind_until,
            ..self.counters.read()
        })
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// What stands for a key in the names of Redis.
fn id(key: &ClaimKey) -> Digest {
    Digest::of(&key.to_bytes())
}

fn worker(worker: Worker) -> String {
    worker.to_string()
}
