//! Ids of messages and claims: a place in the order, and a random half that nobody guesses.

use std::fmt;

use aws_lc_rs::rand;

/// The random half has 62 bits.
const TAG_BITS: u32 = 62;
const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
/// Microseconds in a millisecond, which is the unit that version 7 of UUIDs counts in.
const MICROS: u64 = 1000;
const VERSION: u64 = 7;
const VARIANT: u64 = 0b10;

/// An id, written as a UUID of version 7. `seq` is unique in a store and grows; it says nothing but
/// when the id was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    seq: u64,
    tag: u64,
}

impl Id {
    /// With a random half of its own. `seq` is about the time in microseconds, below 2⁵⁷.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn new(seq: u64) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = [0; 8];
        rand::fill(&mut bytes)?;
        Ok(Self { seq, tag: u64::from_le_bytes(bytes) & TAG_MASK })
    }

    /// As a store kept it.
    #[must_use]
    pub fn from_parts(seq: u64, tag: u64) -> Self {
        Self { seq, tag: tag & TAG_MASK }
    }

    /// From its text, in the one form in which it is written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let dashes = [8, 13, 18, 23];
        let bytes = text.as_bytes();
        if bytes.len() != 36 || dashes.iter().any(|at| bytes.get(*at) != Some(&b'-')) {
            return None;
        }
        let mut value = 0_u128;
        for (at, byte) in bytes.iter().enumerate() {
            if dashes.contains(&at) {
                continue;
            }
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return None,
            };
            value = value << 4 | u128::from(digit);
        }
        let (high, low) = ((value >> 64) as u64, value as u64);
        let (millis, micros) = (high >> 16, high & 0xfff);
        let known = high >> 12 & 0xf == VERSION && low >> TAG_BITS == VARIANT && micros < MICROS;
        known.then_some(Self { seq: millis * MICROS + micros, tag: low & TAG_MASK })
    }

    /// Its place in the order.
    #[must_use]
    pub fn seq(self) -> u64 {
        self.seq
    }

    /// Its random half.
    #[must_use]
    pub fn tag(self) -> u64 {
        self.tag
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (millis, micros) = (self.seq / MICROS, self.seq % MICROS);
        let low = VARIANT << TAG_BITS | self.tag;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            millis >> 16,
            millis & 0xffff,
            VERSION << 12 | micros,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text() {
        let id = Id::from_parts(1_792_000_000_123_456, u64::MAX);
        assert_eq!(id.to_string(), "01a13b86-007b-71c8-bfff-ffffffffffff");
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        assert_ne!(Id::new(7).unwrap(), Id::new(7).unwrap());
        for bad in [
            "",
            "01a13b86007b71c8bfffffffffffffff",
            "01A13B86-007B-71C8-BFFF-FFFFFFFFFFFF",
            "01a13b86-007b-41c8-bfff-ffffffffffff",
            "01a13b86-007b-71c8-ffff-ffffffffffff",
            "01a13b86-007b-73e8-bfff-ffffffffffff",
            "01a13b86-007b-71c8-bfff-fffffffffff",
            "01a13b86-007b-71c8-bfff-ffffffffffff0",
        ] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }
}
