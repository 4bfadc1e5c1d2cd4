//! Calling, casting and fanning out.

mod call;
mod deadlines;
mod fanout;
mod pending;
mod policy;
mod replies;
mod request;
mod statement;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bulla_seal::{MessageBuf, MessageId, MessageKind};
use bulla_transport::{Address, ConsumeOptions, Inbox, Outbound, ReplyName};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

pub use call::{Progress, Step};
pub use request::Request;

use crate::endpoint::Endpoint;
use crate::error::CallError;
use crate::rate::SenderRates;
use crate::target::Target;
use crate::value;
use fanout::FanoutState;
use pending::Pending;
use request::Prepared;

/// How long a call waits unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a cast waits for an agent that is away unless told otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// Messages sent again with their offer, per second, because a notice asks for it.
const RESENDS_PER_SECOND: u32 = 200;

/// Room that is made for a plaintext before it is known.
const LARGEST_GUESS: usize = 64 << 10;

/// Makes calls, casts and fanouts as one principal. Cheap to clone.
///
/// All calls of a client share one reply inbox, opened at the first call.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

/// A client that is used while it lives, and not kept alive.
#[derive(Clone)]
pub(crate) struct WeakClient(Weak<Inner>);

impl WeakClient {
    pub(crate) fn upgrade(&self) -> Option<Client> {
        self.0.upgrade().map(Client)
    }
}

pub(crate) struct Inner {
    endpoint: Endpoint,
    pending: Arc<Pending>,
    replies: OnceCell<replies::Listener>,
    fanout: FanoutState,
    reply_name: ReplyName,
    closed: CancellationToken,
    asking: statement::Asking,
    /// Through which the control plane is asked, if not through this one.
    asks: Option<Client>,
    /// Bytes of the last plaintext: the next one is likely to be as large.
    filled: AtomicUsize,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody waits any more: the reply inbox goes too.
        self.closed.cancel();
    }
}

impl Client {
    /// A client of this endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        let reply_name = endpoint.next_reply_name();
        Self::with_reply_name(endpoint, reply_name, None)
    }

    /// Another client of the same endpoint, whose replies go to a queue of that name on the oslo
    /// carrier. Nobody but it may consume from that queue. What it has to ask the control plane, it
    /// asks through this one.
    ///
    /// # Errors
    /// It is no name of such a queue.
    pub fn with_reply_queue(&self, queue: &str) -> Result<Self, CallError> {
        let unusable = || CallError::Usage(format!("`{queue}` is no name of a reply queue"));
        let name = ReplyName::queue(queue).ok_or_else(unusable)?;
        Ok(Self::with_reply_name(self.endpoint().clone(), name, Some(self.clone())))
    }

    fn with_reply_name(endpoint: Endpoint, reply_name: ReplyName, asks: Option<Self>) -> Self {
        Self(Arc::new(Inner {
            reply_name,
            endpoint,
            pending: Arc::default(),
            replies: OnceCell::new(),
            fanout: FanoutState::default(),
            closed: CancellationToken::new(),
            asking: statement::Asking::default(),
            asks,
            filled: AtomicUsize::new(0),
        }))
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    pub(crate) fn downgrade(&self) -> WeakClient {
        WeakClient(Arc::downgrade(&self.0))
    }

    /// Calls `method` of `target` and waits for its result, [`DEFAULT_TIMEOUT`] at the most.
    pub async fn call<A, R>(&self, target: &Target, method: &str, args: &A) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.request(target, method).call(args).await
    }

    /// Sends `method` to `target` without waiting for it to run; it waits [`DEFAULT_TTL`] for a
    /// target that is away.
    pub async fn cast<A>(
        &self,
        target: &Target,
        method: &str,
        args: &A,
    ) -> Result<MessageId, CallError>
    where
        A: Serialize + ?Sized,
    {
        self.request(target, method).cast(args).await
    }

    /// Sends `method` to every member of the group `target`.
    pub async fn fanout<A>(
        &self,
        target: &Target,
        method: &str,
        args: &A,
    ) -> Result<MessageId, CallError>
    where
        A: Serialize + ?Sized,
    {
        self.request(target, method).fanout(args).await
    }

    /// Begins a request, to be given options and then called, cast or fanned out.
    pub fn request<'a>(&'a self, target: &'a Target, method: &'a str) -> Request<'a> {
        Request::new(self, target, method)
    }

    /// Where the replies to this client's calls go.
    pub fn reply_name(&self) -> &ReplyName {
        &self.0.reply_name
    }

    /// How many calls wait for their reply now.
    pub fn waiting(&self) -> usize {
        self.0.pending.len()
    }

    /// Stops listening for replies; waiting calls end with [`CallError::Closed`].
    pub fn close(&self) {
        self.0.closed.cancel();
        self.0.pending.fail_all(&CallError::Closed);
    }

    /// Opens the reply inbox now instead of at the first call: a broker user that may not declare
    /// the reply exchange itself can use it from then on.
    pub async fn listen(&self) -> Result<(), CallError> {
        self.start_replies().await
    }

    /// Takes what came to the reply inbox another way than through the transport's consumer, on this
    /// thread. Call it inside a Tokio runtime. Before the first call there is nothing to be answered.
    pub fn take_reply(&self, payload: Bytes) {
        if let Some(listener) = self.0.replies.get().filter(|_| !self.0.closed.is_cancelled()) {
            listener.take(payload);
        }
    }

    /// A buffer for a request's plaintext, with room for one like the last.
    fn buffer(&self) -> MessageBuf {
        let last = self.0.filled.load(Ordering::Relaxed);
        MessageBuf::with_capacity((last + last / 8).clamp(1024, LARGEST_GUESS))
    }

    fn has_filled(&self, bytes: usize) {
        self.0.filled.store(bytes, Ordering::Relaxed);
    }

    async fn start_replies(&self) -> Result<(), CallError> {
        self.0
            .replies
            .get_or_try_init(|| async {
                let endpoint = &self.0.endpoint;
                let inbox = Inbox::Reply {
                    exchange: endpoint.options.exchange.clone(),
                    name: self.0.reply_name.clone(),
                };
                let events = endpoint.transport.events();
                let options = ConsumeOptions { prefetch: 2048, ..ConsumeOptions::default() };
                let consumer = endpoint.transport.consume(&inbox, &options).await?;
                let listener = replies::Listener {
                    endpoint: endpoint.clone(),
                    pending: self.0.pending.clone(),
                    reply_name: self.0.reply_name.clone(),
                    resends: Arc::new(SenderRates::new(RESENDS_PER_SECOND)),
                };
                listener.clone().start(consumer, events, &self.0.closed);
                Ok(listener)
            })
            .await
            .map(drop)
    }

    /// Seals `request` with `args` for its target.
    async fn prepare<A: Serialize + ?Sized>(
        &self,
        request: &Request<'_>,
        kind: MessageKind,
        life: Duration,
        args: &A,
    ) -> Result<Prepared, CallError> {
        let endpoint = &self.0.endpoint;
        let principal = request
            .target
            .principal()
            .ok_or_else(|| CallError::Usage("a group takes fanouts, not calls or casts".into()))?;
        if !request.asks_statement && kind == MessageKind::Call {
            self.ensure_statement(principal).await;
        }
        let session = endpoint.session_to(principal).await?;
        let reply_to = (kind == MessageKind::Call).then(|| self.0.reply_name.as_str());
        let buf = request.plaintext(args, reply_to, endpoint.options.max_message)?;
        Prepared::seal(endpoint, request, kind, life, session, buf)
    }

    async fn publish(
        &self,
        request: &Request<'_>,
        address: &Address,
        outbound: Outbound,
    ) -> Result<(), CallError> {
        let transport = &self.0.endpoint.transport;
        let sent = match transport.publish_now(address, &outbound) {
            Some(sent) => sent,
            None => transport.publish(address, outbound).await,
        };
        sent.map_err(|error| match error {
            bulla_transport::PublishError::Unroutable { .. } => {
                CallError::Unroutable { target: request.target.to_string() }
            }
            other => CallError::Publish(other),
        })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.0.endpoint.identity.party())
    }
}

/// Decodes a result; `()` takes anything.
fn decode<R: DeserializeOwned>(item: &[u8]) -> Result<R, CallError> {
    value::decode(item).map_err(CallError::Value)
}
