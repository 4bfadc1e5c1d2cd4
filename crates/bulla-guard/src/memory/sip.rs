//! SipHash-2-4 with 128 bits of output: a keyed hash, so that nobody who can choose ids can make
//! them collide. (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, and the
//! reference code's 128-bit form.)

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::cbor::Sink;

/// A secret key, drawn once for each store.
#[derive(Clone, Copy)]
pub(super) struct SipKey(u64, u64);

impl SipKey {
    /// From the randomness that the standard library seeds its maps with.
    pub(super) fn random() -> Self {
        // Hashing under a secret random key gives two independent secret words.
        let state = RandomState::new();
        Self(state.hash_one(0u8), state.hash_one(1u8))
    }

    pub(super) fn hasher(self) -> Sip128 {
        Sip128::new(self.0, self.1)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Sip128 {
    v: [u64; 4],
    /// Bytes not yet compressed, little-endian, `filled` of them.
    tail: u64,
    filled: u32,
    len: u64,
}

impl Sip128 {
    fn new(k0: u64, k1: u64) -> Self {
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { v, tail: 0, filled: 0, len: 0 }
    }

    fn rounds(&mut self, count: usize) {
        let [mut a, mut b, mut c, mut d] = self.v;
        for _ in 0..count {
            a = a.wrapping_add(b);
            b = b.rotate_left(13) ^ a;
            a = a.rotate_left(32);
            c = c.wrapping_add(d);
            d = d.rotate_left(16) ^ c;
            a = a.wrapping_add(d);
            d = d.rotate_left(21) ^ a;
            c = c.wrapping_add(b);
            b = b.rotate_left(17) ^ c;
            c = c.rotate_left(32);
        }
        self.v = [a, b, c, d];
    }

    fn word(&mut self, word: u64) {
        let [_, _, _, d] = &mut self.v;
        *d ^= word;
        self.rounds(2);
        let [a, ..] = &mut self.v;
        *a ^= word;
    }

    /// Takes in the low `count` bytes of `bytes`, 1 to 8; what is above them is nought.
    fn bytes(&mut self, bytes: u64, count: u32) {
        let shift = 8 * self.filled;
        let word = self.tail | bytes << shift;
        self.filled += count;
        if self.filled < 8 {
            self.tail = word;
            return;
        }
        self.word(word);
        self.filled -= 8;
        // What found no room; a shift by all 64 bits leaves nothing.
        self.tail = bytes.checked_shr(64 - shift).unwrap_or(0);
    }

    fn folded(&self) -> u64 {
        self.v.iter().fold(0, |sum, v| sum ^ v)
    }

    pub(super) fn finish(mut self) -> u128 {
        let last = self.tail | self.len << 56;
        self.word(last);
        let [_, _, c, _] = &mut self.v;
        *c ^= 0xee;
        self.rounds(4);
        let low = self.folded();
        let [_, b, _, _] = &mut self.v;
        *b ^= 0xdd;
        self.rounds(4);
        u128::from(self.folded()) << 64 | u128::from(low)
    }
}

impl Sink for Sip128 {
    fn put(&mut self, bytes: &[u8]) {
        self.len = self.len.wrapping_add(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.bytes(u64::from_le_bytes(*word), 8);
        }
        if !rest.is_empty() {
            let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.bytes(word, rest.len() as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the reference code's `vectors_sip128`: key 00..0f, input 00..n.
    #[test]
    fn matches_the_reference_vectors() {
        let key = |from: u8| u64::from_le_bytes(std::array::from_fn(|i| from + i as u8));
        let hash = |len: u8| {
            let mut hasher = Sip128::new(key(0), key(8));
            let input: Vec<u8> = (0..len).collect();
            hasher.put(&input);
            hasher.finish().to_le_bytes()
        };
        assert_eq!(hash(0), 0x930255c71472f66de6a825ba047f81a3u128.to_le_bytes());
        assert_eq!(hash(1), 0x45fc229b1159763444af996bd8c187dau128.to_le_bytes());
        assert_eq!(hash(63), 0x7cbd3f979a063e504a83502f77d15051u128.to_le_bytes());
    }

    #[test]
    fn how_the_input_is_cut_does_not_matter() {
        let input: Vec<u8> = (0..61).collect();
        let whole = SipKey(1, 2);
        let mut once = whole.hasher();
        once.put(&input);
        let once = once.finish();
        for cut in 0..input.len() {
            let mut twice = whole.hasher();
            twice.put(&input[..cut]);
            twice.put(&input[cut..]);
            assert_eq!(twice.finish(), once, "{cut}");
        }
        let mut each = whole.hasher();
        input.iter().for_each(|byte| each.put(&[*byte]));
        assert_eq!(each.finish(), once);
    }
}
