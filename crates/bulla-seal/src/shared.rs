//! Shared-key agents: the per-guest symmetric key of the Trove specification (protocol section
//! 2). No forward secrecy and no clone detection in this mode.

use aws_lc_rs::hmac;

use crate::cbor::Writer;
use crate::header::Handle;
use crate::id::Kid;
use crate::kdf;
use crate::mutants::{Check, off};
use crate::principal::{Party, Principal};
use crate::secret::Secret;
use crate::session::{Session, SessionParts};
use crate::wire::Suite;

/// The key that an agent shares with one component type, from the agent's key K: HKDF-Expand(K,
/// ["bulla/1 pair", agent, its incarnation, component, pair epoch], 32). A component type is
/// given just this, never K.
pub fn pair_key(k: &Secret<32>, agent: &Party, component: &Principal, epoch: u32) -> Secret<32> {
    let mut info = Vec::with_capacity(192);
    let mut w = Writer::new(&mut info);
    w.array(5);
    w.text("bulla/1 pair");
    w.text(agent.principal.as_str());
    w.uint(agent.incarnation.into());
    w.text(component.as_str());
    w.uint(epoch.into());
    if off(Check::KeyPerAgent) {
        return kdf::expand(&Secret::new([0; 32]), b"every agent");
    }
    kdf::expand(k, &info)
}

/// What a shared-key agent's requests over HTTP carry a MAC under, from the agent's key K: HKDF-Expand(K,
/// ["bulla/1 http", agent, its incarnation], 32). Nothing is sealed with it.
pub fn http_key(k: &Secret<32>, agent: &Party) -> Secret<32> {
    let mut info = Vec::with_capacity(96);
    let mut w = Writer::new(&mut info);
    w.array(3);
    w.text("bulla/1 http");
    w.text(agent.principal.as_str());
    w.uint(agent.incarnation.into());
    kdf::expand(k, &info)
}

/// The MAC (HMAC-SHA-256) over the base of an HTTP message signature (RFC 9421) under an
/// [`http_key`].
pub fn mac_request(key: &Secret<32>, base: &str) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), base.as_bytes());
    let mut out = [0; 32];
    out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// The session for requests of `requester` to `responder` under a pair key. No bytes on the wire:
/// both ends make it from what they hold.
pub fn session(kid: Kid, pair_key: &Secret<32>, requester: Party, responder: Party) -> Session {
    let secret = kdf::extract(b"bulla/1 shared", pair_key.expose());
    Session::derive(
        &secret,
        SessionParts {
            handle: Handle::Key(kid),
            suite: Suite::Shared,
            requester,
            responder,
            window: None,
            requester_credential: None,
        },
    )
}
