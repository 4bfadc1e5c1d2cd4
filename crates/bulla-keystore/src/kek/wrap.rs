//! Wrapping: AES-256-GCM with a random nonce, the associated data naming the place of the value
//! so that it opens nowhere else.
//!
//! A wrapped value is the CBOR array [1, id of the wrapping key, nonce, ciphertext with tag].
//! Random 96-bit nonces are good for 2^32 values under one key; a keystore of 100,000 agents
//! makes some 2^18.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bulla_seal::cbor::{Reader, Writer};
use bulla_seal::{Random, RandomFailed, Refusal, Secret};
use thiserror::Error;
use zeroize::Zeroizing;

use bulla_seal::kdf;

/// A wrapped value, ready to be stored.
pub type Wrapped = Vec<u8>;

const VERSION: u64 = 1;

/// The place of a value in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The table.
    pub table: &'a str,
    /// The column.
    pub column: &'a str,
    /// The principal's short form, or what else names the row.
    pub name: &'a str,
    /// The principal's incarnation; 0 where there is none.
    pub incarnation: u32,
    /// The key's epoch.
    pub epoch: u32,
}

impl Row<'_> {
    fn aad(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut w = Writer::new(&mut out);
        w.array(6);
        w.text("bulla/1 row");
        w.text(self.table);
        w.text(self.column);
        w.text(self.name);
        w.uint(self.incarnation.into());
        w.uint(self.epoch.into());
        out
    }
}

/// A wrapped value did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnwrapError {
    /// It was wrapped under another key.
    #[error("wrapped under another key-encryption key")]
    WrongKek {
        /// The id of the key that it was wrapped under.
        found: [u8; 8],
    },
    /// It was altered, or belongs to another row or column.
    #[error("altered, or moved from another row or column")]
    Damaged,
}

/// A key that wraps: derived from a [`Kek`](super::Kek).
#[derive(Clone)]
pub struct WrapKey {
    id: [u8; 8],
    key: Arc<LessSafeKey>,
}

impl WrapKey {
    /// The wrapping key and its id, both derived from `secret`.
    #[allow(clippy::expect_used, reason = "a 32-byte array is always a valid AES-256 key")]
    pub(super) fn derive(secret: &Secret<32>) -> Self {
        let key = kdf::expand_label(secret, "bulla/1 kek wrap");
        let named = kdf::expand_label(secret, "bulla/1 kek id");
        let mut id = [0; 8];
        id.iter_mut().zip(named.expose()).for_each(|(to, from)| *to = *from);
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).expect("32 bytes");
        Self { id, key: Arc::new(LessSafeKey::new(key)) }
    }

    /// Its id.
    pub fn id(&self) -> [u8; 8] {
        self.id
    }

    /// Wraps `value` for `row`.
    pub fn wrap(
        &self,
        random: &mut dyn Random,
        row: &Row<'_>,
        value: &[u8],
    ) -> Result<Wrapped, RandomFailed> {
        let mut nonce = [0; 12];
        random.fill(&mut nonce)?;
        // Encrypted in place: room for the tag up front, so that no copy is left behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(value.len() + 16));
        sealed.extend_from_slice(value);
        let aad = Aad::from(row.aad());
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce_used, aad, &mut *sealed)
            .map_err(|_| RandomFailed)?;
        let mut out = Vec::with_capacity(sealed.len() + 32);
        let mut w = Writer::new(&mut out);
        w.array(4);
        w.uint(VERSION);
        w.bytes(&self.id);
        w.bytes(&nonce);
        w.bytes(&sealed);
        Ok(out)
    }

    /// Opens what [`wrap`](Self::wrap) made for the same `row`.
    pub fn unwrap(&self, row: &Row<'_>, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnwrapError> {
        let (id, nonce, sealed) = parse(wrapped).map_err(|_| UnwrapError::Damaged)?;
        if id != self.id {
            return Err(UnwrapError::WrongKek { found: id });
        }
        let mut value = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let len = self
            .key
            .open_in_place(nonce, Aad::from(row.aad()), &mut value)
            .map_err(|_| UnwrapError::Damaged)?
            .len();
        value.truncate(len);
        Ok(value)
    }

    /// [`unwrap`](Self::unwrap) for a value of exactly `N` bytes.
    pub fn unwrap_fixed<const N: usize>(
        &self,
        row: &Row<'_>,
        wrapped: &[u8],
    ) -> Result<Secret<N>, UnwrapError> {
        Secret::from_slice(&self.unwrap(row, wrapped)?).ok_or(UnwrapError::Damaged)
    }
}

impl fmt::Debug for WrapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The id of the key that a value was wrapped under; `None` if it is no wrapped value.
pub(crate) fn id_of(wrapped: &[u8]) -> Option<[u8; 8]> {
    parse(wrapped).ok().map(|(id, ..)| id)
}

type Parts<'a> = ([u8; 8], [u8; 12], &'a [u8]);

fn parse(wrapped: &[u8]) -> Result<Parts<'_>, Refusal> {
    let mut r = Reader::new(wrapped);
    r.array(4)?;
    r.this_uint(VERSION)?;
    let parts = (r.fixed()?, r.fixed()?, r.bytes()?);
    r.end()?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_seal::OsRandom;

    const ROW: Row<'_> = Row { table: "t", column: "c", name: "agent/a", incarnation: 1, epoch: 2 };

    fn key(byte: u8) -> WrapKey {
        WrapKey::derive(&Secret::new([byte; 32]))
    }

    #[test]
    fn a_value_opens_in_its_place_only() {
        let wrapped = key(1).wrap(&mut OsRandom::default(), &ROW, b"value").unwrap();
        assert_eq!(&**key(1).unwrap(&ROW, &wrapped).unwrap(), b"value");
        for moved in [
            Row { table: "u", ..ROW },
            Row { column: "d", ..ROW },
            Row { name: "agent/b", ..ROW },
            Row { incarnation: 2, ..ROW },
            Row { epoch: 3, ..ROW },
        ] {
            assert_eq!(key(1).unwrap(&moved, &wrapped).unwrap_err(), UnwrapError::Damaged);
        }
    }

    #[test]
    fn another_kek_is_named_as_such() {
        let wrapped = key(1).wrap(&mut OsRandom::default(), &ROW, b"value").unwrap();
        let error = key(2).unwrap(&ROW, &wrapped).unwrap_err();
        assert_eq!(error, UnwrapError::WrongKek { found: key(1).id() });
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let wrapped = key(1).wrap(&mut OsRandom::default(), &ROW, b"value").unwrap();
        for bit in 0..wrapped.len() * 8 {
            let mut bad = wrapped.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(key(1).unwrap(&ROW, &bad).is_err(), "bit {bit}");
        }
        for len in 0..wrapped.len() {
            assert!(key(1).unwrap(&ROW, &wrapped[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn two_wraps_of_one_value_differ() {
        let wrap = || key(1).wrap(&mut OsRandom::default(), &ROW, b"value").unwrap();
        assert_ne!(wrap(), wrap());
    }
}
