//! The root key's file. The key signs issuers and nothing else: the file belongs off the machine
//! as soon as it is written (protocol section 2).

use std::path::Path;

use bulla_seal::{SigningKey, TrustDomain};

use crate::error::Result;
use crate::file::{self, FileError};

/// First line of a root key file; the trust domain follows.
const HEADER: &str = "bulla-root-key 1";

/// Writes the root key of `domain` to a new file of mode 0600.
pub fn create_file(
    path: impl AsRef<Path>,
    domain: &TrustDomain,
    root: &SigningKey,
) -> Result<(), FileError> {
    file::create(path.as_ref(), &format!("{HEADER} {domain}"), root.seed())
}

/// Reads a root key with its trust domain back, under the same rules as a key-encryption key's
/// file.
pub fn from_file(path: impl AsRef<Path>) -> Result<(TrustDomain, SigningKey), FileError> {
    let path = path.as_ref();
    let malformed = || FileError::Malformed { path: path.into() };
    let (domain, seed) = file::read(path, HEADER)?;
    let domain = TrustDomain::new(&domain).map_err(|_| malformed())?;
    Ok((domain, SigningKey::from_seed(seed).ok_or_else(malformed)?))
}
