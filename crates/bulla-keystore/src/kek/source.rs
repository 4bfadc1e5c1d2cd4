//! Where a KEK comes from.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::{Kek, credential, environment};
use crate::file::FileError;

/// What is lost with a KEK, what is not, and what to do.
pub const LOSS: &str = "\
Without it these are lost: the issuers' keys, the keystore's copies of shared keys, the components' audience keys, \
group keys. Not lost: who exists, groups and their members, public credentials, what is revoked; agents and \
components keep the keys in their own files, but nothing can be signed for them any more. \
What to do: put a backup of the key back (`bulla kek check FILE` says whether a file is the right one). \
If there is none: `bulla init` in a new folder, and enrol everybody again";

/// Where a KEK comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KekSource {
    /// A file of mode 0600.
    File(PathBuf),
    /// An environment variable: 32 bytes in hex or base64.
    Environment(String),
    /// A credential of this name that systemd hands over.
    Credential(String),
    /// A key in a PKCS#11 token.
    #[cfg(feature = "pkcs11")]
    Pkcs11(super::pkcs11::TokenKey),
}

impl KekSource {
    /// Fetches the KEK. May wait for a token.
    ///
    /// # Errors
    /// When it is not there, can be read by others, is damaged or can be guessed.
    pub fn load(&self) -> Result<Kek, KekError> {
        match self {
            Self::File(path) => Ok(Kek::from_file(path)?),
            Self::Environment(name) => environment::load(name),
            Self::Credential(name) => credential::load(name),
            #[cfg(feature = "pkcs11")]
            Self::Pkcs11(key) => Ok(key.load()?),
        }
    }

    /// Makes a KEK that was not there: a new file, or a new key in the token.
    ///
    /// # Errors
    /// When there is one already, or this program can't make one: a variable or a credential.
    pub fn create(&self) -> Result<Kek, KekError> {
        match self {
            Self::File(path) => Kek::create_file(path).map_err(|error| match error {
                crate::KeystoreError::File(error) => error.into(),
                error => KekError::NotMade { from: self.to_string(), why: error.to_string() },
            }),
            Self::Environment(_) | Self::Credential(_) => Err(KekError::NotMade {
                from: self.to_string(),
                why: "make it yourself (`openssl rand -hex 32`), or copy the file of another KEK"
                    .to_owned(),
            }),
            #[cfg(feature = "pkcs11")]
            Self::Pkcs11(key) => Ok(key.create()?),
        }
    }
}

impl fmt::Display for KekSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Credential(name) => write!(f, "systemd credential {name}"),
            #[cfg(feature = "pkcs11")]
            Self::Pkcs11(key) => key.fmt(f),
        }
    }
}

/// A KEK can't be fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KekError {
    /// Its file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The variable is not set.
    #[error(
        "the environment variable {name} with the key-encryption key is not set: set it for this service, or choose another [kek] provider"
    )]
    VariableMissing {
        /// Its name.
        name: String,
    },
    /// The variable holds no key.
    #[error(
        "the environment variable {name} must hold a key-encryption key: 32 random bytes in hex (64 digits) or base64 (44 characters)"
    )]
    VariableMalformed {
        /// Its name.
        name: String,
    },
    /// The variable holds a key that others know or can guess.
    #[error(
        "the key in the environment variable {name} is {why}: anyone can guess it; make a random one (`openssl rand -hex 32`)"
    )]
    VariableGuessable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// systemd handed nothing over.
    #[error(
        "systemd handed no credentials over (CREDENTIALS_DIRECTORY is not set): put LoadCredential= into the service's unit and start it with systemctl"
    )]
    NoCredentials,
    /// The name leads elsewhere.
    #[error(
        "`{name}` is no name of a credential: give the file's name in the credentials' folder, without any /"
    )]
    CredentialName {
        /// What was given.
        name: String,
    },
    /// There is no way to make one there.
    #[error("no key-encryption key can be made in {from}: {why}")]
    NotMade {
        /// Where.
        from: String,
        /// Why.
        why: String,
    },
    /// The token's library, the token or its key can't be used.
    #[cfg(feature = "pkcs11")]
    #[error(transparent)]
    Token(#[from] super::pkcs11::TokenError),
}

impl KekError {
    /// Whether the KEK is simply not there, and nothing is wrong with it.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::File(FileError::Io { source, .. }) => {
                source.kind() == std::io::ErrorKind::NotFound
            }
            Self::VariableMissing { .. } => true,
            #[cfg(feature = "pkcs11")]
            Self::Token(super::pkcs11::TokenError::NoKey { .. }) => true,
            _ => false,
        }
    }
}
