//! Keys that nobody drew at random.

use bulla_seal::Digest;

/// What people put where a key should be: the defaults printed in Trove's source
/// (`taskmanager_rpc_encr_key`, `inst_rpc_key_encr_key`) and the usual words.
const WORDS: &[&str] = &[
    "bzH6y0SGmjuoY0FNSTptrhgieGXNDX6PIhvz",
    "emYjgHFqfXNB1NGehAFIUeoyw4V4XwWHEaKP",
    "",
    "0",
    "admin",
    "bulla",
    "changeme",
    "default",
    "key",
    "openstack",
    "password",
    "secret",
    "test",
    "trove",
];

/// Why `key` can be guessed, if it can. A key from a working random source is refused with a
/// chance below 2^-40.
pub(super) fn guessable(key: &[u8; 32]) -> Option<&'static str> {
    let (low, high) = key.split_at(16);
    let mut seen = [false; 256];
    for byte in key {
        if let Some(seen) = seen.get_mut(usize::from(*byte)) {
            *seen = true;
        }
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    if key.iter().all(|b| *b == 0) {
        Some("all zero")
    } else if has_constant_step(key) {
        Some("a row of rising or equal bytes")
    } else if low == high || distinct < 16 {
        Some("a repeated pattern")
    } else if key.iter().all(|b| (0x20..0x7f).contains(b)) {
        // A typed password, a digest in hex, or the beginning of one of Trove's defaults.
        Some("printable text and not random bytes")
    } else if WORDS.iter().any(|word| Digest::of(word.as_bytes()).as_bytes() == key) {
        Some("the digest of a well-known word")
    } else {
        None
    }
}

fn has_constant_step(key: &[u8; 32]) -> bool {
    let steps = || key.iter().zip(key.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
    let first = steps().next();
    steps().all(|step| Some(step) == first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_seal::{OsRandom, Random};

    fn text(text: &str) -> [u8; 32] {
        text.as_bytes()[..32].try_into().unwrap()
    }

    #[test]
    fn what_was_never_drawn_is_refused() {
        let rising: [u8; 32] = std::array::from_fn(|i| i as u8);
        let falling: [u8; 32] = std::array::from_fn(|i| 31 - i as u8);
        let quads: [u8; 32] = std::array::from_fn(|i| b"\x01\xfe\x80\x07"[i % 4]);
        let twice: [u8; 32] = std::array::from_fn(|i| (i as u8 % 16).wrapping_mul(37));
        let word = Digest::of(b"password").0;
        let trove = Digest::of(WORDS[1].as_bytes()).0;
        for key in [[0; 32], [0xa5; 32], rising, falling, quads, twice, word, trove] {
            assert!(guessable(&key).is_some(), "{key:?}");
        }
        assert!(guessable(&text("bzH6y0SGmjuoY0FNSTptrhgieGXNDX6PIhvz")).is_some());
        assert!(guessable(&text("5f4dcc3b5aa765d61d8327deb882cf99")).is_some());
    }

    #[test]
    fn random_keys_are_taken() {
        for _ in 0..1_000 {
            let mut key = [0; 32];
            OsRandom::default().fill(&mut key).unwrap();
            assert_eq!(guessable(&key), None);
        }
    }
}
