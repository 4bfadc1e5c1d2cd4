//! Waiting for the replies of one call.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bulla_seal::MessageId;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Client;
use super::pending::{Event, Events, Pending, PendingCall, Reply, SentCall, late_answer};
use super::request::Request;
use crate::builtin::{CANCEL, Cancel, NAMESPACE};
use crate::counters::CallOutcome;
use crate::error::CallError;
use crate::target::Target;
use crate::trace::OpenSpan;

/// A call that was sent. Dropping it before its end tells the peer to stop.
pub(super) struct Waiting {
    client: Client,
    target: Target,
    id: MessageId,
    sent: Arc<SentCall>,
    events: Received,
    deadline: Instant,
    timeout: Duration,
    cancel: bool,
    ended: bool,
    counted: bool,
    span: Option<OpenSpan>,
}

/// Where events of a call come from.
enum Received {
    Last,
    All(mpsc::Receiver<Event>),
}

impl Received {
    fn channel(progress: bool) -> (Events, Self) {
        if progress {
            let (all, events) = Pending::channel();
            (Events::All(all), Self::All(events))
        } else {
            (Events::Last, Self::Last)
        }
    }
}

impl Waiting {
    /// Waits for the replies to `sent`: the last one, or `progress` too.
    pub(super) fn register(
        client: &Client,
        request: &Request<'_>,
        sent: Arc<SentCall>,
        progress: bool,
        cancel: bool,
    ) -> Self {
        let (tx, events) = Received::channel(progress);
        let id = sent.frame.id();
        let deadline = Instant::now() + request.timeout;
        let call = PendingCall {
            sent: sent.clone(),
            next: 0,
            offered: false,
            events: tx,
            // Who takes progress looks at the clock itself.
            deadline: (!progress).then_some(deadline),
        };
        client.0.pending.insert(id, call);
        Self {
            client: client.clone(),
            target: request.target.clone(),
            id,
            sent,
            events,
            deadline,
            timeout: request.timeout,
            cancel,
            ended: false,
            counted: false,
            span: None,
        }
    }

    /// The call's span ends with it.
    pub(super) fn traced_by(&mut self, span: Option<OpenSpan>) {
        self.span = span;
    }

    /// Counts the call, once.
    fn count(&mut self, outcome: CallOutcome, error: Option<&str>) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        let counters = &self.client.endpoint().counters;
        counters.called(outcome);
        let left = self.deadline.saturating_duration_since(Instant::now());
        counters.calling.observe(self.timeout.saturating_sub(left));
        if let Some(mut span) = self.span.take()
            && outcome != CallOutcome::Value
        {
            span.fail(error.unwrap_or(outcome.as_str()));
        }
    }

    /// The next reply; an error ends the stream.
    pub(super) async fn next(&mut self) -> Event {
        let event = match &mut self.events {
            Received::Last => poll_fn(|cx| self.sent.last.poll(cx)).await,
            Received::All(events) => {
                match tokio::time::timeout_at(self.deadline, events.recv()).await {
                    Ok(event) => event.unwrap_or(Err(CallError::Closed)),
                    Err(_) => Err(late_answer()),
                }
            }
        };
        if let Err(CallError::Timeout { .. }) = &event {
            self.forget_session();
            self.count(CallOutcome::Timeout, None);
            let target = self.target.to_string();
            return Err(CallError::Timeout { target, after: self.timeout });
        }
        match &event {
            Ok(Reply::Progress(_)) => {}
            Ok(Reply::Value(_)) => self.count(CallOutcome::Value, None),
            Err(CallError::Remote(error)) => self.count(CallOutcome::Error, Some(&error.kind)),
            Err(error) => self.count(CallOutcome::of(error), None),
        }
        self.ended = !matches!(event, Ok(Reply::Progress(_)));
        event.map_err(|error| match error {
            CallError::Unroutable { .. } => {
                CallError::Unroutable { target: self.target.to_string() }
            }
            other => other,
        })
    }
}

impl Waiting {
    /// The message was not sent: nothing is to be stopped.
    pub(super) fn not_sent(mut self) {
        // Who could not send it counts it.
        (self.ended, self.counted) = (true, true);
        self.client.0.pending.remove(&self.id);
    }

    /// The peer may have lost the session, or its name may have a new incarnation, and word of it
    /// may have been withheld: the next call looks it up and offers again.
    fn forget_session(&self) {
        if let Some(peer) = self.target.principal() {
            self.client.endpoint().outgoing.forget_if(peer, &self.sent.session);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.count(CallOutcome::GivenUp, None);
        self.client.0.pending.remove(&self.id);
        let runtime = tokio::runtime::Handle::try_current();
        if let (true, Ok(runtime)) = (self.cancel, runtime) {
            let (client, target, id) = (self.client.clone(), self.target.clone(), self.id);
            runtime.spawn(async move {
                let args = Cancel { message: id.to_string() };
                let request = client.request(&target, CANCEL).namespace(NAMESPACE);
                let cast = request.ttl(Duration::from_secs(60)).cast(&args);
                if let Err(error) = cast.await {
                    tracing::debug!(%error, "the peer could not be told to stop");
                }
            });
        }
    }
}

/// A long call's progress, its result last.
pub struct Progress {
    waiting: Option<Waiting>,
}

/// One step of a long call.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<P, R> {
    /// More follows.
    Progress(P),
    /// The result; nothing follows.
    Done(R),
}

impl Progress {
    pub(super) fn new(waiting: Waiting) -> Self {
        Self { waiting: Some(waiting) }
    }

    /// The next step; `None` after the result or an error.
    pub async fn next<P, R>(&mut self) -> Option<Result<Step<P, R>, CallError>>
    where
        P: DeserializeOwned,
        R: DeserializeOwned,
    {
        let event = self.waiting.as_mut()?.next().await;
        if !matches!(event, Ok(Reply::Progress(_))) {
            self.waiting = None;
        }
        Some(match event {
            Ok(Reply::Progress(item)) => super::decode(&item).map(Step::Progress),
            Ok(Reply::Value(reply)) => super::decode(reply.payload()).map(Step::Done),
            Err(error) => Err(error),
        })
    }

    /// Gives the call up and tells the peer to stop.
    pub fn cancel(self) {
        drop(self);
    }
}
