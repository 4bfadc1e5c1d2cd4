//! Ed25519 (RFC 8032) keys, and the COSE_Sign1 (RFC 9052 section 4.2) form in which credentials,
//! offers and statements are signed.
//!
//! Each use of a key has its own label, carried as the external AAD of the Sig_structure: it
//! costs no bytes on the wire and one use can't be taken for another.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use bytes::Bytes;

use crate::Random;
use crate::cbor::{Reader, Writer};
use crate::id::Kid;
use crate::random::RandomFailed;
use crate::refusal::Refusal;
use crate::secret::Secret;

/// COSE algorithm identifier of EdDSA (RFC 9053 table 2).
pub(crate) const ALG_EDDSA: i64 = -8;
/// CBOR tag of COSE_Sign1 (RFC 9052 table 1).
pub(crate) const TAG_SIGN1: u64 = 18;
/// Bytes of an Ed25519 signature.
pub(crate) const SIGNATURE: usize = 64;

/// What a signature is for (protocol, introduction).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureUse {
    /// A credential or an issuer's credential.
    Credential,
    /// The enrolment request of a new agent.
    Enrol,
    /// An operator's exemption from a floor.
    Exemption,
    /// A fanout message.
    Fanout,
    /// A renewal with its join-state counter.
    Join,
    /// A message at level `signed`, or signed inside its seal.
    Message,
    /// The opening of a session.
    Offer,
    /// Which policies receivers go by.
    Policy,
    /// What a root says of the one that follows it.
    Root,
    /// The new root's consent to that.
    RootConsent,
    /// A statement of revocation.
    Statement,
    /// The root of a Merkle tree over a burst of fanouts.
    Tree,
}

impl SignatureUse {
    /// The label that is signed along.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Credential => "bulla/1 credential",
            Self::Enrol => "bulla/1 enrol",
            Self::Exemption => "bulla/1 exemption",
            Self::Fanout => "bulla/1 fanout",
            Self::Join => "bulla/1 join",
            Self::Message => "bulla/1 message",
            Self::Offer => "bulla/1 offer",
            Self::Policy => "bulla/1 policy",
            Self::Root => "bulla/1 root",
            Self::RootConsent => "bulla/1 root consent",
            Self::Statement => "bulla/1 statement",
            Self::Tree => "bulla/1 tree",
        }
    }
}

/// An Ed25519 signing key.
pub struct SigningKey {
    seed: Secret<32>,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// A fresh key.
    pub fn generate(random: &mut dyn Random) -> Result<Self, RandomFailed> {
        Self::from_seed(Secret::generate(random)?).ok_or(RandomFailed)
    }

    /// From its 32-byte seed (RFC 8032 section 5.1.5); `None` if the library refuses it.
    pub fn from_seed(seed: Secret<32>) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).ok()?;
        Some(Self { seed, pair })
    }

    /// The seed, for storing it wrapped.
    pub fn seed(&self) -> &Secret<32> {
        &self.seed
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(self.pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        VerifyingKey(bytes)
    }

    /// Signs the base of an HTTP message signature (RFC 9421), a text that begins with a quotation mark:
    /// none of the structures that are signed here does.
    pub fn sign_request(&self, base: &str) -> Option<[u8; SIGNATURE]> {
        base.starts_with('"').then(|| self.sign(base.as_bytes()))
    }

    /// Signs `message` as it is; callers give a labelled structure.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
        let mut out = [0; SIGNATURE];
        let signature = self.pair.sign(message);
        out.iter_mut().zip(signature.as_ref()).for_each(|(to, from)| *to = *from);
        out
    }
}

impl Clone for SigningKey {
    #[allow(clippy::expect_used, reason = "the seed made a key before")]
    fn clone(&self) -> Self {
        Self::from_seed(self.seed.clone()).expect("a seed that was accepted before")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?}, ..)", self.verifying_key())
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifyingKey(pub [u8; 32]);

impl VerifyingKey {
    /// Checks a signature; strict about malleability (s below the group order).
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        ParsedPublicKey::new(&ED25519, self.0)
            .map_err(|_| Refusal::SignatureInvalid)?
            .verify_sig(message, signature)
            .map_err(|_| Refusal::SignatureInvalid)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("…")
    }
}

/// The Sig_structure ["Signature1", protected, external AAD, payload], the external AAD being the
/// CBOR array of the label alone.
fn sig_structure(usage: SignatureUse, protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(24);
    let mut w = Writer::new(&mut aad);
    w.array(1);
    w.text(usage.label());
    let mut out = Vec::with_capacity(protected.len() + payload.len() + aad.len() + 24);
    let mut w = Writer::new(&mut out);
    w.array(4);
    w.text("Signature1");
    w.bytes(protected);
    w.bytes(&aad);
    w.bytes(payload);
    out
}

fn protected(kid: Option<Kid>) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    let mut w = Writer::new(&mut out);
    w.map(1 + usize::from(kid.is_some()));
    w.int(1);
    w.int(ALG_EDDSA);
    if let Some(kid) = kid {
        w.int(4);
        w.bytes(kid.as_bytes());
    }
    out
}

/// Signs `payload` as a COSE_Sign1; `kid` names the signer where the context does not.
pub fn sign1(usage: SignatureUse, key: &SigningKey, kid: Option<Kid>, payload: &[u8]) -> Bytes {
    let protected = protected(kid);
    let signature = key.sign(&sig_structure(usage, &protected, payload));
    let mut out = Vec::with_capacity(payload.len() + 96);
    let mut w = Writer::new(&mut out);
    w.tag(TAG_SIGN1);
    w.array(4);
    w.bytes(&protected);
    w.map(0);
    w.bytes(payload);
    w.bytes(&signature);
    out.into()
}

/// A COSE_Sign1 whose signature has not been checked yet.
#[derive(Debug, Clone, Copy)]
pub struct Unverified<'a> {
    kid: Option<Kid>,
    protected: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Unverified<'a> {
    /// Reads exactly one COSE_Sign1 of the closed profile.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(bytes);
        let parsed = Self::read(&mut r)?;
        r.end()?;
        Ok(parsed)
    }

    pub(crate) fn read(r: &mut Reader<'a>) -> Result<Self, Refusal> {
        r.tag(TAG_SIGN1)?;
        r.array(4)?;
        let protected = r.bytes()?;
        r.map(0)?;
        let payload = r.bytes()?;
        let signature = r.bytes()?;
        let kid = Self::read_protected(protected)?;
        if signature.len() != SIGNATURE {
            return Err(Refusal::Malformed);
        }
        Ok(Self { kid, protected, payload, signature })
    }

    fn read_protected(bytes: &[u8]) -> Result<Option<Kid>, Refusal> {
        let mut r = Reader::new(bytes);
        // {1: -8} or {1: -8, 4: kid}
        let with_kid = bytes.len() > 3;
        r.map(1 + usize::from(with_kid))?;
        r.this_int(1)?;
        r.this_int(ALG_EDDSA)?;
        let kid = if with_kid {
            r.this_int(4)?;
            Some(Kid(r.fixed()?))
        } else {
            None
        };
        r.end()?;
        Ok(kid)
    }

    /// Who claims to have signed; not believed.
    pub fn kid(&self) -> Option<Kid> {
        self.kid
    }

    /// The payload before its signature was checked: only for finding the key to check it with.
    pub fn dangerous_payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload, if `key` signed it for this use.
    pub fn verify(&self, usage: SignatureUse, key: &VerifyingKey) -> Result<&'a [u8], Refusal> {
        key.verify(&sig_structure(usage, self.protected, self.payload), self.signature)?;
        Ok(self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    #[test]
    fn a_signature_is_good_for_one_use_and_one_key() {
        let key = SigningKey::generate(&mut OsRandom::default()).unwrap();
        let other = SigningKey::generate(&mut OsRandom::default()).unwrap();
        let signed = sign1(SignatureUse::Offer, &key, Some(Kid([1; 8])), b"payload");
        let parsed = Unverified::parse(&signed).unwrap();
        assert_eq!(parsed.kid(), Some(Kid([1; 8])));
        let public = key.verifying_key();
        assert_eq!(parsed.verify(SignatureUse::Offer, &public), Ok(&b"payload"[..]));
        assert!(parsed.verify(SignatureUse::Credential, &public).is_err());
        assert!(parsed.verify(SignatureUse::Offer, &other.verifying_key()).is_err());
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let key = SigningKey::generate(&mut OsRandom::default()).unwrap();
        let signed = sign1(SignatureUse::Offer, &key, None, b"payload");
        for bit in 0..signed.len() * 8 {
            let mut bad = signed.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let result = Unverified::parse(&bad)
                .and_then(|s| s.verify(SignatureUse::Offer, &key.verifying_key()).map(|_| ()));
            assert!(result.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_secret_half_is_not_printed() {
        let key = SigningKey::from_seed(Secret::new([0x42; 32])).unwrap();
        assert!(!format!("{key:?}").contains("4242"));
    }
}
