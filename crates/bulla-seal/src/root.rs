//! Root announcements: how a new root key follows the one that everybody trusts (protocol
//! section 2).
//!
//! One is signed twice. The old root says which key follows it; the new root signs what the old
//! one said, so that nobody comes to trust a key whose holder did not consent.

use bytes::Bytes;

use crate::cbor::{Reader, Writer};
use crate::credential::TrustStore;
use crate::mutants::{Check, off};
use crate::principal::TrustDomain;
use crate::random::UnixTime;
use crate::refusal::Refusal;
use crate::sign::{SignatureUse, SigningKey, Unverified, VerifyingKey, sign1};

/// The sequence of the root that a deployment begins with.
pub const FIRST_ROOT: u32 = 1;
/// Largest announcement with both its signatures, in bytes.
pub const MAX_ANNOUNCEMENT: usize = 640;
/// Longest time for which a former root still counts, in seconds: 366 days.
pub const MAX_OVERLAP: u64 = 366 * 86_400;
/// Shortest, in seconds: an hour.
pub const MIN_OVERLAP: u64 = 3_600;

/// What the old root and the new one say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootAnnouncement {
    /// The trust domain.
    pub domain: TrustDomain,
    /// The new root's sequence: one more than the old one's. The first root has
    /// [`FIRST_ROOT`].
    pub sequence: u32,
    /// The old root.
    pub old: VerifyingKey,
    /// The new root.
    pub new: VerifyingKey,
    /// Unix seconds.
    pub issued_at: u64,
    /// First Unix second in which the old root counts for nothing.
    pub until: u64,
}

impl RootAnnouncement {
    /// Signs this with both roots.
    ///
    /// # Errors
    /// [`Refusal::RootInvalid`] if it is not well formed or the keys are not those that it names.
    pub fn sign(&self, old: &SigningKey, new: &SigningKey) -> Result<Bytes, Refusal> {
        self.check_shape()?;
        if old.verifying_key() != self.old || new.verifying_key() != self.new {
            return Err(Refusal::RootInvalid);
        }
        let said = sign1(SignatureUse::Root, old, None, &self.encode());
        Ok(sign1(SignatureUse::RootConsent, new, None, &said))
    }

    /// What an announcement claims, before anybody checked its signatures: for showing it, never
    /// for trusting it.
    ///
    /// # Errors
    /// [`Refusal::RootInvalid`] if it is not well formed.
    pub fn claimed(bytes: &[u8]) -> Result<Self, Refusal> {
        Ok(parse(bytes)?.claims)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(240);
        let mut w = Writer::new(&mut out);
        w.array(7);
        w.uint(1);
        w.text(self.domain.as_str());
        w.uint(self.sequence.into());
        w.bytes(self.old.as_bytes());
        w.bytes(self.new.as_bytes());
        w.uint(self.issued_at);
        w.uint(self.until);
        out
    }

    fn decode(payload: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(payload);
        r.array(7)?;
        r.this_uint(1)?;
        let announcement = Self {
            domain: TrustDomain::new(r.text()?).map_err(|_| Refusal::RootInvalid)?,
            sequence: r.uint32()?,
            old: VerifyingKey(r.fixed()?),
            new: VerifyingKey(r.fixed()?),
            issued_at: r.uint()?,
            until: r.uint()?,
        };
        r.end()?;
        announcement.check_shape()?;
        Ok(announcement)
    }

    fn check_shape(&self) -> Result<(), Refusal> {
        let overlap = self.until.checked_sub(self.issued_at);
        let ok = self.sequence > FIRST_ROOT
            && self.old != self.new
            && overlap.is_some_and(|overlap| (MIN_OVERLAP..=MAX_OVERLAP).contains(&overlap));
        if ok { Ok(()) } else { Err(Refusal::RootInvalid) }
    }
}

/// Both signatures, unverified, and what they are over.
struct Unchecked<'a> {
    claims: RootAnnouncement,
    said: Unverified<'a>,
    consent: Unverified<'a>,
}

fn parse(bytes: &[u8]) -> Result<Unchecked<'_>, Refusal> {
    if bytes.len() > MAX_ANNOUNCEMENT {
        return Err(Refusal::TooLarge);
    }
    let invalid = |_| Refusal::RootInvalid;
    let consent = Unverified::parse(bytes).map_err(invalid)?;
    let said = Unverified::parse(consent.dangerous_payload()).map_err(invalid)?;
    // Which keys signed is said by the content and by what is trusted.
    if consent.kid().is_some() || said.kid().is_some() {
        return Err(Refusal::RootInvalid);
    }
    let claims = RootAnnouncement::decode(said.dangerous_payload()).map_err(invalid)?;
    Ok(Unchecked { claims, said, consent })
}

impl TrustStore {
    /// Takes over the root that `bytes` announce: signed by the root that is trusted now and by the
    /// one that follows it. From then on the announced root counts; the former one and the issuers
    /// that it signed do until the announced end ([`retire_root`](Self::retire_root)).
    ///
    /// Gives the announcement, or `None` if this root is trusted already.
    ///
    /// # Errors
    /// - [`Refusal::RootStale`]: an older announcement than the one that was taken last.
    /// - [`Refusal::RootInvalid`]: not well formed, not from the root that is trusted now, or
    ///   without the consent of the new one.
    /// - [`Refusal::RootEnded`]: good, but the overlap is over at `now`: whoever trusts no other
    ///   root than the old one has nothing left to trust.
    pub fn take_root(
        &mut self,
        bytes: &[u8],
        now: UnixTime,
    ) -> Result<Option<RootAnnouncement>, Refusal> {
        let Unchecked { claims, said, consent } = parse(bytes)?;
        if claims.domain != *self.domain() {
            return Err(Refusal::RootInvalid);
        }
        let older = claims.sequence <= self.root_sequence();
        if claims.sequence == self.root_sequence() && claims.new == *self.root() {
            return Ok(None);
        }
        if older && !off(Check::RootSequence) {
            return Err(Refusal::RootStale);
        }
        if !off(Check::RootSignature) {
            let next = self.root_sequence().checked_add(1) == Some(claims.sequence);
            if !older && (!next || claims.old != *self.root()) {
                return Err(Refusal::RootInvalid);
            }
            let invalid = |_| Refusal::RootInvalid;
            said.verify(SignatureUse::Root, &claims.old).map_err(invalid)?;
        }
        if !off(Check::RootConsent) {
            let agreed = consent.verify(SignatureUse::RootConsent, &claims.new);
            agreed.map_err(|_| Refusal::RootInvalid)?;
        }
        if claims.until <= now.secs() && !older {
            return Err(Refusal::RootEnded);
        }
        self.follow(claims.new, claims.sequence, claims.until);
        Ok(Some(claims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{IssuerCredential, IssuerRight, Validity};
    use crate::id::Kid;
    use crate::random::OsRandom;

    const NOW: u64 = 1_800_000_000;
    const UNTIL: u64 = NOW + 30 * 86_400;

    fn key() -> SigningKey {
        SigningKey::generate(&mut OsRandom::default()).unwrap()
    }

    fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(secs)
    }

    fn domain() -> TrustDomain {
        TrustDomain::new("cloud.example").unwrap()
    }

    fn next(sequence: u32, old: &SigningKey, new: &SigningKey) -> RootAnnouncement {
        RootAnnouncement {
            domain: domain(),
            sequence,
            old: old.verifying_key(),
            new: new.verifying_key(),
            issued_at: NOW,
            until: UNTIL,
        }
    }

    fn issuer(kid: u8, root: &SigningKey) -> Bytes {
        let validity = Validity { not_before: NOW - 100, not_after: NOW + 100_000_000 };
        let key = key().verifying_key();
        let right = IssuerRight::Agents;
        IssuerCredential { kid: Kid([kid; 8]), domain: domain(), right, key, validity }.sign(root)
    }

    fn kids(trust: &TrustStore) -> Vec<u8> {
        trust.issuers().map(|(issuer, _)| issuer.kid.0[0]).collect()
    }

    #[test]
    fn a_new_root_follows_and_the_former_ends() {
        let (first, second) = (key(), key());
        let mut trust = TrustStore::new(domain(), first.verifying_key());
        trust.add_issuer(&issuer(1, &first)).unwrap();
        trust.add_issuer(&issuer(2, &first)).unwrap();
        let bytes = next(2, &first, &second).sign(&first, &second).unwrap();
        assert!(bytes.len() <= MAX_ANNOUNCEMENT);
        let taken = trust.take_root(&bytes, at(NOW)).unwrap().unwrap();
        assert_eq!((taken.new, taken.until), (second.verifying_key(), UNTIL));
        assert_eq!((*trust.root(), trust.root_sequence()), (second.verifying_key(), 2));
        // Again: no news.
        assert_eq!(trust.take_root(&bytes, at(NOW)), Ok(None));
        // Both count now; one of the issuers is signed by the new root.
        trust.add_issuer(&issuer(2, &second)).unwrap();
        trust.add_issuer(&issuer(3, &first)).unwrap();
        assert_eq!(trust.add_issuer(&issuer(2, &first)).err(), Some(Refusal::IssuerUnknown));
        assert_eq!(kids(&trust), [1, 2, 3]);
        assert!(!trust.retire_root(at(UNTIL - 1)));
        // Then only the new one.
        assert!(trust.retire_root(at(UNTIL)));
        assert_eq!(kids(&trust), [2]);
        assert_eq!(trust.add_issuer(&issuer(1, &first)).err(), Some(Refusal::IssuerUnknown));
        assert!(!trust.retire_root(at(UNTIL)));
    }

    #[test]
    fn only_the_root_that_is_trusted_now_names_its_successor() {
        let (first, second, third, other) = (key(), key(), key(), key());
        let trust = TrustStore::new(domain(), first.verifying_key());
        let refused = |bytes: &[u8]| {
            let mut trust = trust.clone();
            let refusal = trust.take_root(bytes, at(NOW)).unwrap_err();
            assert_eq!((*trust.root(), trust.root_sequence()), (first.verifying_key(), 1));
            refusal
        };
        // Of another root; and with the right root's name over another's signature.
        let forged = next(2, &other, &second).sign(&other, &second).unwrap();
        assert_eq!(refused(&forged), Refusal::RootInvalid);
        let claims = next(2, &first, &second);
        let said = sign1(SignatureUse::Root, &other, None, &claims.encode());
        let forged = sign1(SignatureUse::RootConsent, &second, None, &said);
        assert_eq!(refused(&forged), Refusal::RootInvalid);
        // The new key's holder did not consent.
        let said = sign1(SignatureUse::Root, &first, None, &claims.encode());
        for (usage, key) in [(SignatureUse::RootConsent, &first), (SignatureUse::Root, &second)] {
            let forged = sign1(usage, key, None, &said);
            assert_eq!(refused(&forged), Refusal::RootInvalid);
        }
        assert_eq!(refused(&said), Refusal::RootInvalid);
        // Signed by the old root for another use.
        let said = sign1(SignatureUse::Credential, &first, None, &claims.encode());
        let forged = sign1(SignatureUse::RootConsent, &second, None, &said);
        assert_eq!(refused(&forged), Refusal::RootInvalid);
        // Of another domain, and with a gap in the sequence.
        let other = RootAnnouncement { domain: TrustDomain::new("x.example").unwrap(), ..claims };
        assert_eq!(refused(&other.sign(&first, &second).unwrap()), Refusal::RootInvalid);
        let far = next(3, &first, &third).sign(&first, &third).unwrap();
        assert_eq!(refused(&far), Refusal::RootInvalid);
    }

    #[test]
    fn nothing_goes_back() {
        let (first, second, third, fourth) = (key(), key(), key(), key());
        let mut trust = TrustStore::new(domain(), first.verifying_key());
        let one = next(2, &first, &second).sign(&first, &second).unwrap();
        let two = next(3, &second, &third).sign(&second, &third).unwrap();
        trust.take_root(&one, at(NOW)).unwrap();
        // The former root, which still counts for its issuers, names nobody any more.
        let fork = next(2, &first, &fourth).sign(&first, &fourth).unwrap();
        assert_eq!(trust.take_root(&fork, at(NOW)), Err(Refusal::RootStale));
        let fork = next(3, &first, &fourth).sign(&first, &fourth).unwrap();
        assert_eq!(trust.take_root(&fork, at(NOW)), Err(Refusal::RootInvalid));
        trust.take_root(&two, at(NOW)).unwrap();
        assert_eq!(trust.take_root(&one, at(NOW)), Err(Refusal::RootStale));
        assert_eq!((*trust.root(), trust.root_sequence()), (third.verifying_key(), 3));
    }

    #[test]
    fn who_comes_after_the_overlap_is_told_so() {
        let (first, second) = (key(), key());
        let mut trust = TrustStore::new(domain(), first.verifying_key());
        let bytes = next(2, &first, &second).sign(&first, &second).unwrap();
        assert_eq!(trust.take_root(&bytes, at(UNTIL)), Err(Refusal::RootEnded));
        assert_eq!(trust.root_sequence(), 1);
        // Nobody says that of somebody else's root.
        let forged = next(2, &second, &first).sign(&second, &first).unwrap();
        assert_eq!(trust.take_root(&forged, at(UNTIL)), Err(Refusal::RootInvalid));
        trust.take_root(&bytes, at(UNTIL - 1)).unwrap();
    }

    #[test]
    fn shapes_are_checked_by_writer_and_reader() {
        let (first, second) = (key(), key());
        let good = next(2, &first, &second);
        let bad = [
            RootAnnouncement { sequence: 1, ..good.clone() },
            RootAnnouncement { until: NOW + MIN_OVERLAP - 1, ..good.clone() },
            RootAnnouncement { until: NOW + MAX_OVERLAP + 1, ..good.clone() },
            RootAnnouncement { until: NOW - 1, ..good.clone() },
        ];
        for claims in bad {
            assert_eq!(claims.sign(&first, &second), Err(Refusal::RootInvalid));
            let said = sign1(SignatureUse::Root, &first, None, &claims.encode());
            let forged = sign1(SignatureUse::RootConsent, &second, None, &said);
            let mut trust = TrustStore::new(domain(), first.verifying_key());
            assert_eq!(trust.take_root(&forged, at(NOW)), Err(Refusal::RootInvalid));
        }
        assert_eq!(good.sign(&second, &first), Err(Refusal::RootInvalid));
        let long = vec![0; MAX_ANNOUNCEMENT + 1];
        assert_eq!(RootAnnouncement::claimed(&long), Err(Refusal::TooLarge));
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let (first, second) = (key(), key());
        let bytes = next(2, &first, &second).sign(&first, &second).unwrap();
        let fresh = TrustStore::new(domain(), first.verifying_key());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(fresh.clone().take_root(&bad, at(NOW)).is_err(), "bit {bit}");
        }
    }
}
