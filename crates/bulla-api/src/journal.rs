//! The journals: what happened.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

/// Which records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JournalRequest {
    /// Begin behind this place: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Records at the most, 1 to 1000; 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Only of this journal, such as `control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
    /// Only of these events or classes, with commas between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only about this principal, such as `agent/db-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Only from this time on, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Only before this time, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// A record of a journal. It is not verified: that is for who has the files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JournalEntry {
    /// Which journal it is in.
    pub journal: String,
    /// Its number there.
    pub seq: u64,
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// The event's name.
    pub event: String,
    /// The event's class.
    pub class: String,
    /// Its other fields (docs/events.md).
    pub fields: Map<String, Value>,
}

/// A record as it comes on a stream, with the place to go on from.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalItem {
    /// What `Last-Event-ID` names.
    pub place: String,
    /// The record.
    pub entry: JournalEntry,
}

/// The newest checkpoint of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalCheckpoint {
    /// Which journal.
    pub journal: String,
    /// The signed note (C2SP tlog-checkpoint): `bulla audit verify --checkpoint` takes it.
    pub note: String,
}

/// The newest checkpoints. Keep copies elsewhere: they show when the end of a journal was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalCheckpoints {
    /// The public key that they are signed with (C2SP verifier key).
    pub public_key: String,
    /// One for each journal that has one.
    pub checkpoints: Vec<JournalCheckpoint>,
}
