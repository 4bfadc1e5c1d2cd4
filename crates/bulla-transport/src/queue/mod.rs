//! A queue service with Zaqar's v2 API: HTTPS outwards is all that a process needs.
//!
//! A message is posted to the queue of its address and claimed from there; a claim is renewed while its
//! message is in hand, and ends by itself with the process. Each member of a fanout has a queue of its
//! own, and whoever sends to all of them lists those. Replies are taken without a claim: their queue
//! goes with the process. Where the service can hold a request until there is something (`wait`), a
//! message is there at once; one that can't is asked now and then.
//!
//! What a queue service does not have, this transport has not: it can't tell that nobody takes a
//! message, and times to live are as coarse as the service's (a minute at the least).

mod consumer;
mod http;
mod names;
mod options;
mod settle;
mod sign;
mod status;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::time::Instant;

pub use names::QueueUse;
pub use options::QueueOptions;
pub use sign::RequestKey;

use crate::address::{Address, Inbox};
use crate::error::{PublishError, TransportError};
use crate::transport::{
    Capabilities, ConsumeOptions, Consumer, Outbound, Transport, TransportEvent,
};
use consumer::QueueConsumer;
use http::{Answer, Http};
use status::Shared;
use wire::{Body, Made, PART, Posted, Posting};

/// How long a request may take that is not held.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rest before what failed is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long messages live, by what services take: seconds.
const TTL: std::ops::RangeInclusive<u64> = 60..=1_209_600;
const DEFAULT_TTL: u64 = 3600;
/// Names on a page of members.
const PAGE: usize = 20;

/// A way to a queue service. Dropping it ends it; [`Transport::close`] gives back what is in hand.
pub struct QueueTransport {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for QueueTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QueueTransport").field(&self.shared.http.options).finish()
    }
}

impl QueueTransport {
    /// Asks the service whether it is one.
    ///
    /// # Errors
    /// It can't be reached, or is something else.
    pub async fn connect(options: QueueOptions) -> Result<Self, TransportError> {
        let http = Arc::new(Http::new(options)?);
        let answer = http.ask(Method::GET, "/", Bytes::new(), PATIENCE).await?;
        let is_one = answer.status == StatusCode::MULTIPLE_CHOICES
            && serde_json::from_slice::<serde_json::Value>(&answer.body)
                .is_ok_and(|document| document.get("versions").is_some());
        if !is_one {
            return Err(http.unreachable("it is no queue service"));
        }
        Ok(Self { shared: Arc::new(Shared::new(http)) })
    }

    /// Asks until there is an answer, while there is time.
    async fn insist(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        until: Instant,
    ) -> Result<Answer, TransportError> {
        loop {
            self.shared.ensure_open()?;
            let http = &self.shared.http;
            let left = until.saturating_duration_since(Instant::now()).min(PATIENCE);
            let asked = http.ask(method.clone(), path, body.clone(), left.max(RETRY)).await;
            let failed = match asked {
                Ok(answer) if is_later(answer.status) => http.refused(path, &answer),
                Ok(answer) => {
                    self.shared.is_up();
                    return Ok(answer);
                }
                Err(error @ TransportError::Unreachable { .. }) => error,
                Err(error) => return Err(error),
            };
            self.shared.is_down(&failed);
            if Instant::now() + RETRY >= until {
                return Err(failed);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn expect(
        &self,
        (method, path): (Method, &str),
        body: Bytes,
        wanted: &[StatusCode],
    ) -> Result<Answer, TransportError> {
        let answer = self.insist(method, path, body, Instant::now() + PATIENCE).await?;
        if wanted.contains(&answer.status) {
            return Ok(answer);
        }
        Err(self.shared.http.refused(path, &answer))
    }

    /// Posts a message; its id.
    async fn post(
        &self,
        queue: &str,
        ttl: u64,
        body: Body,
        end: Instant,
    ) -> Result<String, Rejected> {
        let posting = Posting { messages: vec![Posted { ttl, body }] };
        let bytes = serde_json::to_vec(&posting).unwrap_or_default();
        let path = format!("/v2/queues/{queue}/messages");
        let answer = self.insist(Method::POST, &path, bytes.into(), end).await?;
        let http = &self.shared.http;
        if answer.status != StatusCode::CREATED {
            return Err(http.refused(&path, &answer).into());
        }
        let made: Option<Made> = serde_json::from_slice(&answer.body).ok();
        let made = made.and_then(|made| made.resources.into_iter().next());
        let made = made.ok_or_else(|| http.unreachable("it does not say what it made"))?;
        Ok(made.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// Posts the parts of a large message, and says where.
    async fn parts(
        &self,
        frame: &Bytes,
        ttl: u64,
        end: Instant,
    ) -> Result<(String, Vec<String>), Rejected> {
        let mut chance = [0; 16];
        aws_lc_rs::rand::fill(&mut chance).map_err(|_| Rejected(PublishError::Rejected))?;
        let queue = names::parts(&chance);
        let mut ids = Vec::new();
        for part in frame.chunks(PART) {
            ids.push(self.post(&queue, ttl, Body::whole(part, None), end).await?);
        }
        Ok((queue, ids))
    }

    /// The queues of a fanout's members.
    async fn members(&self, exchange: &str, topic: &str) -> Result<Vec<String>, TransportError> {
        #[derive(serde::Deserialize)]
        struct Queue {
            name: String,
        }
        #[derive(serde::Deserialize)]
        struct Queues {
            queues: Vec<Queue>,
        }
        let prefix = names::fanout(exchange, topic);
        let (mut found, mut marker) = (Vec::new(), prefix.clone());
        loop {
            let path = format!("/v2/queues?limit={PAGE}&marker={marker}");
            let answer = self.expect((Method::GET, &path), Bytes::new(), &[StatusCode::OK]).await?;
            let page: Queues = serde_json::from_slice(&answer.body)
                .map_err(|error| self.shared.http.unreachable(&error.to_string()))?;
            let full = page.queues.len() == PAGE;
            let all = page.queues.len();
            let names = page.queues.into_iter().map(|queue| queue.name);
            let members: Vec<_> = names.take_while(|name| name.starts_with(&prefix)).collect();
            let over = members.len() < all || !full;
            found.extend(members);
            match found.last() {
                Some(last) if !over => marker.clone_from(last),
                _ => return Ok(found),
            }
        }
    }

    async fn make(&self, inbox: &Inbox) -> Result<String, TransportError> {
        self.shared.ensure_open()?;
        let queue = names::inbox(inbox);
        let path = format!("/v2/queues/{queue}");
        // What the hash is of, for whoever looks after the service.
        let metadata = json!({ "inbox": inbox.queue_name() }).to_string();
        let made = [StatusCode::CREATED, StatusCode::NO_CONTENT];
        let answer = self.expect((Method::PUT, &path), metadata.into(), &made).await?;
        if !matches!(inbox, Inbox::Reply { .. }) {
            return Ok(queue);
        }
        let mut replies = self.shared.replies.lock();
        if !replies.contains(&queue) {
            if answer.status != StatusCode::CREATED {
                return Err(TransportError::Refused {
                    what: format!("the queue {}", inbox.queue_name()),
                    why: "it belongs to another process; choose another process name".to_owned(),
                });
            }
            replies.push(queue.clone());
        }
        Ok(queue)
    }
}

/// There may be an answer later.
fn is_later(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::BAD_GATEWAY
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
    )
}

/// A message that was not taken.
struct Rejected(PublishError);

impl From<TransportError> for Rejected {
    fn from(error: TransportError) -> Self {
        Self(PublishError::Transport(error))
    }
}

#[async_trait]
impl Transport for QueueTransport {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            ttl: false,
            prefetch: true,
            returns_unroutable: false,
            redelivers: true,
            counts_consumers: false,
            max_message: self.shared.http.options.max_message,
        }
    }

    async fn declare(&self, inbox: &Inbox, _: &ConsumeOptions) -> Result<(), TransportError> {
        self.make(inbox).await.map(drop)
    }

    async fn publish(&self, to: &Address, message: Outbound) -> Result<(), PublishError> {
        self.shared.ensure_open()?;
        let (size, limit) = (message.payload.len(), self.shared.http.options.max_message);
        if size > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        let end = Instant::now() + message.ttl.unwrap_or(PATIENCE);
        let seconds = message.ttl.map_or(DEFAULT_TTL, |ttl| ttl.as_secs() + 1);
        let ttl = seconds.clamp(*TTL.start(), *TTL.end());
        let queues = match (names::address(to), to) {
            (Some(queue), _) => vec![queue],
            (None, Address::Fanout { exchange, topic }) => self.members(exchange, topic).await?,
            (None, _) => Vec::new(),
        };
        let (frame, reply) = (&message.payload, message.reply_hint.as_ref());
        for queue in queues {
            let body = if size > PART {
                let parts = self.parts(frame, ttl, end).await;
                let (queue, ids) = parts.map_err(|Rejected(error)| error)?;
                Body::parts(queue, ids, reply)
            } else {
                Body::whole(frame, reply)
            };
            let posted = self.post(&queue, ttl, body, end).await;
            posted.map_err(|Rejected(error)| error)?;
        }
        Ok(())
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let queue = self.make(inbox).await?;
        let (shared, inbox) = (self.shared.clone(), inbox.clone());
        Ok(Box::new(QueueConsumer::start(shared, inbox, queue, options.prefetch)))
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        let queue = names::inbox(inbox);
        self.shared.replies.lock().retain(|own| *own != queue);
        let path = format!("/v2/queues/{queue}");
        let wanted = [StatusCode::NO_CONTENT];
        self.expect((Method::DELETE, &path), Bytes::new(), &wanted).await.map(drop)
    }

    async fn waiting(&self, inbox: &Inbox) -> Result<u64, TransportError> {
        let path = format!("/v2/queues/{}/stats", names::inbox(inbox));
        let answer = self.expect((Method::GET, &path), Bytes::new(), &[StatusCode::OK]).await?;
        let stats: serde_json::Value = serde_json::from_slice(&answer.body)
            .map_err(|error| self.shared.http.unreachable(&error.to_string()))?;
        Ok(stats.pointer("/messages/free").and_then(serde_json::Value::as_u64).unwrap_or_default())
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        self.shared.events.subscribe()
    }

    async fn close(&self) {
        if self.shared.closing.is_cancelled() {
            return;
        }
        self.shared.closing.cancel();
        self.shared.taking.close();
        // Who is slower gives back what it has by itself.
        let _ = tokio::time::timeout(2 * consumer::LAST, self.shared.taking.wait()).await;
        self.shared.settler.close().await;
        let replies = std::mem::take(&mut *self.shared.replies.lock());
        for queue in replies {
            let path = format!("/v2/queues/{queue}");
            // It holds nothing that anybody waits for.
            let _ = self.shared.http.ask(Method::DELETE, &path, Bytes::new(), PATIENCE).await;
        }
    }
}

impl Drop for QueueTransport {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}
