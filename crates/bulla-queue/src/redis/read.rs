//! What scripts answer.

use redis::Value;

use crate::id::Id;
use crate::store::{Message, StoreError};

/// Bytes of a message's state: see `lua/begin.lua`.
const STATE: usize = 64;
/// Bytes of a claim's record before the places of its messages.
const RECORD: usize = 28;

/// The items of an answer.
pub(super) struct Reader {
    at: String,
    items: Vec<Value>,
}

impl Reader {
    pub(super) fn new(at: &str, value: Value) -> Self {
        let items = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        Self { at: at.to_owned(), items }
    }

    pub(super) fn strange(&self) -> StoreError {
        let why = "it answers what no script of this program says".to_owned();
        StoreError::Foreign { at: self.at.clone(), why }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        match self.items.get(at) {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(Value::Nil) | None => Ok(None),
            _ => Err(self.strange()),
        }
    }

    pub(super) fn text(&self, at: usize) -> Result<Option<&str>, StoreError> {
        let text = self.bytes(at)?.map(std::str::from_utf8).transpose();
        text.map_err(|_| self.strange())
    }

    pub(super) fn number(&self, at: usize) -> Result<u64, StoreError> {
        match self.items.get(at) {
            Some(Value::Int(number)) => u64::try_from(*number).map_err(|_| self.strange()),
            Some(Value::BulkString(_)) => {
                self.text(at)?.and_then(|text| text.parse().ok()).ok_or_else(|| self.strange())
            }
            _ => Err(self.strange()),
        }
    }

    /// A claim's time to live and beginning.
    pub(super) fn record(&self, at: usize) -> Result<(u32, u64), StoreError> {
        let bytes = self.bytes(at)?.unwrap_or_default();
        let read = |from: usize| bytes.get(from..).filter(|_| bytes.len() >= RECORD);
        let ttl = read(8).and_then(|rest| rest.first_chunk()).map(|ttl| u32::from_be_bytes(*ttl));
        let created = read(12).and_then(|rest| rest.first_chunk()).map(whole);
        ttl.zip(created).ok_or_else(|| self.strange())
    }

    /// The messages from here on.
    pub(super) fn messages(&self, from: usize) -> Result<Vec<Message>, StoreError> {
        let rest = self.items.get(from..).unwrap_or_default();
        let mut messages = Vec::with_capacity(rest.len() / 3);
        for at in (from..self.items.len()).step_by(3) {
            let seq = self.number(at)?;
            let state = self.bytes(at + 1)?.unwrap_or_default();
            let state: &[u8; STATE] = state.try_into().map_err(|_| self.strange())?;
            let body = self.text(at + 2)?.ok_or_else(|| self.strange())?.to_owned();
            messages.push(message(seq, state, body));
        }
        Ok(messages)
    }
}

fn message(seq: u64, state: &[u8; STATE], body: String) -> Message {
    let eight = |from: usize| {
        let bytes = state.get(from..).and_then(|rest| rest.first_chunk::<8>());
        bytes.copied().unwrap_or_default()
    };
    let four = |from: usize| {
        let bytes = state.get(from..).and_then(|rest| rest.first_chunk::<4>());
        u32::from_be_bytes(bytes.copied().unwrap_or_default())
    };
    let (claim, claim_tag) = (u64::from_be_bytes(eight(48)), u64::from_be_bytes(eight(56)));
    Message {
        id: Id::from_parts(seq, u64::from_be_bytes(eight(0))),
        body,
        ttl: four(24),
        created: whole(&eight(32)),
        claim: (claim != 0).then(|| Id::from_parts(claim, claim_tag)),
        claims: four(28),
    }
}

/// A whole number, kept as a double, which is exact up to 2⁵³.
fn whole(bytes: &[u8; 8]) -> u64 {
    // Negative numbers and such become 0.
    f64::from_be_bytes(*bytes) as u64
}
