//! The one task that writes: it gathers what is waiting into one transaction, and lets nobody
//! hear of an outcome before that transaction is on disk.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bulla_seal::{Digest, Party};
use bytes::Bytes;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Error, Row};
use tokio::sync::{mpsc, oneshot};

use super::rows::{self, Claim, Ledger, Sender, signed, unsigned};
use crate::claim::{Action, Event, State, Usage, step};
use crate::counters::Counters;
use crate::key::ClaimKey;
use crate::store::{
    ClaimOutcome, Completed, Expired, Lost, Refused, Reply, Stats, StoreError, StoreOptions,
    SweepRequest, Swept,
};

/// Most transitions in one transaction.
const BATCH: usize = 1024;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

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

/// What is judged and stored when a message is seen for the first time.
pub(super) struct First {
    pub(super) iat: u64,
    pub(super) exp: u64,
    pub(super) envelope: Option<Bytes>,
}

pub(super) struct Writer {
    pub(super) conn: SqliteConnection,
    pub(super) path: PathBuf,
    pub(super) options: StoreOptions,
    pub(super) counters: Arc<Counters>,
}

impl Writer {
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
                    let _ = self.conn.close().await;
                    let _ = closed.send(());
                    return;
                }
            }
            self.steps(steps).await;
        }
        let _ = self.conn.close().await;
    }

    async fn other(&mut self, job: Job) -> Option<oneshot::Sender<()>> {
        match job {
            Job::Step(step) => self.steps(vec![step]).await,
            Job::Sweep(request, answer) => {
                let swept = self.sweep(&request).await;
                if let Ok(swept) = &swept {
                    self.counters.swept(swept);
                }
                let _ = answer.send(swept.map_err(|error| self.failed(&error)));
            }
            Job::Lose(now_ms, answer) => {
                let lost = self.lose(now_ms).await;
                let _ = answer.send(lost.map_err(|error| self.failed(&error)));
            }
            Job::HeldBy(party, answer) => {
                let sender = rows::load_sender(&mut self.conn, &party).await;
                let held = sender.map(|sender| sender.map_or(0, |sender| sender.ids));
                let _ = answer.send(held.map_err(|error| self.failed(&error)));
            }
            Job::Stats(answer) => {
                let stats = self.stats().await;
                let _ = answer.send(stats.map_err(|error| self.failed(&error)));
            }
            Job::Close(closed) => return Some(closed),
        }
        None
    }

    fn failed(&self, error: &Error) -> StoreError {
        super::io_error(&self.path, error)
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
        match self.transact(work).await {
            Ok(actions) => {
                for (answer, (action, note)) in answers.into_iter().zip(actions) {
                    self.count(&action, note);
                    let _ = answer.send(Ok(action));
                }
            }
            Err(error) => {
                let error = self.failed(&error);
                tracing::error!(%error, claims = answers.len(), "claims could not be stored");
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn transact(&mut self, work: Vec<Work>) -> Result<Vec<(Action, Note)>, Error> {
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        let before = rows::load_ledger(&mut tx).await?;
        let keys: Vec<&[u8]> = work.iter().map(|(key, ..)| key.as_slice()).collect();
        let claims = rows::load(&mut tx, &keys).await?;
        let mut senders = HashMap::new();
        for (_, party, _, first) in &work {
            if first.is_some() && !senders.contains_key(party) {
                senders.insert(party.clone(), rows::load_sender(&mut tx, party).await?);
            }
        }
        let mut set =
            WorkingSet { ledger: before.clone(), claims, senders, options: &self.options };
        let actions = work.into_iter().map(|work| set.apply(work)).collect();
        rows::save(&mut tx, set.claims.iter()).await?;
        for (party, sender) in &set.senders {
            if let Some(sender) = sender.as_ref().filter(|sender| sender.changed) {
                rows::save_sender(&mut tx, party, sender).await?;
            }
        }
        if set.ledger != before {
            rows::save_ledger(&mut tx, &set.ledger).await?;
        }
        tx.commit().await?;
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

    async fn sweep(&mut self, request: &SweepRequest) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        settle_leases(&mut tx, request, &mut swept).await?;
        purge(&mut tx, request.now_ms, &self.options, &mut swept).await?;
        tx.commit().await?;
        Ok(swept)
    }

    async fn lose(&mut self, now_ms: u64) -> Result<(), Error> {
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        let mut ledger = rows::load_ledger(&mut tx).await?;
        ledger.gate.lose(now_ms, self.options.skew_s);
        rows::save_ledger(&mut tx, &ledger).await?;
        tx.commit().await
    }

    async fn stats(&mut self) -> Result<Stats, Error> {
        let ledger = rows::load_ledger(&mut self.conn).await?;
        let query = sqlx::query("SELECT count(*) FROM claim WHERE state = 0");
        let in_flight = query.fetch_one(&mut self.conn).await?.try_get(0)?;
        Ok(Stats {
            entries: ledger.entries,
            in_flight: unsigned(in_flight),
            senders: ledger.senders,
            reply_bytes: ledger.reply_bytes,
            purged_exp: ledger.gate.purged_exp,
            blind_until: ledger.gate.blind_until,
            ..self.counters.read()
        })
    }
}

type Work = (Vec<u8>, Party, Event<Digest>, Option<First>);

/// What to count beside the action.
#[derive(Default, Clone, Copy)]
struct Note {
    in_doubt: bool,
    reply_dropped: bool,
}

/// Everything that one transaction reads and changes.
struct WorkingSet<'a> {
    ledger: Ledger,
    claims: HashMap<Vec<u8>, Claim>,
    senders: HashMap<Party, Option<Sender>>,
    options: &'a StoreOptions,
}

impl WorkingSet<'_> {
    fn apply(&mut self, (key, party, event, first): Work) -> (Action, Note) {
        let Some(claim) = self.claims.get_mut(&key) else {
            return (self.absent(key, party, event, first), Note::default());
        };
        let before = claim.record.clone();
        let (record, action) = step(Some(before.clone()), event);
        let mut note = Note::default();
        let Some(mut record) = record else { return (action, note) };
        if record == before {
            return (action, note);
        }
        note.in_doubt =
            matches!(record.state, State::InDoubt(_)) && !matches!(before.state, State::InDoubt(_));
        let used = self.ledger.reply_bytes.saturating_sub(size(&before.state));
        let mut grown = used.saturating_add(size(&record.state));
        if grown > self.options.limits.reply_bytes && grown > self.ledger.reply_bytes {
            note.reply_dropped = true;
            drop_bytes(&mut record.state);
            grown = used;
        }
        self.ledger.reply_bytes = grown;
        claim.record = record;
        claim.changed = true;
        (action, note)
    }

    fn absent(
        &mut self,
        key: Vec<u8>,
        party: Party,
        event: Event<Digest>,
        first: Option<First>,
    ) -> Action {
        let Some(first) = first else { return step(None, event).1 };
        let sender = match self.admit(&party, &first) {
            Ok(sender) => sender,
            Err(refused) => return Action::Claim(ClaimOutcome::Refused(refused)),
        };
        let (record, action) = step(None, event);
        if let Some(record) = record {
            let First { exp, envelope, .. } = first;
            self.claims.insert(key, Claim { sender, exp, record, envelope, changed: true });
        }
        action
    }

    /// Judges a message never seen and takes a place for it; returns its sender's number.
    fn admit(&mut self, party: &Party, first: &First) -> Result<i64, Refused> {
        let ledger = &mut self.ledger;
        ledger.gate.judge(first.iat, first.exp)?;
        let known = self.senders.entry(party.clone()).or_default();
        let own = known.as_ref().map_or(0, |sender| sender.ids);
        let usage = Usage { senders: ledger.senders, shared: ledger.shared };
        let admitted = self.options.limits.admit(own, usage)?;
        let sender = known.get_or_insert_with(|| {
            let id = ledger.next_sender;
            ledger.next_sender += 1;
            Sender { id, ids: 0, changed: true }
        });
        ledger.senders += u64::from(sender.ids == 0);
        ledger.shared += u64::from(admitted.shared);
        ledger.entries += 1;
        sender.ids += 1;
        sender.changed = true;
        Ok(sender.id)
    }
}

async fn settle_leases(
    tx: &mut SqliteConnection,
    request: &SweepRequest,
    swept: &mut Swept,
) -> Result<(), Error> {
    let mut changed = Vec::new();
    for (bytes, mut claim) in rows::load_expired(tx, request.now_ms).await? {
        let key = ClaimKey::from_bytes(&bytes)
            .ok_or_else(|| Error::Decode("a key that is none".into()))?;
        let runner = claim.envelope.as_ref().map(|_| (request.worker, request.lease_ms));
        let event = Event::Sweep { now_ms: request.now_ms, runner };
        let envelope = claim.envelope.clone();
        let (record, action) = step(Some(claim.record), event);
        match action {
            Action::InDoubt => swept.in_doubt.push(Expired { key, envelope }),
            Action::Run(grant) => swept.taken_over.push((Expired { key, envelope }, grant)),
            _ => continue,
        }
        if let Some(record) = record {
            claim = Claim { record, changed: true, ..claim };
            changed.push((bytes, claim));
        }
    }
    rows::save(tx, changed.iter().map(|(key, claim)| (key, claim))).await
}

async fn purge(
    tx: &mut SqliteConnection,
    now_ms: u64,
    options: &StoreOptions,
    swept: &mut Swept,
) -> Result<(), Error> {
    // The same bound as `Gate::is_over`, in the form that the index serves.
    let bound = signed((now_ms / 1000).saturating_sub(options.skew_s));
    let over = sqlx::query(
        "SELECT sender, count(*) AS ids, max(exp) AS exp, total(length(reply)) AS bytes \
         FROM claim WHERE exp < ? AND NOT (state = 0 AND until_ms > ?) GROUP BY sender",
    );
    let over = over.bind(bound).bind(signed(now_ms)).fetch_all(&mut *tx).await?;
    if over.is_empty() {
        return Ok(());
    }
    let mut ledger = rows::load_ledger(tx).await?;
    for row in &over {
        let gone = unsigned(row.try_get("ids")?);
        swept.purged += gone;
        let exp = unsigned(row.try_get("exp")?);
        ledger.gate.purged_exp = ledger.gate.purged_exp.max(exp);
        ledger.entries = ledger.entries.saturating_sub(gone);
        let bytes = row.try_get::<f64, _>("bytes")? as u64;
        ledger.reply_bytes = ledger.reply_bytes.saturating_sub(bytes);
        let sender: i64 = row.try_get("sender")?;
        give_back(tx, options, &mut ledger, sender, gone).await?;
    }
    let delete =
        sqlx::query("DELETE FROM claim WHERE exp < ? AND NOT (state = 0 AND until_ms > ?)");
    delete.bind(bound).bind(signed(now_ms)).execute(&mut *tx).await?;
    rows::save_ledger(tx, &ledger).await
}

async fn give_back(
    tx: &mut SqliteConnection,
    options: &StoreOptions,
    ledger: &mut Ledger,
    sender: i64,
    gone: u64,
) -> Result<(), Error> {
    let row = sqlx::query("SELECT ids FROM sender WHERE id = ?").bind(sender);
    let own = unsigned(row.fetch_one(&mut *tx).await?.try_get("ids")?);
    let left = own.saturating_sub(gone);
    let shared = |ids: u64| ids.saturating_sub(options.limits.per_sender);
    ledger.shared = ledger.shared.saturating_sub(shared(own) - shared(left));
    let query = if left == 0 {
        ledger.senders = ledger.senders.saturating_sub(1);
        sqlx::query("DELETE FROM sender WHERE id = ?").bind(sender)
    } else {
        sqlx::query("UPDATE sender SET ids = ? WHERE id = ?").bind(signed(left)).bind(sender)
    };
    query.execute(tx).await.map(drop)
}

fn reply_of(state: &State) -> Option<&Reply> {
    match state {
        State::Done(reply) | State::InDoubt(reply) => reply.as_ref(),
        State::Claimed(_) => None,
    }
}

fn size(state: &State) -> u64 {
    reply_of(state).map_or(0, Reply::size)
}

fn drop_bytes(state: &mut State) {
    if let State::Done(Some(reply)) | State::InDoubt(Some(reply)) = state {
        reply.sealed = None;
    }
}

/// The answers that an action can be; anything else would be a bug, and is refused.
pub(super) fn outcome(action: Action) -> ClaimOutcome {
    match action {
        Action::Claim(outcome) => outcome,
        _ => ClaimOutcome::Refused(Refused::IdConflict),
    }
}

pub(super) fn completed(action: &Action) -> Completed {
    match action {
        Action::Complete(completed) => *completed,
        _ => Completed::Lost(Lost::Unknown),
    }
}
