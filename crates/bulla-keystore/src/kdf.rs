//! HKDF-Expand (RFC 5869) with SHA-256, to 32 bytes.

use aws_lc_rs::hkdf;
use bulla_seal::Secret;
use bulla_seal::cbor::Writer;

struct Len;

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        32
    }
}

/// Expands the uniform `key`. `info` is one deterministic CBOR array that begins with a label.
pub(crate) fn expand(key: &Secret<32>, info: &[u8]) -> Secret<32> {
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key.expose());
    let mut out = zeroize::Zeroizing::new([0; 32]);
    // 32 bytes are one block of HKDF-SHA-256: neither step can be asked for too much.
    let filled = prk.expand(&[info], Len).and_then(|okm| okm.fill(&mut *out));
    debug_assert!(filled.is_ok());
    Secret::new(*out)
}

/// [`expand`] with the one-item array `[label]`.
pub(crate) fn expand_label(key: &Secret<32>, label: &str) -> Secret<32> {
    let mut info = Vec::with_capacity(label.len() + 4);
    let mut w = Writer::new(&mut info);
    w.array(1);
    w.text(label);
    expand(key, &info)
}
