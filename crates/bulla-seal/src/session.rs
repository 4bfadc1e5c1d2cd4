//! Sessions: the keys that two parties share for requests of one to the other (protocol
//! section 3). Where they come from is in [`crate::offer`] and [`crate::shared`].

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::cbor::Writer;
use crate::credential::SignedCredential;
use crate::header::{Handle, HeaderStem};
use crate::kdf::{self, MessagePrf};
use crate::mutants::{Check, off};
use crate::principal::{Party, PrincipalKind};
use crate::refusal::Refusal;
use crate::route::EncodedParty;
use crate::secret::Secret;
use crate::wire::Suite;

/// The keys of one ordered pair: requests of `requester` to `responder`, and the replies back.
pub struct Session {
    handle: Handle,
    suite: Suite,
    requester: Party,
    responder: Party,
    window: Option<Window>,
    requester_credential: Option<Arc<SignedCredential>>,
    /// The requester as external AADs of replies have it.
    pub(crate) encoded_requester: EncodedParty,
    pub(crate) request_stem: HeaderStem,
    pub(crate) reply_stem: HeaderStem,
    pub(crate) request: Direction,
    pub(crate) reply: Direction,
}

/// When an offer may start messages: from issued-at to expiry, both included, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Issued-at.
    pub iat: u64,
    /// Expiry.
    pub exp: u64,
}

/// A session whose keys are put away: some 200 bytes, where a [`Session`] has some 4 KiB with what
/// its ciphers hold. [`Resting::wake`] makes them again, in a few microseconds.
pub struct Resting {
    parts: SessionParts,
    request: Secret<32>,
    reply: Secret<32>,
}

impl Resting {
    /// The session as it was.
    pub fn wake(&self) -> Session {
        Session::of(self.parts.clone(), self.request.clone(), self.reply.clone())
    }

    /// When it may start messages; `None` for a pair key.
    pub fn window(&self) -> Option<Window> {
        self.parts.window
    }
}

impl fmt::Debug for Resting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resting").field("handle", &self.parts.handle).finish_non_exhaustive()
    }
}

/// The keys of one direction.
pub(crate) struct Direction {
    /// Of messages' keys and IVs.
    pub(crate) message: MessagePrf,
    /// Of messages' ids: made by the end that writes in this direction.
    id: OnceLock<Box<MessagePrf>>,
    secret: Secret<32>,
}

impl Direction {
    pub(crate) fn new(secret: Secret<32>, label: &str) -> Self {
        Self { message: MessagePrf::new(&secret, label), id: OnceLock::new(), secret }
    }

    /// Of messages' ids.
    #[inline]
    pub(crate) fn id(&self) -> &MessagePrf {
        self.id.get_or_init(|| Box::new(MessagePrf::new(&self.secret, "bulla/1 id")))
    }

    /// The key for level `signed` where there is no key pair, made only when it is needed.
    pub(crate) fn mac_key(&self) -> Secret<32> {
        kdf::expand_label(&self.secret, "bulla/1 mac")
    }

    pub(crate) fn secret(&self) -> &Secret<32> {
        &self.secret
    }
}

/// What names a session and who its ends are.
#[derive(Clone)]
pub(crate) struct SessionParts {
    pub(crate) handle: Handle,
    pub(crate) suite: Suite,
    pub(crate) requester: Party,
    pub(crate) responder: Party,
    pub(crate) window: Option<Window>,
    pub(crate) requester_credential: Option<Arc<SignedCredential>>,
}

impl Session {
    pub(crate) fn derive(secret: &Secret<32>, parts: SessionParts) -> Self {
        let direction = |word: &str| {
            if off(Check::Directions) {
                return kdf::expand(secret, b"any");
            }
            let mut info = Vec::with_capacity(224);
            let mut w = Writer::new(&mut info);
            w.array(7);
            w.text("bulla/1 dir");
            w.uint(parts.suite.to_wire().into());
            w.text(word);
            for party in [&parts.requester, &parts.responder] {
                w.text(party.principal.as_str());
                w.uint(party.incarnation.into());
            }
            kdf::expand(secret, &info)
        };
        let (request, reply) = (direction("request"), direction("reply"));
        Self::of(parts, request, reply)
    }

    /// From the secrets of its directions.
    fn of(parts: SessionParts, request: Secret<32>, reply: Secret<32>) -> Self {
        let of_replies = if off(Check::Directions) { "bulla/1 msg" } else { "bulla/1 reply" };
        let SessionParts { handle, suite, requester, responder, window, requester_credential } =
            parts;
        let encoded_requester = EncodedParty::new(&requester);
        let request_stem = HeaderStem::request(handle, &requester.principal);
        Self {
            handle,
            suite,
            requester,
            responder,
            window,
            requester_credential,
            encoded_requester,
            request_stem,
            reply_stem: HeaderStem::reply(handle),
            request: Direction::new(request, "bulla/1 msg"),
            reply: Direction::new(reply, of_replies),
        }
    }

    /// The same with its keys put away, for when nothing is sent for a while.
    pub fn rest(&self) -> Resting {
        let parts = SessionParts {
            handle: self.handle,
            suite: self.suite,
            requester: self.requester.clone(),
            responder: self.responder.clone(),
            window: self.window,
            requester_credential: self.requester_credential.clone(),
        };
        let secret = |direction: &Direction| direction.secret().clone();
        Resting { parts, request: secret(&self.request), reply: secret(&self.reply) }
    }

    /// Its name in headers.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Its suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Who asks.
    pub fn requester(&self) -> &Party {
        &self.requester
    }

    /// Who answers.
    pub fn responder(&self) -> &Party {
        &self.responder
    }

    /// When it may start messages; `None` for a pair key.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// The credential that the requester opened it with; `None` for a pair key.
    pub fn requester_credential(&self) -> Option<&Arc<SignedCredential>> {
        self.requester_credential.as_ref()
    }

    /// Whether a message made at `iat` may use this session: inside the offer's time, and the
    /// credential is judged at `iat` too (protocol section 10).
    pub(crate) fn check_window(&self, iat: u64) -> Result<(), Refusal> {
        if self.window.is_some_and(|window| iat < window.iat || iat > window.exp)
            && !off(Check::OfferWindow)
        {
            return Err(Refusal::OfferExpired);
        }
        match &self.requester_credential {
            Some(credential) => credential.validity.check_secs(iat),
            None => Ok(()),
        }
    }

    /// Whether the requester is an agent.
    pub fn requester_is_agent(&self) -> bool {
        self.requester.principal.kind() == PrincipalKind::Agent
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("handle", &self.handle)
            .field("suite", &self.suite)
            .field("requester", &self.requester)
            .field("responder", &self.responder)
            .finish_non_exhaustive()
    }
}
