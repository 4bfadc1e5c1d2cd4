//! What fuzz targets need to reach, and nobody else.

use crate::key::ClaimKey;

/// A stored key, and what it is written as again.
pub fn claim_key(bytes: &[u8]) -> Option<(ClaimKey, Vec<u8>)> {
    let key = ClaimKey::from_bytes(bytes)?;
    let again = key.to_bytes();
    Some((key, again))
}

/// A key as stores keep it.
pub fn claim_key_bytes(key: &ClaimKey) -> Vec<u8> {
    key.to_bytes()
}
