//! The server's side.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::http::HeaderMap;

use super::base::Message;
use super::fields::{self, Bare, Input};
use super::key::AccessSecret;
use super::nonces::Seen;
use super::{AGENT, AGENTS, ALGORITHM, CONTENT_DIGEST, SIGNATURE, SIGNATURE_INPUT};
use crate::gate::AgentKey;

/// Longest nonce, in bytes.
const MAX_NONCE: usize = 128;

/// How old a signature may be, and how far clocks may differ; in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) life: u64,
    pub(crate) skew: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { life: 60, skew: 30 }
    }
}

/// Why a signature is not taken. What a caller is told says nothing that only a holder of the key
/// should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The fields are not of the one form that is taken here.
    Malformed,
    /// It leaves out what must be signed.
    NotCovered,
    /// It is of another algorithm.
    Algorithm,
    /// Too old, or from the future.
    Time,
}

impl Fault {
    /// Its stable name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Malformed => "signature-malformed",
            Self::NotCovered => "signature-leaves-out",
            Self::Algorithm => "signature-algorithm",
            Self::Time => "signature-time",
        }
    }

    /// What the caller is told.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Malformed => {
                "the signature is not of the form that is taken here: one signature, with \
                 components that the request has, and without parameters of components"
            }
            Self::NotCovered => {
                "the signature must cover `@method`, `@target-uri` (or `@authority`, `@path` and \
                 `@query`) and, of a request with a body, `content-digest`, with the parameters \
                 created, keyid, nonce and alg"
            }
            Self::Algorithm => {
                "the signature's algorithm must be hmac-sha256 for an access key or a shared \
                 key, ed25519 for another key of an agent's"
            }
            Self::Time => "the signature is too old, or from the future; is the clock right?",
        }
    }
}

/// A signature as its request claims it: well-formed, complete and of this time, and not verified.
#[derive(Debug)]
pub(crate) struct Claimed {
    base: String,
    signature: Vec<u8>,
    key: String,
    nonce: String,
    created: u64,
    until: u64,
    digest: Option<String>,
    is_ed25519: bool,
}

impl Claimed {
    /// Whether a request is signed at all.
    pub(crate) fn is_there(headers: &HeaderMap) -> bool {
        headers.contains_key(SIGNATURE) || headers.contains_key(SIGNATURE_INPUT)
    }

    /// Reads the signature of a request, which may have a body.
    pub(crate) fn read(
        request: (&axum::http::Method, &axum::http::Uri, &HeaderMap),
        scheme: &str,
        has_body: bool,
        now: u64,
        times: Times,
    ) -> Result<Self, Fault> {
        let (method, target, headers) = request;
        let input =
            fields::input(only(headers, &SIGNATURE_INPUT)?).map_err(|_| Fault::Malformed)?;
        let signatures = fields::bytes(only(headers, &SIGNATURE)?).map_err(|_| Fault::Malformed)?;
        let [(label, signature)] = signatures.as_slice() else { return Err(Fault::Malformed) };
        if *label != input.label {
            return Err(Fault::Malformed);
        }
        let parameters = Parameters::of(&input)?;
        let digest = covered(&input, headers, has_body)?;
        let until = parameters.check(now, times)?;
        let message = Message { method, scheme, target, headers };
        let base = message.base(&input.components, &input.text).ok_or(Fault::Malformed)?;
        Ok(Self {
            base,
            signature: signature.clone(),
            key: parameters.key.to_owned(),
            nonce: parameters.nonce.to_owned(),
            created: parameters.created,
            until,
            digest,
            is_ed25519: parameters.algorithm == AGENTS,
        })
    }

    /// Whether it says that it was made with an agent's key, and not with an access key. No access key has
    /// an id like that, and none signs with Ed25519.
    pub(crate) fn is_agents(&self) -> bool {
        self.is_ed25519 || self.key.starts_with(AGENT)
    }

    /// Whether it was made with this secret.
    pub(crate) fn is_by(&self, secret: &AccessSecret) -> bool {
        !self.is_agents() && secret.verifies(&self.base, &self.signature)
    }

    /// Whether it was made with this key of an agent's, by the algorithm that is the key's own. A MAC is
    /// compared in constant time.
    pub(crate) fn is_by_agent(&self, key: &AgentKey) -> bool {
        let (base, signature) = (self.base.as_bytes(), self.signature.as_slice());
        match key {
            AgentKey::Ed25519(key) => {
                let key = UnparsedPublicKey::new(&ED25519, key);
                self.is_ed25519 && key.verify(base, signature).is_ok()
            }
            AgentKey::Hmac(key) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_slice());
                !self.is_ed25519 && hmac::verify(&key, base, signature).is_ok()
            }
        }
    }

    /// The access key's id.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// What must not come again.
    pub(crate) fn seen(&self) -> Seen<'_> {
        let Self { key, nonce, created, until, .. } = self;
        Seen { key, nonce, created: *created, until: *until }
    }

    /// The field that says what the body's digest is, if it is signed.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }
}

/// What must be signed is signed; the digest's field, if it is.
fn covered(input: &Input, headers: &HeaderMap, has_body: bool) -> Result<Option<String>, Fault> {
    let has = |name: &str| input.components.iter().any(|component| component == name);
    let target = has("@target-uri") || (has("@authority") && has("@path") && has("@query"));
    let digest = has(CONTENT_DIGEST.as_str());
    if !has("@method") || !target || (has_body && !digest) {
        return Err(Fault::NotCovered);
    }
    if !digest {
        return Ok(None);
    }
    Ok(Some(only(headers, &CONTENT_DIGEST)?.to_owned()))
}

/// The value of a field that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &axum::http::HeaderName) -> Result<&'h str, Fault> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Fault::Malformed)?;
    match values.next() {
        None => value.to_str().map(str::trim).map_err(|_| Fault::Malformed),
        Some(_) => Err(Fault::Malformed),
    }
}

struct Parameters<'i> {
    created: u64,
    expires: Option<u64>,
    key: &'i str,
    nonce: &'i str,
    algorithm: &'i str,
}

impl<'i> Parameters<'i> {
    fn of(input: &'i Input) -> Result<Self, Fault> {
        let (mut created, mut expires) = (None, None);
        let (mut key, mut nonce, mut algorithm) = (None, None, None);
        for (name, value) in &input.parameters {
            match (name.as_str(), value) {
                ("created", Bare::Integer(at)) => created = Some(*at),
                ("expires", Bare::Integer(at)) => expires = Some(*at),
                ("keyid", Bare::Text(text)) => key = Some(text.as_str()),
                ("nonce", Bare::Text(text)) => nonce = Some(text.as_str()),
                ("alg", Bare::Text(text)) => algorithm = Some(text.as_str()),
                ("tag", Bare::Text(_)) => {}
                _ => return Err(Fault::Malformed),
            }
        }
        let (Some(created), Some(key), Some(nonce), Some(algorithm)) =
            (created, key, nonce, algorithm)
        else {
            return Err(Fault::NotCovered);
        };
        if ![ALGORITHM, AGENTS].contains(&algorithm) {
            return Err(Fault::Algorithm);
        }
        if nonce.is_empty() || nonce.len() > MAX_NONCE || key.is_empty() {
            return Err(Fault::Malformed);
        }
        Ok(Self { created, expires, key, nonce, algorithm })
    }

    /// Until when it may be taken.
    fn check(&self, now: u64, times: Times) -> Result<u64, Fault> {
        let own_end = self.created.saturating_add(times.life);
        let end = self.expires.map_or(own_end, |expires| expires.min(own_end));
        let until = end.saturating_add(times.skew);
        let begun = self.created <= now.saturating_add(times.skew);
        let sense = self.expires.is_none_or(|expires| expires >= self.created);
        if begun && sense && now <= until { Ok(until) } else { Err(Fault::Time) }
    }
}
