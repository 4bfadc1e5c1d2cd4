//! Key bytes that are wiped when dropped and can't be printed or compared in variable time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes. Its `Debug` says nothing, it has no `Display`, no `PartialEq` and no
/// serialisation; it is wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes over `bytes`.
    pub fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// From exactly `N` bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// `N` fresh bytes from `random`.
    pub fn generate(random: &mut dyn crate::Random) -> Result<Self, crate::RandomFailed> {
        let mut secret = Self([0; N]);
        random.fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The bytes, for handing to a cipher. Name every use in review.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Compares in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new([0x41; 32])), "Secret(..)");
    }
}
