//! What came out of a seal: only the openers of this crate make these types, so that an
//! unverified message can't be taken for a verified one.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;

use crate::body::{ErrorBody, RequestBody};
use crate::frame::Parsed;
use crate::id::{Digest, MessageId};
use crate::principal::Party;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::session::Session;
use crate::wire::{Level, MessageKind, Outcome};

/// A message whose seal was opened.
pub(crate) struct Opened {
    pub(crate) parsed: Parsed,
    plaintext: Range<usize>,
    digest: OnceLock<Digest>,
    /// Whom the header names, where that is believed.
    #[cfg(bulla_mutants)]
    pub(crate) claimed: OnceLock<Party>,
}

impl Opened {
    #[inline]
    pub(crate) fn new(parsed: Parsed, plaintext: Range<usize>) -> Self {
        Self {
            #[cfg(bulla_mutants)]
            claimed: crate::mutants::claimed(&parsed),
            parsed,
            plaintext,
            digest: OnceLock::new(),
        }
    }

    pub(crate) fn plaintext(&self) -> &[u8] {
        self.parsed.slice(&self.plaintext)
    }

    /// Computed when it is first asked for: neither decryption nor anything after it touches
    /// header and authenticator.
    pub(crate) fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| self.parsed.digest())
    }
}

/// Says which message it is and nothing of what is in it.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.parsed.header();
        write!(f, "Opened({} {}, {} bytes)", header.kind, header.id, self.plaintext.len())
    }
}

/// A request whose sender is proven and whose content is as it was sealed. Only the openers of
/// this crate make one.
#[derive(Debug)]
pub struct OpenedRequest {
    opened: Opened,
    session: Arc<Session>,
    route: Route,
    signed: bool,
    /// Where the arguments are in the plaintext.
    args: Range<usize>,
}

impl OpenedRequest {
    /// The body was read once already.
    #[inline]
    pub(crate) fn new(
        opened: Opened,
        session: Arc<Session>,
        route: Route,
        signed: bool,
        args: Range<usize>,
    ) -> Self {
        Self { opened, session, route, signed, args }
    }

    /// Whether the message carries its sender's signature, inside the seal or at level `signed`.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// Who sent it.
    pub fn sender(&self) -> &Party {
        #[cfg(bulla_mutants)]
        if let Some(claimed) = self.opened.claimed.get() {
            return claimed;
        }
        self.session.requester()
    }

    /// Its kind.
    pub fn kind(&self) -> MessageKind {
        self.opened.parsed.header.kind
    }

    /// Its level.
    pub fn level(&self) -> Level {
        self.opened.parsed.header.level
    }

    /// Its id.
    pub fn id(&self) -> MessageId {
        self.opened.parsed.header.id
    }

    /// When it was made, in seconds since the Unix epoch.
    pub fn issued_at(&self) -> u64 {
        self.opened.parsed.header.iat
    }

    /// End of its life, in seconds since the Unix epoch.
    pub fn expires(&self) -> u64 {
        self.opened.parsed.header.exp
    }

    /// Names its envelope.
    pub fn digest(&self) -> Digest {
        self.opened.digest()
    }

    /// Where it was taken from.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The session that it came in.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// What was asked.
    pub fn body(&self) -> Result<RequestBody<'_>, Refusal> {
        RequestBody::read_again(self.opened.plaintext(), &self.args)
    }

    /// What a reply to it is bound to.
    pub fn reply_binding(&self) -> ReplyBinding {
        ReplyBinding {
            request: self.id(),
            digest: self.digest(),
            level: self.level(),
            route: self.route.clone(),
        }
    }

    /// The buffer, for using again.
    pub fn into_buffer(self) -> BytesMut {
        self.opened.parsed.bytes
    }
}

/// What ties a reply to its request; both ends make it from what they know.
#[derive(Debug, Clone)]
pub struct ReplyBinding {
    /// The request's id.
    pub request: MessageId,
    /// The request's envelope.
    pub digest: Digest,
    /// The request's level: a reply may not be below it.
    pub level: Level,
    /// The request's target.
    pub route: Route,
}

/// A reply that the addressed peer made for that very request.
#[derive(Debug)]
pub struct OpenedReply {
    opened: Opened,
    /// What it carries.
    pub outcome: Outcome,
    /// Which in the stream.
    pub index: u16,
    /// Its id.
    pub id: MessageId,
}

impl OpenedReply {
    pub(crate) fn new(opened: Opened, outcome: Outcome, index: u16, id: MessageId) -> Self {
        Self { opened, outcome, index, id }
    }

    /// The plaintext: a CBOR item for a value or progress.
    pub fn payload(&self) -> &[u8] {
        self.opened.plaintext()
    }

    /// The failure, if it carries one.
    pub fn error(&self) -> Result<ErrorBody<'_>, Refusal> {
        match self.outcome {
            Outcome::Error => ErrorBody::parse(self.opened.plaintext()),
            _ => Err(Refusal::Malformed),
        }
    }
}
