//! Step four: the handler runs and its outcome is sealed (steps 11 and 12 of protocol section 9).

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll, Waker};

use bulla_seal::cbor::Sink;
use bulla_seal::{ErrorBody, MessageBuf, MessageId, Outcome as ReplyOutcome, RequestBody};
use bytes::BytesMut;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::authorize::{Authorized, Verdict};
use super::running::Running;
use super::{MaybeReady, Sealed};
use crate::builtin::Cancel;
use crate::context::{Answer, Context, ContextInner};
use crate::counters::RanOutcome;
use crate::endpoint::Endpoint;
use crate::error::{CallError, RemoteError, kinds};
use crate::router::{HandlerResult, Handling, Method};
use crate::trace::{self, OpenSpan, Parent, SpanKind, TraceContext};
use crate::value;

/// What is left of a request when it ran: the sealed reply, if it is of a kind that is answered.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) reply: Option<Sealed>,
    /// What went wrong, by its stable name, if anybody traces it.
    pub(crate) error: Option<String>,
}

impl Outcome {
    /// Nothing is answered.
    const NONE: Self = Self { reply: None, error: None };
}

/// Runs handlers.
#[derive(Clone)]
pub(crate) struct Dispatch {
    endpoint: Endpoint,
    running: Running,
}

impl Dispatch {
    pub(crate) fn new(endpoint: Endpoint, running: Running) -> Self {
        Self { endpoint, running }
    }
}

impl<'a> Service<&'a Authorized> for Dispatch {
    type Response = Outcome;
    type Error = Infallible;
    type Future = MaybeReady<Outcome>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: &'a Authorized) -> Self::Future {
        MaybeReady::Ready(match request.verdict() {
            Verdict::Run(method) => return self.run(request, method),
            Verdict::Cancel => self.cancel(request),
            Verdict::Noted => Outcome::NONE,
            Verdict::Deny(error) => {
                let reply = seal_error(&self.endpoint, request, error);
                Outcome { reply, error: traced(&error.kind) }
            }
        })
    }
}

/// A method's result, or that it panicked.
type Ran = Result<HandlerResult<MessageBuf>, Box<dyn Any + Send>>;

impl Dispatch {
    fn run(&self, request: &Authorized, method: &Arc<Method>) -> MaybeReady<Outcome> {
        let opened = request.opened();
        let Ok(body) = opened.body() else { return MaybeReady::Ready(Outcome::NONE) };
        let context = Context(Arc::new(ContextInner {
            sender: opened.sender().clone(),
            kind: opened.kind(),
            message: opened.id(),
            expires: opened.expires(),
            context: body.context.map(<[u8]>::to_vec),
            trace_parent: body.trace_parent.map(str::to_owned),
            cancelled: OnceLock::new(),
            answer: answer(&self.endpoint, request),
        }));
        let span = self.span(method);
        // Inside, so that arguments that make a decoder panic, or a handler before its first
        // await, are answered like any other failure and not delivered again and again.
        let begin = || {
            catch_unwind(AssertUnwindSafe(|| {
                let mut handler = method.run(context.clone(), body.args);
                // Polled again when there is somebody to be woken.
                let polled = handler.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
                (polled, handler)
            }))
        };
        let begun = match &span {
            Some(span) => trace::enter(span.context(), begin),
            None => begin(),
        };
        let ran = match begun {
            Ok((Poll::Pending, handler)) => {
                let this = self.clone();
                return MaybeReady::later(this.go_on(context, method.clone(), handler, span));
            }
            Ok((Poll::Ready(result), _)) => Ok(result),
            Err(panicked) => Err(panicked),
        };
        MaybeReady::Ready(self.ended(&context, method, ran, span))
    }

    /// Runs on what did not end at once; from now on its caller can stop it.
    async fn go_on(
        self,
        context: Context,
        method: Arc<Method>,
        handler: Handling,
        span: Option<OpenSpan>,
    ) -> Result<Outcome, Infallible> {
        let token = context.cancelled();
        let entry = self.running.enter(context.message_id(), context.sender(), token.clone());
        let handler = AssertUnwindSafe(handler).catch_unwind();
        let handler = within(span.as_ref().map(OpenSpan::context), handler);
        let handler = alive(&context, handler);
        let ran = tokio::select! {
            biased;
            () = token.cancelled() => {
                Ok(Err(RemoteError::new(kinds::CANCELLED, "the caller gave up")))
            }
            ran = handler => ran,
        };
        drop(entry);
        Ok(self.ended(&context, &method, ran, span))
    }

    fn ended(
        &self,
        context: &Context,
        method: &Method,
        ran: Ran,
        mut span: Option<OpenSpan>,
    ) -> Outcome {
        let result = ran.unwrap_or_else(|_| {
            tracing::error!(method = method.full_name(), "a handler panicked");
            Err(RemoteError::new(kinds::INTERNAL, "the method failed"))
        });
        let cancelled = || context.0.cancelled.get().is_some_and(CancellationToken::is_cancelled);
        self.endpoint.counters.ran(match &result {
            Ok(_) => RanOutcome::Value,
            Err(_) if cancelled() => RanOutcome::Cancelled,
            Err(_) => RanOutcome::Error,
        });
        let error = result.as_ref().err().and_then(|error| traced(&error.kind));
        if let (Some(span), Some(error)) = (&mut span, &error) {
            span.fail(error);
        }
        drop(span);
        Outcome { error, ..self.seal_result(context, result) }
    }

    /// The method itself, apart from what is around it.
    fn span(&self, method: &Method) -> Option<OpenSpan> {
        let parent = trace::current()?;
        let name = || format!("run {}", method.full_name()).into();
        self.endpoint.span(SpanKind::Internal, Parent::Own(parent), name)
    }

    fn seal_result(&self, context: &Context, result: Result<MessageBuf, RemoteError>) -> Outcome {
        let Some(answer) = &context.0.answer else {
            if let Err(error) = result {
                tracing::warn!(%error, sender = %context.sender(), "a request that is not answered failed");
            }
            return Outcome::NONE;
        };
        let sealed = match result {
            Ok(value) => answer.seal(ReplyOutcome::Value, value),
            Err(error) => answer.seal(ReplyOutcome::Error, error_plaintext(&error)),
        };
        let sealed = sealed.or_else(|failure| {
            let kind = match failure {
                CallError::TooLarge { .. } => kinds::RESULT_TOO_LARGE,
                _ => kinds::INTERNAL,
            };
            let error = RemoteError::new(kind, failure.to_string());
            answer.seal(ReplyOutcome::Error, error_plaintext(&error))
        });
        match sealed {
            Ok(bytes) => {
                let reply = Some(Sealed { address: answer.address.clone(), bytes });
                Outcome { reply, error: None }
            }
            Err(error) => {
                tracing::error!(%error, "a reply could not be sealed");
                Outcome::NONE
            }
        }
    }

    fn cancel(&self, request: &Authorized) -> Outcome {
        let opened = request.opened();
        let id = opened.body().ok().and_then(|body| cancelled_id(&body));
        if let Some(id) = id {
            self.running.cancel(id, opened.sender());
        }
        Outcome::NONE
    }
}

/// Runs a method, and tells its caller now and then that it still runs, if its carrier asks for that
/// (protocol section 19).
async fn alive<F: Future>(context: &Context, method: F) -> F::Output {
    let Some(every) = context.0.answer.as_ref().and_then(Answer::alive_every) else {
        return method.await;
    };
    let mut method = std::pin::pin!(method);
    loop {
        match tokio::time::timeout(every, &mut method).await {
            Ok(result) => return result,
            Err(_) => {
                if let Err(error) = context.progress(&()).await {
                    tracing::debug!(%error, "a sign of life could not be sent");
                }
            }
        }
    }
}

/// Runs a method as part of its span, if it has one.
async fn within<F: Future>(context: Option<TraceContext>, method: F) -> F::Output {
    match context {
        Some(context) => trace::within(context, method).await,
        None => method.await,
    }
}

/// The name of an error, if what runs is traced.
fn traced(error: &str) -> Option<String> {
    trace::current().map(|_| error.to_owned())
}

fn cancelled_id(body: &RequestBody<'_>) -> Option<MessageId> {
    let Cancel { message } = value::decode(body.args).ok()?;
    if message.len() != 32 || !message.is_ascii() {
        return None;
    }
    u128::from_str_radix(&message, 16).ok().map(|id| MessageId(id.to_be_bytes()))
}

fn answer(endpoint: &Endpoint, request: &Authorized) -> Option<Answer> {
    let opened = request.opened();
    let (exchange, me) = (&endpoint.options().exchange, endpoint.identity().party());
    if let Some((_, form)) = opened.unsealed_answer() {
        let address = opened.unsealed_path(exchange, me)?;
        return Some(Answer::unsealed(endpoint.clone(), form.clone(), Arc::new(address)));
    }
    let (session, address) = opened.reply_path(exchange, me)?;
    let binding = opened.request()?.reply_binding();
    Some(Answer::new(endpoint.clone(), session, binding, address))
}

/// Seals `error` as the only reply to a call; `None` for what is not answered.
pub(crate) fn seal_error(
    endpoint: &Endpoint,
    request: &Authorized,
    error: &RemoteError,
) -> Option<Sealed> {
    let answer = answer(endpoint, request)?;
    match answer.seal(ReplyOutcome::Error, error_plaintext(error)) {
        Ok(bytes) => Some(Sealed { address: answer.address, bytes }),
        Err(failure) => {
            tracing::error!(error = %failure, "an error could not be sealed");
            None
        }
    }
}

fn error_plaintext(error: &RemoteError) -> MessageBuf {
    let details = error.details.as_ref().and_then(|details| value::to_vec(details).ok());
    let body = ErrorBody {
        kind: &error.kind,
        message: &error.message,
        details: details.as_deref(),
        trace: error.trace.as_deref(),
    };
    let mut buf = MessageBuf::with_capacity(256);
    let sink: &mut BytesMut = buf.sink();
    write_error(&body, sink);
    buf
}

fn write_error<S: Sink>(body: &ErrorBody<'_>, out: &mut S) {
    body.write(out);
}
