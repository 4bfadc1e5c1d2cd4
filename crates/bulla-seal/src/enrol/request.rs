//! The request: made by the new agent, opened by the enroller.

use bytes::Bytes;
use thiserror::Error;

use super::answer::{self, Answer, Enrolled};
use super::{Ends, JoinToken, TokenVerifier, answer_context, open, request_context, seal};
use crate::Random;
use crate::cbor::{Reader, Writer};
use crate::credential::{Credential, SignedCredential, TrustStore};
use crate::id::{Digest, Kid, TokenId};
use crate::kem::{EncapsulateError, KemPublicKey, KemSecretKey, Psk};
use crate::mutants::{Check, off};
use crate::principal::{Party, TrustDomain};
use crate::random::{RandomFailed, UnixTime};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::sign::{SignatureUse, SigningKey, Unverified, VerifyingKey, sign1};
use crate::wire::Suite;

/// Largest request in bytes: an X-Wing encapsulation, an X-Wing key, and room.
pub const MAX_REQUEST: usize = 4 * 1024;

/// Who wants to join, and what the join file says.
#[derive(Debug, Clone, Copy)]
pub struct Applicant<'a> {
    /// The trust domain.
    pub domain: &'a TrustDomain,
    /// The agent, in the incarnation that the token is for.
    pub party: &'a Party,
    /// The token.
    pub token: &'a JoinToken,
    /// The enroller's credential with its KEM key, verified.
    pub enroller: &'a SignedCredential,
}

/// A request could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// The enroller's credential is not valid now.
    #[error(
        "the enroller's credential is not valid now ({0}): check this machine's clock, or have a new join file made"
    )]
    Credential(Refusal),
    /// The enroller has no key to receive with.
    #[error("the enroller's credential has no key to receive with")]
    NoKemKey,
    /// The random source failed.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// The enroller's key can't be used.
    #[error(transparent)]
    Encapsulate(#[from] EncapsulateError),
    /// The cipher failed.
    #[error("the request could not be sealed")]
    Seal,
}

impl Applicant<'_> {
    /// Makes the request for these keys. It is made once and sent as often as needed: another
    /// request with the same token is a second use of the token.
    pub fn apply(
        &self,
        signing: SigningKey,
        kem: KemSecretKey,
        now: UnixTime,
        random: &mut dyn Random,
    ) -> Result<Application, EnrolError> {
        let public = self.enroller.kem.as_ref().ok_or(EnrolError::NoKemKey)?;
        self.enroller.validity.check(now).map_err(EnrolError::Credential)?;
        let ends = Ends {
            domain: self.domain,
            suite: public.suite(),
            agent: self.party,
            enroller: &self.enroller.party,
            audience: self.enroller.kid,
        };
        let (psk, own) = (self.token.psk(), signing.seed().expose());
        let (enc, exporter) = public.encapsulate(&ends.info(), bound(&psk), random, own, now)?;
        let claims = Claims {
            domain: self.domain.as_str(),
            token: self.token.id,
            agent: (self.party.principal.as_str(), self.party.incarnation),
            audience: self.enroller.kid,
            enc: &enc,
            signing: signing.verifying_key(),
            kem: kem.public().clone(),
        };
        let signed = sign1(SignatureUse::Enrol, &signing, None, &claims.encode());
        let outer =
            Outer { token: self.token.id, suite: ends.suite, audience: ends.audience, enc: &enc };
        let key = exporter.export(&request_context()).map_err(|_| EnrolError::Seal)?;
        let sealed = seal(&key, &outer.aad(), &signed).ok_or(EnrolError::Seal)?;
        let request = outer.encode(&sealed, &self.token.verifier());
        let context = answer_context(&Digest::of(&request));
        let answer_key = exporter.export(&context).map_err(|_| EnrolError::Seal)?;
        let (party, domain) = (self.party.clone(), self.domain.clone());
        let parts = ApplicationParts { party, domain, signing, kem, request, answer_key };
        Ok(Application(parts))
    }
}

/// A request with what is needed to take its answer: what an agent keeps until it is answered,
/// also over a restart.
#[derive(Debug)]
pub struct Application(ApplicationParts);

/// What an [`Application`] is made of, for keeping it in a file. All of it but the request is
/// secret or has to stay as it is.
#[derive(Debug)]
pub struct ApplicationParts {
    /// Who applies.
    pub party: Party,
    /// The trust domain.
    pub domain: TrustDomain,
    /// The new key to sign with.
    pub signing: SigningKey,
    /// The new key to receive with.
    pub kem: KemSecretKey,
    /// What goes over the bus, byte for byte the same each time.
    pub request: Bytes,
    /// Opens the answer.
    pub answer_key: Secret<32>,
}

impl Application {
    /// From what was kept.
    pub fn from_parts(parts: ApplicationParts) -> Self {
        Self(parts)
    }

    /// What to keep.
    pub fn parts(&self) -> &ApplicationParts {
        &self.0
    }

    /// What goes over the bus.
    pub fn request(&self) -> &Bytes {
        &self.0.request
    }

    /// Opens the answer. `root` is what the join file says of the root: of the issuers that come with
    /// the answer those are believed that this root signed, and the others, which a later root
    /// signed, left out. The credential must be for this agent and these keys.
    pub fn open_answer(
        &self,
        bytes: &[u8],
        root: &TrustStore,
        now: UnixTime,
    ) -> Result<Enrolled, Refusal> {
        let request = Digest::of(&self.0.request);
        let answer = answer::open_answer(&self.0.answer_key, &request, bytes)?;
        let mut trust = root.clone();
        for issuer in &answer.issuers {
            match trust.add_issuer(issuer) {
                Ok(_) | Err(Refusal::IssuerUnknown) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        let credential = trust.verify(&answer.credential, now)?;
        let ours = credential.party == self.0.party
            && credential.signing == Some(self.0.signing.verifying_key())
            && credential.kem.as_ref() == Some(self.0.kem.public());
        if !ours {
            return Err(Refusal::CredentialInvalid);
        }
        for peer in &answer.peers {
            trust.verify(peer, now)?;
        }
        Ok(Enrolled { credential, trust, peers: answer.peers })
    }
}

/// The token's part in a request's key.
fn bound(psk: &Psk) -> Option<&Psk> {
    (!off(Check::TokenBound)).then_some(psk)
}

/// The items of a request that are readable on the bus.
struct Outer<'a> {
    token: TokenId,
    suite: Suite,
    audience: Kid,
    enc: &'a [u8],
}

impl Outer<'_> {
    /// The associated data of the sealed part.
    fn aad(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.enc.len() + 80);
        let mut w = Writer::new(&mut out);
        w.array(5);
        w.text("bulla/1 enrol aad");
        w.bytes(self.token.as_bytes());
        w.uint(self.suite.to_wire().into());
        w.bytes(self.audience.as_bytes());
        w.bytes(self.enc);
        out
    }

    /// What the proof is over.
    fn head(&self, sealed: &[u8]) -> Digest {
        let mut out = Vec::with_capacity(self.enc.len() + sealed.len() + 80);
        let mut w = Writer::new(&mut out);
        w.array(6);
        w.text("bulla/1 enrol head");
        self.items(&mut w, sealed);
        Digest::of(&out)
    }

    fn items(&self, w: &mut Writer<'_, Vec<u8>>, sealed: &[u8]) {
        w.bytes(self.token.as_bytes());
        w.uint(self.suite.to_wire().into());
        w.bytes(self.audience.as_bytes());
        w.bytes(self.enc);
        w.bytes(sealed);
    }

    fn encode(&self, sealed: &[u8], verifier: &TokenVerifier) -> Bytes {
        let mut out = Vec::with_capacity(self.enc.len() + sealed.len() + 96);
        let mut w = Writer::new(&mut out);
        w.array(7);
        w.uint(1);
        self.items(&mut w, sealed);
        w.bytes(verifier.proof(&self.head(sealed)).expose());
        out.into()
    }
}

/// What the new key signs.
struct Claims<'a> {
    domain: &'a str,
    token: TokenId,
    agent: (&'a str, u32),
    audience: Kid,
    enc: &'a [u8],
    signing: VerifyingKey,
    kem: KemPublicKey,
}

impl<'a> Claims<'a> {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.enc.len() + self.kem.as_bytes().len() + 320);
        let mut w = Writer::new(&mut out);
        w.array(9);
        w.uint(1);
        w.text(self.domain);
        w.bytes(self.token.as_bytes());
        w.text(self.agent.0);
        w.uint(self.agent.1.into());
        w.bytes(self.audience.as_bytes());
        w.bytes(self.enc);
        w.bytes(self.signing.as_bytes());
        w.bytes(self.kem.as_bytes());
        out
    }

    fn decode(payload: &'a [u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(payload);
        r.array(9)?;
        r.this_uint(1)?;
        let claims = Self {
            domain: r.text()?,
            token: TokenId(r.fixed()?),
            agent: (r.text()?, r.uint32()?),
            audience: Kid(r.fixed()?),
            enc: r.bytes()?,
            signing: VerifyingKey(r.fixed()?),
            kem: KemPublicKey::from_wire(r.bytes()?)?,
        };
        r.end()?;
        Ok(claims)
    }
}

/// A request that was read and not opened.
#[derive(Debug)]
pub struct Request<'a> {
    bytes: &'a [u8],
    token: TokenId,
    suite: Suite,
    audience: Kid,
    enc: &'a [u8],
    sealed: &'a [u8],
    proof: Secret<32>,
}

impl<'a> Request<'a> {
    /// Reads one request.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAX_REQUEST {
            return Err(Refusal::TooLarge);
        }
        let mut r = Reader::new(bytes);
        r.array(7)?;
        r.this_uint(1)?;
        let request = Self {
            bytes,
            token: TokenId(r.fixed()?),
            suite: Suite::from_wire(r.uint()?).ok_or(Refusal::SuiteNotAllowed)?,
            audience: Kid(r.fixed()?),
            enc: r.bytes()?,
            sealed: r.bytes()?,
            proof: Secret::new(r.fixed()?),
        };
        r.end()?;
        Ok(request)
    }

    /// The token that it names; not believed.
    pub fn token(&self) -> TokenId {
        self.token
    }

    /// Which of the enroller's keys it is for.
    pub fn audience(&self) -> Kid {
        self.audience
    }

    /// What the token is bound to.
    pub fn digest(&self) -> Digest {
        Digest::of(self.bytes)
    }

    fn outer(&self) -> Outer<'a> {
        Outer { token: self.token, suite: self.suite, audience: self.audience, enc: self.enc }
    }

    /// Refuses what was not made with the token.
    pub fn check_proof(&self, verifier: &TokenVerifier) -> Result<(), Refusal> {
        let expected = verifier.proof(&self.outer().head(self.sealed));
        if expected.ct_eq(&self.proof) || off(Check::TokenProof) {
            Ok(())
        } else {
            Err(Refusal::NotAuthentic)
        }
    }

    /// Opens it as the enroller that `own` and `key` are of, for the agent and token that the
    /// request's token id stands for.
    pub fn open(
        &self,
        domain: &TrustDomain,
        (agent, token): (&Party, &JoinToken),
        (own, key): (&Credential, &KemSecretKey),
    ) -> Result<Opened, Refusal> {
        if self.token != token.id {
            return Err(Refusal::SessionUnknown);
        }
        self.check_proof(&token.verifier())?;
        if self.audience != own.kid {
            return Err(Refusal::AudienceMismatch);
        }
        if self.suite != key.suite() || !own.suites.contains(self.suite) {
            return Err(Refusal::SuiteNotAllowed);
        }
        let audience = self.audience;
        let ends = Ends { domain, suite: self.suite, agent, enroller: &own.party, audience };
        let exporter = key.decapsulate(self.enc, &ends.info(), bound(&token.psk()))?;
        let sealing = exporter.export(&request_context())?;
        let signed = open(&sealing, &self.outer().aad(), self.sealed)?;
        let signed = Unverified::parse(&signed)?;
        if signed.kid().is_some() {
            return Err(Refusal::Malformed);
        }
        let claims = Claims::decode(signed.dangerous_payload())?;
        signed.verify(SignatureUse::Enrol, &claims.signing)?;
        let as_expected = claims.domain == domain.as_str()
            && claims.token == token.id
            && claims.agent == (agent.principal.as_str(), agent.incarnation)
            && claims.audience == audience
            && claims.enc == self.enc;
        if !as_expected {
            return Err(Refusal::SenderMismatch);
        }
        let digest = self.digest();
        let answer_key = exporter.export(&answer_context(&digest))?;
        let (signing, kem) = (claims.signing, claims.kem);
        Ok(Opened { agent: agent.clone(), signing, kem, digest, answer_key })
    }
}

/// A request that opened: the agent has the token, and its new key has signed.
#[derive(Debug)]
pub struct Opened {
    agent: Party,
    signing: VerifyingKey,
    kem: KemPublicKey,
    digest: Digest,
    answer_key: Secret<32>,
}

impl Opened {
    /// Who applies.
    pub fn agent(&self) -> &Party {
        &self.agent
    }

    /// The agent's new key to sign with.
    pub fn signing(&self) -> &VerifyingKey {
        &self.signing
    }

    /// The agent's new key to receive with.
    pub fn kem(&self) -> &KemPublicKey {
        &self.kem
    }

    /// What the token is bound to from now on.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Seals the answer, to this request alone.
    pub fn answer(
        &self,
        answer: &Answer,
        now: UnixTime,
        random: &mut dyn Random,
    ) -> Result<Bytes, EnrolError> {
        answer::seal_answer(&self.answer_key, &self.digest, answer, now, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;
    use crate::wire::{Level, SuiteSet};
    use crate::{Principal, Validity};

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    /// What an agent with a good token may still lie about.
    struct Lie {
        domain: &'static str,
        token: TokenId,
        agent: (&'static str, u32),
        audience: Kid,
        /// Another encapsulation than the one that it used.
        enc: bool,
        /// A signature by another key than the one that it names.
        signature: bool,
        /// A signature for another use.
        usage: SignatureUse,
        kid: Option<Kid>,
    }

    fn truth(token: &JoinToken) -> Lie {
        Lie {
            domain: "cloud.example",
            token: token.id,
            agent: ("agent/db-1", 2),
            audience: Kid([1; 8]),
            enc: false,
            signature: false,
            usage: SignatureUse::Enrol,
            kid: None,
        }
    }

    fn judged(token: &JoinToken, lie: &Lie) -> Result<Opened, Refusal> {
        let random = &mut OsRandom::default();
        let domain = TrustDomain::new("cloud.example").unwrap();
        let agent = Party::new(Principal::agent("db-1").unwrap(), 2);
        let key = KemSecretKey::generate(Suite::X25519, random).unwrap();
        let own = Credential {
            kid: Kid([1; 8]),
            party: Party::new(Principal::component("control").unwrap(), 1),
            epoch: 1,
            signing: None,
            kem: Some(key.public().clone()),
            suites: SuiteSet::all(),
            validity: Validity { not_before: 0, not_after: u64::MAX },
            accepts: Level::Sealed,
            sends: Level::Sealed,
            roles: vec![],
            instance: None,
        };
        let (suite, audience) = (Suite::X25519, own.kid);
        let ends = Ends { domain: &domain, suite, agent: &agent, enroller: &own.party, audience };
        let psk = token.psk();
        let encapsulate = |random: &mut OsRandom| {
            key.public().encapsulate(&ends.info(), Some(&psk), random, &[], NOW).unwrap()
        };
        let (enc, exporter) = encapsulate(random);
        let (other, _) = encapsulate(random);
        let signing = SigningKey::generate(random).unwrap();
        let named =
            if lie.signature { SigningKey::generate(random).unwrap() } else { signing.clone() };
        let claims = Claims {
            domain: lie.domain,
            token: lie.token,
            agent: lie.agent,
            audience: lie.audience,
            enc: if lie.enc { &other } else { &enc },
            signing: named.verifying_key(),
            kem: KemSecretKey::generate(suite, random).unwrap().public().clone(),
        };
        let signed = sign1(lie.usage, &signing, lie.kid, &claims.encode());
        let outer = Outer { token: token.id, suite, audience, enc: &enc };
        let sealing = exporter.export(&request_context()).unwrap();
        let sealed = seal(&sealing, &outer.aad(), &signed).unwrap();
        let bytes = outer.encode(&sealed, &token.verifier());
        Request::parse(&bytes)?.open(&domain, (&agent, token), (&own, &key))
    }

    #[test]
    fn every_item_of_the_claims_is_checked() {
        let token = JoinToken::generate(&mut OsRandom::default()).unwrap();
        let honest = || truth(&token);
        assert!(judged(&token, &honest()).is_ok());
        for lie in [
            Lie { domain: "other.example", ..honest() },
            Lie { token: TokenId([9; 16]), ..honest() },
            Lie { agent: ("agent/db-2", 2), ..honest() },
            Lie { agent: ("agent/db-1", 1), ..honest() },
            Lie { audience: Kid([2; 8]), ..honest() },
            Lie { enc: true, ..honest() },
        ] {
            assert_eq!(judged(&token, &lie).unwrap_err(), Refusal::SenderMismatch);
        }
        for lie in
            [Lie { signature: true, ..honest() }, Lie { usage: SignatureUse::Join, ..honest() }]
        {
            assert_eq!(judged(&token, &lie).unwrap_err(), Refusal::SignatureInvalid);
        }
        let lie = Lie { kid: Some(Kid([3; 8])), ..honest() };
        assert_eq!(judged(&token, &lie).unwrap_err(), Refusal::Malformed);
    }
}
