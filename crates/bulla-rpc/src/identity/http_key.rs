//! What a principal signs requests over HTTP with: the key of its credential, or a key that follows from its
//! shared key.

use std::fmt;
use std::path::Path;

use bulla_seal::{Party, Secret, SigningKey, UnixTime, shared};

use super::key_file::{KeyFile, KeyFileError, Opener};

/// A key for HTTP message signatures (RFC 9421).
pub struct HttpKey {
    id: String,
    kind: Kind,
}

enum Kind {
    Signing(SigningKey),
    Shared(Secret<32>),
}

impl HttpKey {
    /// `keyid`: the principal, and which of its keys; the kid of its credential, or its incarnation.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `alg`: `ed25519` or `hmac-sha256`.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Signing(_) => "ed25519",
            Kind::Shared(_) => "hmac-sha256",
        }
    }

    /// Signs a signature base; `None` if it can't be one.
    #[must_use]
    pub fn sign(&self, base: &str) -> Option<Vec<u8>> {
        match &self.kind {
            Kind::Signing(key) => key.sign_request(base).map(|signature| signature.to_vec()),
            Kind::Shared(key) => Some(shared::mac_request(key, base).to_vec()),
        }
    }
}

impl fmt::Debug for HttpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpKey({}, ..)", self.id)
    }
}

impl KeyFile {
    /// What this principal signs requests over HTTP with; `None` if it is not to.
    ///
    /// # Errors
    /// As [`KeyFile::open`].
    pub fn http_key(&self, path: &Path, now: UnixTime) -> Result<Option<HttpKey>, KeyFileError> {
        let (identity, _) = self.open(path, now)?;
        let opener = Opener { what: "key file", path, now };
        if let Some(k) = &self.shared_key {
            let k = Secret::new(opener.fixed("shared-key", k)?);
            let Party { principal, incarnation } = identity.party();
            let kind = Kind::Shared(shared::http_key(&k, identity.party()));
            return Ok(Some(HttpKey { id: format!("{principal}#{incarnation}"), kind }));
        }
        let (Some(initiator), Some(seed)) = (identity.initiator(), &self.signing_key) else {
            return Ok(None);
        };
        let seed = Secret::new(opener.fixed("signing-key", seed)?);
        let key = SigningKey::from_seed(seed);
        let key = key.ok_or_else(|| opener.malformed("`signing-key` can't be used"))?;
        let id = format!("{}#{}", identity.principal(), initiator.credential().kid);
        Ok(Some(HttpKey { id, kind: Kind::Signing(key) }))
    }
}
