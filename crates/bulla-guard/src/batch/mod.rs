//! Claims in a database: one task gathers what is waiting into one transaction, so that many
//! claims share what it costs to have them on disk.

pub(crate) mod backend;
mod set;
mod writer;

use std::sync::Arc;

use bulla_seal::{Digest, Party};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::backend::Backend;
pub(crate) use self::set::{Claim, Ledger, Sender};
use self::set::{First, completed, outcome};
use self::writer::{Answer, Job, Step, Writer};
use crate::claim::{Action, Event};
use crate::counters::Counters;
use crate::key::ClaimKey;
use crate::store::{
    ClaimOutcome, ClaimRequest, Completed, Completion, Grant, Lost, Reply, Stats, StoreError,
    StoreOptions, SweepRequest, Swept,
};

/// Jobs that may wait for the writer before callers do.
const QUEUE: usize = 4096;

/// The way to the writer.
#[derive(Debug, Clone)]
pub(crate) struct Batches {
    jobs: mpsc::Sender<Job>,
}

impl Batches {
    /// Starts the writer, inside a Tokio runtime. It ends when every handle is gone and what is
    /// queued is written.
    pub(crate) fn start(backend: impl Backend, options: StoreOptions) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let counters = Arc::new(Counters::default());
        tokio::spawn(Writer { backend, options, counters, ahead_ms: 0 }.run(queue));
        Self { jobs }
    }

    /// Finishes what is queued and closes the connection.
    pub(crate) async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.jobs.send(Job::Close(closed)).await.is_ok() {
            let _ = done.await;
        }
    }

    async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, StoreError> {
        let (answer, reply) = oneshot::channel();
        self.jobs.send(job(answer)).await.map_err(|_| StoreError::Closed)?;
        reply.await.map_err(|_| StoreError::Closed)?
    }

    async fn step(
        &self,
        key: ClaimKey,
        event: Event<Digest>,
        first: Option<First>,
    ) -> Result<Action, StoreError> {
        self.ask(|answer| Job::Step(Step { key, event, first, answer })).await
    }

    pub(crate) async fn claim(&self, request: ClaimRequest) -> Result<ClaimOutcome, StoreError> {
        let ClaimRequest { key, digest, worker, now_ms, lease_ms, idempotent, .. } = request;
        let event = Event::Claim { digest, worker, now_ms, lease_ms, idempotent };
        let first = First { iat: request.iat, exp: request.exp, envelope: request.envelope };
        Ok(outcome(self.step(key, event, Some(first)).await?))
    }

    pub(crate) async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError> {
        let event = Event::Complete { grant, completion };
        Ok(completed(&self.step(key.clone(), event, None).await?))
    }

    pub(crate) async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError> {
        match self.step(key.clone(), Event::Extend { grant, until_ms }, None).await? {
            Action::Extend(extended) => Ok(extended),
            _ => Ok(Err(Lost::Unknown)),
        }
    }

    pub(crate) async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError> {
        match self.step(key.clone(), Event::Answer(error), None).await? {
            Action::Answer(standing) => Ok(standing),
            _ => Ok(None),
        }
    }

    pub(crate) async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError> {
        self.ask(|answer| Job::Sweep(request, answer)).await
    }

    pub(crate) async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError> {
        self.ask(|answer| Job::Lose(now_ms, answer)).await
    }

    pub(crate) async fn held_by(&self, sender: &Party) -> Result<u64, StoreError> {
        self.ask(|answer| Job::HeldBy(sender.clone(), answer)).await
    }

    pub(crate) async fn stats(&self) -> Result<Stats, StoreError> {
        self.ask(Job::Stats).await
    }
}

/// A claim store whose field `batches` does the work.
macro_rules! store_of_batches {
    ($store:ty, shared: $shared:literal) => {
        #[async_trait::async_trait]
        impl crate::ClaimStore for $store {
            async fn claim(
                &self,
                request: crate::ClaimRequest,
            ) -> Result<crate::ClaimOutcome, crate::StoreError> {
                self.batches.claim(request).await
            }

            async fn complete(
                &self,
                key: &crate::ClaimKey,
                grant: crate::Grant,
                completion: crate::Completion,
            ) -> Result<crate::Completed, crate::StoreError> {
                self.batches.complete(key, grant, completion).await
            }

            async fn extend(
                &self,
                key: &crate::ClaimKey,
                grant: crate::Grant,
                until_ms: u64,
            ) -> Result<Result<crate::Grant, crate::Lost>, crate::StoreError> {
                self.batches.extend(key, grant, until_ms).await
            }

            async fn answer_in_doubt(
                &self,
                key: &crate::ClaimKey,
                error: crate::Reply,
            ) -> Result<Option<crate::Reply>, crate::StoreError> {
                self.batches.answer_in_doubt(key, error).await
            }

            async fn sweep(
                &self,
                request: crate::SweepRequest,
            ) -> Result<crate::Swept, crate::StoreError> {
                self.batches.sweep(request).await
            }

            async fn declare_lost(&self, now_ms: u64) -> Result<(), crate::StoreError> {
                self.batches.declare_lost(now_ms).await
            }

            async fn held_by(&self, sender: &bulla_seal::Party) -> Result<u64, crate::StoreError> {
                self.batches.held_by(sender).await
            }

            async fn stats(&self) -> Result<crate::Stats, crate::StoreError> {
                self.batches.stats().await
            }

            fn is_shared(&self) -> bool {
                $shared
            }
        }
    };
}
pub(crate) use store_of_batches;
