//! What scripts answer.

use bulla_seal::Digest;
use bytes::Bytes;
use redis::Value;

use crate::key::ClaimKey;
use crate::store::{Lost, Refused, Reply, StoreError};

/// The items of an answer.
pub(super) struct Reader {
    address: String,
    items: Vec<Value>,
}

impl Reader {
    pub(super) fn new(address: &str, value: Value) -> Self {
        let items = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        Self { address: address.to_owned(), items }
    }

    fn strange(&self) -> StoreError {
        StoreError::Damaged {
            path: self.address.clone(),
            why: "it answers what no script of this program says".to_owned(),
        }
    }

    pub(super) fn has(&self, at: usize) -> bool {
        matches!(self.items.get(at), Some(Value::BulkString(_)))
    }

    pub(super) fn bytes(&self, at: usize) -> Result<Option<Bytes>, StoreError> {
        match self.items.get(at) {
            Some(Value::BulkString(bytes)) => Ok(Some(Bytes::copy_from_slice(bytes))),
            Some(Value::Nil) | None => Ok(None),
            _ => Err(self.strange()),
        }
    }

    /// A reply from its digest and its bytes.
    pub(super) fn reply(&self, at: usize) -> Result<Option<Reply>, StoreError> {
        let Some(digest) = self.bytes(at)? else { return Ok(None) };
        let digest = Digest::from_slice(&digest).ok_or_else(|| self.strange())?;
        Ok(Some(Reply::with_digest(digest, self.bytes(at + 1)?)))
    }

    pub(super) fn key(&self, at: usize) -> Result<ClaimKey, StoreError> {
        let bytes = self.bytes(at)?.unwrap_or_default();
        ClaimKey::from_bytes(&bytes).ok_or_else(|| self.strange())
    }

    pub(super) fn rows(&self, at: usize) -> Result<Vec<Self>, StoreError> {
        let Some(Value::Array(rows)) = self.items.get(at) else { return Err(self.strange()) };
        Ok(rows.iter().map(|row| Self::new(&self.address, row.clone())).collect())
    }

    pub(super) fn row(&self, at: usize) -> Result<Self, StoreError> {
        let row = self.items.get(at).ok_or_else(|| self.strange())?;
        Ok(Self::new(&self.address, row.clone()))
    }

    pub(super) fn refused(&self, at: usize) -> Result<Refused, StoreError> {
        let word = self.word(at)?;
        let found = Refused::ALL.into_iter().find(|refused| refused.as_str() == word);
        found.ok_or_else(|| self.strange())
    }

    /// Why a claim is no longer its worker's; `None` if it is.
    pub(super) fn lost(&self, at: usize) -> Result<Option<Lost>, StoreError> {
        let word = self.word(at)?;
        let all = [Lost::Unknown, Lost::TakenOver, Lost::Done, Lost::InDoubt];
        Ok(all.into_iter().find(|lost| lost.as_str() == word))
    }

    pub(super) fn word(&self, at: usize) -> Result<&str, StoreError> {
        match self.items.get(at) {
            Some(Value::BulkString(bytes)) => {
                std::str::from_utf8(bytes).map_err(|_| self.strange())
            }
            _ => Err(self.strange()),
        }
    }

    pub(super) fn number(&self, at: usize) -> Result<u64, StoreError> {
        match self.items.get(at) {
            Some(Value::Int(number)) => Ok(u64::try_from(*number).unwrap_or_default()),
            Some(Value::BulkString(bytes)) => {
                let text = std::str::from_utf8(bytes).ok();
                text.and_then(|text| text.parse().ok()).ok_or_else(|| self.strange())
            }
            Some(Value::Nil) => Ok(0),
            _ => Err(self.strange()),
        }
    }
}
