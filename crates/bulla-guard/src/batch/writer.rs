//! The one task that writes: it gathers what is waiting into one transaction, and lets nobody
//! hear of an outcome before that transaction is on disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bulla_seal::{Digest, Party};
use sqlx::Error;
use tokio::sync::{mpsc, oneshot};

use super::backend::{Backend, Ended, signed};
use super::set::{Claim, First, Ledger, Note, Work, WorkingSet, told};
use crate::claim::{Action, Event, step};
use crate::counters::Counters;
use crate::key::ClaimKey;
use crate::store::{Expired, Grant, Stats, StoreError, StoreOptions, SweepRequest, Swept};

/// Most transitions in one transaction.
pub(super) const BATCH: usize = 128;
/// Most ids that are forgotten in one transaction: nobody claims meanwhile.
const PURGE: u64 = 1000;
/// How often a transaction that met a deadlock, or a lost connection, is begun again.
const TRIES: u32 = 5;

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something for the writer to do.
pub(super) enum Job {
    Step(Step),
    Sweep(SweepRequest, Answer<Swept>),
    Lose(u64, Answer<()>),
    HeldBy(Party, Answer<u64>),
    Stats(Answer<Stats>),
    Close(oneshot::Sender<()>),
}

/// One transition of one claim.
pub(super) struct Step {
    pub(super) key: ClaimKey,
    pub(super) event: Event<Digest>,
    /// What a first claim needs beside the event.
    pub(super) first: Option<First>,
    pub(super) answer: Answer<Action>,
}

pub(crate) struct Writer<B> {
    pub(super) backend: B,
    pub(super) options: StoreOptions,
    pub(super) counters: Arc<Counters>,
    /// How far the store's clock was ahead of this host's at the last claim, in milliseconds.
    pub(super) ahead_ms: i64,
}

/// Where a transaction failed.
struct Failed {
    error: Error,
    /// It was being committed, so nobody knows whether it was.
    committing: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, committing: false }
    }
}

impl<B: Backend> Writer<B> {
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut waiting = Vec::with_capacity(BATCH);
        while jobs.recv_many(&mut waiting, BATCH).await > 0 {
            let mut steps = Vec::with_capacity(waiting.len());
            for job in waiting.drain(..) {
                if let Job::Step(step) = job {
                    steps.push(step);
                    continue;
                }
                // Whatever came before a job of another kind is done before it.
                self.steps(std::mem::take(&mut steps)).await;
                if let Some(closed) = self.other(job).await {
                    jobs.close();
                    self.backend.close().await;
                    let _ = closed.send(());
                    return;
                }
            }
            self.steps(steps).await;
        }
        self.backend.close().await;
    }

    async fn other(&mut self, job: Job) -> Option<oneshot::Sender<()>> {
        match job {
            Job::Step(step) => self.steps(vec![step]).await,
            Job::Sweep(request, answer) => {
                let swept = self.sweep(&request).await;
                if let Ok(swept) = &swept {
                    self.counters.swept(swept);
                }
                let _ = answer.send(swept);
            }
            Job::Lose(now_ms, answer) => {
                let _ = answer.send(self.lose(now_ms).await);
            }
            Job::HeldBy(party, answer) => {
                let held = self.backend.held_by(&party).await;
                let _ = answer.send(held.map_err(|error| self.backend.failed(&error)));
            }
            Job::Stats(answer) => {
                let stats = self.stats().await;
                let _ = answer.send(stats.map_err(|error| self.backend.failed(&error)));
            }
            Job::Close(closed) => return Some(closed),
        }
        None
    }

    async fn steps(&mut self, steps: Vec<Step>) {
        if steps.is_empty() {
            return;
        }
        let mut answers = Vec::with_capacity(steps.len());
        let mut work = Vec::with_capacity(steps.len());
        for Step { key, event, first, answer } in steps {
            answers.push(answer);
            work.push((key.to_bytes(), key.sender, event, first));
        }
        match self.transact(&work).await {
            Ok(actions) => {
                for (answer, (action, note)) in answers.into_iter().zip(actions) {
                    self.count(&action, note);
                    let _ = answer.send(Ok(action));
                }
            }
            Err(error) => {
                tracing::error!(%error, claims = answers.len(), "claims could not be stored");
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Ends a transaction that failed. Says whether it may be begun again.
    async fn again(&mut self, failed: Failed, tries: &mut u32) -> Result<(), StoreError> {
        *tries += 1;
        let story = self.backend.failed(&failed.error);
        let may = match self.backend.give_up(&failed.error).await {
            Ended::ForGood => false,
            Ended::InTheWay => true,
            Ended::Cut => !failed.committing,
        };
        if !may || *tries >= TRIES {
            return Err(story);
        }
        tracing::debug!(error = %story, "the transaction is begun again");
        tokio::time::sleep(Duration::from_millis(u64::from(*tries) * 10)).await;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Failed> {
        self.backend.commit().await.map_err(|error| Failed { error, committing: true })
    }

    async fn transact(&mut self, work: &[Work]) -> Result<Vec<(Action, Note)>, StoreError> {
        let mut tries = 0;
        loop {
            match self.try_transact(work.to_vec()).await {
                Ok(actions) => return Ok(actions),
                Err(failed) => self.again(failed, &mut tries).await?,
            }
        }
    }

    async fn try_transact(&mut self, work: Vec<Work>) -> Result<Vec<(Action, Note)>, Failed> {
        let (before, now_ms) = self.backend.begin().await?;
        let keys: Vec<&[u8]> = work.iter().map(|(key, ..)| key.as_slice()).collect();
        let claims = self.backend.claims(&keys).await?;
        let mut parties: Vec<&Party> =
            work.iter().filter(|work| work.3.is_some()).map(|work| &work.1).collect();
        parties.sort_unstable();
        parties.dedup();
        let mut senders: HashMap<Party, Option<_>> =
            parties.iter().map(|party| ((*party).clone(), None)).collect();
        for (party, sender) in self.backend.senders(&parties).await? {
            senders.insert(party, Some(sender));
        }
        let mut set =
            WorkingSet { ledger: before.clone(), claims, senders, options: &self.options };
        let mut actions = Vec::with_capacity(work.len());
        for (key, party, event, first) in work {
            let event = by_clock(event, now_ms, &mut self.ahead_ms);
            let (action, note) = set.apply((key, party, event, first));
            actions.push((told(action, self.ahead_ms), note));
        }
        let changed: Vec<_> = set.claims.iter().filter(|(_, claim)| claim.changed).collect();
        self.backend.save_claims(&changed).await?;
        let changed: Vec<_> = set
            .senders
            .iter()
            .filter_map(|(party, sender)| sender.as_ref().map(|sender| (party, sender)))
            .filter(|(_, sender)| sender.changed)
            .collect();
        self.backend.save_senders(&changed).await?;
        if set.ledger != before {
            self.backend.save_ledger(&set.ledger).await?;
        }
        self.commit().await?;
        Ok(actions)
    }

    fn count(&self, action: &Action, note: Note) {
        match action {
            Action::Claim(outcome) => self.counters.claimed(outcome),
            Action::Complete(completed) => self.counters.completed(*completed),
            _ => {}
        }
        if note.in_doubt && matches!(action, Action::Claim(_)) {
            self.counters.fell_in_doubt();
        }
        if note.reply_dropped {
            self.counters.reply_dropped();
        }
    }

    async fn sweep(&mut self, request: &SweepRequest) -> Result<Swept, StoreError> {
        let mut tries = 0;
        let mut swept = loop {
            match self.settle_leases(request).await {
                Ok(swept) => break swept,
                Err(failed) => self.again(failed, &mut tries).await?,
            }
        };
        loop {
            match self.purge(request).await {
                Ok(purged) => {
                    swept.purged += purged;
                    if purged < PURGE {
                        return Ok(swept);
                    }
                }
                Err(failed) => self.again(failed, &mut tries).await?,
            }
        }
    }

    async fn settle_leases(&mut self, request: &SweepRequest) -> Result<Swept, Failed> {
        let (_, own) = self.backend.begin().await?;
        let now_ms = own.unwrap_or(request.now_ms);
        self.ahead_ms = ahead(now_ms, request.now_ms);
        let mut swept = Swept::default();
        let mut changed = Vec::new();
        for (bytes, claim) in self.backend.expired(now_ms).await? {
            let key = ClaimKey::from_bytes(&bytes)
                .ok_or_else(|| Error::Decode("a key that is none".into()))?;
            let runner = claim.envelope.as_ref().map(|_| (request.worker, request.lease_ms));
            let envelope = claim.envelope.clone();
            let (record, action) = step(Some(claim.record), Event::Sweep { now_ms, runner });
            let expired = Expired { key, envelope };
            match action {
                Action::InDoubt => swept.in_doubt.push(expired),
                Action::Run(grant) => {
                    let until_ms =
                        grant.until_ms.saturating_add_signed(self.ahead_ms.saturating_neg());
                    swept.taken_over.push((expired, Grant { until_ms, ..grant }));
                }
                _ => continue,
            }
            if let Some(record) = record {
                changed.push((bytes, Claim { record, changed: true, ..claim }));
            }
        }
        let changed: Vec<_> = changed.iter().map(|(key, claim)| (key, claim)).collect();
        self.backend.save_claims(&changed).await?;
        self.commit().await?;
        Ok(swept)
    }

    async fn purge(&mut self, request: &SweepRequest) -> Result<u64, Failed> {
        let (mut ledger, own) = self.backend.begin().await?;
        let now_ms = own.unwrap_or(request.now_ms);
        // The same bound as `Gate::is_over`, in the form that an index serves.
        let bound = signed((now_ms / 1000).saturating_sub(self.options.skew_s));
        let gone = self.backend.purge(bound, now_ms, PURGE).await?;
        let mut by_sender: HashMap<i64, u64> = HashMap::new();
        for row in &gone {
            ledger.gate.purged_exp = ledger.gate.purged_exp.max(row.exp);
            ledger.reply_bytes = ledger.reply_bytes.saturating_sub(row.bytes);
            *by_sender.entry(row.sender).or_default() += 1;
        }
        ledger.entries = ledger.entries.saturating_sub(gone.len() as u64);
        for (sender, gone) in by_sender {
            let left = self.backend.give_back(sender, gone).await?;
            self.give_back(&mut ledger, left, gone);
        }
        if !gone.is_empty() {
            self.backend.save_ledger(&ledger).await?;
        }
        self.commit().await?;
        Ok(gone.len() as u64)
    }

    fn give_back(&self, ledger: &mut Ledger, left: u64, gone: u64) {
        let shared = |ids: u64| ids.saturating_sub(self.options.limits.per_sender);
        ledger.shared = ledger.shared.saturating_sub(shared(left + gone) - shared(left));
        ledger.senders = ledger.senders.saturating_sub(u64::from(left == 0));
    }

    async fn lose(&mut self, now_ms: u64) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            match self.try_lose(now_ms).await {
                Ok(()) => return Ok(()),
                Err(failed) => self.again(failed, &mut tries).await?,
            }
        }
    }

    async fn try_lose(&mut self, now_ms: u64) -> Result<(), Failed> {
        let (mut ledger, own) = self.backend.begin().await?;
        ledger.gate.lose(own.unwrap_or(now_ms), self.options.skew_s);
        self.backend.save_ledger(&ledger).await?;
        self.commit().await
    }

    async fn stats(&mut self) -> Result<Stats, Error> {
        let (ledger, in_flight) = self.backend.held().await?;
        Ok(Stats {
            entries: ledger.entries,
            in_flight,
            senders: ledger.senders,
            reply_bytes: ledger.reply_bytes,
            purged_exp: ledger.gate.purged_exp,
            blind_until: ledger.gate.blind_until,
            ..self.counters.read()
        })
    }
}

/// The event by the store's own clock, if it has one.
fn by_clock(event: Event<Digest>, own: Option<u64>, ahead_ms: &mut i64) -> Event<Digest> {
    let Some(own) = own else { return event };
    match event {
        Event::Claim { digest, worker, now_ms, lease_ms, idempotent } => {
            *ahead_ms = ahead(own, now_ms);
            Event::Claim { digest, worker, now_ms: own, lease_ms, idempotent }
        }
        Event::Extend { grant, until_ms } => {
            let until_ms = until_ms.saturating_add_signed(*ahead_ms);
            Event::Extend { grant, until_ms }
        }
        other => other,
    }
}

/// How far the store's clock is ahead.
fn ahead(store_ms: u64, host_ms: u64) -> i64 {
    let ahead = i128::from(store_ms) - i128::from(host_ms);
    i64::try_from(ahead).unwrap_or_default()
}
