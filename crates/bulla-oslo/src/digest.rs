//! Names of what was received.

use aws_lc_rs::digest::{Context, SHA256};
pub(crate) use bulla_seal::Digest;

/// SHA-256 over parts, each with its length before it.
pub(crate) fn of(label: &str, parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in [b"bulla/1 oslo", label.as_bytes()].iter().chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Digest(digest)
}

/// Its first half.
pub(crate) fn short(digest: Digest) -> [u8; 16] {
    let mut short = [0; 16];
    short.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    short
}
