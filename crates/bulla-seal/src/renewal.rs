//! Renewal of a credential (protocol section 10): what a principal's new key signs when it asks
//! for the credential that follows its present one.
//!
//! The request travels in an ordinary sealed call, which proves who asks: the session was offered
//! under the present credential. The signature by the *new* key proves that whoever asks has it,
//! and the counter makes of two requests under one credential a sign of two copies of its holder.

use bytes::Bytes;

use crate::cbor::{Reader, Writer};
use crate::id::{Digest, Kid};
use crate::kem::KemPublicKey;
use crate::principal::{Party, Principal, TrustDomain};
use crate::refusal::Refusal;
use crate::sign::{SignatureUse, SigningKey, Unverified, VerifyingKey, sign1};

/// Largest request in bytes: an X-Wing key and the longest names, with room.
pub const MAX_RENEWAL: usize = 2 * 1024;
/// Longest instance name, in bytes.
const MAX_INSTANCE: usize = crate::credential::MAX_ROLE;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalClaims {
    /// Who asks.
    pub party: Party,
    /// Which host of a component type; `None` for an agent.
    pub instance: Option<String>,
    /// The credential that is to be followed.
    pub credential: Kid,
    /// The join-state counter: one more than at the agent's last renewal; 0 for a host.
    pub counter: u64,
    /// The new key to sign with, which signs this.
    pub signing: VerifyingKey,
    /// An agent's new key to receive with.
    pub kem: Option<KemPublicKey>,
}

impl RenewalClaims {
    /// Signs these with the new key, which must be the one that they name.
    pub fn sign(&self, domain: &TrustDomain, key: &SigningKey) -> Bytes {
        sign1(SignatureUse::Join, key, None, &self.encode(domain))
    }

    /// Reads a request and verifies that the key that it names signed it, for this trust domain.
    ///
    /// # Errors
    /// It is too large, not of the closed profile, or not so signed.
    pub fn verify(bytes: &[u8], domain: &TrustDomain) -> Result<Self, Refusal> {
        if bytes.len() > MAX_RENEWAL {
            return Err(Refusal::TooLarge);
        }
        let signed = Unverified::parse(bytes)?;
        if signed.kid().is_some() {
            return Err(Refusal::Malformed);
        }
        let (claims, named) = Self::decode(signed.dangerous_payload())?;
        signed.verify(SignatureUse::Join, &claims.signing)?;
        if named != domain.as_str() {
            return Err(Refusal::SenderMismatch);
        }
        Ok(claims)
    }

    /// What a counter is bound to: the digest of the whole request.
    pub fn digest(bytes: &[u8]) -> Digest {
        Digest::of(bytes)
    }

    fn encode(&self, domain: &TrustDomain) -> Vec<u8> {
        let mut out = Vec::with_capacity(320);
        let mut w = Writer::new(&mut out);
        w.array(9);
        w.uint(1);
        w.text(domain.as_str());
        w.text(self.party.principal.as_str());
        w.uint(self.party.incarnation.into());
        w.text_or_null(self.instance.as_deref());
        w.bytes(self.credential.as_bytes());
        w.uint(self.counter);
        w.bytes(self.signing.as_bytes());
        w.bytes_or_null(self.kem.as_ref().map(KemPublicKey::as_bytes));
        out
    }

    /// The claims and the trust domain that they name.
    fn decode(payload: &[u8]) -> Result<(Self, &str), Refusal> {
        let mut r = Reader::new(payload);
        r.array(9)?;
        r.this_uint(1)?;
        let domain = r.text()?;
        let principal: Principal = r.text()?.parse().map_err(|_| Refusal::Malformed)?;
        let claims = Self {
            party: Party::new(principal, r.uint32()?),
            instance: instance(r.text_or_null()?)?,
            credential: Kid(r.fixed()?),
            counter: r.uint()?,
            signing: VerifyingKey(r.fixed()?),
            kem: r.bytes_or_null()?.map(KemPublicKey::from_wire).transpose()?,
        };
        r.end()?;
        // Agents renew both keys, hosts of a component the one that is theirs alone.
        let agent = claims.party.principal.is_agent();
        if agent != claims.kem.is_some() || agent == claims.instance.is_some() {
            return Err(Refusal::Malformed);
        }
        Ok((claims, domain))
    }
}

fn instance(text: Option<&str>) -> Result<Option<String>, Refusal> {
    match text {
        Some(text) if text.is_empty() || text.len() > MAX_INSTANCE => Err(Refusal::Malformed),
        other => Ok(other.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kem::KemSecretKey;
    use crate::random::OsRandom;
    use crate::wire::Suite;

    fn domain(name: &str) -> TrustDomain {
        TrustDomain::new(name).unwrap()
    }

    fn claims(key: &SigningKey) -> RenewalClaims {
        let kem = KemSecretKey::generate(Suite::X25519, &mut OsRandom::default()).unwrap();
        RenewalClaims {
            party: Party::new(Principal::agent("db-1").unwrap(), 3),
            instance: None,
            credential: Kid([7; 8]),
            counter: 5,
            signing: key.verifying_key(),
            kem: Some(kem.public().clone()),
        }
    }

    #[test]
    fn a_request_is_what_the_new_key_signed_for_this_domain() {
        let key = SigningKey::generate(&mut OsRandom::default()).unwrap();
        let (cloud, asked) = (domain("cloud.example"), claims(&key));
        let bytes = asked.sign(&cloud, &key);
        assert_eq!(RenewalClaims::verify(&bytes, &cloud), Ok(asked.clone()));
        assert_eq!(asked.sign(&cloud, &key), bytes, "the same request again is the same bytes");
        let other = RenewalClaims::verify(&bytes, &domain("other.example"));
        assert_eq!(other, Err(Refusal::SenderMismatch));
        // A key that whoever asks does not have.
        let thief = SigningKey::generate(&mut OsRandom::default()).unwrap();
        let forged = asked.sign(&cloud, &thief);
        assert_eq!(RenewalClaims::verify(&forged, &cloud), Err(Refusal::SignatureInvalid));
        for at in 0..bytes.len() {
            let mut altered = bytes.to_vec();
            altered[at] ^= 1;
            assert!(RenewalClaims::verify(&altered, &cloud).is_err(), "byte {at}");
            assert!(RenewalClaims::verify(&bytes[..at], &cloud).is_err(), "cut at {at}");
        }
        assert!(RenewalClaims::verify(&[0; MAX_RENEWAL + 1], &cloud).is_err());
    }

    #[test]
    fn agents_renew_both_keys_and_hosts_their_own() {
        let key = SigningKey::generate(&mut OsRandom::default()).unwrap();
        let cloud = domain("cloud.example");
        let agent = claims(&key);
        let component = Party::new(Principal::component("api").unwrap(), 1);
        let host = RenewalClaims {
            party: component.clone(),
            instance: Some("api-1".to_owned()),
            kem: None,
            counter: 0,
            ..agent.clone()
        };
        assert_eq!(RenewalClaims::verify(&host.sign(&cloud, &key), &cloud), Ok(host.clone()));
        for odd in [
            RenewalClaims { kem: None, ..agent.clone() },
            RenewalClaims { instance: Some("x".into()), ..agent.clone() },
            RenewalClaims { instance: None, ..host.clone() },
            RenewalClaims { instance: Some(String::new()), ..host.clone() },
            RenewalClaims { kem: agent.kem.clone(), ..host },
        ] {
            let bytes = odd.sign(&cloud, &key);
            assert_eq!(RenewalClaims::verify(&bytes, &cloud), Err(Refusal::Malformed), "{odd:?}");
        }
    }
}
