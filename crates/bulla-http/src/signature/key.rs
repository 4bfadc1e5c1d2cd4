//! An access key: an id that is no secret, and a secret.

use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::file::{self, FileError};

/// Longest id and longest secret, in bytes.
const MAX: usize = 256;

/// A secret key. Wipes itself, and prints redacted.
#[derive(Clone)]
pub struct AccessSecret(Zeroizing<String>);

/// An access key with its secret, as its user has it.
#[derive(Clone)]
pub struct AccessKey {
    id: String,
    secret: AccessSecret,
}

/// An access key can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccessKeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error(
        "{path} holds no access key (two lines, `access-key-id = \"…\"` and `secret-key = \"…\"`); \
         `bulla access-key add USER --out FILE` writes one"
    )]
    Malformed {
        /// The file.
        path: String,
    },
    /// An id or a secret is empty, too long or no printable ASCII.
    #[error("an access key's id and its secret are 1 to {MAX} printable characters each")]
    Unfit,
}

impl AccessSecret {
    /// From its text, whose bytes are the key.
    ///
    /// # Errors
    ///
    /// [`AccessKeyError::Unfit`].
    pub fn new(text: &str) -> Result<Self, AccessKeyError> {
        fit(text)?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    pub(super) fn mac(&self, base: &str) -> hmac::Tag {
        hmac::sign(&self.key(), base.as_bytes())
    }

    /// In constant time.
    pub(super) fn verifies(&self, base: &str, signature: &[u8]) -> bool {
        hmac::verify(&self.key(), base.as_bytes(), signature).is_ok()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes())
    }
}

impl AccessKey {
    /// From its two halves.
    ///
    /// # Errors
    ///
    /// [`AccessKeyError::Unfit`].
    pub fn new(id: &str, secret: &str) -> Result<Self, AccessKeyError> {
        fit(id)?;
        Ok(Self { id: id.to_owned(), secret: AccessSecret::new(secret)? })
    }

    /// Reads what `bulla access-key add --out FILE` wrote, from a file that only its owner may reach.
    ///
    /// # Errors
    ///
    /// When the file can't be read, others can reach it, or it holds no access key.
    pub fn load(path: &Path) -> Result<Self, AccessKeyError> {
        let bytes = file::read_secret(path)?;
        let malformed = || AccessKeyError::Malformed { path: path.display().to_string() };
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        let (mut id, mut secret) = (None, None);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(malformed)?;
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let place = match name.trim() {
                "access-key-id" => &mut id,
                "secret-key" => &mut secret,
                _ => return Err(malformed()),
            };
            if place.replace(value.ok_or_else(malformed)?).is_some() {
                return Err(malformed());
            }
        }
        match (id, secret) {
            (Some(id), Some(secret)) => Self::new(id, secret),
            _ => Err(malformed()),
        }
    }

    /// The half that is no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn secret(&self) -> &AccessSecret {
        &self.secret
    }
}

fn fit(text: &str) -> Result<(), AccessKeyError> {
    let fits = (1..=MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(()) } else { Err(AccessKeyError::Unfit) }
}

impl fmt::Debug for AccessSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessSecret(redacted)")
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}
