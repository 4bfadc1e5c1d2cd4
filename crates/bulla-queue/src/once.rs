//! Posts that come again: the same request with the same key is done once
//! (draft-ietf-httpapi-idempotency-key-header).

use aws_lc_rs::digest::{Context, SHA256};

use crate::id::Id;
use crate::name::Place;
use crate::record::{Record, RecordKind};
use crate::store::Millis;

/// How long it is known what was done, in milliseconds.
pub(crate) const KNOWN: Millis = 24 * 3600 * 1000;

/// A request that is to be done once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// A digest of who asks, and of the key that it made up.
    pub name: String,
    /// A digest of what is asked.
    pub digest: String,
    /// How long it is known that it was done.
    pub until: Millis,
}

/// What became of messages that were to be posted once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// They were posted.
    Now(Vec<Id>),
    /// They were posted before, with these ids.
    Before(Vec<Id>),
    /// Something else was posted with this key.
    Other,
    /// They are being posted, or whoever began that did not get to its end.
    Unknown,
}

impl Once {
    /// Of a key, and a body.
    pub(crate) fn new((by, key): (&str, &str), body: &[u8], now: Millis) -> Self {
        let name = digest(&[by.as_bytes(), key.as_bytes()]);
        Self { name, digest: digest(&[body]), until: now.saturating_add(KNOWN) }
    }

    /// The record of it; without ids while it is not known what became of it.
    #[must_use]
    pub fn record(&self, at: &Place, ids: &[Id]) -> Record {
        let ids: Vec<_> = ids.iter().map(Id::to_string).collect();
        Record {
            kind: RecordKind::Once,
            owner: at.owner(),
            name: self.name.clone(),
            value: format!("{} {}", self.digest, ids.join(",")),
            until: self.until,
        }
    }

    /// What a record that is there says of it.
    #[must_use]
    pub fn judge(&self, there: &Record) -> Posted {
        let (digest, ids) = there.value.split_once(' ').unwrap_or_default();
        if digest != self.digest {
            return Posted::Other;
        }
        let ids: Option<Vec<_>> = ids.split(',').map(Id::parse).collect();
        ids.map_or(Posted::Unknown, Posted::Before)
    }
}

fn digest(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    hex::encode(context.finish())
}
