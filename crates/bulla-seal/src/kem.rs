//! Key encapsulation to a receiver: HPKE (RFC 9180) for export only, base and psk mode. The AEAD
//! of HPKE is not used; the exporter secret is (protocol section 3).

use std::fmt;
use std::sync::Arc;

use hpke::aead::{AeadCtxR, AeadCtxS, ExportOnlyAead};
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use zeroize::Zeroizing;

use crate::Random;
use crate::mutants::{Check, off};
use crate::random::{Hedged, RandomFailed, UnixTime};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::wire::Suite;

/// A key for receiving: X25519 (suite 1) or X-Wing (suite 2).
#[derive(Clone)]
pub struct KemSecretKey {
    suite: Suite,
    bytes: Zeroizing<Vec<u8>>,
    public: KemPublicKey,
}

/// The public half: 32 bytes (suite 1) or 1,216 bytes (suite 2).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KemPublicKey {
    suite: Suite,
    bytes: Arc<[u8]>,
}

/// A symmetric secret mixed into the key schedule (HPKE psk mode, for enrolment).
#[derive(Debug, Clone)]
pub struct Psk {
    /// The secret.
    pub secret: Secret<32>,
    /// Its name.
    pub id: Vec<u8>,
}

/// What both ends of an encapsulation share; secrets are exported from it.
pub struct Exporter(Box<dyn Export + Send>);

trait Export {
    fn export(&self, context: &[u8], out: &mut [u8]) -> Result<(), Refusal>;
}

impl<K: Kem> Export for AeadCtxS<ExportOnlyAead, HkdfSha256, K> {
    fn export(&self, context: &[u8], out: &mut [u8]) -> Result<(), Refusal> {
        AeadCtxS::export(self, context, out).map_err(|_| Refusal::OfferInvalid)
    }
}

impl<K: Kem> Export for AeadCtxR<ExportOnlyAead, HkdfSha256, K> {
    fn export(&self, context: &[u8], out: &mut [u8]) -> Result<(), Refusal> {
        AeadCtxR::export(self, context, out).map_err(|_| Refusal::OfferInvalid)
    }
}

impl Exporter {
    /// 32 bytes for `context`.
    pub fn export(&self, context: &[u8]) -> Result<Secret<32>, Refusal> {
        let mut out = Zeroizing::new([0; 32]);
        self.0.export(context, &mut *out)?;
        Ok(Secret::new(*out))
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}

impl KemSecretKey {
    /// A fresh key pair for `suite`; `None` for [`Suite::Shared`].
    pub fn generate(suite: Suite, random: &mut dyn Random) -> Result<Self, RandomFailed> {
        let mut seed = Secret::<32>::generate(random)?;
        if off(Check::KeyPerAgent) {
            seed = Secret::new([7; 32]);
        }
        let bytes = match suite {
            Suite::X25519 => derive_key_bytes::<X25519HkdfSha256>(&seed),
            Suite::XWing => derive_key_bytes::<XWing>(&seed),
            Suite::Shared => return Err(RandomFailed),
        };
        Self::from_bytes(suite, &bytes).map_err(|_| RandomFailed)
    }

    /// From the serialised private key (RFC 9180 section 7.1.2; for X-Wing its 32-byte seed).
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Refusal> {
        let public = match suite {
            Suite::X25519 => public_of::<X25519HkdfSha256>(bytes),
            Suite::XWing => public_of::<XWing>(bytes),
            Suite::Shared => None,
        }
        .ok_or(Refusal::CredentialInvalid)?;
        let public = KemPublicKey { suite, bytes: public.into() };
        Ok(Self { suite, bytes: Zeroizing::new(bytes.to_vec()), public })
    }

    /// The serialised private key, for storing it wrapped.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Which suite it serves.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The public half.
    pub fn public(&self) -> &KemPublicKey {
        &self.public
    }

    /// Opens an encapsulation made with the same `info` and `psk`.
    pub fn decapsulate(
        &self,
        enc: &[u8],
        info: &[u8],
        psk: Option<&Psk>,
    ) -> Result<Exporter, Refusal> {
        match self.suite {
            Suite::X25519 => receive::<X25519HkdfSha256>(&self.bytes, enc, info, psk),
            Suite::XWing => receive::<XWing>(&self.bytes, enc, info, psk),
            Suite::Shared => Err(Refusal::SuiteNotAllowed),
        }
    }
}

impl fmt::Debug for KemSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemSecretKey({}, ..)", self.suite)
    }
}

impl KemPublicKey {
    /// From its serialised form; the length must be the suite's.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Refusal> {
        let valid = match suite {
            Suite::X25519 => <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(bytes).is_ok(),
            Suite::XWing => <XWing as Kem>::PublicKey::from_bytes(bytes).is_ok(),
            Suite::Shared => false,
        };
        if valid {
            Ok(Self { suite, bytes: bytes.into() })
        } else {
            Err(Refusal::CredentialInvalid)
        }
    }

    /// The suite that has keys of this length.
    pub(crate) fn from_wire(bytes: &[u8]) -> Result<Self, Refusal> {
        match bytes.len() {
            32 => Self::from_bytes(Suite::X25519, bytes),
            1216 => Self::from_bytes(Suite::XWing, bytes),
            _ => Err(Refusal::CredentialInvalid),
        }
    }

    /// Which suite it serves.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The serialised form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Encapsulates to this key. The ephemeral key is hedged: unpredictable while any one of
    /// `random`, `own_secret` and the time is.
    pub fn encapsulate(
        &self,
        info: &[u8],
        psk: Option<&Psk>,
        random: &mut dyn Random,
        own_secret: &[u8],
        now: UnixTime,
    ) -> Result<(Vec<u8>, Exporter), EncapsulateError> {
        let mut rng = Hedged::new(random, own_secret, now.ns)?;
        match self.suite {
            Suite::X25519 => send::<X25519HkdfSha256>(&self.bytes, info, psk, &mut rng),
            Suite::XWing => send::<XWing>(&self.bytes, info, psk, &mut rng),
            Suite::Shared => Err(EncapsulateError::Key),
        }
    }
}

impl fmt::Debug for KemPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemPublicKey({})", self.suite)
    }
}

/// An encapsulation could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncapsulateError {
    /// The random source failed.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// The receiver's key can't be used (a point of low order, for example).
    #[error("the receiver's key can't be used")]
    Key,
}

fn derive_key_bytes<K: Kem>(seed: &Secret<32>) -> Zeroizing<Vec<u8>> {
    let (secret, _) = K::derive_keypair(seed.expose());
    Zeroizing::new(secret.to_bytes().to_vec())
}

fn public_of<K: Kem>(secret: &[u8]) -> Option<Vec<u8>> {
    let secret = K::PrivateKey::from_bytes(secret).ok()?;
    Some(K::sk_to_pk(&secret).to_bytes().to_vec())
}

fn bundle(psk: &Psk) -> Result<PskBundle<'_>, hpke::HpkeError> {
    PskBundle::new(psk.secret.expose(), &psk.id)
}

fn send<K: Kem + 'static>(
    public: &[u8],
    info: &[u8],
    psk: Option<&Psk>,
    rng: &mut Hedged,
) -> Result<(Vec<u8>, Exporter), EncapsulateError>
where
    AeadCtxS<ExportOnlyAead, HkdfSha256, K>: Send,
{
    let failed = |_| EncapsulateError::Key;
    let public = K::PublicKey::from_bytes(public).map_err(failed)?;
    let mode = match psk {
        None => OpModeS::Base,
        Some(psk) => OpModeS::Psk(bundle(psk).map_err(failed)?),
    };
    let (enc, context) =
        hpke::setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, K>(&mode, &public, info, rng)
            .map_err(failed)?;
    Ok((enc.to_bytes().to_vec(), Exporter(Box::new(context))))
}

fn receive<K: Kem + 'static>(
    secret: &[u8],
    enc: &[u8],
    info: &[u8],
    psk: Option<&Psk>,
) -> Result<Exporter, Refusal>
where
    AeadCtxR<ExportOnlyAead, HkdfSha256, K>: Send,
{
    let failed = |_| Refusal::OfferInvalid;
    let secret = K::PrivateKey::from_bytes(secret).map_err(failed)?;
    let enc = K::EncappedKey::from_bytes(enc).map_err(failed)?;
    let mode = match psk {
        None => OpModeR::Base,
        Some(psk) => OpModeR::Psk(bundle(psk).map_err(failed)?),
    };
    let context = hpke::setup_receiver::<ExportOnlyAead, HkdfSha256, K>(&mode, &secret, &enc, info)
        .map_err(failed)?;
    Ok(Exporter(Box::new(context)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[test]
    fn both_ends_export_the_same_secret() {
        for suite in [Suite::X25519, Suite::XWing] {
            let key = KemSecretKey::generate(suite, &mut OsRandom::default()).unwrap();
            let stored = KemSecretKey::from_bytes(suite, key.expose()).unwrap();
            assert_eq!(stored.public(), key.public());
            for psk in [None, Some(Psk { secret: Secret::new([9; 32]), id: b"token".to_vec() })] {
                let (enc, ours) = key
                    .public()
                    .encapsulate(b"info", psk.as_ref(), &mut OsRandom::default(), b"own", NOW)
                    .unwrap();
                let theirs = key.decapsulate(&enc, b"info", psk.as_ref()).unwrap();
                let (a, b) = (ours.export(b"c").unwrap(), theirs.export(b"c").unwrap());
                assert!(a.ct_eq(&b));
                assert!(!a.ct_eq(&theirs.export(b"d").unwrap()));
                let other = key.decapsulate(&enc, b"other", psk.as_ref()).unwrap();
                assert!(!a.ct_eq(&other.export(b"c").unwrap()));
            }
        }
    }

    #[test]
    fn a_stuck_random_source_still_gives_two_times_two_keys() {
        struct Stuck;
        impl Random for Stuck {
            fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
                out.fill(7);
                Ok(())
            }
        }
        let key = KemSecretKey::generate(Suite::X25519, &mut OsRandom::default()).unwrap();
        let enc =
            |own: &[u8], now| key.public().encapsulate(b"", None, &mut Stuck, own, now).unwrap().0;
        assert_eq!(enc(b"a", NOW), enc(b"a", NOW));
        assert_ne!(enc(b"a", NOW), enc(b"b", NOW));
        assert_ne!(enc(b"a", NOW), enc(b"a", UnixTime::from_secs(1)));
    }
}
