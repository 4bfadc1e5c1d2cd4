//! A request with its options.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bulla_seal::{
    Frame, Level, MessageBuf, MessageId, MessageKind, Protection, ReplyBinding, RequestBody,
    RequestSpec,
};
use bulla_transport::{Address, Outbound};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::Waiting;
use super::pending::{Last, Reply, SentCall};
use super::{Client, DEFAULT_TIMEOUT, DEFAULT_TTL, Progress};
use crate::counters::CallOutcome;
use crate::endpoint::Endpoint;
use crate::error::CallError;
use crate::sessions::{OutSession, Path};
use crate::standing::fitting;
use crate::target::Target;
use crate::trace::{self, OpenSpan, SpanKind, TraceContext};
use crate::value;

/// A request in the making: options first, then [`call`](Self::call), [`cast`](Self::cast),
/// [`notify`](Self::notify) or [`fanout`](Self::fanout).
#[derive(Debug, Clone)]
pub struct Request<'a> {
    client: &'a Client,
    pub(super) target: &'a Target,
    method: &'a str,
    namespace: Option<&'a str>,
    version: &'a str,
    context: Option<Vec<u8>>,
    trace_parent: Option<Cow<'a, str>>,
    pub(super) timeout: Duration,
    pub(super) ttl: Duration,
    protect: Protect,
    cancel_on_drop: bool,
    pub(super) asks_statement: bool,
}

impl<'a> Request<'a> {
    pub(super) fn new(client: &'a Client, target: &'a Target, method: &'a str) -> Self {
        Self {
            client,
            target,
            method,
            namespace: None,
            version: "1.0",
            context: None,
            trace_parent: None,
            timeout: DEFAULT_TIMEOUT,
            ttl: DEFAULT_TTL,
            protect: Protect::Sealed,
            cancel_on_drop: true,
            asks_statement: false,
        }
    }

    /// The method's namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &'a str) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// The version asked for, `major.minor`; `1.0` unless given.
    #[must_use]
    pub fn version(mut self, version: &'a str) -> Self {
        self.version = version;
        self
    }

    /// The request's context: who is behind it, and so on. Travels inside the seal.
    pub fn context<C: Serialize + ?Sized>(mut self, context: &C) -> Result<Self, CallError> {
        self.context = Some(value::to_vec(context)?);
        Ok(self)
    }

    /// W3C trace context, if it is not the [current](crate::trace::current) one. Travels inside the
    /// seal.
    #[must_use]
    pub fn trace_parent(mut self, trace_parent: &'a str) -> Self {
        self.trace_parent = Some(Cow::Borrowed(trace_parent));
        self
    }

    /// How long a call may take; its message can't be run later. At most a day.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a cast or fanout may wait for its target. At most a day.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Level `signed`: readable by the bus, for topics that are configured so.
    #[must_use]
    pub fn signed(mut self) -> Self {
        self.protect = Protect::Signed;
        self
    }

    /// The sender's signature inside the seal, for receivers that demand it.
    #[must_use]
    pub fn sign_inside(mut self) -> Self {
        self.protect = Protect::SealedSigned;
        self
    }

    /// Whether the peer is told to stop when the call is dropped or times out; it is, unless set
    /// to false.
    #[must_use]
    pub fn cancel_on_drop(mut self, cancel: bool) -> Self {
        self.cancel_on_drop = cancel;
        self
    }

    /// For the question for a statement of revocation.
    #[must_use]
    pub(super) fn asks_statement(mut self) -> Self {
        self.asks_statement = true;
        self
    }

    /// Calls and waits for the result.
    pub async fn call<A, R>(self, args: &A) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let mut waiting = self.start(args, false).await?;
        loop {
            match waiting.next().await? {
                Reply::Value(reply) => return super::decode(reply.payload()),
                Reply::Progress(_) => {}
            }
        }
    }

    /// Calls and gives every sign of progress to `on_progress` until the result comes.
    pub async fn call_with_progress<A, R, P>(
        self,
        args: &A,
        mut on_progress: impl FnMut(P),
    ) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
        P: DeserializeOwned,
    {
        let mut waiting = self.start(args, true).await?;
        loop {
            match waiting.next().await? {
                Reply::Value(reply) => return super::decode(reply.payload()),
                Reply::Progress(item) => on_progress(super::decode(&item)?),
            }
        }
    }

    /// Calls and gives a stream of progress, the result last.
    pub async fn stream<A>(self, args: &A) -> Result<Progress, CallError>
    where
        A: Serialize + ?Sized,
    {
        self.start(args, true).await.map(Progress::new)
    }

    async fn start<A: Serialize + ?Sized>(
        mut self,
        args: &A,
        progress: bool,
    ) -> Result<Waiting, CallError> {
        check_life(self.timeout)?;
        let span = self.begin_span(SpanKind::Client);
        match self.send_call(args, progress).await {
            Ok(mut waiting) => {
                waiting.traced_by(span);
                Ok(waiting)
            }
            Err(error) => {
                self.client.endpoint().counters.called(CallOutcome::of(&error));
                fail(span, &error);
                Err(error)
            }
        }
    }

    /// The trace that is told to the peer: this request's own span if there are spans, else what
    /// it was given, else the current one.
    pub(super) fn begin_span(&mut self, kind: SpanKind) -> Option<OpenSpan> {
        let given = self.trace_parent.as_deref().and_then(TraceContext::parse);
        let parent = given.or_else(trace::current);
        let endpoint = self.client.endpoint();
        let (target, method, namespace) = (self.target, self.method, self.namespace);
        let full = || match namespace {
            Some(namespace) => format!("{namespace}.{method}"),
            None => method.to_owned(),
        };
        let span = endpoint.span(kind, parent.into(), || Cow::Owned(full())).map(|mut span| {
            span.set("rpc.system", "bulla");
            span.set("rpc.service", target);
            span.set("rpc.method", method);
            span
        });
        let own = span.as_ref().map(OpenSpan::context).or(parent.filter(|_| given.is_none()));
        if let Some(context) = own {
            self.trace_parent = Some(Cow::Owned(context.to_string()));
        }
        span
    }

    async fn send_call<A: Serialize + ?Sized>(
        &self,
        args: &A,
        progress: bool,
    ) -> Result<Waiting, CallError> {
        let client = self.client;
        if client.0.closed.is_cancelled() {
            return Err(CallError::Closed);
        }
        client.start_replies().await?;
        let prepared = client.prepare(self, MessageKind::Call, self.timeout, args).await?;
        let payload = prepared.frame.bytes().clone();
        let (sent, address) = prepared.into_sent(self.asks_statement);
        let waiting = Waiting::register(client, self, sent, progress, self.cancel_on_drop);
        let outbound = Outbound {
            ttl: Some(self.timeout),
            reply_hint: Some(client.reply_name().clone()),
            mandatory: true,
            ..Outbound::new(payload)
        };
        if let Err(error) = client.publish(self, &address, outbound).await {
            waiting.not_sent();
            return Err(error);
        }
        Ok(waiting)
    }

    /// Sends without waiting for it to run; returns its id when the bus has taken it over.
    pub async fn cast<A: Serialize + ?Sized>(self, args: &A) -> Result<MessageId, CallError> {
        self.one_way(MessageKind::Cast, args).await
    }

    /// Sends a notification (an event; `method` is its type) to a component.
    pub async fn notify<A: Serialize + ?Sized>(self, args: &A) -> Result<MessageId, CallError> {
        self.one_way(MessageKind::Notification, args).await
    }

    async fn one_way<A>(mut self, kind: MessageKind, args: &A) -> Result<MessageId, CallError>
    where
        A: Serialize + ?Sized,
    {
        check_life(self.ttl)?;
        let span = self.begin_span(SpanKind::Producer);
        let sent = self.send_one_way(kind, args).await;
        self.was_sent(span, sent)
    }

    fn was_sent(
        &self,
        span: Option<OpenSpan>,
        sent: Result<MessageId, CallError>,
    ) -> Result<MessageId, CallError> {
        match &sent {
            Ok(_) => self.client.endpoint().counters.sent.add(1),
            Err(error) => fail(span, error),
        }
        sent
    }

    async fn send_one_way<A>(&self, kind: MessageKind, args: &A) -> Result<MessageId, CallError>
    where
        A: Serialize + ?Sized,
    {
        let client = self.client;
        let prepared = client.prepare(self, kind, self.ttl, args).await?;
        let outbound = Outbound {
            ttl: Some(self.ttl),
            persistent: true,
            mandatory: true,
            confirm: true,
            ..Outbound::new(prepared.frame.bytes().clone())
        };
        client.declare_target(self.target).await;
        client.publish(self, &prepared.path.address, outbound).await?;
        Ok(prepared.frame.id())
    }

    /// Sends to every member of a group.
    pub async fn fanout<A>(mut self, args: &A) -> Result<MessageId, CallError>
    where
        A: Serialize + ?Sized,
    {
        check_life(self.ttl)?;
        let span = self.begin_span(SpanKind::Producer);
        let sent = self.client.send_fanout(&self, args).await;
        self.was_sent(span, sent)
    }

    /// The plaintext in a buffer with room for the envelope around it.
    pub(super) fn plaintext<A: Serialize + ?Sized>(
        &self,
        args: &A,
        reply_to: Option<&str>,
        limit: usize,
    ) -> Result<MessageBuf, CallError> {
        let body = RequestBody {
            namespace: self.namespace,
            method: self.method,
            version: self.version,
            args: &[],
            context: self.context.as_deref(),
            trace_parent: self.trace_parent.as_deref(),
            reply_to,
        };
        let mut buf = self.client.buffer();
        body.write_before_args(buf.sink());
        value::encode(args, buf.sink())?;
        body.write_after_args(buf.sink());
        self.client.has_filled(buf.len());
        if buf.len() > limit {
            return Err(CallError::TooLarge { size: buf.len(), limit });
        }
        Ok(buf)
    }
}

/// How a request is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protect {
    Sealed,
    SealedSigned,
    Signed,
}

/// Ends a span with the stable name of what went wrong.
fn fail(span: Option<OpenSpan>, error: &CallError) {
    if let Some(mut span) = span {
        span.fail(CallOutcome::of(error).as_str());
    }
}

fn check_life(life: Duration) -> Result<(), CallError> {
    let limit = Duration::from_secs(bulla_seal::MAX_LIFE);
    if life.is_zero() || life > limit {
        return Err(CallError::Usage(
            "a message lives longer than nothing and at most a day".into(),
        ));
    }
    Ok(())
}

/// Whole seconds, rounded up: what the header can say.
pub(super) fn whole_seconds(life: Duration) -> u64 {
    (life.as_secs() + u64::from(life.subsec_nanos() > 0)).min(bulla_seal::MAX_LIFE)
}

/// A sealed request, before and after it is sent.
pub(super) struct Prepared {
    pub(super) frame: Frame,
    pub(super) session: Arc<OutSession>,
    pub(super) level: Level,
    pub(super) path: Arc<Path>,
    statement: u64,
}

impl Prepared {
    fn into_sent(self, asks_statement: bool) -> (Arc<SentCall>, Arc<Address>) {
        let address = self.path.address.clone();
        let binding = ReplyBinding {
            request: self.frame.id(),
            digest: self.frame.digest(),
            level: self.level,
            route: self.path.route.clone(),
        };
        let sent = SentCall {
            frame: self.frame,
            address: address.clone(),
            session: self.session,
            binding,
            statement: self.statement,
            asks_statement,
            last: Last::default(),
        };
        (Arc::new(sent), address)
    }

    pub(super) fn seal(
        endpoint: &Endpoint,
        request: &Request<'_>,
        kind: MessageKind,
        life: Duration,
        session: Arc<OutSession>,
        buf: MessageBuf,
    ) -> Result<Self, CallError> {
        let hedge = endpoint.hedge()?;
        let path = session.path_to(endpoint, request.target)?;
        let route = &path.route;
        let initiator = endpoint.identity.initiator();
        let protection = match (request.protect, &initiator) {
            (Protect::Sealed, _) => Protection::Sealed,
            (Protect::SealedSigned, None) => return Err(CallError::Usage(
                "a shared-key agent has no key to sign with: leave out the inner signature, or \
                 give the agent a key pair"
                    .into(),
            )),
            (Protect::SealedSigned, Some(own)) => Protection::SealedSigned(own.key()),
            (Protect::Signed, Some(own)) => Protection::Signed(own.key()),
            (Protect::Signed, None) => Protection::Maced,
        };
        let level = match request.protect {
            Protect::Signed => Level::Signed,
            _ => Level::Sealed,
        };
        let spec = RequestSpec {
            kind,
            route,
            expires: hedge.now.secs() + whole_seconds(life),
            protection,
        };
        let sealed = session.session.seal_request(&spec, &hedge, buf)?;
        let offer = match kind {
            MessageKind::Call => session.offer_for_call(),
            _ => session.offer.as_ref(),
        };
        let limit = endpoint.options.max_message;
        // Beside an offer the peer may be one that knows nothing yet.
        let always = offer.is_some() || kind != MessageKind::Call;
        let statement = session.statement(endpoint, always);
        let beside = sealed.len() + offer.map_or(0, |offer| offer.len());
        let bytes = fitting(&statement, beside, limit).map(|bytes| &bytes[..]);
        let told = bytes.and(statement.as_ref()).map_or(0, |statement| statement.epoch);
        let frame = sealed.into_frame_with(offer.map(|offer| &offer[..]), bytes);
        let size = frame.bytes().len();
        if size > limit {
            return Err(CallError::TooLarge { size, limit });
        }
        Ok(Self { frame, session, level, path, statement: told })
    }
}
