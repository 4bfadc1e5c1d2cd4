//! The key-encryption key, under which every secret in the keystore is wrapped: where it comes
//! from, and which ones a process holds.

mod credential;
mod environment;
mod file;
mod guess;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
mod ring;
mod source;
mod wrap;

use std::fmt;
use std::path::Path;

use bulla_seal::cbor::Writer;
use bulla_seal::{OsRandom, Principal, Secret};

pub use file::{next_file, retire_file};
pub use ring::KekRing;
pub use source::{KekError, KekSource, LOSS};
pub(crate) use wrap::id_of;
pub use wrap::{Row, UnwrapError, WrapKey, Wrapped};

use crate::error::Result;
use crate::file::{FileError, Protection};
use bulla_seal::kdf;

/// First line of a KEK file.
const HEADER: &str = "bulla-kek 1";
/// First line of the file with one component type's own KEK; the type follows.
const TYPE_HEADER: &str = "bulla-type-kek 1";

/// The key-encryption key of a keystore.
///
/// It is never used itself: the key that wraps, its id and the keys of component types are
/// derived from it, each under a label of its own.
#[derive(Clone)]
pub struct Kek {
    secret: Secret<32>,
    wrap: WrapKey,
    /// The one component type whose values it opens; a whole one opens everything.
    only: Option<Principal>,
}

impl Kek {
    /// Makes a random one in a new file of mode 0600.
    pub fn create_file(path: impl AsRef<Path>) -> Result<Self> {
        let secret = Secret::generate(&mut OsRandom::default())?;
        crate::file::create(path.as_ref(), HEADER, &secret)?;
        Ok(Self::derive(secret))
    }

    /// Reads one from its file. Refuses a file that others than its owner may read or write,
    /// one of another user than this one or root, and a key that is damaged or can be guessed.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, FileError> {
        Self::read(path.as_ref(), Protection::Private)
    }

    fn read(path: &Path, protection: Protection) -> Result<Self, FileError> {
        let (_, secret) = crate::file::read_with(path, HEADER, protection)?;
        match guess::guessable(secret.expose()) {
            Some(why) => Err(FileError::Guessable { path: path.into(), why }),
            None => Ok(Self::derive(secret)),
        }
    }

    fn derive(secret: Secret<32>) -> Self {
        let wrap = WrapKey::derive(&secret);
        Self { secret, wrap, only: None }
    }

    /// The part of it that opens what belongs to one component type, and nothing else: what a host
    /// of that type with a database connection of its own needs.
    #[must_use]
    pub fn for_type(&self, component: &Principal) -> Self {
        if self.only.is_some() {
            return self.clone();
        }
        let secret = self.type_secret(component);
        let wrap = WrapKey::derive(&secret);
        Self { secret, wrap, only: Some(component.clone()) }
    }

    /// Writes a [type's part](Self::for_type) to a new file of mode 0600.
    pub fn create_type_file(
        &self,
        path: impl AsRef<Path>,
        component: &Principal,
    ) -> Result<(), FileError> {
        let header = format!("{TYPE_HEADER} {component}");
        crate::file::create(path.as_ref(), &header, &self.for_type(component).secret)
    }

    /// Reads what [`create_type_file`](Self::create_type_file) wrote, under the same rules as
    /// [`from_file`](Self::from_file).
    pub fn from_type_file(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let (component, secret) = crate::file::read(path, TYPE_HEADER)?;
        let component = component.parse().ok().filter(Principal::is_component);
        let only = component.ok_or_else(|| FileError::Malformed { path: path.into() })?;
        let wrap = WrapKey::derive(&secret);
        Ok(Self { secret, wrap, only: Some(only) })
    }

    /// The component type whose part it is.
    pub fn component(&self) -> Option<&Principal> {
        self.only.as_ref()
    }

    /// Its id, which is no secret and is stored with all that it wraps.
    pub fn id(&self) -> [u8; 8] {
        self.wrap.id()
    }

    /// The key for what belongs to one component type alone:
    /// HKDF-Expand(KEK, ["bulla/1 type kek", component]) (protocol section 2).
    pub fn for_component(&self, component: &Principal) -> WrapKey {
        match self.only {
            None => WrapKey::derive(&self.type_secret(component)),
            // Of another type's values it says that they are under another key.
            Some(_) => self.wrap.clone(),
        }
    }

    fn type_secret(&self, component: &Principal) -> Secret<32> {
        let mut info = Vec::with_capacity(96);
        let mut w = Writer::new(&mut info);
        w.array(2);
        w.text("bulla/1 type kek");
        w.text(component.as_str());
        kdf::expand(&self.secret, &info)
    }

    /// The key for everything else.
    pub fn wrap_key(&self) -> &WrapKey {
        &self.wrap
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kek({:?}, ..)", self.wrap)
    }
}
