//! Key derivation: HKDF-SHA-256 (RFC 5869) where a key is made once, and the fast derivation of
//! protocol section 3 where one is made for every message.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::cbor::Writer;
use crate::secret::Secret;

/// HKDF-Extract.
pub(crate) fn extract(salt: &[u8], input: &[u8]) -> Secret<32> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), input);
    let mut out = Zeroizing::new([0; 32]);
    out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    Secret::new(*out)
}

/// HKDF-Expand (RFC 5869 section 2.3) of the uniform `key` to 32 bytes. `info` is one deterministic CBOR array whose first item is a label.
pub fn expand(key: &Secret<32>, info: &[u8]) -> Secret<32> {
    struct Len;
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            32
        }
    }
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key.expose());
    let mut out = Zeroizing::new([0; 32]);
    // 32 bytes are one block of HKDF-SHA-256: neither step can be asked for too much.
    let filled = prk.expand(&[info], Len).and_then(|okm| okm.fill(&mut *out));
    debug_assert!(filled.is_ok());
    Secret::new(*out)
}

/// [`expand`] with the one-item array `[label]`.
pub fn expand_label(key: &Secret<32>, label: &str) -> Secret<32> {
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
///
/// AES comes from the AEAD's own library: the `aes` crate spreads its round keys over wide
/// registers on every call, which for so few blocks costs more than the cipher.
pub(crate) struct MessagePrf {
    hash: LessSafeKey,
    block: EncryptingKey,
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
        Self { hash: gcm(&labelled("hash")), block: ecb(&labelled("block")) }
    }

    /// Fails only for inputs beyond the 2^61 bytes that GCM can take.
    #[inline(always)]
    fn hash(&self, input: &[u8]) -> Option<[u8; 16]> {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self.hash.seal_in_place_separate_tag(nonce, Aad::from(input), &mut []).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// 16 pseudo-random bytes of `input`.
    #[inline(always)]
    pub(crate) fn id(&self, input: &[u8]) -> Option<[u8; 16]> {
        let mut block = self.hash(input)?;
        self.block.encrypt(&mut block).ok()?;
        Some(block)
    }

    /// The AES-256-GCM key that belongs to `input`, ready for use, and its IV.
    #[inline(always)]
    pub(crate) fn key_and_iv(&self, input: &[u8]) -> Option<(LessSafeKey, Nonce)> {
        let mut blocks = Wiped([[0; 16]; 3]);
        self.blocks(input, &mut blocks)?;
        let (key, iv) = blocks.0.as_flattened().split_first_chunk::<32>()?;
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some((LessSafeKey::new(key), Nonce::assume_unique_for_key(*iv.first_chunk()?)))
    }

    /// Three blocks of output: key, IV and four bytes that nobody uses.
    #[inline(always)]
    fn blocks(&self, input: &[u8], out: &mut Wiped) -> Option<()> {
        let hash = self.hash(input)?;
        out.0 = [hash; 3];
        let [_, [.., second], [.., third]] = &mut out.0;
        *second ^= 1;
        *third ^= 2;
        self.block.encrypt(out.0.as_flattened_mut()).ok()?;
        Some(())
    }
}

/// Blocks that are wiped when dropped: in wide stores, with the compiler kept from leaving them
/// out, where wiping byte by byte would cost as much as encrypting them.
struct Wiped([[u8; 16]; 3]);

impl Drop for Wiped {
    #[inline]
    fn drop(&mut self) {
        self.0 = [[0; 16]; 3];
        zeroize::optimization_barrier(&self.0);
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

/// AES-256 for single blocks.
#[allow(clippy::expect_used, reason = "a 32-byte array is always a valid AES-256 key")]
fn ecb(key: &Secret<32>) -> EncryptingKey {
    let key = UnboundCipherKey::new(&AES_256, key.expose()).expect("32 bytes");
    EncryptingKey::ecb(key).expect("an AES-256 key")
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
        let blocks = |input: &[u8]| {
            let mut out = Wiped([[0; 16]; 3]);
            a.blocks(input, &mut out).unwrap();
            out.0
        };
        let ([x1, x2, x3], [y1, y2, y3]) = (blocks(b"x"), blocks(b"y"));
        assert!(x1 != y1 && x2 != y2 && x3 != y3);
        assert!(x1 != x2 && x2 != x3 && x1 != x3);
    }
}
