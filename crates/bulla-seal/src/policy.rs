//! Policies as the operator's issuer hands them out to receivers: which one is active, and which one
//! judges beside it in the shadow (protocol section 18). What is in them is `bulla-policy`'s business.

use bytes::Bytes;

use crate::cbor::{Reader, Writer};
use crate::credential::{Issuer, IssuerRight, TrustStore};
use crate::refusal::Refusal;
use crate::sign::SignatureUse;

/// Largest document with its signature, in bytes.
pub const MAX_POLICY: usize = 512 * 1024;

/// What the operator says of policies. The whole of it at once: a receiver that holds the document
/// with the highest sequence needs no other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyDocument {
    /// Counts up with every document of a trust domain; receivers take none lower.
    pub sequence: u64,
    /// For people: the number of the activation that this says.
    pub version: u32,
    /// Unix seconds.
    pub issued_at: u64,
    /// The policy that decides, compiled; `None` is the built-in rule.
    pub active: Option<Vec<u8>>,
    /// The policy that only judges.
    pub shadow: Option<Vec<u8>>,
}

impl PolicyDocument {
    fn encode(&self) -> Vec<u8> {
        let size = |policy: &Option<Vec<u8>>| policy.as_ref().map_or(1, Vec::len);
        let mut out = Vec::with_capacity(48 + size(&self.active) + size(&self.shadow));
        let mut w = Writer::new(&mut out);
        w.array(6);
        w.uint(1);
        w.uint(self.sequence);
        w.uint(self.version.into());
        w.uint(self.issued_at);
        for policy in [&self.active, &self.shadow] {
            match policy {
                Some(policy) => w.bytes(policy),
                None => w.null(),
            }
        }
        out
    }

    fn decode(payload: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(payload);
        r.array(6)?;
        r.this_uint(1)?;
        let document = Self {
            sequence: r.uint()?,
            version: r.uint32()?,
            issued_at: r.uint()?,
            active: bytes_or_null(&mut r)?,
            shadow: bytes_or_null(&mut r)?,
        };
        r.end()?;
        if document.sequence == 0 {
            return Err(Refusal::PolicyInvalid);
        }
        Ok(document)
    }
}

fn bytes_or_null(r: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Refusal> {
    if r.null()? { Ok(None) } else { Ok(Some(r.bytes()?.to_vec())) }
}

impl Issuer {
    /// Signs `document`. Refuses what this issuer has no right to, and what is too large.
    pub fn hand_out(&self, document: &PolicyDocument) -> Result<SignedPolicy, Refusal> {
        let at = document.issued_at;
        if document.sequence == 0 || self.check_may(IssuerRight::Exemptions, at, at).is_err() {
            return Err(Refusal::PolicyInvalid);
        }
        let bytes = self.sign(SignatureUse::Policy, &document.encode());
        if bytes.len() > MAX_POLICY {
            return Err(Refusal::TooLarge);
        }
        Ok(SignedPolicy { bytes, document: document.clone() })
    }
}

impl TrustStore {
    /// Verifies a document: signed by a known issuer with the operator's right, which was valid
    /// when it was made. Whether it is the newest is not judged here.
    pub fn verify_policy(&self, bytes: &[u8]) -> Result<SignedPolicy, Refusal> {
        if bytes.len() > MAX_POLICY {
            return Err(Refusal::TooLarge);
        }
        let (payload, issuer) = self
            .verify_by(IssuerRight::Exemptions, SignatureUse::Policy, bytes)
            .map_err(|_| Refusal::PolicyInvalid)?;
        let document = PolicyDocument::decode(payload).map_err(|_| Refusal::PolicyInvalid)?;
        let at = document.issued_at;
        issuer.covers_time(at, at).map_err(|_| Refusal::PolicyInvalid)?;
        Ok(SignedPolicy { bytes: Bytes::copy_from_slice(bytes), document })
    }
}

/// A document with its signature: made by an [`Issuer`] or verified by a [`TrustStore`], never
/// built from parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPolicy {
    bytes: Bytes,
    document: PolicyDocument,
}

impl SignedPolicy {
    /// The COSE_Sign1.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl std::ops::Deref for SignedPolicy {
    type Target = PolicyDocument;

    fn deref(&self) -> &PolicyDocument {
        &self.document
    }
}
