//! The write-ahead of a renewal: the new keys and the request for them, on the disk before anybody
//! is asked.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_seal::{
    Credential, KemSecretKey, Kid, OsRandom, Party, Random, RandomFailed, RenewalClaims, Secret,
    SigningKey, Suite, TrustDomain, UnixTime,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::identity::key_file::{Opener, misplaced, parse_kid};
use crate::identity::{KeyFileError, burn_file, join_file};

/// New keys with the request for their credential: always the same one, however often and after
/// however many restarts it is asked.
pub(crate) struct Pending {
    pub(crate) party: Party,
    /// The credential that it follows.
    pub(crate) credential: Kid,
    pub(crate) counter: u64,
    pub(crate) signing: SigningKey,
    pub(crate) kem: KemSecretKey,
    pub(crate) request: Bytes,
}

/// How it is kept.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    version: u32,
    principal: String,
    incarnation: u32,
    credential: String,
    counter: u64,
    signing_key: String,
    suite: String,
    receive_key: String,
    request: String,
}

/// Where it is kept: `<key file>.renewing`.
pub(crate) fn path_beside(key_file: &Path) -> PathBuf {
    let mut path = key_file.as_os_str().to_owned();
    path.push(".renewing");
    path.into()
}

impl Pending {
    /// New keys in the suite of `present`, which they follow. The join-state counter is the present
    /// epoch: it counts the credentials that the agent has had.
    pub(crate) fn generate(
        present: &Credential,
        suite: Suite,
        domain: &TrustDomain,
    ) -> Result<Self, RandomFailed> {
        let random: &mut dyn Random = &mut OsRandom::default();
        let (signing, kem) =
            (SigningKey::generate(random)?, KemSecretKey::generate(suite, random)?);
        let claims = RenewalClaims {
            party: present.party.clone(),
            instance: None,
            credential: present.kid,
            counter: present.epoch.into(),
            signing: signing.verifying_key(),
            kem: Some(kem.public().clone()),
        };
        let request = claims.sign(domain, &signing);
        let RenewalClaims { party, credential, counter, .. } = claims;
        Ok(Self { party, credential, counter, signing, kem, request })
    }

    /// Writes it, through to the disk, in the place of what was there.
    pub(crate) fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        let file = File {
            version: 1,
            principal: self.party.principal.to_string(),
            incarnation: self.party.incarnation,
            credential: self.credential.to_string(),
            counter: self.counter,
            signing_key: BASE64.encode(self.signing.seed().expose()),
            suite: self.kem.suite().as_str().to_owned(),
            receive_key: BASE64.encode(self.kem.expose()),
            request: BASE64.encode(&self.request),
        };
        let text = toml::to_string(&file).map(Zeroizing::new);
        let text = text.map_err(|e| malformed(path, e.to_string()))?;
        let mut next = path.to_owned();
        next.as_mut_os_string().push(".new");
        // Left by an attempt that was cut off: it was never asked with.
        let _ = burn_file(&next);
        join_file::write_private(&next, text.as_bytes())?;
        let renamed = fs::rename(&next, path).and_then(|()| join_file::sync_folder(path));
        renamed.map_err(|source| KeyFileError::Io { what: "write", path: path.to_owned(), source })
    }

    /// What was kept; `None` if nothing was.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, KeyFileError> {
        let text = match join_file::read_private(path) {
            Ok(text) => text,
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let file: File =
            toml::from_str(&text).map_err(|e| misplaced(path, "kept renewal", e.span(), &text))?;
        file.open(path).map(Some)
    }
}

impl File {
    fn open(&self, path: &Path) -> Result<Pending, KeyFileError> {
        let opener = Opener { what: "kept renewal", path, now: UnixTime::from_secs(0) };
        let bad = |what: &str| opener.malformed(format!("`{what}` can't be used"));
        if self.version != 1 {
            return Err(bad("version"));
        }
        let principal = self.principal.parse().map_err(|_| bad("principal"))?;
        let seed = Secret::new(opener.fixed("signing-key", &self.signing_key)?);
        let suite: Suite = self.suite.parse().map_err(|_| bad("suite"))?;
        let kem = opener.bytes("receive-key", &self.receive_key)?;
        Ok(Pending {
            party: Party::new(principal, self.incarnation),
            credential: parse_kid(&self.credential).ok_or_else(|| bad("credential"))?,
            counter: self.counter,
            signing: SigningKey::from_seed(seed).ok_or_else(|| bad("signing-key"))?,
            kem: KemSecretKey::from_bytes(suite, &kem).map_err(|_| bad("receive-key"))?,
            request: opener.bytes("request", &self.request)?.to_vec().into(),
        })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.signing_key.zeroize();
        self.receive_key.zeroize();
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({} after {})", self.party, self.credential)
    }
}

fn malformed(path: &Path, why: String) -> KeyFileError {
    KeyFileError::Malformed { what: "kept renewal", path: path.to_owned(), why }
}
