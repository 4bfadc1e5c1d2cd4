//! Records: small things that a store keeps beside its queues.

use crate::store::Millis;

/// A record that does not end.
pub const NEVER: Millis = i64::MAX as Millis;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A subscription of a queue, by its id.
    Subscription,
    /// Which subscription of a queue a subscriber has.
    Subscriber,
    /// A pool, by its name.
    Pool,
    /// A project's flavor, by its name.
    Flavor,
    /// The outcome of a request that may come again, by the key that its client made up.
    Once,
    /// Which pools have the queues.
    Layout,
    /// The flavor of a queue that names one, by the queue.
    Flavored,
    /// Another queue in which an encrypted queue's messages may be, by its name.
    Way,
}

impl RecordKind {
    /// As stores write it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Subscription => "subscription",
            Self::Subscriber => "subscriber",
            Self::Pool => "pool",
            Self::Flavor => "flavor",
            Self::Once => "once",
            Self::Layout => "layout",
            Self::Flavored => "flavored",
            Self::Way => "way",
        }
    }
}

/// A record. Kind, owner and name together are its own; texts without NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub kind: RecordKind,
    /// Of what: a queue (see [`Place::owner`](crate::Place::owner)), a project, or nothing.
    pub owner: String,
    /// Which of its owner's.
    pub name: String,
    /// JSON, or any text.
    pub value: String,
    /// From when on it is not there any more; [`NEVER`].
    pub until: Millis,
}

/// What has to be there for a record to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// Whatever is.
    Any,
    /// Nothing.
    Nothing,
    /// One with this value.
    Value(String),
}

impl Before {
    /// Whether this is there.
    #[must_use]
    pub fn is(&self, there: Option<&Record>) -> bool {
        match self {
            Self::Any => true,
            Self::Nothing => there.is_none(),
            Self::Value(value) => there.is_some_and(|record| record.value == *value),
        }
    }
}
