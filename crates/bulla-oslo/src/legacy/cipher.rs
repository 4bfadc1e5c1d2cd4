//! Trove's encryption of single values: AES-256-CBC under the hexadecimal MD5 of a configured text, with
//! an IV in front and no authentication.
//!
//! What this can't give, whoever reads it: values can be altered, cut and moved, and nothing but the value
//! is covered. It is here to be moved away from.

use std::fmt;

use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater};
use thiserror::Error;
use zeroize::Zeroizing;

const BLOCK: usize = 16;
/// Shortest text that is taken for a key. Trove's own have 32 characters.
const SHORTEST: usize = 16;
/// The keys that Trove's source has for those who set none: anybody has them.
const PRINTED: [&str; 2] =
    ["bzH6y0SGmjuoY0FNSTptrhgieGXNDX6PIhvz", "emYjgHFqfXNB1NGehAFIUeoyw4V4XwWHEaKP"];

/// A key that is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadKey {
    /// One that is printed in Trove's source.
    #[error("this key is printed in Trove's source, and anybody has it: set one of your own")]
    Printed,
    /// Too short to be one.
    #[error("the key has fewer than 16 characters")]
    Short,
}

/// One peer's key, both ways.
pub struct LegacyKey(Zeroizing<[u8; 32]>);

impl LegacyKey {
    /// From the text of Trove's settings or of its database.
    ///
    /// # Errors
    /// It is printed in Trove's source, or too short.
    pub fn new(text: &str) -> Result<Self, BadKey> {
        if PRINTED.iter().any(|printed| bool::from(printed.as_bytes().ct_eq(text.as_bytes()))) {
            return Err(BadKey::Printed);
        }
        if text.len() < SHORTEST {
            return Err(BadKey::Short);
        }
        Ok(Self::of(text))
    }

    /// Of any text: for the key that wraps the others in Trove's database, which may well be a printed
    /// one. Nothing is protected with it here.
    pub fn to_unwrap(text: &str) -> Self {
        Self::of(text)
    }

    fn of(text: &str) -> Self {
        const HEX: [u8; 16] = *b"0123456789abcdef";
        let digit = |n: u8| HEX.get(usize::from(n)).copied().unwrap_or_default();
        let mut key = Zeroizing::new([0; 32]);
        for (two, byte) in key.chunks_exact_mut(2).zip(Md5::digest(text.as_bytes())) {
            if let [high, low] = two {
                (*high, *low) = (digit(byte >> 4), digit(byte & 15));
            }
        }
        Self(key)
    }

    fn unbound(&self) -> Option<UnboundCipherKey> {
        UnboundCipherKey::new(&AES_256, &*self.0).ok()
    }

    /// Encrypts a value; `None` if the machine gives no random bytes.
    pub fn seal(&self, value: &[u8]) -> Option<String> {
        let pad = BLOCK - value.len() % BLOCK;
        let mut bytes = Vec::with_capacity(value.len() + pad);
        bytes.extend_from_slice(value);
        bytes.resize(value.len() + pad, u8::try_from(pad).ok()?);
        let used = EncryptingKey::cbc(self.unbound()?).ok()?.encrypt(&mut bytes).ok()?;
        let DecryptionContext::Iv128(iv) = used else { return None };
        let mut sealed = iv.as_ref().to_vec();
        sealed.append(&mut bytes);
        Some(STANDARD.encode(sealed))
    }

    /// Decrypts a value. The work is the same whether its padding is in order or not; that is for the
    /// caller to look at when all values are through. `None` if it has not the form of one at all, which
    /// anybody can see.
    pub(super) fn open(&self, text: &str) -> Option<Opened> {
        let mut bytes = STANDARD.decode(text).ok()?;
        if bytes.len() < 2 * BLOCK || bytes.len() % BLOCK != 0 {
            return None;
        }
        let mut value = bytes.split_off(BLOCK);
        let iv: [u8; BLOCK] = bytes.try_into().ok()?;
        // Who has this block of text before is not another's: an IV can be changed at will.
        let mark = value.clone();
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let plain = DecryptingKey::cbc(self.unbound()?).ok()?;
        let plain = Zeroizing::new(plain.decrypt(&mut value, context).ok()?.to_vec());
        let (ok, length) = unpadded(&plain);
        Some(Opened { plain, ok, length, mark })
    }
}

impl fmt::Debug for LegacyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LegacyKey(redacted)")
    }
}

/// A value that was decrypted, which says nothing about who made it.
pub(super) struct Opened {
    plain: Zeroizing<Vec<u8>>,
    ok: Choice,
    length: usize,
    /// Its blocks without the IV.
    pub(super) mark: Vec<u8>,
}

impl Opened {
    /// The value; something else if the padding is not in order.
    pub(super) fn value(&self) -> &[u8] {
        self.plain.get(..self.length).unwrap_or(&self.plain)
    }

    /// Whether the padding is in order.
    pub(super) fn ok(&self) -> Choice {
        self.ok
    }
}

/// Whether a padding is in order (1 to 16 bytes, each the count), and the length without it; all of it if
/// not. Looks at the same bytes either way.
fn unpadded(plain: &[u8]) -> (Choice, usize) {
    let count = plain.last().copied().unwrap_or_default();
    let mut ok = count.ct_gt(&0) & !count.ct_gt(&16);
    for (at, byte) in (1u8..=16).zip(plain.iter().rev()) {
        let inside = !at.ct_gt(&count);
        ok &= !inside | byte.ct_eq(&count);
    }
    let all = plain.len() as u64;
    let without = all.saturating_sub(u64::from(count));
    let length = u64::conditional_select(&all, &without, ok);
    (ok, usize::try_from(length).unwrap_or(plain.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_in_order_or_not() {
        let ok = |plain: &[u8]| {
            let (ok, length) = unpadded(plain);
            bool::from(ok).then_some(length)
        };
        assert_eq!(ok(&[9; 16]), Some(7));
        assert_eq!(ok(&[16; 16]), Some(0));
        let mut one = [7; 32];
        one[31] = 1;
        assert_eq!(ok(&one), Some(31));
        one[31] = 0;
        assert_eq!(ok(&one), None);
        one[31] = 17;
        assert_eq!(ok(&one), None);
        (one[30], one[31]) = (2, 2);
        assert_eq!(ok(&one), Some(30));
        one[30] = 3;
        assert_eq!(ok(&one), None);
    }

    #[test]
    fn what_is_sealed_opens_and_the_printed_keys_are_refused() {
        let key = LegacyKey::new("yLLiWW1gM8yFbTEIUoYM0mnMwRt8Cjgl").unwrap();
        for length in [0, 1, 15, 16, 17, 1000] {
            let value = vec![b'x'; length];
            let opened = key.open(&key.seal(&value).unwrap()).unwrap();
            assert!(bool::from(opened.ok()));
            assert_eq!(opened.value(), value);
        }
        assert!(key.open("").is_none() && key.open("AAAA").is_none());
        for printed in PRINTED {
            assert_eq!(LegacyKey::new(printed).unwrap_err(), BadKey::Printed);
        }
        assert_eq!(LegacyKey::new("short").unwrap_err(), BadKey::Short);
        assert_eq!(format!("{key:?}"), "LegacyKey(redacted)");
    }
}
