//! Enrolment by token (protocol section 10): a new agent makes its keys itself, and gets a
//! credential for them over a bus that nobody trusts.
//!
//! The agent was given a [`JoinToken`] in a file, with the root public key and the enroller's
//! credential. It seals an [`Application`] to the enroller, HPKE in psk mode with the token's
//! secret; the enroller opens it ([`Request`]), issues, and seals an answer that opens with that
//! very application and no other. Both sides need the token: who has only the bus reads and
//! forges nothing, and who has only the enroller's KEM key doesn't either.
//!
//! That a token is good once is not this module's business: it remembers nothing.

mod answer;
mod request;

use std::fmt;

pub use answer::{Answer, Enrolled, MAX_ANSWER, MAX_ISSUERS, MAX_PEERS};
pub use request::{
    Applicant, Application, ApplicationParts, EnrolError, MAX_REQUEST, Opened, Request,
};

use aws_lc_rs::aead::{Aad, Nonce};
use zeroize::Zeroizing;

use crate::Random;
use crate::cbor::Writer;
use crate::id::{Digest, Kid, TokenId};
use crate::kdf;
use crate::kem::Psk;
use crate::principal::{Party, TrustDomain};
use crate::random::RandomFailed;
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::wire::Suite;

/// A one-time token: its name, and 32 bytes that only the new agent and the enroller know.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// Its name, which goes over the bus in the clear.
    pub id: TokenId,
    /// The secret.
    pub secret: Secret<32>,
}

impl JoinToken {
    /// A fresh one.
    pub fn generate(random: &mut dyn Random) -> Result<Self, RandomFailed> {
        let mut id = [0; TokenId::LEN];
        random.fill(&mut id)?;
        Ok(Self { id: TokenId(id), secret: Secret::generate(random)? })
    }

    /// What tells requests that were made with this token from others, and opens none.
    pub fn verifier(&self) -> TokenVerifier {
        let mut info = Vec::with_capacity(40);
        let mut w = Writer::new(&mut info);
        w.array(2);
        w.text("bulla/1 enrol verifier");
        w.bytes(self.id.as_bytes());
        TokenVerifier(kdf::expand(&self.secret, &info))
    }

    fn psk(&self) -> Psk {
        Psk { secret: self.secret.clone(), id: self.id.as_bytes().to_vec() }
    }
}

/// Tells requests that were made with a token from others. It opens no request and makes no
/// answer, so it may be kept when the secret is wiped: a second use of the token is then still
/// known for what it is, and what somebody made up who saw the token's name is not taken for one.
#[derive(Clone)]
pub struct TokenVerifier(Secret<32>);

impl TokenVerifier {
    /// From its 32 bytes.
    pub fn new(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// Its bytes, for storing it wrapped.
    pub fn expose(&self) -> &Secret<32> {
        &self.0
    }

    /// The proof over the digest of a request's other items.
    fn proof(&self, head: &Digest) -> Secret<32> {
        let mut info = Vec::with_capacity(64);
        let mut w = Writer::new(&mut info);
        w.array(2);
        w.text("bulla/1 enrol proof");
        w.bytes(head.as_bytes());
        kdf::expand(&self.0, &info)
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenVerifier(..)")
    }
}

/// Both ends of an enrolment and what they agree on.
struct Ends<'a> {
    domain: &'a TrustDomain,
    suite: Suite,
    agent: &'a Party,
    enroller: &'a Party,
    audience: Kid,
}

impl Ends<'_> {
    /// HPKE's `info`.
    fn info(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(320);
        let mut w = Writer::new(&mut out);
        w.array(7);
        w.text("bulla/1 enrol");
        w.uint(self.suite.to_wire().into());
        for party in [self.agent, self.enroller] {
            w.text(&party.principal.spiffe_id(self.domain));
            w.uint(party.incarnation.into());
        }
        w.bytes(self.audience.as_bytes());
        out
    }
}

/// What is exported for the answer to the request with this digest.
fn answer_context(request: &Digest) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let mut w = Writer::new(&mut out);
    w.array(2);
    w.text("bulla/1 enrol answer");
    w.bytes(request.as_bytes());
    out
}

/// What is exported for the request itself.
fn request_context() -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    let mut w = Writer::new(&mut out);
    w.array(1);
    w.text("bulla/1 enrol request");
    out
}

/// AES-256-GCM with a zero IV: each key here seals one content.
fn seal(key: &Secret<32>, aad: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = Zeroizing::new(Vec::with_capacity(plain.len() + 16));
    sealed.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    kdf::gcm(key).seal_in_place_append_tag(nonce, Aad::from(aad), &mut *sealed).ok()?;
    Some(std::mem::take(&mut *sealed))
}

fn open(key: &Secret<32>, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut plain = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let opened = kdf::gcm(key).open_in_place(nonce, Aad::from(aad), &mut plain);
    let len = opened.map_err(|_| Refusal::NotAuthentic)?.len();
    plain.truncate(len);
    Ok(plain)
}
