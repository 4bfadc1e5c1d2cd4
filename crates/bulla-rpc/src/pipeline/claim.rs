//! Step three: it has not run before (step 10 of protocol section 9, and section 7). What the
//! step returns may be acknowledged: its outcome is as durable as the claim store.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bulla_guard::{
    ClaimKey, ClaimOutcome, ClaimRequest, ClaimStore, Completed, Completion, Duplicate, Grant,
    Lost, Reply, StoreError, Worker,
};
use bulla_journal::events;
use bulla_seal::Refusal;
use bulla_seal::mutants::{Check, off};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::authorize::{Authorized, Verdict};
use super::dispatch::{Outcome, seal_error};
use super::{MaybeReady, Sealed, Settlement};
use crate::clock::millis;
use crate::endpoint::{Endpoint, JournalCalls};
use crate::error::{RemoteError, kinds};
use crate::rate::SenderRates;
use crate::router::Effect;
use crate::server::ServerOptions;

/// A lease ends later than this, or it would be extended without pause.
const SHORTEST_LEASE: Duration = Duration::from_millis(30);
/// Copies of a message that runs that are held at a time, in case that its worker is lost; more
/// would only fill up the queue's prefetch.
const HELD_COPIES: u32 = 4;
/// Answers that are sealed anew for duplicates, per second and sender.
const REPEATS_PER_SECOND: u32 = 1000;

/// Dealt with, and nobody is told.
const UNANSWERED: Settlement = Settlement::Done { reply: None, error: None };

#[derive(Clone)]
pub(crate) struct ClaimLayer {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    store: Arc<dyn ClaimStore>,
    worker: Worker,
    lease: Duration,
    read_only: SenderRates,
    denials: SenderRates,
    repeats: SenderRates,
    held: Mutex<HashMap<ClaimKey, (u32, u64)>>,
}

impl ClaimLayer {
    pub(crate) fn new(endpoint: Endpoint, options: &ServerOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                endpoint,
                store: options.claims.clone(),
                worker: options.worker,
                lease: options.lease.max(SHORTEST_LEASE),
                read_only: SenderRates::new(options.read_only_per_second),
                denials: SenderRates::new(options.denials_per_second),
                repeats: SenderRates::new(REPEATS_PER_SECOND),
                held: Mutex::default(),
            }),
        }
    }
}

impl<S> Layer<S> for ClaimLayer {
    type Service = Claim<S>;

    fn layer(&self, inner: S) -> Claim<S> {
        Claim { shared: self.shared.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Claim<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Service<Authorized> for Claim<S>
where
    S: for<'a> Service<
            &'a Authorized,
            Response = Outcome,
            Error = Infallible,
            Future = MaybeReady<Outcome>,
        > + Clone
        + Send
        + 'static,
{
    type Response = Settlement;
    type Error = Infallible;
    type Future = MaybeReady<Settlement>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Authorized) -> Self::Future {
        let shared = &self.shared;
        if let Some(refusal) = shared.over_rate(&request) {
            shared.endpoint.refused(refusal, "of a proven sender");
            return MaybeReady::Ready(Settlement::Refused);
        }
        if request.effect() == Effect::ReadOnly {
            shared.tell_call(&request);
            return match self.inner.call(&request) {
                MaybeReady::Ready(outcome) => MaybeReady::Ready(settled(outcome)),
                running => MaybeReady::later(async move { Ok(settled(running.await?)) }),
            };
        }
        let asked = shared.claim_request(&request);
        match shared.claim_now(&asked) {
            Some(ClaimOutcome::Granted(grant)) => self.granted(request, asked.key, grant),
            Some(other) => {
                let shared = shared.clone();
                MaybeReady::later(async move {
                    Ok(shared.not_granted(&request, &asked.key, other).await)
                })
            }
            None => MaybeReady::later(self.clone().claim(request, asked)),
        }
    }
}

impl<S> Claim<S>
where
    S: for<'a> Service<
            &'a Authorized,
            Response = Outcome,
            Error = Infallible,
            Future = MaybeReady<Outcome>,
        > + Clone
        + Send
        + 'static,
{
    /// Where the store has to be waited for.
    async fn claim(
        mut self,
        request: Authorized,
        asked: ClaimRequest,
    ) -> Result<Settlement, Infallible> {
        let key = asked.key.clone();
        match self.shared.timed(self.shared.store.claim(asked)).await {
            Ok(ClaimOutcome::Granted(grant)) => self.granted(request, key, grant).await,
            Ok(other) => Ok(self.shared.not_granted(&request, &key, other).await),
            Err(error) => Ok(self.shared.retry(&error)),
        }
    }

    fn granted(
        &mut self,
        mut request: Authorized,
        key: ClaimKey,
        grant: Grant,
    ) -> MaybeReady<Settlement> {
        self.shared.journal(&mut request);
        let shared = self.shared.clone();
        match self.inner.call(&request) {
            MaybeReady::Ready(outcome) => shared.keep(request, key, grant, outcome),
            running => {
                MaybeReady::later(async move { shared.run(request, key, grant, running).await })
            }
        }
    }
}

impl Shared {
    /// What makes no claim, and what is denied, is held to a rate per sender.
    fn over_rate(&self, request: &Authorized) -> Option<Refusal> {
        let sender = &request.opened().sender().principal;
        let within = match request.verdict() {
            Verdict::Deny(_) => self.denials.take(sender),
            _ if request.effect() == Effect::ReadOnly => self.read_only.take(sender),
            _ => true,
        };
        (!within).then_some(Refusal::RateLimited)
    }

    fn tell_refused(&self, request: &Authorized, refusal: &'static str) {
        let opened = request.opened();
        let (sender, message) = (opened.sender().clone(), opened.id());
        let event = events::SenderRefused { refusal, sender, message };
        self.endpoint.tell(&opened.sender().principal, event);
    }

    /// A method that changes nothing runs whether it is journalled or not.
    fn tell_call(&self, request: &Authorized) {
        if self.endpoint.options.journal_calls == JournalCalls::All
            && let Some(event) = call_taken(request)
        {
            self.endpoint.events().emit(event);
        }
    }

    /// A method that changes something is journalled before it runs, or is not run.
    fn journal(&self, request: &mut Authorized) {
        let events = self.endpoint.events();
        let asked = self.endpoint.options.journal_calls != JournalCalls::None;
        let taken = match call_taken(request) {
            None => return,
            Some(event) if asked => events.emit_first(event).is_ok(),
            Some(_) => events.room(),
        };
        if taken {
            return;
        }
        if let Some(event) = call_taken(request) {
            let events::CallTaken { sender, method, message, .. } = event;
            let held = events::CallHeldBack { sender, method, message };
            self.endpoint.tell(&request.opened().sender().principal, held);
        }
        request.deny(RemoteError::new(
            kinds::NOT_JOURNALLED,
            "the journal can't take this call just now, so it was not run",
        ));
    }

    fn now_ms(&self) -> u64 {
        millis(self.endpoint.clock.now())
    }

    fn lease_ms(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)
    }

    fn key(&self, request: &Authorized) -> ClaimKey {
        let opened = request.opened();
        ClaimKey::new(opened.scope().clone(), opened.sender().clone(), opened.id())
    }

    fn claim_request(&self, request: &Authorized) -> ClaimRequest {
        let opened = request.opened();
        ClaimRequest {
            key: self.key(request),
            digest: opened.digest(),
            iat: opened.issued_at(),
            exp: opened.expires(),
            idempotent: request.effect() == Effect::Idempotent,
            worker: self.worker,
            now_ms: self.now_ms(),
            lease_ms: self.lease_ms(),
            // The broker gives an unacknowledged message again: the store need not keep it.
            envelope: None,
        }
    }

    async fn not_granted(
        &self,
        request: &Authorized,
        key: &ClaimKey,
        outcome: ClaimOutcome,
    ) -> Settlement {
        match outcome {
            ClaimOutcome::Duplicate(duplicate) => self.answer_again(request, key, duplicate).await,
            ClaimOutcome::Refused(reason) => {
                self.endpoint.counters.refuse(reason.as_str());
                self.tell_refused(request, reason.as_str());
                Settlement::Refused
            }
            // Whoever asked runs it.
            ClaimOutcome::Granted(_) => Settlement::Retry,
        }
    }

    /// Runs it under its lease, which is extended as long as it runs.
    async fn run(
        self: Arc<Self>,
        request: Authorized,
        key: ClaimKey,
        mut grant: Grant,
        mut running: MaybeReady<Outcome>,
    ) -> Result<Settlement, Infallible> {
        let outcome = loop {
            match tokio::time::timeout(self.lease / 3, &mut running).await {
                Ok(outcome) => break outcome?,
                Err(_) => {
                    let until = self.now_ms().saturating_add(self.lease_ms());
                    match self.store.extend(&key, grant, until).await {
                        Ok(Ok(extended)) => grant = extended,
                        Ok(Err(lost)) => {
                            tracing::warn!(
                                reason = lost.as_str(),
                                "a run was taken away; stopping it"
                            );
                            return Ok(self.lost(&request, &key, lost).await);
                        }
                        Err(error) => tracing::warn!(%error, "the lease could not be extended"),
                    }
                }
            }
        };
        self.keep(request, key, grant, outcome).await
    }

    /// Stores the outcome before anyone hears of it.
    fn keep(
        self: Arc<Self>,
        request: Authorized,
        key: ClaimKey,
        grant: Grant,
        outcome: Outcome,
    ) -> MaybeReady<Settlement> {
        let completion = Completion::Done { reply: outcome.reply.as_ref().map(stored) };
        match self.store.complete_now(&key, grant, completion) {
            Ok(Completed::Stored) => {
                self.endpoint.counters.claiming.observe(Duration::ZERO);
                MaybeReady::Ready(settled(outcome))
            }
            kept => MaybeReady::later(async move {
                let kept = match kept {
                    Ok(completed) => Ok(completed),
                    Err(completion) => {
                        self.timed(self.store.complete(&key, grant, completion)).await
                    }
                };
                match kept {
                    Ok(Completed::Stored) => Ok(settled(outcome)),
                    Ok(Completed::Lost(lost)) => {
                        let reason = lost.as_str();
                        tracing::warn!(reason, "an outcome came too late and is dropped");
                        Ok(self.lost(&request, &key, lost).await)
                    }
                    Err(error) => Ok(self.retry(&error)),
                }
            }),
        }
    }

    fn claim_now(&self, asked: &ClaimRequest) -> Option<ClaimOutcome> {
        let outcome = self.store.claim_now(asked)?;
        self.endpoint.counters.claiming.observe(Duration::ZERO);
        Some(outcome)
    }

    /// How long the store takes is counted. One that answers at once, as memory does, is not worth two
    /// looks at the clock.
    async fn timed<T>(&self, asked: impl Future<Output = T>) -> T {
        let claiming = &self.endpoint.counters.claiming;
        let mut asked = std::pin::pin!(asked);
        let first = std::future::poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx)));
        if let Poll::Ready(answer) = first.await {
            claiming.observe(Duration::ZERO);
            return answer;
        }
        let begun = Instant::now();
        let answer = asked.await;
        claiming.observe(begun.elapsed());
        answer
    }

    /// The claim is not this run's any more. Who ended it answers, unless nobody did: then the
    /// outcome is unknown, and the caller is told so.
    async fn lost(&self, request: &Authorized, key: &ClaimKey, lost: Lost) -> Settlement {
        match lost {
            Lost::InDoubt => self.answer_in_doubt(request, key).await,
            _ => Settlement::Refused,
        }
    }

    /// Whether one more copy of a message that runs until `until_ms` is held.
    fn may_hold(&self, key: &ClaimKey, until_ms: u64) -> bool {
        let mut held = self.held.lock();
        if held.len() >= 1024 {
            let now = self.now_ms();
            held.retain(|_, (_, until)| *until > now);
        }
        let (copies, until) = held.entry(key.clone()).or_insert((0, until_ms));
        if *until < until_ms {
            (*copies, *until) = (0, until_ms);
        }
        *copies += 1;
        *copies <= HELD_COPIES || off(Check::HeldCopies)
    }

    async fn answer_again(
        &self,
        request: &Authorized,
        key: &ClaimKey,
        duplicate: Duplicate,
    ) -> Settlement {
        self.endpoint.counters.duplicates.add(1);
        match duplicate {
            Duplicate::Held { until_ms } if !self.may_hold(key, until_ms) => Settlement::Refused,
            Duplicate::Held { until_ms } => {
                Settlement::Hold(Duration::from_millis(until_ms.saturating_sub(self.now_ms()) + 1))
            }
            Duplicate::Done { reply: None } => UNANSWERED,
            Duplicate::Done { reply: Some(reply) } => match reply.into_sealed() {
                Some(sealed) => self.reply(request, sealed),
                None if !self.may_repeat(request) => UNANSWERED,
                None => {
                    let error = RemoteError::new(
                        kinds::RESULT_NOT_HELD,
                        "the method ran before; its result is no longer held",
                    );
                    self.sealed_error(request, &error)
                }
            },
            Duplicate::InDoubt { error: Some(error) } => match error.into_sealed() {
                Some(sealed) => self.reply(request, sealed),
                None => self.sealed_error(request, &outcome_unknown()),
            },
            Duplicate::InDoubt { error: None } => self.answer_in_doubt(request, key).await,
        }
    }

    fn may_repeat(&self, request: &Authorized) -> bool {
        self.repeats.take(&request.opened().sender().principal)
    }

    /// The first sealed "outcome unknown" stays; everybody sends that one.
    async fn answer_in_doubt(&self, request: &Authorized, key: &ClaimKey) -> Settlement {
        if !self.may_repeat(request) {
            return UNANSWERED;
        }
        let Some(sealed) = seal_error(&self.endpoint, request, &outcome_unknown()) else {
            return UNANSWERED;
        };
        match self.store.answer_in_doubt(key, stored(&sealed)).await {
            Ok(standing) => match standing.and_then(Reply::into_sealed) {
                Some(sealed) => self.reply(request, sealed),
                None => UNANSWERED,
            },
            Err(error) => self.retry(&error),
        }
    }

    fn sealed_error(&self, request: &Authorized, error: &RemoteError) -> Settlement {
        settled(Outcome { reply: seal_error(&self.endpoint, request, error), error: None })
    }

    fn reply(&self, request: &Authorized, sealed: Bytes) -> Settlement {
        let exchange = &self.endpoint.options.exchange;
        let me = self.endpoint.identity.party();
        let opened = request.opened();
        let sealed_path = || opened.reply_path(exchange, me).map(|(_, address)| address);
        let unsealed_path = opened.unsealed_path(exchange, me).map(Arc::new);
        let address = unsealed_path.or_else(sealed_path);
        Settlement::Done { reply: address.map(|address| (address, sealed)), error: None }
    }

    fn retry(&self, error: &StoreError) -> Settlement {
        self.endpoint.counters.claim_errors.add(1);
        tracing::error!(%error, "the claim store failed; the message goes back to the queue");
        Settlement::Retry
    }
}

/// The event of a method that is about to run.
fn call_taken(request: &Authorized) -> Option<events::CallTaken> {
    let Verdict::Run(method) = request.verdict() else { return None };
    let opened = request.opened();
    Some(events::CallTaken {
        sender: opened.sender().clone(),
        method: method.event_name().clone(),
        effect: method.effect().as_str(),
        message: opened.id(),
    })
}

/// A reply as the store keeps it.
fn stored(sealed: &Sealed) -> Reply {
    Reply::new(sealed.bytes.clone())
}

fn settled(Outcome { reply, error }: Outcome) -> Settlement {
    let reply = reply.map(|sealed| (sealed.address, sealed.bytes));
    Settlement::Done { reply, error }
}

fn outcome_unknown() -> RemoteError {
    RemoteError::new(
        kinds::OUTCOME_UNKNOWN,
        "the worker was lost while the method ran; it may or may not have had its effect",
    )
}
