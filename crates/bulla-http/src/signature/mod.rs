//! HTTP Message Signatures (RFC 9421): with a shared secret, the access keys of the API's users, and
//! with the keys of agents: Ed25519, or a MAC under what follows from a shared key.
//!
//! Of the standard this is the part that is needed, and strictly: one signature a request, the
//! algorithms `hmac-sha256` and `ed25519` (each for its own kind of key), components without parameters. What is signed is at least the method, the
//! whole target, and of a request with a body its digest (RFC 9530), with the parameters `created`,
//! `keyid`, `nonce` and `alg`.
//!
//! ```text
//! Content-Digest: sha-256=:…:
//! Signature-Input: bulla=("@method" "@target-uri" "content-digest");created=…;keyid="BULL…";nonce="…";alg="hmac-sha256"
//! Signature: bulla=:…:
//! ```

mod base;
mod digest;
mod fields;
mod key;
mod nonces;
mod sign;
mod verify;

pub use key::{AccessKey, AccessKeyError, AccessSecret};
pub use nonces::{MemoryNonces, NonceError, Nonces, Seen};
pub use sign::SignError;

pub(crate) use digest::matches as digest_matches;
pub(crate) use verify::{Claimed, Fault, Times};

use axum::http::HeaderName;

/// The header fields of a signature (RFC 9421 sections 4.1 and 4.2).
pub(crate) const SIGNATURE: HeaderName = HeaderName::from_static("signature");
pub(crate) const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
/// The digest of the content (RFC 9530 section 2).
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// The algorithm of access keys, by its registered name.
const ALGORITHM: &str = "hmac-sha256";
/// The algorithm of agents' own keys, but shared ones.
const AGENTS: &str = "ed25519";
/// What the id of an agent's key begins with.
const AGENT: &str = "agent/";

#[cfg(test)]
mod tests;
