//! What a handler knows of the request that it runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bulla_seal::{
    ErrorBody, MessageBuf, MessageKind, Outcome, Party, ReplyBinding, ReplySpec, SignedCredential,
};
use bulla_transport::{Address, Outbound};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::endpoint::Endpoint;
use crate::error::{CallError, RemoteError};
use crate::sessions::InSession;
use crate::standing::fitting;
use crate::unsealed::Unseal;
use crate::value::{self, ValueError};

/// What a handler knows of its request: who sent it, what came along, and how to report
/// progress. Everything here was inside the seal and is proven.
#[derive(Clone, Debug)]
pub struct Context(pub(crate) Arc<ContextInner>);

#[derive(Debug)]
pub(crate) struct ContextInner {
    pub(crate) sender: Party,
    pub(crate) kind: MessageKind,
    pub(crate) message: bulla_seal::MessageId,
    pub(crate) expires: u64,
    pub(crate) context: Option<Vec<u8>>,
    pub(crate) trace_parent: Option<String>,
    /// Made when somebody asks for it: most methods end before anyone could cancel them.
    pub(crate) cancelled: OnceLock<CancellationToken>,
    pub(crate) answer: Option<Answer>,
}

/// Where and how a call is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) endpoint: Endpoint,
    form: Form,
    pub(crate) address: Arc<Address>,
    /// Index of the next reply; [`ENDED`] is set once a final outcome was sealed.
    next: AtomicU32,
}

/// What a reply is made with.
enum Form {
    /// The session of the request, to which the reply is bound.
    Sealed { session: Arc<InSession>, binding: ReplyBinding },
    /// The peer's own form.
    Unsealed(Arc<dyn Unseal>),
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Sealed { .. }) { "Sealed" } else { "Unsealed" })
    }
}

/// Nothing but another final outcome, in place of one that could not be sent, comes after.
const ENDED: u32 = 1 << 31;

impl Answer {
    pub(crate) fn new(
        endpoint: Endpoint,
        session: Arc<InSession>,
        binding: ReplyBinding,
        address: Arc<Address>,
    ) -> Self {
        let form = Form::Sealed { session, binding };
        Self { endpoint, form, address, next: AtomicU32::new(0) }
    }

    /// To a request that was not sealed.
    pub(crate) fn unsealed(
        endpoint: Endpoint,
        form: Arc<dyn Unseal>,
        address: Arc<Address>,
    ) -> Self {
        let form = Form::Unsealed(form);
        Self { endpoint, form, address, next: AtomicU32::new(0) }
    }

    /// How often the caller's carrier wants a sign of life while the method runs.
    pub(crate) fn alive_every(&self) -> Option<Duration> {
        match &*self.address {
            Address::Reply { to, .. } => to.call()?.alive_every,
            _ => None,
        }
    }

    /// Makes one reply, sealed as its request was; the index rises by one with each.
    pub(crate) fn seal(&self, outcome: Outcome, buf: MessageBuf) -> Result<Bytes, CallError> {
        let index = self.next_index(outcome.is_final())?;
        let (session, binding) = match &self.form {
            Form::Sealed { session, binding } => (session, binding),
            Form::Unsealed(form) => return in_form(&**form, outcome, &buf),
        };
        let hedge = self.endpoint.hedge()?;
        let spec = ReplySpec { outcome, index };
        let sealed = session.session.seal_reply(binding, spec, &hedge, buf)?;
        let limit = self.endpoint.options().max_message;
        let statement = session.statement(&self.endpoint);
        let statement = fitting(&statement, sealed.len(), limit);
        let frame = sealed.into_frame_with(None, statement.map(|bytes| &bytes[..]));
        let size = frame.bytes().len();
        if size > limit {
            return Err(CallError::TooLarge { size, limit });
        }
        Ok(frame.bytes().clone())
    }

    fn next_index(&self, last: bool) -> Result<u16, CallError> {
        let step = |n: u32| match (last, n & ENDED == 0) {
            (true, _) => Some((n + 1) | ENDED),
            // The last indices are kept for the final outcome.
            (false, true) if n < u32::from(u16::MAX) - 1 => Some(n + 1),
            (false, _) => None,
        };
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        taken.ok().and_then(|n| u16::try_from(n & !ENDED).ok()).ok_or_else(|| {
            CallError::Usage("progress ends with the result, and at 65,534 signs of it".into())
        })
    }

    pub(crate) async fn publish(&self, payload: Bytes) -> Result<(), CallError> {
        let outbound = Outbound::new(payload);
        Ok(self.endpoint.transport().publish(&self.address, outbound).await?)
    }
}

/// An outcome in the form of a peer that does not seal.
fn in_form(form: &dyn Unseal, outcome: Outcome, buf: &MessageBuf) -> Result<Bytes, CallError> {
    let item: &[u8] = buf.plaintext();
    let made = match outcome {
        Outcome::Value => form.value(item),
        Outcome::Progress => form.alive(),
        Outcome::Error => ErrorBody::parse(item).ok().and_then(|body| {
            form.error(&RemoteError {
                kind: body.kind.to_owned(),
                message: body.message.to_owned(),
                details: body.details.and_then(|item| value::decode(item).ok()).map(Box::new),
                trace: body.trace.map(str::to_owned),
            })
        }),
    };
    made.ok_or_else(|| ValueError::Encode("the peer's form has no place for it".into()).into())
}

impl Context {
    /// Who sent the request.
    pub fn sender(&self) -> &Party {
        &self.0.sender
    }

    /// The sender's credential, under which it opened the session of a call; `None` for a shared key,
    /// and for what is not a call.
    pub fn credential(&self) -> Option<&SignedCredential> {
        match &self.0.answer.as_ref()?.form {
            Form::Sealed { session, .. } => {
                session.session.requester_credential().map(|own| &**own)
            }
            Form::Unsealed(_) => None,
        }
    }

    /// Call, cast, fanout or notification.
    pub fn kind(&self) -> MessageKind {
        self.0.kind
    }

    /// The request's id.
    pub fn message_id(&self) -> bulla_seal::MessageId {
        self.0.message
    }

    /// When the request's life ends, in seconds since the Unix epoch.
    pub fn expires(&self) -> u64 {
        self.0.expires
    }

    /// The context that the sender gave along; `None` if it gave none.
    pub fn context<C: DeserializeOwned>(&self) -> Result<Option<C>, ValueError> {
        self.0.context.as_deref().map(value::decode).transpose()
    }

    /// The W3C trace context that the sender gave along.
    pub fn trace_parent(&self) -> Option<&str> {
        self.0.trace_parent.as_deref()
    }

    /// Ends when the caller gave up. The handler is dropped then anyway; use this for work that
    /// it started elsewhere.
    pub fn cancelled(&self) -> CancellationToken {
        self.0.cancelled.get_or_init(CancellationToken::new).clone()
    }

    /// Tells a caller how far the work is. Does nothing for a request that is not answered.
    pub async fn progress<P: Serialize + ?Sized>(&self, item: &P) -> Result<(), CallError> {
        let Some(answer) = &self.0.answer else { return Ok(()) };
        let mut buf = MessageBuf::with_capacity(256);
        value::encode(item, buf.sink())?;
        let sealed = answer.seal(Outcome::Progress, buf)?;
        answer.publish(sealed).await
    }
}
