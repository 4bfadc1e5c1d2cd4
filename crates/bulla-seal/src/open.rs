//! Opening requests and replies (protocol sections 3, 4, 5 and 9): everything that can be
//! compared before the cipher runs, then the cipher.

use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::aead::Aad;
use aws_lc_rs::hmac;

use crate::body::{ErrorBody, RequestBody};
use crate::cbor::{Reader, Stack, Writer};
use crate::frame::Parsed;
use crate::header::{Detail, Form, MAX_HEADER, write_structure};
use crate::inner;
use crate::kdf::MessagePrf;
use crate::mutants::{self, Check, off};
use crate::opened::{Opened, OpenedReply, OpenedRequest, ReplyBinding};
use crate::random::UnixTime;
use crate::refusal::Refusal;
use crate::route::{ExternalAad, MAX_AAD, Route};
use crate::seal::MAX_LIFE;
use crate::session::{Direction, Session};
use crate::sign::VerifyingKey;
use crate::wire::{Level, Outcome, Suite, SuiteSet};

/// Allowed difference between two clocks, in seconds, unless configured.
pub const DEFAULT_SKEW: u64 = 120;

/// Room for header, external AAD and their heads.
type Structure = Stack<{ MAX_HEADER + MAX_AAD + 32 }>;

/// What a receiver expects of a request in the place where it took it from.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Where it was consumed from, and as whom.
    pub route: &'a Route,
    /// The lowest level that this place takes.
    pub level: Level,
    /// The suites that this receiver accepts: what its credential says, or less.
    pub suites: SuiteSet,
    /// Whether each message must carry its sender's signature (protocol section 1), inside the
    /// seal or as the envelope at level `signed`.
    pub inner_signature: bool,
    /// Now.
    pub now: UnixTime,
    /// Allowed difference of clocks, in seconds.
    pub skew: u64,
}

impl<'a> Expected<'a> {
    /// Sealed messages of any suite for `route`, without an inner signature, give or take
    /// [`DEFAULT_SKEW`].
    pub fn new(route: &'a Route, now: UnixTime) -> Self {
        Self {
            route,
            level: Level::Sealed,
            suites: SuiteSet::any(),
            inner_signature: false,
            now,
            skew: DEFAULT_SKEW,
        }
    }

    /// Level and suite of a header against what this place takes.
    pub(crate) fn check_strength(&self, level: Level, suite: Suite) -> Result<(), Refusal> {
        if !self.suites.contains(suite) && !off(Check::SuiteAllowed) {
            return Err(Refusal::SuiteNotAllowed);
        }
        if level < self.level && !off(Check::LevelAllowed) {
            return Err(Refusal::LevelNotAllowed);
        }
        Ok(())
    }
}

impl Session {
    /// Opens a request in place (steps 5 to 8 of protocol section 9).
    pub fn open_request(
        self: &Arc<Self>,
        mut parsed: Parsed,
        expected: &Expected<'_>,
    ) -> Result<OpenedRequest, Refusal> {
        self.check_request(&parsed, expected)?;
        let header = parsed.header();
        let aad = &expected.route.request_aad(header.kind, header.level);
        let (plaintext, signed) = match parsed.form {
            Form::Encrypt0 => {
                let at = open_sealed(&self.request.message, &mut parsed, aad)?;
                let (header, plaintext) = (parsed.slice(&parsed.protected), parsed.slice(&at));
                let signed = inner::verify(self.signer(), header, aad, plaintext)?;
                (at, signed)
            }
            Form::Mac0 => (open_maced(&self.request, &parsed, aad)?, false),
            Form::Sign1 => (self.open_signed(&parsed, aad)?, true),
        };
        if expected.inner_signature && !signed && !off(Check::InnerSignature) {
            return Err(Refusal::SignatureInvalid);
        }
        let (_, args) = RequestBody::read(parsed.slice(&plaintext))?;
        let (session, route) = (self.clone(), expected.route.clone());
        Ok(OpenedRequest::new(Opened::new(parsed, plaintext), session, route, signed, args))
    }

    /// Everything that can be compared before the cipher runs.
    fn check_request(&self, parsed: &Parsed, expected: &Expected<'_>) -> Result<(), Refusal> {
        let header = parsed.header();
        if header.handle != self.handle() && !off(Check::OfferNamed) {
            return Err(Refusal::SessionUnknown);
        }
        if header.suite != self.suite() && !off(Check::SuiteAllowed) {
            return Err(Refusal::SuiteNotAllowed);
        }
        expected.check_strength(header.level, header.suite)?;
        if header.detail != Detail::Request && !off(Check::QueueKind) {
            return Err(Refusal::KindNotAllowed);
        }
        if !expected.route.is_for(self.responder()) && !off(Check::Audience) {
            return Err(Refusal::AudienceMismatch);
        }
        if parsed.claimed_sender_bytes() != self.requester().principal.as_str().as_bytes()
            && !off(Check::SenderName)
        {
            return Err(Refusal::SenderMismatch);
        }
        self.check_form(parsed.form)?;
        self.check_window(header.iat)?;
        check_times(header.iat, header.exp, expected.now, expected.skew)
    }

    /// Readable messages are signed by who has a key pair and MACed by who has not (protocol
    /// section 5): with the session's keys alone nobody speaks for a signer.
    fn check_form(&self, form: Form) -> Result<(), Refusal> {
        let shared = self.suite() == Suite::Shared;
        match form {
            Form::Mac0 if !shared => Err(Refusal::LevelNotAllowed),
            Form::Sign1 if shared => Err(Refusal::LevelNotAllowed),
            _ => Ok(()),
        }
    }

    /// The key that the requester signs with.
    fn signer(&self) -> Option<&VerifyingKey> {
        self.requester_credential().and_then(|credential| credential.signing.as_ref())
    }

    fn open_signed(&self, parsed: &Parsed, aad: &ExternalAad<'_>) -> Result<Range<usize>, Refusal> {
        let key = self.signer().ok_or(Refusal::SignatureInvalid)?;
        let structure = structure_with_payload(parsed, aad);
        key.verify(&structure, parsed.slice(&parsed.authenticator))
            .map_err(|_| Refusal::NotAuthentic)?;
        Ok(parsed.content.clone())
    }

    /// Opens a reply to `binding`: from the principal addressed, for that very request, at its
    /// level or higher.
    pub fn open_reply(
        &self,
        mut parsed: Parsed,
        binding: &ReplyBinding,
    ) -> Result<OpenedReply, Refusal> {
        let header = parsed.header();
        let Detail::Reply { in_reply_to, outcome, index } = header.detail else {
            return Err(Refusal::KindNotAllowed);
        };
        if header.handle != self.handle()
            || (header.suite != self.suite() && !off(Check::SuiteAllowed))
            || in_reply_to != binding.request
            || (!binding.route.is_for(self.responder()) && !off(Check::ReplyParty))
        {
            return Err(Refusal::ReplyMismatch);
        }
        if header.level < binding.level && !off(Check::ReplyLevel) {
            return Err(Refusal::LevelNotAllowed);
        }
        let route = &binding.route;
        let aad = &route.reply_aad(header.level, &self.encoded_requester, &binding.digest);
        let id = header.id;
        let plaintext = match parsed.form {
            Form::Encrypt0 => open_sealed(&self.reply.message, &mut parsed, aad)?,
            Form::Mac0 => open_maced(&self.reply, &parsed, aad)?,
            Form::Sign1 => return Err(Refusal::LevelNotAllowed),
        };
        check_outcome(outcome, parsed.slice(&plaintext))?;
        Ok(OpenedReply::new(Opened::new(parsed, plaintext), outcome, index, id))
    }
}

/// A proven peer may still be a hostile one: what goes on to a decoder is one well-formed item of
/// bounded depth.
fn check_outcome(outcome: Outcome, plaintext: &[u8]) -> Result<(), Refusal> {
    if outcome == Outcome::Error {
        return ErrorBody::parse(plaintext).map(|_| ());
    }
    let mut r = Reader::new(plaintext);
    r.skip()?;
    r.end()
}

/// Refuses what is over, not yet made, or lives too long (step 6 of protocol section 9).
pub(crate) fn check_times(iat: u64, exp: u64, now: UnixTime, skew: u64) -> Result<(), Refusal> {
    let now = now.secs();
    if (exp <= iat || exp - iat > MAX_LIFE) && !off(Check::Lifetime) {
        return Err(Refusal::LifetimeTooLong);
    }
    if iat > now.saturating_add(skew) && !off(Check::MessageTimes) {
        return Err(Refusal::NotYetValid);
    }
    if now > exp.saturating_add(skew) && !off(Check::MessageTimes) {
        return Err(Refusal::Expired);
    }
    Ok(())
}

/// Decrypts in place; where the plaintext is. Header and tag stay as they were.
#[inline(always)]
pub(crate) fn open_sealed(
    prf: &MessagePrf,
    parsed: &mut Parsed,
    aad: &ExternalAad<'_>,
) -> Result<Range<usize>, Refusal> {
    let mut structure = Structure::new();
    write_structure(&mut structure, Form::Encrypt0, parsed.slice(&parsed.protected), aad);
    let structure = mutants::structure(structure.get().ok_or(Refusal::Malformed)?);
    let structure = &*structure;
    let (key, iv) = prf.key_and_iv(structure).ok_or(Refusal::TooLarge)?;
    let content = parsed.content.clone();
    let ciphertext = parsed.bytes.get_mut(content.clone()).ok_or(Refusal::Malformed)?;
    #[cfg(bulla_mutants)]
    if let Some(len) = mutants::open_anyway(|| prf.key_and_iv(structure), structure, ciphertext) {
        return Ok(content.start..content.start + len);
    }
    let plaintext = key
        .open_in_place(iv, Aad::from(structure), ciphertext)
        .map_err(|_| Refusal::NotAuthentic)?
        .len();
    Ok(content.start..content.start + plaintext)
}

fn open_maced(
    direction: &Direction,
    parsed: &Parsed,
    aad: &ExternalAad<'_>,
) -> Result<Range<usize>, Refusal> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, direction.mac_key().expose());
    let structure = structure_with_payload(parsed, aad);
    hmac::verify(&key, &structure, parsed.slice(&parsed.authenticator))
        .map_err(|_| Refusal::NotAuthentic)?;
    Ok(parsed.content.clone())
}

fn structure_with_payload(parsed: &Parsed, aad: &ExternalAad<'_>) -> Vec<u8> {
    let payload = parsed.slice(&parsed.content);
    let mut out = Vec::with_capacity(payload.len() + MAX_HEADER + MAX_AAD + 32);
    write_structure(&mut out, parsed.form, parsed.slice(&parsed.protected), aad);
    Writer::new(&mut out).bytes(payload);
    out
}
