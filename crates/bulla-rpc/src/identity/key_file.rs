//! The key file: everything that a process needs to be its principal. TOML, mode 0600.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_seal::{
    DEFAULT_SKEW, FormerRoot, KemSecretKey, Kid, Party, Principal, Refusal, Secret, SigningKey,
    Suite, TrustDomain, TrustStore, UnixTime, VerifyingKey,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::join_file::{is_join_file, read_private, write_private};
use super::{Identity, ReceiveKey};
use crate::directory::StaticDirectory;

/// The contents of a key file, binary values in base64.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeyFile {
    /// Format; 1.
    pub version: u32,
    /// `agent/<id>` or `component/<type>`.
    pub principal: String,
    /// Counts from 1.
    pub incarnation: u32,
    /// The trust domain.
    pub trust_domain: String,
    /// The root public key.
    pub root: String,
    /// Its sequence, if it followed another.
    #[serde(default = "first_root", skip_serializing_if = "is_first_root")]
    pub root_sequence: u32,
    /// The root before it, while that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_root: Option<FormerRootEntry>,
    /// Issuers' credentials, signed by the root.
    pub issuers: Vec<String>,
    /// A shared-key agent's key K.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_key: Option<String>,
    /// The Ed25519 seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// The credential of the signing key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_credential: Option<String>,
    /// Keys to receive with, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receive: Vec<AudienceEntry>,
    /// Credentials of peers to begin with: at least the control plane's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// A shared-key agent's pair keys: only their names, the keys follow from K.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<PairEntry>,
    /// Whether the deployment issues statements of revocation, so that its agents act on no
    /// component's message without a current one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub statements: bool,
    /// Whether its keys were renewed: it is older than its credential says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewed: bool,
    /// Where the bus is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<BusEntry>,
}

/// A root that another followed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FormerRootEntry {
    /// The public key.
    pub key: String,
    /// First Unix second in which it counts for nothing.
    pub until: u64,
}

pub(super) const fn first_root() -> u32 {
    bulla_seal::root::FIRST_ROOT
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) const fn is_first_root(sequence: &u32) -> bool {
    *sequence == first_root()
}

/// A key to receive with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AudienceEntry {
    /// `x25519` or `x-wing`.
    pub suite: String,
    /// The private key.
    pub key: String,
    /// Its credential.
    pub credential: String,
}

/// The name of a pair key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PairEntry {
    /// In hexadecimal.
    pub kid: String,
    /// `component/<type>`.
    pub component: String,
    /// Pair epoch.
    pub epoch: u32,
}

/// Where the bus is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BusEntry {
    /// `amqp://…` or `amqps://…`, with the credentials of this principal's broker user.
    pub url: String,
    /// The same with the password before this one, which is tried when that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_url: Option<String>,
    /// Whether the broker may not have the newest password yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub login_pending: bool,
    /// The exchange.
    pub exchange: String,
    /// PEM file of the CA that the broker's certificate is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The CA itself, as PEM, so that one file is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// PEM file of the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
}

impl BusEntry {
    /// With the newest password, and with the one before.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.url.as_str()).chain(self.former_url.as_deref())
    }
}

/// A key file can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It can't be read or written.
    #[error("can't {what} the key file {path}: {source}", path = path.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others may read or change it.
    #[error("{path} can be read or changed by other users (mode {mode:04o}); run: chmod 600 {path}", path = path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not a key file or not a join file.
    #[error("{path} is not a {what}: {why}", path = path.display())]
    Malformed {
        /// What it ought to be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong; never holds what stands there.
        why: String,
    },
    /// A credential in it is not good (any more).
    #[error("{path}: the credential of {principal} is refused: {refusal}; {advice}", path = path.display(), advice = advice(refusal, principal))]
    Credential {
        /// The file.
        path: PathBuf,
        /// Whose.
        principal: String,
        /// Why.
        refusal: Refusal,
    },
}

fn advice(refusal: &Refusal, principal: &str) -> String {
    match (refusal, principal.split_once('/')) {
        (Refusal::CredentialExpired, Some(("agent", id))) => format!(
            "it was off for longer than its keys live: have a join file made for it with `bulla \
             agent add {id} --again`, or check this machine's clock"
        ),
        (Refusal::CredentialExpired, Some(("component", name))) => format!(
            "its host was off for longer than its key lives: have a new key file made with `bulla \
             component add {name} --instance HOST`, or check this machine's clock"
        ),
        (Refusal::CredentialExpired | Refusal::CredentialNotYetValid, _) => {
            "check this machine's clock".to_owned()
        }
        _ => "the file is from another deployment or was changed".to_owned(),
    }
}

impl KeyFile {
    /// Reads a file that only its owner may read.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_private(path)?;
        if is_join_file(&text) {
            let why = "it is a join file; `bulla agent run --join` makes a key file of it";
            return Err(malformed(path, why.to_owned()));
        }
        Self::parse(&text, path)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, KeyFileError> {
        let file: Self =
            toml::from_str(text).map_err(|e| misplaced(path, "key file", e.span(), text))?;
        if file.version != 1 {
            return Err(malformed(path, "its version is not 1; use a newer bulla".into()));
        }
        Ok(file)
    }

    /// Trusts what `trust` does: its roots and issuers.
    pub fn trust_in(&mut self, trust: &TrustStore) {
        self.root = BASE64.encode(trust.root().as_bytes());
        self.root_sequence = trust.root_sequence();
        let entry = |former: FormerRoot| FormerRootEntry {
            key: BASE64.encode(former.key.as_bytes()),
            until: former.until,
        };
        self.former_root = trust.former_root().map(entry);
        self.issuers = trust.issuers().map(|(_, bytes)| BASE64.encode(bytes)).collect();
    }

    /// The text of the file.
    pub fn to_text(&self) -> Result<Zeroizing<String>, KeyFileError> {
        let body = toml::to_string(self);
        let body = body.map_err(|e| malformed(Path::new("key file"), e.to_string()))?;
        Ok(Zeroizing::new(format!(
            "# Key file of {}. Whoever has it is {}: keep it secret, mode 0600.\n{}",
            self.principal,
            self.principal,
            *Zeroizing::new(body)
        )))
    }

    /// Writes a new file with mode 0600; an existing one is not overwritten.
    pub fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        write_private(path, self.to_text()?.as_bytes())
    }

    /// Verifies everything in it as of `now` and gives the identity and the directory that it
    /// describes. `path` is for messages only.
    pub fn open(
        &self,
        path: &Path,
        now: UnixTime,
    ) -> Result<(Identity, StaticDirectory), KeyFileError> {
        let opener = Opener { what: "key file", path, now };
        let former = self.former_root.as_ref().map(|former| opener.former(former)).transpose()?;
        let roots = (self.root_sequence, former);
        let trust = opener.trust_of(&self.trust_domain, &self.root, roots, &self.issuers)?;
        let principal: Principal = self
            .principal
            .parse()
            .map_err(|e: bulla_seal::NameError| malformed(path, e.to_string()))?;
        let party = Party::new(principal, self.incarnation);
        let identity = match &self.shared_key {
            Some(k) => {
                let k = Secret::new(opener.fixed("shared-key", k)?);
                Identity::shared(trust.clone(), party.clone(), k)
            }
            None => opener.pair(self, &party, trust.clone())?,
        };
        let identity = if self.statements { identity.requiring_statement() } else { identity };
        let directory = opener.directory(self, &identity, &trust)?;
        Ok((identity, directory))
    }
}

impl KeyFile {}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.shared_key.zeroize();
        self.signing_key.zeroize();
        self.receive.iter_mut().for_each(|entry| entry.key.zeroize());
        if let Some(bus) = &mut self.bus {
            bus.url.zeroize();
            bus.former_url.zeroize();
        }
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({}, ..)", self.principal)
    }
}

struct Place<'a>(Option<std::ops::Range<usize>>, &'a str);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.as_ref().and_then(|span| self.1.get(..span.start));
        match at {
            Some(before) => {
                write!(f, "line {} is not as it should be", before.matches('\n').count() + 1)
            }
            None => f.write_str("a value is missing, unknown or of the wrong type"),
        }
    }
}

fn malformed(path: &Path, why: String) -> KeyFileError {
    KeyFileError::Malformed { what: "key file", path: path.to_owned(), why }
}

/// The place of a mistake. The parser's own text may quote the line, which may be a key.
pub(crate) fn misplaced(
    path: &Path,
    what: &'static str,
    at: Option<std::ops::Range<usize>>,
    text: &str,
) -> KeyFileError {
    let why = Place(at, text).to_string();
    KeyFileError::Malformed { what, path: path.to_owned(), why }
}

pub(crate) struct Opener<'a> {
    /// What the file is.
    pub(crate) what: &'static str,
    pub(crate) path: &'a Path,
    pub(crate) now: UnixTime,
}

impl Opener<'_> {
    pub(crate) fn malformed(&self, why: impl Into<String>) -> KeyFileError {
        let (what, path) = (self.what, self.path.to_owned());
        KeyFileError::Malformed { what, path, why: why.into() }
    }

    pub(crate) fn bytes(&self, what: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        let decoded = BASE64.decode(text);
        decoded.map(Zeroizing::new).map_err(|_| self.malformed(format!("`{what}` is not base64")))
    }

    pub(crate) fn fixed<const N: usize>(
        &self,
        what: &str,
        text: &str,
    ) -> Result<[u8; N], KeyFileError> {
        let bytes = self.bytes(what, text)?;
        bytes[..].try_into().map_err(|_| self.malformed(format!("`{what}` must have {N} bytes")))
    }

    pub(super) fn refused(&self, principal: &str, refusal: Refusal) -> KeyFileError {
        let (path, principal) = (self.path.to_owned(), principal.to_owned());
        KeyFileError::Credential { path, principal, refusal }
    }

    pub(super) fn trust_of(
        &self,
        domain: &str,
        root: &str,
        (sequence, former): (u32, Option<FormerRoot>),
        issuers: &[String],
    ) -> Result<TrustStore, KeyFileError> {
        let domain = TrustDomain::new(domain).map_err(|e| self.malformed(e.to_string()))?;
        let root = VerifyingKey(self.fixed("root", root)?);
        let mut trust = TrustStore::new(domain, root).with_roots(sequence, former);
        for issuer in issuers {
            let bytes = self.bytes("issuers", issuer)?;
            trust.add_issuer(&bytes).map_err(|refusal| self.refused("an issuer", refusal))?;
        }
        // Off while a former root ended: what only that one signed ended with it.
        trust.retire_root(self.now);
        Ok(trust)
    }

    fn former(&self, entry: &FormerRootEntry) -> Result<FormerRoot, KeyFileError> {
        let key = VerifyingKey(self.fixed("former-root.key", &entry.key)?);
        Ok(FormerRoot { key, until: entry.until })
    }

    fn pair(
        &self,
        file: &KeyFile,
        party: &Party,
        trust: TrustStore,
    ) -> Result<Identity, KeyFileError> {
        let missing = |what| self.malformed(format!("`{what}` is missing"));
        let seed = file.signing_key.as_ref().ok_or_else(|| missing("signing-key"))?;
        let seed = Secret::new(self.fixed("signing-key", seed)?);
        let key = SigningKey::from_seed(seed).ok_or_else(|| missing("signing-key"))?;
        let credential =
            file.signing_credential.as_ref().ok_or_else(|| missing("signing-credential"))?;
        let credential = self.bytes("signing-credential", credential)?;
        let refused = |refusal| self.refused(&file.principal, refusal);
        let signing = Arc::new(trust.verify(&credential, self.now).map_err(refused)?);
        let mut receive = Vec::with_capacity(file.receive.len());
        for (place, entry) in file.receive.iter().enumerate() {
            // A host's signing key says whether it was off for too long; it fetches the type's.
            let former = place > 0 || party.principal.is_component();
            let key = self.receive_key(entry, &trust, &file.principal, former)?;
            // What is on its way to a former key may be alive for a while; then nobody needs it.
            if place == 0 || key.credential.retire_at(DEFAULT_SKEW) > self.now.secs() {
                receive.push(key);
            }
        }
        if signing.party != *party || receive.iter().any(|r| r.credential.party != *party) {
            return Err(self.malformed("its credentials belong to another principal"));
        }
        Identity::pair(trust, key, signing, receive).map_err(|e| self.malformed(e.to_string()))
    }

    fn receive_key(
        &self,
        entry: &AudienceEntry,
        trust: &TrustStore,
        principal: &str,
        former: bool,
    ) -> Result<ReceiveKey, KeyFileError> {
        let suite: Suite = entry.suite.parse().map_err(|_| self.malformed("unknown suite"))?;
        let key = KemSecretKey::from_bytes(suite, &self.bytes("receive.key", &entry.key)?)
            .map_err(|_| self.malformed("`receive.key` can't be used"))?;
        let credential = self.bytes("receive.credential", &entry.credential)?;
        let verified = match former {
            true => trust.verify_ended(&credential, self.now),
            false => trust.verify(&credential, self.now),
        };
        let credential = verified.map_err(|refusal| self.refused(principal, refusal))?;
        if credential.kem.as_ref() != Some(key.public()) {
            return Err(self.malformed("`receive.key` is not the key of its credential"));
        }
        Ok(ReceiveKey { credential: Arc::new(credential), key })
    }

    fn directory(
        &self,
        file: &KeyFile,
        identity: &Identity,
        trust: &TrustStore,
    ) -> Result<StaticDirectory, KeyFileError> {
        let directory = StaticDirectory::new();
        for peer in &file.peers {
            let bytes = self.bytes("peers", peer)?;
            // An expired peer credential is no reason to stop: the directory has a newer one.
            match directory.add_credential(trust, &bytes, self.now) {
                Ok(_) | Err(Refusal::CredentialExpired) => {}
                Err(refusal) => return Err(self.refused("a peer", refusal)),
            }
        }
        for pair in &file.pairs {
            directory.add_pair(self.pair_key(pair, identity)?);
        }
        Ok(directory)
    }

    fn pair_key(
        &self,
        entry: &PairEntry,
        identity: &Identity,
    ) -> Result<crate::directory::PairKey, KeyFileError> {
        let kid =
            parse_kid(&entry.kid).ok_or_else(|| self.malformed("`pairs.kid` is not a kid"))?;
        let component: Principal =
            entry.component.parse().map_err(|_| self.malformed("`pairs.component` is no name"))?;
        identity
            .derive_pair(kid, &component, entry.epoch)
            .ok_or_else(|| self.malformed("`pairs` goes only with `shared-key`"))
    }
}

/// A kid from 16 hexadecimal digits.
pub(crate) fn parse_kid(text: &str) -> Option<Kid> {
    if text.len() != 16 || !text.is_ascii() {
        return None;
    }
    u64::from_str_radix(text, 16).ok().map(|n| Kid(n.to_be_bytes()))
}
