//! Answers of the API that are kept for who asks again: they hold what the first one was told, join
//! tokens and secret keys too, so they lie wrapped wherever they lie.

use bulla_seal::OsRandom;
use zeroize::Zeroizing;

use super::Keystore;
use crate::error::Result;
use crate::kek::{Row, Wrapped};

/// The place of an answer. It is in no table of the keystore's, but in the claim store.
fn place(name: &str) -> Row<'_> {
    Row { table: "claims", column: "encrypted_answer", name, incarnation: 0, epoch: 0 }
}

impl Keystore {
    /// Wraps an answer under the current key-encryption key; it opens under the same name alone.
    pub async fn wrap_answer(&self, name: &str, answer: &[u8]) -> Result<Wrapped> {
        let kek = self.current_kek().await?;
        Ok(kek.wrap_key().wrap(&mut OsRandom::default(), &place(name), answer)?)
    }

    /// Opens what [`wrap_answer`](Self::wrap_answer) made, as long as its key is held.
    pub fn open_answer(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.keks.open(&place(name), wrapped, "an answer that is kept")
    }
}
