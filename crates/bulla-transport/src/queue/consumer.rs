//! Taking messages: claims that are waited for, and answers that are taken at once.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hyper::{Method, StatusCode};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::settle::{Command, Settler};
use super::status::Shared;
use super::wire::{Came, Coming, Frame};
use crate::address::Inbox;
use crate::error::TransportError;
use crate::transport::{Acker, Consumer, Delivery, Settle};

/// Messages that are taken at a time: few, as what is put back waits for those that came with it.
const AT_ONCE: usize = 10;
/// What a prefetch of no limit is.
const UNLIMITED: usize = 1024;
/// Rest after a request that failed, or that the service did not hold until there was something.
const REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_millis(500);
/// How long what is on its way when the transport closes is waited for, to be given back at once.
pub(super) const LAST: Duration = Duration::from_millis(250);

pub(super) struct QueueConsumer {
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    stop: CancellationToken,
    shared: Arc<Shared>,
}

impl QueueConsumer {
    pub(super) fn start(shared: Arc<Shared>, inbox: Inbox, queue: String, prefetch: u16) -> Self {
        let (to, deliveries) = mpsc::unbounded_channel();
        let stop = shared.closing.child_token();
        let room = if prefetch == 0 { UNLIMITED } else { usize::from(prefetch) };
        let taking = Taking {
            is_reply: matches!(inbox, Inbox::Reply { .. }),
            inbox: Arc::new(inbox),
            queue,
            room: Arc::new(Semaphore::new(room)),
            again: Arc::default(),
            settler: shared.settler.clone(),
            shared: shared.clone(),
            to,
            stop: stop.clone(),
        };
        shared.taking.spawn(taking.run());
        Self { deliveries, stop, shared }
    }
}

#[async_trait]
impl Consumer for QueueConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        if self.stop.is_cancelled() {
            return None;
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            delivery = self.deliveries.recv() => delivery,
        }
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        // What was taken and not handed out goes back.
        self.deliveries.close();
        while self.deliveries.try_recv().is_ok() {}
        self.shared.settler.flush().await;
    }
}

impl Drop for QueueConsumer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Taking {
    inbox: Arc<Inbox>,
    is_reply: bool,
    queue: String,
    room: Arc<Semaphore>,
    /// Messages that were put back here.
    again: Arc<Mutex<HashSet<String>>>,
    settler: Settler,
    shared: Arc<Shared>,
    to: mpsc::UnboundedSender<Delivery>,
    stop: CancellationToken,
}

impl Taking {
    async fn run(self) {
        let mut rest = REST;
        loop {
            let room = tokio::select! {
                () = self.stop.cancelled() => return,
                room = self.permits() => room,
            };
            let Some(mut room) = room else { return };
            let begun = Instant::now();
            let mut taking = pin!(self.take(room.len()));
            let taken = tokio::select! {
                () = self.stop.cancelled() => {
                    // The service gives back what it gave to a connection that it knows to be gone.
                    if self.shared.closing.is_cancelled()
                        && let Ok(Ok((Some(claim), _))) = timeout(LAST, taking).await
                    {
                        self.settler.give_back(&self.queue, &claim).await;
                    }
                    return;
                }
                taken = &mut taking => taken,
            };
            match taken {
                Ok((claim, messages)) if !messages.is_empty() => {
                    rest = REST;
                    self.shared.is_up();
                    self.deliver(claim.as_deref(), messages, &mut room).await;
                    continue;
                }
                Ok(_) => {
                    self.shared.is_up();
                    // A service that does not know how to wait is asked now and then.
                    if begun.elapsed() > self.shared.http.options.wait / 2 {
                        rest = REST;
                        continue;
                    }
                }
                Err(error) => self.shared.is_down(&error),
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(rest) => rest = (rest * 2).min(LONGEST_REST),
            }
        }
    }

    /// Room for one message at least; `None` once nobody takes any more.
    async fn permits(&self) -> Option<Vec<OwnedSemaphorePermit>> {
        let mut permits = vec![self.room.clone().acquire_owned().await.ok()?];
        while permits.len() < AT_ONCE
            && let Ok(permit) = self.room.clone().try_acquire_owned()
        {
            permits.push(permit);
        }
        Some(permits)
    }

    /// Takes some, as soon as there are any. What is claimed comes with the claim's id.
    async fn take(&self, limit: usize) -> Result<(Option<String>, Vec<Came>), TransportError> {
        let http = &self.shared.http;
        let (wait, queue) = (http.options.wait, &self.queue);
        let patience = wait + Duration::from_secs(30);
        let seconds = wait.as_secs();
        let answer = if self.is_reply {
            let path = format!("/v2/queues/{queue}/messages?pop={limit}&wait={seconds}");
            http.ask(Method::DELETE, &path, Bytes::new(), patience).await?
        } else {
            let path = format!("/v2/queues/{queue}/claims?limit={limit}&wait={seconds}");
            http.ask(Method::POST, &path, self.settler.terms(), patience).await?
        };
        match answer.status {
            StatusCode::NO_CONTENT => return Ok((None, Vec::new())),
            StatusCode::OK | StatusCode::CREATED => {}
            _ => return Err(http.refused(queue, &answer)),
        }
        let coming: Coming = serde_json::from_slice(&answer.body)
            .map_err(|error| http.unreachable(&format!("no answer of a queue service: {error}")))?;
        let claim = answer.location.as_deref().and_then(|at| at.rsplit('/').next());
        Ok((claim.map(str::to_owned), coming.messages))
    }

    async fn deliver(
        &self,
        claim: Option<&str>,
        messages: Vec<Came>,
        room: &mut Vec<OwnedSemaphorePermit>,
    ) {
        if let Some(claim) = claim {
            self.settler.claimed(&self.queue, claim, messages.len());
            if self.shared.closing.is_cancelled() {
                // Who gives up what is in hand may have done so just before.
                return self.settler.give_back(&self.queue, claim).await;
            }
        }
        for mut message in messages {
            // Each takes its place; more than asked for does not come.
            let permit = room.pop();
            let in_hand = claim.map(|claim| InHand {
                settler: self.settler.clone(),
                queue: self.queue.clone(),
                claim: claim.to_owned(),
                id: message.id.clone(),
                parts: None,
                again: self.again.clone(),
                settled: false,
                permit,
            });
            let known = self.again.lock().remove(&message.id);
            let redelivered = message.claim_count > 1 || known;
            let read = message.read();
            let (payload, parts, reply_hint) = match read {
                None => {
                    // Nobody else can read it either.
                    tracing::debug!(queue = %self.queue, "a message that is none of ours");
                    if let Some(in_hand) = in_hand {
                        Box::new(in_hand).ack();
                    }
                    continue;
                }
                Some((Frame::Whole(payload), reply)) => (payload, None, reply),
                Some((Frame::Parts { queue, ids }, reply)) => {
                    match self.collect(&queue, &ids).await {
                        Ok(payload) => (payload, Some(queue), reply),
                        Err(error) => {
                            tracing::debug!(%error, "the parts of a message are not there");
                            if let Some(in_hand) = in_hand {
                                Box::new(in_hand).ack();
                            }
                            continue;
                        }
                    }
                }
            };
            let acker = match in_hand {
                Some(mut in_hand) => {
                    in_hand.parts = parts;
                    Acker::new(in_hand)
                }
                None => {
                    if let Some(parts) = parts {
                        self.settler.send(Command::Remove(parts));
                    }
                    Acker::new(Nothing)
                }
            };
            let inbox = self.inbox.clone();
            // Whoever listened may be gone: what is dropped goes back.
            let _ = self.to.send(Delivery { payload, inbox, redelivered, reply_hint, acker });
        }
    }

    /// The parts of a message, in their order.
    async fn collect(&self, queue: &str, ids: &[String]) -> Result<Bytes, TransportError> {
        let http = &self.shared.http;
        let mut whole = BytesMut::new();
        for id in ids {
            let path = format!("/v2/queues/{queue}/messages/{id}");
            let answer = http.ask(Method::GET, &path, Bytes::new(), super::PATIENCE).await?;
            let there = answer.status == StatusCode::OK;
            let part = there.then(|| serde_json::from_slice::<Came>(&answer.body).ok()).flatten();
            let mut part = part.ok_or_else(|| http.unreachable("a part is missing"))?;
            let Some((Frame::Whole(bytes), _)) = part.read() else {
                return Err(http.unreachable("a part is something else"));
            };
            whole.extend_from_slice(&bytes);
            if whole.len() > http.options.max_message {
                return Err(http.unreachable("the parts are too large"));
            }
        }
        Ok(whole.freeze())
    }
}

/// A delivery that needs no settling.
struct Nothing;

impl Settle for Nothing {
    fn ack(self: Box<Self>) {}
    fn put_back(self: Box<Self>) {}
}

/// A delivery that was not settled yet; it goes back when it is dropped.
struct InHand {
    settler: Settler,
    queue: String,
    claim: String,
    id: String,
    parts: Option<String>,
    again: Arc<Mutex<HashSet<String>>>,
    settled: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Settle for InHand {
    fn ack(mut self: Box<Self>) {
        self.settled = true;
        let (queue, claim) = (self.queue.clone(), self.claim.clone());
        self.settler.send(Command::Ack { queue, claim, id: self.id.clone() });
        if let Some(parts) = self.parts.take() {
            self.settler.send(Command::Remove(parts));
        }
    }

    fn put_back(self: Box<Self>) {
        // Dropping it does.
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if !self.settled {
            self.again.lock().insert(self.id.clone());
            let (queue, claim) = (self.queue.clone(), self.claim.clone());
            self.settler.send(Command::PutBack { queue, claim });
        }
        drop(self.permit.take());
    }
}
