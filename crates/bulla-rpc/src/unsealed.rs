//! What comes in unsealed, of peers that can't seal yet: read by whoever knows their form, let through by
//! an exemption alone (protocol sections 14 and 19), and from there on judged and claimed as what was
//! sealed.

use std::fmt;
use std::sync::Arc;

use bulla_seal::{
    Digest, Level, MAX_LIFE, MessageId, MessageKind, Party, Principal, Refusal, RequestBody,
};
use bulla_transport::{Inbox, ReplyName};
use bytes::Bytes;

use crate::error::RemoteError;

/// Reads what is not sealed.
pub trait Unsealed: Send + Sync + 'static {
    /// A message that was taken from `inbox` at `now`, in Unix seconds. Nothing in it is proven, but for
    /// what its reader opened with a key of the sender's.
    ///
    /// # Errors
    /// It is not in a form that is read here, or not in order.
    fn read(&self, body: &[u8], inbox: &Inbox, now: u64) -> Result<UnsealedRequest, Refusal>;
}

/// A request that was not sealed.
pub struct UnsealedRequest {
    /// Who is taken for its sender: by the receiver's own settings, and never by the message alone.
    pub sender: Principal,
    /// What protected it: [`Level::Plaintext`] or [`Level::AesCbc`].
    pub level: Level,
    /// Call, cast or fanout.
    pub kind: MessageKind,
    /// Over what was protected: the same bytes under another name are the same message.
    pub digest: Digest,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its method.
    pub method: String,
    /// The version that is asked for.
    pub version: String,
    /// The arguments, one CBOR item.
    pub args: Vec<u8>,
    /// The request's context, one CBOR item.
    pub context: Option<Vec<u8>>,
    /// Where and in which form it is answered.
    pub answer: Option<(ReplyName, Arc<dyn Unseal>)>,
}

/// Writes answers in the peer's own form.
pub trait Unseal: Send + Sync + 'static {
    /// The body with a value, one CBOR item; `None` if it has no such form.
    fn value(&self, item: &[u8]) -> Option<Bytes>;
    /// The body with an error.
    fn error(&self, error: &RemoteError) -> Option<Bytes>;
    /// The body of a sign of life.
    fn alive(&self) -> Option<Bytes>;
}

/// One that an exemption let through, with the sender that the exemption names.
pub(crate) struct Exempted {
    pub(crate) request: UnsealedRequest,
    pub(crate) sender: Party,
    pub(crate) received_at: u64,
}

/// What a message answers that was opened, so that the steps after ask all alike.
impl Exempted {
    pub(crate) fn sender(&self) -> &Party {
        &self.sender
    }

    pub(crate) fn kind(&self) -> MessageKind {
        self.request.kind
    }

    /// By what was protected: whoever sends it again, the id is the same.
    pub(crate) fn id(&self) -> MessageId {
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(self.request.digest.as_bytes()) {
            *to = *from;
        }
        MessageId(id)
    }

    pub(crate) fn issued_at(&self) -> u64 {
        self.received_at
    }

    /// It says no time of its own, so that it is remembered as long as any message is.
    pub(crate) fn expires(&self) -> u64 {
        self.received_at.saturating_add(MAX_LIFE)
    }

    pub(crate) fn digest(&self) -> Digest {
        self.request.digest
    }

    pub(crate) fn body(&self) -> Result<RequestBody<'_>, Refusal> {
        let request = &self.request;
        Ok(RequestBody {
            namespace: request.namespace.as_deref(),
            method: &request.method,
            version: &request.version,
            args: &request.args,
            context: request.context.as_deref(),
            trace_parent: None,
            reply_to: None,
        })
    }
}

impl fmt::Debug for Exempted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exempted({} of {})", self.request.method, self.sender)
    }
}

impl fmt::Debug for UnsealedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnsealedRequest({} of {})", self.method, self.sender)
    }
}
