//! Exemptions: the only way in which a floor is lowered, for one peer, one method and a while
//! (protocol section 8).

use std::fmt;

use bytes::Bytes;

use crate::cbor::{Reader, Writer};
use crate::credential::{Issuer, IssuerRight, TrustStore};
use crate::id::Kid;
use crate::principal::Party;
use crate::refusal::Refusal;
use crate::sign::SignatureUse;
use crate::wire::Level;

/// Longest life of an exemption, in seconds: 90 days.
pub const MAX_EXEMPTION_LIFE: u64 = 90 * 86_400;
/// Largest exemption with its signature, in bytes.
pub const MAX_EXEMPTION: usize = 512;
/// Longest method with its namespace, in bytes.
pub const MAX_METHOD: usize = 160;

/// What an operator lets through below a peer's floor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Exemption {
    /// Names it: random.
    pub id: Kid,
    /// Whose messages.
    pub peer: Party,
    /// Which method: `namespace.method`, or `method` alone if it has no namespace.
    pub method: String,
    /// Lowest level that is let through.
    pub level: Level,
    /// First Unix second.
    pub not_before: u64,
    /// First Unix second after.
    pub until: u64,
}

impl Exemption {
    /// Whether it holds at `now`, in Unix seconds.
    pub fn is_live(&self, now: u64) -> bool {
        (self.not_before..self.until).contains(&now)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + self.method.len());
        let mut w = Writer::new(&mut out);
        w.array(8);
        w.uint(1);
        w.bytes(self.id.as_bytes());
        w.text(self.peer.principal.as_str());
        w.uint(self.peer.incarnation.into());
        w.text(&self.method);
        w.uint(self.level.to_wire().into());
        w.uint(self.not_before);
        w.uint(self.until);
        out
    }

    fn decode(payload: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(payload);
        r.array(8)?;
        r.this_uint(1)?;
        let id = Kid(r.fixed()?);
        let principal = r.text()?.parse().map_err(|_| Refusal::ExemptionInvalid)?;
        let peer = Party::new(principal, r.uint32()?);
        let method = match r.text()? {
            long if long.len() > MAX_METHOD => return Err(Refusal::ExemptionInvalid),
            method => method.to_owned(),
        };
        let level = Level::from_wire(r.uint()?).ok_or(Refusal::ExemptionInvalid)?;
        let exemption = Self { id, peer, method, level, not_before: r.uint()?, until: r.uint()? };
        r.end()?;
        exemption.check_shape()?;
        Ok(exemption)
    }

    /// Names, limits and life.
    fn check_shape(&self) -> Result<(), Refusal> {
        let life = self.until.checked_sub(self.not_before);
        let ok = (1..=MAX_METHOD).contains(&self.method.len())
            && self.peer.incarnation > 0
            && life.is_some_and(|life| (1..=MAX_EXEMPTION_LIFE).contains(&life));
        if ok { Ok(()) } else { Err(Refusal::ExemptionInvalid) }
    }
}

impl Issuer {
    /// Signs `exemption`. Refuses what this issuer has no right to, what is not well formed and
    /// what would outlive the issuer itself.
    pub fn exempt(&self, exemption: &Exemption) -> Result<SignedExemption, Refusal> {
        exemption.check_shape()?;
        self.check_may(IssuerRight::Exemptions, exemption.not_before, exemption.until)
            .map_err(|_| Refusal::ExemptionInvalid)?;
        let bytes = self.sign(SignatureUse::Exemption, &exemption.encode());
        Ok(SignedExemption { bytes, exemption: exemption.clone() })
    }
}

impl TrustStore {
    /// Verifies an exemption: signed by a known issuer with the operator's right, that is valid
    /// as long as the exemption. Whether it is live is not judged here.
    pub fn verify_exemption(&self, bytes: &[u8]) -> Result<SignedExemption, Refusal> {
        if bytes.len() > MAX_EXEMPTION {
            return Err(Refusal::TooLarge);
        }
        let (payload, issuer) = self
            .verify_by(IssuerRight::Exemptions, SignatureUse::Exemption, bytes)
            .map_err(|_| Refusal::ExemptionInvalid)?;
        let exemption = Exemption::decode(payload).map_err(|_| Refusal::ExemptionInvalid)?;
        issuer
            .covers_time(exemption.not_before, exemption.until)
            .map_err(|_| Refusal::ExemptionInvalid)?;
        Ok(SignedExemption { bytes: Bytes::copy_from_slice(bytes), exemption })
    }
}

/// An exemption with its signature: made by an [`Issuer`] or verified by a [`TrustStore`], never
/// built from parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedExemption {
    bytes: Bytes,
    exemption: Exemption,
}

impl SignedExemption {
    /// The COSE_Sign1.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl std::ops::Deref for SignedExemption {
    type Target = Exemption;

    fn deref(&self) -> &Exemption {
        &self.exemption
    }
}

impl fmt::Display for Exemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {} at {}", self.id, self.method, self.peer, self.level)
    }
}
