//! A KEK in a PKCS#11 token (PKCS #11 3.0; tested with SoftHSM 2).
//!
//! The token holds a secret key that never leaves it. The secret that this keystore's wrapping
//! keys are derived from is *computed by the token* under that key, over a labelled input, and
//! lives in this process's memory only:
//!
//! ```text
//! generic secret:  secret = HMAC-SHA-256(token key, ["bulla/1 token kek", label, id])
//! AES:             secret = AES-CMAC(token key, [1, …]) ‖ AES-CMAC(token key, [2, …])
//! ```
//!
//! What that gives: no file to steal; nobody can open the keystore, a backup of it or a dump
//! without the token and its PIN; taking the token away ends it for every process that starts
//! from then on. What it does not give: whoever can read the memory of a running control plane,
//! or has PIN and token for one moment, has the computed secret, and with it what is wrapped
//! until the next rotation. The token does not see, limit or log single values.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bulla_seal::Secret;
use bulla_seal::cbor::Writer;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use parking_lot::Mutex;
use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use super::Kek;
use crate::file::{FileError, Protection, read_protected};

/// Most bytes of a PIN's file that count.
const MAX_PIN: usize = 255;

/// Libraries that were loaded. A library is initialised once a process, and never unloaded.
static MODULES: LazyLock<Mutex<HashMap<PathBuf, Pkcs11>>> = LazyLock::new(Mutex::default);

/// Where the PIN is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pin {
    /// In a file of mode 0600, alone on its first line.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
}

/// A key in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// The token's PKCS#11 library, such as `/usr/lib/softhsm/libsofthsm2.so`.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The key's label (CKA_LABEL).
    pub label: String,
    /// The key's id (CKA_ID); any if `None`.
    pub id: Option<Vec<u8>>,
    /// The user's PIN.
    pub pin: Pin,
}

/// A token or its key can't be used.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum TokenError {
    /// The library can't be loaded or initialised.
    #[error("the PKCS#11 library {} can't be used: install it, or give its path as [kek] module: {why}", module.display())]
    Module {
        /// The library.
        module: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// No token of that label.
    #[error("there is no token `{token}` at {}: plug it in, or give its label as [kek] token", module.display())]
    NoToken {
        /// The library.
        module: PathBuf,
        /// The label asked for.
        token: String,
    },
    /// Several tokens have that label.
    #[error("{found} tokens are labelled `{token}`: give the right one a label of its own")]
    SeveralTokens {
        /// The label.
        token: String,
        /// How many.
        found: usize,
    },
    /// The PIN's file can't be used.
    #[error("the token's PIN can't be read: {0}")]
    PinFile(#[from] FileError),
    /// The PIN is empty or not there.
    #[error("there is no PIN for the token in {from}: put it there, alone on one line")]
    NoPin {
        /// Where it should be.
        from: String,
    },
    /// The token did not let us in.
    #[error(
        "token `{token}` refused the PIN ({why}); a few wrong ones lock it: correct it before you try again"
    )]
    Login {
        /// The token.
        token: String,
        /// Its answer.
        why: String,
    },
    /// No such key.
    #[error(
        "token `{token}` has no secret key `{label}`: make it (`bulla init` and `bulla kek rotate` do), or give its label as [kek] key"
    )]
    NoKey {
        /// The token.
        token: String,
        /// The label.
        label: String,
    },
    /// More than one.
    #[error("token `{token}` has {found} secret keys `{label}`: say which with [kek] key-id")]
    SeveralKeys {
        /// The token.
        token: String,
        /// The label.
        label: String,
        /// How many.
        found: usize,
    },
    /// The key is there already.
    #[error("token `{token}` has a secret key `{label}` already: give another [kek] key")]
    KeyExists {
        /// The token.
        token: String,
        /// The label.
        label: String,
    },
    /// The key may leave the token.
    #[error(
        "the key `{label}` may leave its token ({why}): it is no better than a file; make one with CKA_SENSITIVE and without CKA_EXTRACTABLE"
    )]
    MayLeave {
        /// The key's label.
        label: String,
        /// Which attribute.
        why: &'static str,
    },
    /// A key of a type that can't compute what is needed.
    #[error(
        "the key `{label}` is of type {found}: it must be a generic secret of 32 bytes (for HMAC-SHA-256) or an AES-256 key (for AES-CMAC)"
    )]
    KeyType {
        /// The key's label.
        label: String,
        /// Its type.
        found: String,
    },
    /// The token answered something else than was asked for.
    #[error("token `{token}` could not {what}: {why}")]
    Failed {
        /// The token.
        token: String,
        /// What it was asked to do.
        what: &'static str,
        /// Its answer.
        why: String,
    },
}

impl TokenKey {
    /// Has the token compute the KEK.
    pub(super) fn load(&self) -> Result<Kek, TokenError> {
        let session = self.log_in(false)?;
        let handle = match self.find(&session)?.as_slice() {
            [] => return Err(TokenError::NoKey { token: self.token(), label: self.label.clone() }),
            [one] => *one,
            several => {
                return Err(TokenError::SeveralKeys {
                    token: self.token(),
                    label: self.label.clone(),
                    found: several.len(),
                });
            }
        };
        self.compute(&session, handle)
    }

    /// Makes the key in the token: a generic secret of 32 bytes that can't leave it.
    pub(super) fn create(&self) -> Result<Kek, TokenError> {
        let session = self.log_in(true)?;
        if !self.find(&session)?.is_empty() {
            return Err(TokenError::KeyExists { token: self.token(), label: self.label.clone() });
        }
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::ValueLen(32.into()),
            Attribute::Label(self.label.clone().into_bytes()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Verify(false),
            Attribute::Derive(false),
        ];
        template.extend(self.id.clone().map(Attribute::Id));
        let handle = session
            .generate_key(&Mechanism::GenericSecretKeyGen, &template)
            .map_err(|e| self.failed("make a key", &e))?;
        self.compute(&session, handle)
    }

    fn compute(&self, session: &Session, handle: ObjectHandle) -> Result<Kek, TokenError> {
        let key = self.check(session, handle)?;
        let sign = |mechanism: &Mechanism<'_>, block: Option<u64>| {
            session
                .sign(mechanism, handle, &self.input(&key.id, block))
                .map(Zeroizing::new)
                .map_err(|e| self.failed("compute with the key", &e))
        };
        let secret = if key.aes {
            let mut both = sign(&Mechanism::AesCMac, Some(1))?;
            both.extend_from_slice(&sign(&Mechanism::AesCMac, Some(2))?);
            both
        } else {
            sign(&Mechanism::Sha256Hmac, None)?
        };
        let secret = Secret::from_slice(&secret).ok_or_else(|| TokenError::Failed {
            token: self.token(),
            what: "compute with the key",
            why: format!("it gave {} bytes and not 32", secret.len()),
        })?;
        Ok(Kek::derive(secret))
    }

    /// Refuses a key that may leave the token.
    fn check(&self, session: &Session, handle: ObjectHandle) -> Result<Key, TokenError> {
        let asked = [
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::KeyType,
            AttributeType::Id,
        ];
        let found = session
            .get_attributes(handle, &asked)
            .map_err(|e| self.failed("say what the key is like", &e))?;
        let (mut sensitive, mut extractable, mut key_type, mut id) =
            (false, true, None, Vec::new());
        for attribute in found {
            match attribute {
                Attribute::Sensitive(yes) => sensitive = yes,
                Attribute::Extractable(yes) => extractable = yes,
                Attribute::KeyType(found) => key_type = Some(found),
                Attribute::Id(found) => id = found,
                _ => {}
            }
        }
        let leaves = |why| TokenError::MayLeave { label: self.label.clone(), why };
        if extractable {
            return Err(leaves("CKA_EXTRACTABLE is true"));
        }
        if !sensitive {
            return Err(leaves("CKA_SENSITIVE is false"));
        }
        let aes = match key_type {
            Some(KeyType::AES) => true,
            Some(KeyType::GENERIC_SECRET | KeyType::SHA256_HMAC) => false,
            other => {
                let found = other.map_or_else(|| "unknown".to_owned(), |found| found.to_string());
                return Err(TokenError::KeyType { label: self.label.clone(), found });
            }
        };
        Ok(Key { aes, id })
    }

    /// What the token computes over: nothing else that it is asked for begins so.
    fn input(&self, id: &[u8], block: Option<u64>) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        let mut w = Writer::new(&mut out);
        w.array(if block.is_some() { 4 } else { 3 });
        w.text("bulla/1 token kek");
        if let Some(block) = block {
            w.uint(block);
        }
        w.text(&self.label);
        w.bytes(id);
        out
    }

    fn find(&self, session: &Session) -> Result<Vec<ObjectHandle>, TokenError> {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Label(self.label.clone().into_bytes()),
        ];
        template.extend(self.id.clone().map(Attribute::Id));
        session.find_objects(&template).map_err(|e| self.failed("look for the key", &e))
    }

    fn log_in(&self, to_write: bool) -> Result<Session, TokenError> {
        let module = module(&self.module)?;
        let slot = self.slot(&module)?;
        let opened =
            if to_write { module.open_rw_session(slot) } else { module.open_ro_session(slot) };
        let session = opened.map_err(|e| self.failed("open a session", &e))?;
        let pin = AuthPin::from(self.pin.read()?.as_str().to_owned());
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(Error::Pkcs11(code, _)) => {
                Err(TokenError::Login { token: self.token(), why: format!("{code:?}") })
            }
            Err(e) => Err(self.failed("log in", &e)),
        }
    }

    fn slot(&self, module: &Pkcs11) -> Result<Slot, TokenError> {
        let slots = module
            .get_slots_with_initialized_token()
            .map_err(|e| self.failed("be looked for", &e))?;
        let mut matching = Vec::new();
        for slot in slots {
            // A token that was pulled out meanwhile is not the one.
            let Ok(info) = module.get_token_info(slot) else { continue };
            if info.label().trim_end() == self.token {
                matching.push(slot);
            }
        }
        match matching.as_slice() {
            [one] => Ok(*one),
            [] => Err(TokenError::NoToken { module: self.module.clone(), token: self.token() }),
            several => Err(TokenError::SeveralTokens { token: self.token(), found: several.len() }),
        }
    }

    fn token(&self) -> String {
        self.token.clone()
    }

    fn failed(&self, what: &'static str, error: &Error) -> TokenError {
        TokenError::Failed { token: self.token(), what, why: short(error) }
    }
}

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} in token {}", self.label, self.token)
    }
}

/// What is known of a key that was found.
struct Key {
    aes: bool,
    id: Vec<u8>,
}

impl Pin {
    fn read(&self) -> Result<Zeroizing<String>, TokenError> {
        let (text, from) = match self {
            Self::File(path) => {
                (read_protected(path, Protection::Credential)?, path.display().to_string())
            }
            Self::Environment(name) => {
                let value = std::env::var(name).unwrap_or_default();
                (Zeroizing::new(value), format!("the environment variable {name}"))
            }
        };
        let pin = text.trim_end_matches(['\n', '\r']);
        if pin.is_empty() || pin.len() > MAX_PIN || pin.contains('\n') {
            return Err(TokenError::NoPin { from });
        }
        Ok(Zeroizing::new(pin.to_owned()))
    }
}

/// The library, loaded and initialised once.
fn module(path: &Path) -> Result<Pkcs11, TokenError> {
    let mut modules = MODULES.lock();
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let fail = |e: &Error| TokenError::Module { module: path.into(), why: short(e) };
    let module = Pkcs11::new(path).map_err(|e| fail(&e))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(e) => return Err(fail(&e)),
    }
    modules.insert(path.into(), module.clone());
    Ok(module)
}

/// The library's own texts quote whole paragraphs of the standard.
fn short(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function:?} said {code:?}"),
        other => other.to_string(),
    }
}
