//! The one writer: takes what is asked, does it in a transaction with all that came in meanwhile, and
//! answers when that is on the disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Error};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::io_error;
use super::known::Known;
use super::ops::{Seqs, Turn};
use crate::id::Id;
use crate::metadata::{Patch, PatchFault};
use crate::name::{ClientId, Place};
use crate::once::{Once, Posted};
use crate::record::{Before, Record, RecordKind};
use crate::store::{
    Claim, ClaimTerms, Deletion, Doomed, Listed, Metadata, Millis, NewMessage, StoreError,
};

/// What is done in one transaction at the most.
const BATCH: usize = 512;
/// What may wait.
const WAITING: usize = 4096;
/// How often is swept away what is over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

pub(super) type To<T> = oneshot::Sender<Result<T, StoreError>>;

/// What is asked of the writer.
pub(super) enum Job {
    Ping {
        to: To<()>,
    },
    Create {
        at: Place,
        metadata: Metadata,
        to: To<bool>,
    },
    Patch {
        at: Place,
        patch: Patch,
        to: To<Option<Result<Metadata, PatchFault>>>,
    },
    Remove {
        at: Place,
        to: To<()>,
    },
    Purge {
        at: Place,
        to: To<()>,
    },
    Post {
        at: Place,
        by: ClientId,
        messages: Vec<NewMessage>,
        once: Option<Once>,
        now: Millis,
        to: To<Posted>,
    },
    Delete {
        at: Place,
        doomed: Vec<Doomed>,
        now: Millis,
        to: To<Vec<Deletion>>,
    },
    Pop {
        at: Place,
        limit: usize,
        now: Millis,
        to: To<Listed>,
    },
    Claim {
        at: Place,
        limit: usize,
        terms: ClaimTerms,
        now: Millis,
        to: To<Option<Claim>>,
    },
    Renew {
        at: Place,
        id: Id,
        terms: ClaimTerms,
        now: Millis,
        to: To<bool>,
    },
    Release {
        at: Place,
        id: Id,
        now: Millis,
        to: To<()>,
    },
    Keep {
        record: Record,
        before: Before,
        now: Millis,
        to: To<Option<Record>>,
    },
    Forget {
        kind: RecordKind,
        owner: String,
        name: Option<String>,
        to: To<()>,
    },
    Close {
        to: To<()>,
    },
}

/// The way to the writer.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(super) async fn start(
        mut conn: SqliteConnection,
        at: Arc<str>,
        known: Arc<Known>,
        now: Millis,
    ) -> Result<Self, StoreError> {
        let seqs = Seqs::load(&mut conn, now).await.map_err(|error| io_error(&at, &error))?;
        let (jobs, queue) = mpsc::channel(WAITING);
        spawn(Loop { conn, at, known, seqs, due: Due::default() }, queue);
        Ok(Self { jobs })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask<T>(&self, job: impl FnOnce(To<T>) -> Job) -> Result<T, StoreError> {
        let (to, answer) = oneshot::channel();
        self.jobs.send(job(to)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub(super) async fn close(&self) {
        // It may be closed already.
        let _ = self.ask(|to| Job::Close { to }).await;
    }
}

// Not async: the writer is compiled here, as this crate is optimised (docs/adr/0008).
#[inline(never)]
fn spawn(writer: Loop, queue: mpsc::Receiver<Job>) {
    tokio::spawn(writer.run(queue));
}

struct Loop {
    conn: SqliteConnection,
    at: Arc<str>,
    known: Arc<Known>,
    seqs: Seqs,
    due: Due,
}

impl Loop {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut jobs = Vec::new();
            tokio::select! {
                taken = queue.recv_many(&mut jobs, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                }
                _ = sweep.tick() => {}
            }
            if jobs.is_empty() {
                if let Err(error) = self.sweep().await {
                    let _ = self.conn.execute_simple("ROLLBACK").await;
                    tracing::warn!(%error, "what is over can't be swept out of the queue store");
                }
                continue;
            }
            // Somebody who is gone needs nothing done.
            jobs.retain(|job| !job.is_abandoned());
            let closing = jobs.iter().position(|job| matches!(job, Job::Close { .. }));
            let end = closing.map(|at| jobs.split_off(at));
            self.transaction(jobs).await;
            if let Some(mut end) = end {
                queue.close();
                let _ = self.conn.close().await;
                if let Job::Close { to } = end.swap_remove(0) {
                    let _ = to.send(Ok(()));
                }
                return;
            }
        }
        let _ = self.conn.close().await;
    }

    async fn transaction(&mut self, mut jobs: Vec<Job>) {
        while !jobs.is_empty() {
            jobs = self.do_and_answer(jobs).await;
        }
    }

    async fn do_and_answer(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let outcome = match self.work(jobs).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // There may be no transaction left to take back.
                let _ = self.conn.execute_simple("ROLLBACK").await;
                self.seqs.taken_back();
                Err(io_error(&self.at, &error))
            }
        };
        self.due.answer(&outcome)
    }

    async fn work(&mut self, jobs: Vec<Job>) -> Result<(), Error> {
        let mark = self.known.mark();
        let mut turn = Turn::new(&mut self.conn, &mut self.seqs, &self.known, &mut self.due);
        // They came at the same time: nobody can tell in which order they were done.
        let (mut posts, mut deletions, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut queues = Vec::new();
        for job in jobs {
            match job {
                Job::Post { .. } => posts.push(job),
                Job::Delete { .. } => deletions.push(job),
                Job::Create { .. }
                | Job::Patch { .. }
                | Job::Remove { .. }
                | Job::Purge { .. }
                | Job::Ping { .. } => queues.push(job),
                _ => others.push(job),
            }
        }
        turn.begin().await?;
        turn.queues(queues).await?;
        turn.posts(posts).await?;
        turn.deletions(deletions).await?;
        turn.others(others).await?;
        let (changed, fresh) = turn.commit().await?;
        self.known.forget(&changed);
        let mark = mark + u64::from(!changed.is_empty());
        for (at, row) in fresh {
            self.known.learn(&at, row, mark);
        }
        Ok(())
    }

    async fn sweep(&mut self) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Turn::new(&mut self.conn, &mut self.seqs, &self.known, &mut self.due).sweep(now).await
    }
}

impl Job {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Ping { to } => to.is_closed(),
            Self::Pop { to, .. } => to.is_closed(),
            Self::Claim { to, .. } => to.is_closed(),
            // What changes something may have been meant all the same.
            _ => false,
        }
    }
}

type Answer = Box<dyn FnOnce(Result<(), StoreError>) -> Option<Job> + Send>;

/// Answers that wait for the disk.
#[derive(Default)]
pub(super) struct Due(Vec<Answer>);

impl Due {
    pub(super) fn push<T: Send + 'static>(&mut self, to: To<T>, value: T) {
        self.0.push(Box::new(move |outcome| {
            // Who asked may be gone.
            let _ = to.send(outcome.map(|()| value));
            None
        }));
    }

    /// A claim, which is given up again if nobody is there to take it.
    pub(super) fn push_claim(
        &mut self,
        at: Place,
        now: Millis,
        to: To<Option<Claim>>,
        claim: Option<Claim>,
    ) {
        self.0.push(Box::new(move |outcome| match to.send(outcome.map(|()| claim)) {
            Err(Ok(Some(claim))) => {
                let (to, _) = oneshot::channel();
                Some(Job::Release { at, id: claim.id, now, to })
            }
            _ => None,
        }));
    }

    /// What is left to do.
    fn answer(&mut self, outcome: &Result<(), StoreError>) -> Vec<Job> {
        self.0.drain(..).filter_map(|answer| answer(outcome.clone())).collect()
    }
}

/// A statement without parameters.
pub(super) trait Simple {
    async fn execute_simple(&mut self, sql: &'static str) -> Result<(), Error>;
}

impl Simple for SqliteConnection {
    async fn execute_simple(&mut self, sql: &'static str) -> Result<(), Error> {
        sqlx::query(sql).execute(self).await.map(drop)
    }
}
