//! Keys for signed notes (C2SP signed-note), in the form that the Go tools for it read and write.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::error::KeyError;
use crate::tree::sha256;

/// Ed25519, in a signed note's key.
const ALGORITHM: u8 = 1;
const PRIVATE: &str = "PRIVATE+KEY+";

/// Verifies checkpoints.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    id: [u8; 4],
    key: [u8; 32],
}

impl PublicKey {
    /// From a name (without spaces and `+`) and an Ed25519 key.
    ///
    /// # Errors
    /// The name can't be one.
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, KeyError> {
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
        {
            return Err(malformed(name, "its name is empty, or has a space or a + in it"));
        }
        let hash = sha256(&[name.as_bytes(), b"\n", &[ALGORITHM], &key]);
        let [a, b, c, d, ..] = hash;
        Ok(Self { name: name.to_owned(), id: [a, b, c, d], key })
    }

    /// Reads `name+id+base64`.
    ///
    /// # Errors
    /// It is not that.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("this", "it has not three parts with + between them"));
        };
        let bytes = BASE64.decode(key).map_err(|_| malformed(name, "its key is not base64"))?;
        let Some((&ALGORITHM, key)) = bytes.split_first() else {
            return Err(malformed(name, "it is not for Ed25519"));
        };
        let key = key.try_into().map_err(|_| malformed(name, "its key has not 32 bytes"))?;
        let key = Self::new(name, key)?;
        if key.id_text() != id {
            return Err(malformed(name, "its id is not the one of its name and key"));
        }
        Ok(key)
    }

    /// Reads a file with one.
    ///
    /// # Errors
    /// The file can't be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| io_error(path, source))?;
        Self::parse(&text)
    }

    /// Its name: of whose journals it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> [u8; 4] {
        self.id
    }

    fn id_text(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<u8> = std::iter::once(ALGORITHM).chain(self.key).collect();
        write!(f, "{}+{}+{}", self.name, self.id_text(), BASE64.encode(bytes))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Signs checkpoints.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// A new key, and its text for a file.
    ///
    /// # Errors
    /// The machine gives no random bytes, or the name can't be one.
    pub fn generate(name: &str) -> Result<(Self, Zeroizing<String>), KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *seed).map_err(|_| KeyError::Random)?;
        let key = Self::from_seed(name, &seed)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(33));
        bytes.push(ALGORITHM);
        bytes.extend_from_slice(&*seed);
        let encoded = Zeroizing::new(BASE64.encode(&*bytes));
        let text = format!("{PRIVATE}{name}+{}+{}\n", key.public.id_text(), *encoded);
        Ok((key, Zeroizing::new(text)))
    }

    fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| malformed(name, "its seed can't be used"))?;
        let public = pair.public_key().as_ref();
        let public =
            public.try_into().map_err(|_| malformed(name, "its public key is too long"))?;
        let public = PublicKey::new(name, public)?;
        Ok(Self { pair, public })
    }

    /// Reads `PRIVATE+KEY+name+id+base64`.
    ///
    /// # Errors
    /// It is not that.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = text.trim().strip_prefix(PRIVATE);
        let mut parts =
            rest.ok_or_else(|| malformed("this", "it is not a private key"))?.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("this", "it has not three parts with + between them"));
        };
        let bytes = BASE64.decode(key).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| malformed(name, "its key is not base64"))?;
        let Some((&ALGORITHM, seed)) = bytes.split_first() else {
            return Err(malformed(name, "it is not for Ed25519"));
        };
        let seed: [u8; 32] =
            seed.try_into().map_err(|_| malformed(name, "its key has not 32 bytes"))?;
        let key = Self::from_seed(name, &Zeroizing::new(seed))?;
        if key.public.id_text() != id {
            return Err(malformed(name, "its id is not the one of its name and key"));
        }
        Ok(key)
    }

    /// Reads the key in `path`, or makes one there (mode 0600) if there is no file; its public key
    /// is written beside it, with `.pub` at the end of its name.
    ///
    /// # Errors
    /// The file can't be read or made, holds something else, or others can read it.
    pub fn load_or_create(path: &Path, name: &str) -> Result<Self, KeyError> {
        let key = match Self::create(path, name) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                Self::read(path)?
            }
            made => made?,
        };
        let beside = path.with_extension("pub");
        let text = format!("{}\n", key.public);
        if fs::read_to_string(&beside).ok().as_deref() != Some(&*text) {
            fs::write(&beside, text).map_err(|source| io_error(&beside, source))?;
        }
        Ok(key)
    }

    fn read(path: &Path) -> Result<Self, KeyError> {
        let meta = fs::metadata(path).map_err(|source| io_error(path, source))?;
        if meta.mode() & 0o077 != 0 {
            return Err(KeyError::Readable { path: path.to_owned() });
        }
        let text = fs::read_to_string(path).map(Zeroizing::new);
        Self::parse(&text.map_err(|source| io_error(path, source))?)
    }

    /// Written under another name first, so that there is never half a key, and linked, so that
    /// of two processes one wins.
    fn create(path: &Path, name: &str) -> Result<Self, KeyError> {
        if path.exists() {
            return Err(io_error(path, io::ErrorKind::AlreadyExists.into()));
        }
        let (key, text) = Self::generate(name)?;
        let made = path.with_extension(format!("new-{}", std::process::id()));
        let write = || {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&made)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::hard_link(&made, path)
        };
        let written = write();
        let _ = fs::remove_file(&made);
        written.map_err(|source| io_error(path, source))?;
        Ok(key)
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

fn malformed(what: &str, why: &'static str) -> KeyError {
    // A name only: what follows it may be the key.
    KeyError::Malformed { what: format!("`{}`", what.chars().take(80).collect::<String>()), why }
}

fn io_error(path: &Path, source: io::Error) -> KeyError {
    KeyError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.key");
        let made = SigningKey::load_or_create(&path, "example.org/journal").unwrap();
        let read = SigningKey::load_or_create(&path, "another").unwrap();
        assert_eq!(made.public(), read.public());
        let public = PublicKey::read(&dir.path().join("journal.pub")).unwrap();
        assert_eq!(&public, made.public());
        assert!(
            public.verifies(b"x", &read.sign(b"x")) && !public.verifies(b"y", &read.sign(b"x"))
        );
        let secret = fs::read_to_string(&path).unwrap();
        assert!(!format!("{made:?}").contains(secret.trim().splitn(5, '+').last().unwrap()));
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let refused = SigningKey::load_or_create(&path, "another");
        assert!(matches!(refused, Err(KeyError::Readable { .. })));
    }

    #[test]
    fn the_key_of_the_go_tools_documentation() {
        // The verifier key of the Go checksum database, as its documentation has it.
        let text = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        let key = PublicKey::parse(text).unwrap();
        assert_eq!((key.name(), key.to_string().as_str()), ("sum.golang.org", text));
        assert!(PublicKey::parse(&text.replace("033de0ae", "033de0af")).is_err());
        assert!(PublicKey::parse("a b+033de0ae+Ac4z").is_err() && PublicKey::parse("").is_err());
    }
}
