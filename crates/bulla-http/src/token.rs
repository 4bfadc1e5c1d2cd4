//! The bearer token of the plain loopback door (RFC 6750), kept in a file of its owner.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::file::{self, FileError, SECRET};

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;

/// A bearer token: 32 random bytes in base64url. Prints redacted, compares in constant time, is
/// wiped from memory when dropped.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// A token could not be made or loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error(
        "{path} holds no bearer token (32 bytes in base64url on one line); \
         remove it and have a new one made"
    )]
    Malformed {
        /// The file.
        path: String,
    },
    /// The file holds no token of Keystone's.
    #[error(
        "{path} holds no token of Keystone's, alone on one line; \
         `openstack token issue -f value -c id` prints one"
    )]
    NoToken {
        /// The file.
        path: String,
    },
    /// The operating system gave no randomness.
    #[error("the operating system's random source failed")]
    NoRandomness,
}

impl Token {
    /// Makes a new token and writes it to a file of mode 0600, which must not exist.
    ///
    /// # Errors
    ///
    /// When the file exists or can't be written, or there is no randomness.
    pub fn create(path: &Path) -> Result<Self, TokenError> {
        let mut raw = Zeroizing::new([0; TOKEN_BYTES]);
        aws_lc_rs::rand::fill(&mut *raw).map_err(|_| TokenError::NoRandomness)?;
        let token = Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(*raw)));
        file::create(path, SECRET, token.0.as_bytes())?;
        Ok(token)
    }

    /// Loads a token from a file that only its owner may reach.
    ///
    /// # Errors
    ///
    /// When the file can't be read, others can reach it, or it holds no token.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let bytes = file::read_secret(path)?;
        let malformed = || TokenError::Malformed { path: path.display().to_string() };
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?.trim_end();
        let raw = URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new).map_err(|_| malformed())?;
        if raw.len() != TOKEN_BYTES {
            return Err(malformed());
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Loads the token, or makes it where there is no such file yet.
    ///
    /// # Errors
    ///
    /// As [`Token::load`] and [`Token::create`].
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        match Self::create(path) {
            Err(TokenError::File(FileError::Exists { .. })) => Self::load(path),
            made => made,
        }
    }

    /// The value of an `Authorization` header that carries this token.
    #[must_use]
    pub fn authorization(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", self.0.as_str()))
    }

    /// Whether an `Authorization` header carries this token. Takes the same time whatever the
    /// content; only the length shows, which is no secret.
    #[must_use]
    pub fn admits(&self, authorization: &[u8]) -> bool {
        let Some((scheme, rest)) = authorization.split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(rest.ct_eq(self.0.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// A token of Keystone's, as its user has it. Prints redacted, is wiped from memory when dropped.
#[derive(Clone)]
pub struct KeystoneToken(Zeroizing<String>);

impl KeystoneToken {
    /// Loads a token that stands alone in a file that only its owner may reach.
    ///
    /// # Errors
    ///
    /// When the file can't be read, others can reach it, or it holds no token.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let bytes = file::read_secret(path)?;
        let text = std::str::from_utf8(&bytes).map(str::trim_end).unwrap_or_default();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::NoToken { path: path.display().to_string() });
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The token itself.
    #[must_use]
    pub fn expose(&self) -> &Zeroizing<String> {
        &self.0
    }
}

impl fmt::Debug for KeystoneToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeystoneToken(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_and_loaded_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let made = Token::load_or_create(&path).unwrap();
        let loaded = Token::load_or_create(&path).unwrap();
        assert!(loaded.admits(made.authorization().as_bytes()));
        assert!(matches!(Token::create(&path), Err(TokenError::File(FileError::Exists { .. }))));
        assert_eq!(made.0.len(), 43);
    }

    #[test]
    fn admits_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        let one = Token::create(&dir.path().join("one")).unwrap();
        let two = Token::create(&dir.path().join("two")).unwrap();
        assert!(one.admits(format!("bearer {}", one.0.as_str()).as_bytes()));
        assert!(!one.admits(two.authorization().as_bytes()));
        for wrong in ["", "Bearer ", "Bearer x", one.0.as_str(), "Basic abc"] {
            assert!(!one.admits(wrong.as_bytes()));
        }
        let longer = format!("{}A", one.authorization().as_str());
        assert!(!one.admits(longer.as_bytes()));
    }

    #[test]
    fn prints_redacted() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::create(&dir.path().join("token")).unwrap();
        assert_eq!(format!("{token:?}"), "Token(redacted)");
    }

    #[test]
    fn refuses_what_is_no_token_or_not_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for content in ["", "short", "not base64 at all, but long enough to be one"] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Token::load(&path), Err(TokenError::Malformed { .. })));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Token::load(&path), Err(TokenError::File(FileError::Exposed { .. }))));
    }
}
