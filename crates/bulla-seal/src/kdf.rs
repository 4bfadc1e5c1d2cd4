//! Key derivation: HKDF-SHA-256 (RFC 5869) where a key is made once, and the fast derivation of
//! protocol section 3 where one is made for every message.

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};

use crate::cbor::Writer;
use crate::secret::Secret;
use zeroize::Zeroizing;

/// HKDF-Extract.
pub(crate) fn extract(salt: &[u8], input: &[u8]) -> Secret<32> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), input);
    let mut out = [0; 32];
    out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    Secret::new(out)
}

/// HKDF-Expand to 32 bytes. `info` is one deterministic CBOR array whose first item is a label.
pub(crate) fn expand(key: &Secret<32>, info: &[u8]) -> Secret<32> {
    struct Len;
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            32
        }
    }
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key.expose());
    let mut out = [0; 32];
    // 32 bytes are one block of HKDF-SHA-256: neither step can be asked for too much.
    let filled = prk.expand(&[info], Len).and_then(|okm| okm.fill(&mut out));
    debug_assert!(filled.is_ok());
    Secret::new(out)
}

/// [`expand`] with the one-item array `[label]`.
pub(crate) fn expand_label(key: &Secret<32>, label: &str) -> Secret<32> {
    let mut info = Vec::with_capacity(label.len() + 4);
    let mut w = Writer::new(&mut info);
    w.array(1);
    w.text(label);
    expand(key, &info)
}

/// A pseudo-random function over byte strings, cheap enough for every message: hash with a secret
/// universal hash, then encrypt the hash (`docs/adr/0001-message-derivations.md`).
///
/// u = GHASH of the input under a secret key (taken as the tag of AES-256-GCM over the input as
/// associated data with an all-zero nonce and no plaintext; it never leaves this type), then
/// block i = AES-256 under a second key of u with i added into its last byte. GHASH with its
/// length block is almost-XOR-universal, so by the usual hash-then-PRF argument the outputs can't
/// be told from random up to about q² · (length in blocks) / 2^128 for q inputs.
pub(crate) struct MessagePrf {
    hash: LessSafeKey,
    block: Aes256Enc,
}

impl MessagePrf {
    /// Both keys come from `key` under `label`.
    pub(crate) fn new(key: &Secret<32>, label: &str) -> Self {
        let labelled = |part: &str| {
            let mut info = Vec::with_capacity(64);
            let mut w = Writer::new(&mut info);
            w.array(2);
            w.text(label);
            w.text(part);
            expand(key, &info)
        };
        let (hash, block) = (labelled("hash"), labelled("block"));
        Self { hash: gcm(&hash), block: Aes256Enc::new(block.expose().into()) }
    }

    fn hash(&self, input: &[u8]) -> [u8; 16] {
        let mut out = [0; 16];
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        // Fails only for inputs beyond the 2^61 bytes that GCM can take.
        if let Ok(tag) = self.hash.seal_in_place_separate_tag(nonce, Aad::from(input), &mut []) {
            if let Ok(tag) = <[u8; 16]>::try_from(tag.as_ref()) {
                out = tag;
            }
        }
        out
    }

    /// 16 pseudo-random bytes of `input`.
    pub(crate) fn id(&self, input: &[u8]) -> [u8; 16] {
        let mut block = aes::Block::from(self.hash(input));
        self.block.encrypt_block(&mut block);
        block.into()
    }

    /// The AES-256-GCM key and IV that belong to `input`.
    pub(crate) fn key_and_iv(&self, input: &[u8]) -> (Secret<32>, [u8; 12]) {
        let hash = self.hash(input);
        let mut blocks = [hash, hash, hash].map(aes::Block::from);
        for (i, block) in (0u8..).zip(&mut blocks) {
            if let Some(last) = block.last_mut() {
                *last ^= i;
            }
            // One by one: for so few the cipher's parallel path costs more than it saves.
            self.block.encrypt_block(block);
        }
        let [first, second, third] = blocks.map(<[u8; 16]>::from);
        let mut key = Zeroizing::new([0; 32]);
        let (left, right) = key.split_at_mut(16);
        left.copy_from_slice(&first);
        right.copy_from_slice(&second);
        let [iv @ .., _, _, _, _] = third;
        (Secret::new(*key), iv)
    }
}

impl std::fmt::Debug for MessagePrf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MessagePrf(..)")
    }
}

/// An AES-256-GCM key ready for use.
#[allow(clippy::expect_used, reason = "a 32-byte array is always a valid AES-256 key")]
pub(crate) fn gcm(key: &Secret<32>) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prf_separates_inputs_and_labels() {
        let key = Secret::new([7; 32]);
        let (a, b) = (MessagePrf::new(&key, "a"), MessagePrf::new(&key, "b"));
        assert_ne!(a.id(b"x"), a.id(b"y"));
        assert_ne!(a.id(b"x"), b.id(b"x"));
        // A trailing zero byte is not padding.
        assert_ne!(a.id(b"x"), a.id(b"x\0"));
        let (key1, iv1) = a.key_and_iv(b"x");
        let (key2, iv2) = a.key_and_iv(b"y");
        assert!(!key1.ct_eq(&key2));
        assert_ne!(iv1, iv2);
        let (first, second) = key1.expose().split_at(16);
        assert_ne!(first, second);
    }
}
