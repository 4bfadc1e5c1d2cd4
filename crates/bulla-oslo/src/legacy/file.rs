//! The file that a component reads its exemptions and its peers' keys from.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulla_seal::{Principal, SignedExemption, TrustStore};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::{BadKey, GuestKeys, LegacyKey};

const VERSION: u32 = 1;

/// A legacy file can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LegacyFileError {
    /// It can't be read.
    #[error("can't read the legacy file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others may read or change it.
    #[error("{} can be read or changed by other users (mode {mode:04o}); run: chmod 600 on it", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no such file.
    #[error("{} is not a legacy file: make it anew with bulla keystore legacy-file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// A key in it is not used.
    #[error("the key of {agent} in the legacy file is not used: {why}")]
    Key {
        /// Whose.
        agent: Principal,
        /// Why.
        why: BadKey,
    },
}

/// What a component needs to read peers that do not seal yet, as `bulla keystore legacy-file` writes it: the
/// operator's exemptions, signed, and the keys of those agents that have one for Trove's serializer. Only who
/// issues exemptions can widen it.
pub struct LegacyFile {
    exemptions: Vec<SignedExemption>,
    keys: HashMap<String, (Principal, Arc<LegacyKey>)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    /// As signed, base64.
    exemptions: Vec<String>,
    /// By agent.
    keys: BTreeMap<String, String>,
}

impl Drop for Text {
    fn drop(&mut self) {
        self.keys.values_mut().for_each(Zeroize::zeroize);
    }
}

impl LegacyFile {
    /// The text of such a file.
    pub fn text(
        exemptions: &[SignedExemption],
        keys: &[(Principal, Zeroizing<String>)],
    ) -> Zeroizing<String> {
        let text = Text {
            version: VERSION,
            exemptions: exemptions.iter().map(|e| STANDARD.encode(e.as_bytes())).collect(),
            keys: keys.iter().map(|(of, key)| (of.to_string(), key.to_string())).collect(),
        };
        // Such a value has a text.
        Zeroizing::new(serde_json::to_string_pretty(&text).unwrap_or_default())
    }

    /// Reads one, and passes over exemptions that nobody whom `trust` names has signed.
    ///
    /// # Errors
    /// It is not there, others may read it, or it is no such file.
    pub fn read(path: &Path, trust: &TrustStore) -> Result<Self, LegacyFileError> {
        let io = |source| LegacyFileError::Io { path: path.to_owned(), source };
        let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(LegacyFileError::Permissions { path: path.to_owned(), mode });
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(io)?);
        let malformed = || LegacyFileError::Malformed { path: path.to_owned() };
        let text: Text = serde_json::from_str(&text).map_err(|_| malformed())?;
        if text.version != VERSION {
            return Err(malformed());
        }
        let signed = text.exemptions.iter().filter_map(|text| STANDARD.decode(text).ok());
        let exemptions = signed.filter_map(|bytes| trust.verify_exemption(&bytes).ok()).collect();
        let mut keys = HashMap::new();
        for (of, key) in &text.keys {
            let agent: Principal = of.parse().map_err(|_| malformed())?;
            let key = LegacyKey::new(key)
                .map_err(|why| LegacyFileError::Key { agent: agent.clone(), why })?;
            keys.insert(agent.name().to_owned(), (agent, Arc::new(key)));
        }
        Ok(Self { exemptions, keys })
    }

    /// The exemptions, for the `FloorStore` of the endpoint (`add_exemption`, then `refresh_floors`).
    pub fn exemptions(&self) -> &[SignedExemption] {
        &self.exemptions
    }
}

impl GuestKeys for LegacyFile {
    fn guest(&self, instance: &str) -> Option<(Principal, Arc<LegacyKey>)> {
        self.keys.get(instance).cloned()
    }
}

impl fmt::Debug for LegacyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (exemptions, keys) = (self.exemptions.len(), self.keys.len());
        write!(f, "LegacyFile({exemptions} exemptions, {keys} keys)")
    }
}
