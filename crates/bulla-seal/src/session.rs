//! Sessions: the keys that two parties share for requests of one to the other (protocol
//! section 3). Where they come from is in [`crate::offer`] and [`crate::shared`].

use std::fmt;
use std::sync::Arc;

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

/// The keys of one direction.
pub(crate) struct Direction {
    /// Of messages' keys and IVs.
    pub(crate) message: MessagePrf,
    /// Of messages' ids.
    pub(crate) id: MessagePrf,
    secret: Secret<32>,
}

impl Direction {
    pub(crate) fn new(secret: Secret<32>, label: &str) -> Self {
        Self {
            message: MessagePrf::new(&secret, label),
            id: MessagePrf::new(&secret, "bulla/1 id"),
            secret,
        }
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
        let direction = |word: &str, label| {
            if off(Check::Directions) {
                return Direction::new(kdf::expand(secret, b"any"), "bulla/1 msg");
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
            Direction::new(kdf::expand(secret, &info), label)
        };
        let request = direction("request", "bulla/1 msg");
        let reply = direction("reply", "bulla/1 reply");
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
            request,
            reply,
        }
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
