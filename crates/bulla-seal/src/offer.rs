//! Opening a session with a key-pair principal (protocol section 3): an *offer*, signed by the
//! sender, that encapsulates a secret to the receiver's KEM key.
//!
//! A receiver goes through the steps of protocol section 9 one by one, so that what each costs
//! can be charged to the right account: [`Offer::parse`] and [`Offer::check`] (shape, audience,
//! times), [`Offer::verify`] (credential and signature), [`VerifiedOffer::open`] (the KEM).

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::Random;
use crate::cbor::{Reader, Writer};
use crate::credential::{Credential, SignedCredential, TrustStore};
use crate::header::Handle;
use crate::id::{Digest, Kid, SessionId};
use crate::kem::{EncapsulateError, Exporter, KemSecretKey};
use crate::mutants::{Check, off};
use crate::principal::{Party, TrustDomain};
use crate::random::{RandomFailed, UnixTime};
use crate::refusal::Refusal;
use crate::seal::MAX_LIFE;
use crate::secret::Secret;
use crate::session::{Session, SessionParts, Window};
use crate::sign::{SignatureUse, SigningKey, Unverified, sign1};
use crate::wire::{Suite, SuiteSet};

/// Longest life of an offer, in seconds.
pub const MAX_OFFER_LIFE: u64 = 3600;
/// Largest offer in bytes: an X-Wing encapsulation, a credential with all its roles, and room.
pub const MAX_OFFER: usize = 6 * 1024;

/// What a sender opens sessions with.
#[derive(Debug, Clone)]
pub struct Initiator {
    key: SigningKey,
    credential: Arc<SignedCredential>,
    domain: TrustDomain,
}

/// An offer could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OfferError {
    /// One of the two credentials is not valid now.
    #[error("a session can't be opened with a credential that is not valid now ({0}): renew it")]
    Credential(Refusal),
    /// The key is not the one that the credential names.
    #[error("the signing key is not the one that its credential names")]
    KeyMismatch,
    /// The receiver has no key to receive with.
    #[error("the receiver's credential has no key to receive with")]
    NoKemKey,
    /// The random source failed.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// The receiver's key can't be used.
    #[error(transparent)]
    Encapsulate(#[from] EncapsulateError),
    /// The exporter failed.
    #[error("the session secret could not be exported")]
    Export,
}

impl Initiator {
    /// The key must be the one that the credential names.
    pub fn new(
        key: SigningKey,
        credential: Arc<SignedCredential>,
        domain: TrustDomain,
    ) -> Result<Self, OfferError> {
        if credential.signing == Some(key.verifying_key()) {
            Ok(Self { key, credential, domain })
        } else {
            Err(OfferError::KeyMismatch)
        }
    }

    /// Who opens the sessions.
    pub fn party(&self) -> &Party {
        &self.credential.party
    }

    /// The credential.
    pub fn credential(&self) -> &Arc<SignedCredential> {
        &self.credential
    }

    /// The signing key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Makes an offer to `receiver` and the session that it opens. `lifetime` is in seconds, at
    /// most [`MAX_OFFER_LIFE`] and cut to the end of both credentials.
    pub fn offer(
        &self,
        receiver: &SignedCredential,
        now: UnixTime,
        lifetime: u64,
        random: &mut dyn Random,
    ) -> Result<(Bytes, Session), OfferError> {
        let kem = receiver.kem.as_ref().ok_or(OfferError::NoKemKey)?;
        for credential in [&*self.credential, receiver] {
            credential.validity.check(now).map_err(OfferError::Credential)?;
        }
        let iat = now.secs();
        let exp = iat
            .saturating_add(lifetime.min(MAX_OFFER_LIFE))
            .min(self.credential.validity.not_after)
            .min(receiver.validity.not_after);
        let ends = Ends {
            domain: &self.domain,
            suite: kem.suite(),
            requester: self.party(),
            responder: &receiver.party,
            audience: receiver.kid,
        };
        let own = self.key.seed().expose();
        let (enc, exporter) = kem.encapsulate(&ends.info(), None, random, own, now)?;
        let mut nonce = [0; 16];
        random.fill(&mut nonce)?;
        let payload = self.payload(&ends, &enc, Window { iat, exp }, &nonce);
        let bytes = sign1(SignatureUse::Offer, &self.key, None, &payload);
        let session = ends
            .session(&exporter, &bytes, Window { iat, exp }, self.credential.clone())
            .map_err(|_| OfferError::Export)?;
        Ok((bytes, session))
    }

    fn payload(&self, ends: &Ends<'_>, enc: &[u8], window: Window, nonce: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(enc.len() + self.credential.as_bytes().len() + 160);
        let mut w = Writer::new(&mut out);
        w.array(10);
        w.uint(1);
        w.uint(ends.suite.to_wire().into());
        w.bytes(enc);
        w.bytes(self.credential.as_bytes());
        w.bytes(ends.audience.as_bytes());
        w.text(ends.responder.principal.as_str());
        w.uint(ends.responder.incarnation.into());
        w.uint(window.iat);
        w.uint(window.exp);
        w.bytes(nonce);
        out
    }
}

/// Both ends of a session and what they agree on.
struct Ends<'a> {
    domain: &'a TrustDomain,
    suite: Suite,
    requester: &'a Party,
    responder: &'a Party,
    audience: Kid,
}

impl Ends<'_> {
    /// HPKE's `info`: suite, both principals with incarnations as SPIFFE IDs, the audience kid.
    fn info(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(320);
        let mut w = Writer::new(&mut out);
        w.array(7);
        w.text("bulla/1 hpke");
        w.uint(self.suite.to_wire().into());
        if off(Check::OfferAudience) {
            return out;
        }
        for party in [self.requester, self.responder] {
            w.text(&party.principal.spiffe_id(self.domain));
            w.uint(party.incarnation.into());
        }
        w.bytes(self.audience.as_bytes());
        out
    }

    fn session(
        &self,
        exporter: &Exporter,
        offer: &[u8],
        window: Window,
        credential: Arc<SignedCredential>,
    ) -> Result<Session, Refusal> {
        let digest = Digest::of(offer);
        let mut context = Vec::with_capacity(64);
        let mut w = Writer::new(&mut context);
        w.array(2);
        w.text("bulla/1 session");
        w.bytes(if off(Check::OfferBound) { &[] } else { digest.as_bytes() });
        let secret: Secret<32> = exporter.export(&context)?;
        Ok(Session::derive(
            &secret,
            SessionParts {
                handle: Handle::Session(session_id(&digest)),
                suite: self.suite,
                requester: self.requester.clone(),
                responder: self.responder.clone(),
                window: Some(window),
                requester_credential: Some(credential),
            },
        ))
    }
}

fn session_id(digest: &Digest) -> SessionId {
    let mut id = [0; 16];
    id.iter_mut().zip(digest.0).for_each(|(to, from)| *to = from);
    SessionId(id)
}

/// An offer that was read and not verified.
#[derive(Debug)]
pub struct Offer<'a> {
    bytes: &'a [u8],
    suite: Suite,
    enc: &'a [u8],
    credential: &'a [u8],
    audience: Kid,
    responder: (&'a str, u32),
    window: Window,
}

impl<'a> Offer<'a> {
    /// Reads one offer (step 3a of protocol section 9).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAX_OFFER {
            return Err(Refusal::TooLarge);
        }
        let signed = Unverified::parse(bytes)?;
        if signed.kid().is_some() {
            return Err(Refusal::Malformed);
        }
        let mut r = Reader::new(signed.dangerous_payload());
        r.array(10)?;
        r.this_uint(1)?;
        let offer = Self {
            bytes,
            suite: Suite::from_wire(r.uint()?).ok_or(Refusal::SuiteNotAllowed)?,
            enc: r.bytes()?,
            credential: r.bytes()?,
            audience: Kid(r.fixed()?),
            responder: (r.text()?, r.uint32()?),
            window: Window { iat: r.uint()?, exp: r.uint()? },
        };
        r.fixed::<16>()?;
        r.end()?;
        Ok(offer)
    }

    /// The session that it would open: computed, never read.
    pub fn session_id(&self) -> SessionId {
        session_id(&Digest::of(self.bytes))
    }

    /// Which of the receiver's keys it is for; compare with what is held.
    pub fn audience(&self) -> Kid {
        self.audience
    }

    /// The suite that it uses.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The sender's credential, unverified.
    pub fn credential(&self) -> &'a [u8] {
        self.credential
    }

    /// Addressed to `me` and within its time at `now` give or take `skew` seconds.
    pub fn check(&self, me: &Party, now: UnixTime, skew: u64) -> Result<(), Refusal> {
        let (principal, incarnation) = self.responder;
        if (principal != me.principal.as_str() || incarnation != me.incarnation)
            && !off(Check::OfferAudience)
        {
            return Err(Refusal::AudienceMismatch);
        }
        let Window { iat, exp } = self.window;
        if off(Check::OfferTimes) {
            return Ok(());
        }
        if exp < iat || exp - iat > MAX_OFFER_LIFE {
            return Err(Refusal::OfferInvalid);
        }
        if iat > now.secs().saturating_add(skew) {
            return Err(Refusal::OfferExpired);
        }
        // Nothing sealed in its time can still be alive.
        if now.secs() > exp.saturating_add(MAX_LIFE).saturating_add(skew) {
            return Err(Refusal::OfferExpired);
        }
        Ok(())
    }

    /// All of step 3a: addressed to the holder of `own` (its audience credential, or an agent's
    /// only one) under that very key, in a suite of both that credential and `accepted`, and
    /// within its time.
    pub fn check_for(
        &self,
        own: &Credential,
        accepted: SuiteSet,
        now: UnixTime,
        skew: u64,
    ) -> Result<(), Refusal> {
        if self.audience != own.kid && !off(Check::OfferAudience) {
            return Err(Refusal::AudienceMismatch);
        }
        if (!own.suites.contains(self.suite) || !accepted.contains(self.suite))
            && !off(Check::SuiteAllowed)
        {
            return Err(Refusal::SuiteNotAllowed);
        }
        self.check(&own.party, now, skew)
    }

    /// Verifies the sender's credential as of the offer's own time, then the signature (steps 3b
    /// and 3c). `cached` may give a credential that was verified before, by its digest.
    pub fn verify(
        self,
        trust: &TrustStore,
        cached: impl FnOnce(&Digest) -> Option<Arc<SignedCredential>>,
    ) -> Result<VerifiedOffer<'a>, Refusal> {
        let at = UnixTime::from_secs(self.window.iat);
        let digest = Digest::of(self.credential);
        let credential = match cached(&digest).filter(|known| known.digest() == digest) {
            Some(known) => {
                known.validity.check(at)?;
                known
            }
            None => Arc::new(trust.verify(self.credential, at)?),
        };
        let key = credential.signing.ok_or(Refusal::CredentialInvalid)?;
        if !off(Check::OfferSignature) {
            Unverified::parse(self.bytes)?.verify(SignatureUse::Offer, &key)?;
        }
        if self.window.exp > credential.validity.not_after && !off(Check::CredentialTime) {
            return Err(Refusal::OfferInvalid);
        }
        Ok(VerifiedOffer { offer: self, credential })
    }
}

/// An offer whose sender is proven.
#[derive(Debug)]
pub struct VerifiedOffer<'a> {
    offer: Offer<'a>,
    credential: Arc<SignedCredential>,
}

impl VerifiedOffer<'_> {
    /// Who made it: from here on, cost is charged to this sender.
    pub fn sender(&self) -> &Party {
        &self.credential.party
    }

    /// The sender's credential.
    pub fn credential(&self) -> &Arc<SignedCredential> {
        &self.credential
    }

    /// Opens the encapsulation with the key that the offer is for (step 3d).
    pub fn open(
        self,
        domain: &TrustDomain,
        me: &Party,
        key: &KemSecretKey,
    ) -> Result<Session, Refusal> {
        if key.suite() != self.offer.suite {
            return Err(Refusal::SuiteNotAllowed);
        }
        let ends = Ends {
            domain,
            suite: self.offer.suite,
            requester: &self.credential.party,
            responder: me,
            audience: self.offer.audience,
        };
        let exporter = key.decapsulate(self.offer.enc, &ends.info(), None)?;
        ends.session(&exporter, self.offer.bytes, self.offer.window, self.credential.clone())
    }
}
