//! Calling peers that do not seal, under exemptions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bulla_rpc::Endpoint;
use bulla_seal::{Level, Principal};
use bulla_transport::{
    Address, ConsumeOptions, Consumer, Inbox, Outbound, PublishError, ReplyName, Transport,
    TransportError,
};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::ids::Ids;
use crate::legacy::{self, LegacyKey};
use crate::transport::OsloTransport;
use crate::wire::{
    self, Call, Driver, Failure, Id, Message, Monitor, Notification, Plain, PlainReply,
    PlainRequest, ReplyQueue,
};

/// How long a call waits unless told otherwise: oslo.messaging's `rpc_response_timeout`.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer that does not seal, and where it is.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Whom the exemption names.
    pub principal: Principal,
    /// The control exchange.
    pub exchange: String,
    /// The topic.
    pub topic: String,
    /// One server of the topic.
    pub server: Option<String>,
    /// What it reads.
    pub form: Form,
}

/// What a peer reads.
#[derive(Debug, Clone)]
pub enum Form {
    /// Clear text.
    Clear,
    /// Trove's serializer with this key.
    Trove(Arc<LegacyKey>),
}

/// A request to such a peer.
#[derive(Debug, Clone, Default)]
pub struct ClearRequest {
    /// The method.
    pub method: String,
    /// Its arguments.
    pub args: Map<String, Value>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// The version that is asked for; 1.0 unless given.
    pub version: Option<String>,
    /// The request's context.
    pub context: Map<String, Value>,
    /// How long a call waits; 60 s unless given.
    pub timeout: Option<Duration>,
    /// How long it waits between two signs of life; then `timeout` is the limit for the whole
    /// (`call_monitor_timeout`).
    pub monitor: Option<Duration>,
}

/// Why such a call did not succeed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClearError {
    /// There is no live exemption for this peer, method and form.
    #[error(
        "{peer} is not sent {method} at level {level}: no exemption lets that through (bulla peers exempt)"
    )]
    NotExempted {
        /// Who.
        peer: Principal,
        /// What.
        method: String,
        /// How.
        level: Level,
    },
    /// The peer answered with an exception, or somebody on the bus did: nothing proves it.
    #[error("{}: {}", .0.class, .0.message)]
    Failed(Box<Failure>),
    /// What came back does not open with the peer's key.
    #[error("the answer does not open with the peer's key")]
    NotAuthentic,
    /// No answer, or no sign of life, in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The bus did not take the message.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The bus can't be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

type Waiting = Arc<Mutex<HashMap<Id, mpsc::Sender<PlainReply>>>>;

/// Calls, casts and fanouts to peers that do not seal. Each is looked up among the exemptions first, told as
/// an event and counted; there is no way around.
pub struct ClearClient {
    endpoint: Endpoint,
    transport: Arc<OsloTransport>,
    reply_queue: ReplyQueue,
    waiting: Waiting,
    ids: Ids,
    listening: tokio::sync::OnceCell<()>,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl ClearClient {
    /// Over the endpoint's own carrier, with a reply queue of its own.
    ///
    /// # Errors
    /// The name of the reply queue can't be made.
    pub fn new(endpoint: Endpoint, transport: Arc<OsloTransport>) -> Result<Self, ClearError> {
        let ids = Ids::default();
        let name = format!("reply_{}", ids.next());
        let reply_queue = ReplyQueue::parse(&name).ok_or(ClearError::Closed)?;
        let stop = CancellationToken::new();
        Ok(Self {
            endpoint,
            transport,
            reply_queue,
            waiting: Waiting::default(),
            ids,
            listening: tokio::sync::OnceCell::new(),
            _stop: stop.clone().drop_guard(),
            stop,
        })
    }

    /// Calls and waits for the result.
    ///
    /// # Errors
    /// No exemption, no answer, or an exception.
    pub async fn call(&self, peer: &Peer, request: ClearRequest) -> Result<Value, ClearError> {
        self.permit(peer, &request)?;
        self.listen(&peer.exchange).await?;
        let timeout = request.timeout.unwrap_or(PATIENCE);
        let monitor = request.monitor.and_then(|every| Monitor::from_secs(every.as_secs_f64()));
        let call = Call { id: self.ids.next(), reply_queue: self.reply_queue.clone(), monitor };
        let (answer, mut answers) = mpsc::channel(16);
        self.waiting.lock().insert(call.id, answer);
        let _forget = Forget { waiting: &self.waiting, id: call.id };
        let every = request.monitor;
        let body = self.body(peer, request, Some(call))?;
        let ttl = Some(timeout);
        self.publish(&address(peer), Outbound { ttl, mandatory: false, ..Outbound::new(body) })
            .await?;
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let patience = deadline.min(tokio::time::Instant::now() + every.unwrap_or(timeout));
            let answer = tokio::time::timeout_at(patience, answers.recv()).await;
            let reply = answer.map_err(|_| ClearError::Timeout(every.unwrap_or(timeout)))?;
            let reply = reply.ok_or(ClearError::Closed)?;
            if reply.ending {
                return result(peer, reply);
            }
        }
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// No exemption, or the bus does not take it.
    pub async fn cast(&self, peer: &Peer, request: ClearRequest) -> Result<(), ClearError> {
        self.permit(peer, &request)?;
        let body = self.body(peer, request, None)?;
        self.publish(&address(peer), Outbound { confirm: true, ..Outbound::new(body) }).await
    }

    /// Sends to every server of the peer's topic.
    ///
    /// # Errors
    /// As [`cast`](Self::cast).
    pub async fn fanout(&self, peer: &Peer, request: ClearRequest) -> Result<(), ClearError> {
        self.permit(peer, &request)?;
        let body = self.body(peer, request, None)?;
        let (exchange, topic) = (peer.exchange.clone(), peer.topic.clone());
        let to = Address::Fanout { exchange, topic };
        self.publish(&to, Outbound { confirm: true, ..Outbound::new(body) }).await
    }

    /// Sends a notification in clear to who listens on the peer's topic; its event type has to be exempted.
    ///
    /// # Errors
    /// As [`cast`](Self::cast).
    pub async fn notify(
        &self,
        peer: &Peer,
        notification: &Notification,
        driver: Driver,
    ) -> Result<(), ClearError> {
        let request =
            ClearRequest { method: notification.event_type.clone(), ..ClearRequest::default() };
        self.permit(peer, &request)?;
        let key = notification.routing_key(&peer.topic);
        let queue = Inbox::Foreign(self.transport.queues().named(&peer.exchange, key.clone()));
        // As oslo.messaging does: what nobody listens to waits.
        self.transport.inner().declare(&queue, &ConsumeOptions::default()).await?;
        let exchange = Some(self.transport.queues().control(&peer.exchange));
        let body = notification.body(driver);
        let outbound = Outbound { confirm: true, ..Outbound::new(body.into()) };
        Ok(self.transport.inner().publish(&Address::Foreign { exchange, key }, outbound).await?)
    }

    /// A live exemption names the peer, the method and a level that is not above.
    fn permit(&self, peer: &Peer, request: &ClearRequest) -> Result<(), ClearError> {
        let level = peer.form.level();
        let method = match &request.namespace {
            Some(namespace) => format!("{namespace}.{}", request.method),
            None => request.method.clone(),
        };
        if self.endpoint.use_exemption(&peer.principal, &method, level).is_none() {
            return Err(ClearError::NotExempted { peer: peer.principal.clone(), method, level });
        }
        Ok(())
    }

    fn body(
        &self,
        peer: &Peer,
        request: ClearRequest,
        call: Option<Call>,
    ) -> Result<bytes::Bytes, ClearError> {
        let (args, context) = match &peer.form {
            Form::Clear => (request.args, request.context),
            Form::Trove(key) => legacy::encrypt(key, &request.args, &request.context)
                .ok_or(ClearError::NotAuthentic)?,
        };
        let request = PlainRequest {
            method: request.method,
            args,
            namespace: request.namespace,
            version: Some(request.version.unwrap_or_else(|| "1.0".to_owned())),
            context,
            call,
            unique_id: self.ids.next(),
        };
        Ok(request.body().into())
    }

    async fn publish(&self, to: &Address, outbound: Outbound) -> Result<(), ClearError> {
        Ok(self.transport.publish(to, outbound).await?)
    }

    async fn listen(&self, exchange: &str) -> Result<(), ClearError> {
        let listening = || async {
            let name = ReplyName::queue(self.reply_queue.as_str()).ok_or(ClearError::Closed)?;
            let inbox = Inbox::Reply { exchange: exchange.to_owned(), name };
            let consumer = self.transport.consume(&inbox, &ConsumeOptions::default()).await?;
            let max = self.transport.capabilities().max_message;
            tokio::spawn(receive(consumer, self.waiting.clone(), max, self.stop.clone()));
            Ok(())
        };
        self.listening.get_or_try_init(listening).await.copied()
    }
}

impl fmt::Debug for ClearClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClearClient({})", self.reply_queue)
    }
}

impl Form {
    fn level(&self) -> Level {
        match self {
            Self::Clear => Level::Plaintext,
            Self::Trove(_) => Level::AesCbc,
        }
    }
}

/// Nobody waits for it any more.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: Id,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

fn address(peer: &Peer) -> Address {
    let (exchange, topic) = (peer.exchange.clone(), peer.topic.clone());
    match peer.server.clone() {
        Some(server) => Address::Server { exchange, topic, server },
        None => Address::Topic { exchange, topic },
    }
}

fn result(peer: &Peer, reply: PlainReply) -> Result<Value, ClearError> {
    match (reply.failure, &peer.form) {
        (Some(failure), _) => Err(ClearError::Failed(Box::new(failure))),
        (None, Form::Clear) => Ok(reply.result),
        (None, Form::Trove(key)) => {
            legacy::decrypt_result(key, &reply.result).ok_or(ClearError::NotAuthentic)
        }
    }
}

/// Gives replies to who waits for them. What is not for anybody is dropped.
async fn receive(
    mut consumer: Box<dyn Consumer>,
    waiting: Waiting,
    max: usize,
    stop: CancellationToken,
) {
    loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery,
            () = stop.cancelled() => None,
        };
        let Some(delivery) = delivery else { break };
        delivery.acker.ack();
        if let Ok(Message::Plain(Plain::Reply(reply))) = wire::read(&delivery.payload, max) {
            let waits = waiting.lock().get(&reply.call).cloned();
            if let Some(waits) = waits {
                // A caller that has more than it can take has its answer.
                let _ = waits.try_send(reply);
            }
        }
    }
    consumer.stop().await;
    waiting.lock().clear();
}
