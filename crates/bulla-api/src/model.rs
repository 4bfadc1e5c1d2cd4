//! What goes over the API, both ways. Times are Unix times in milliseconds, durations
//! milliseconds, bytes are hexadecimal.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// How long a call waits if its request does not say: oslo.messaging's `rpc_response_timeout`.
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that a message may live (protocol section 7: `exp` ≤ 24 h after `iat`).
pub const MAX_LIFETIME: Duration = Duration::from_secs(86_400);
/// Entries of a page if the request does not say.
pub const DEFAULT_PAGE: u32 = 100;
/// Entries of a page at the most.
pub const MAX_PAGE: u32 = 1000;

/// A call: one message, one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CallRequest {
    /// `agent/<id>` or `component/<type>`.
    #[schema(example = "agent/local")]
    pub target: String,
    /// The method's namespace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "agent")]
    pub namespace: Option<String>,
    /// The method.
    #[schema(min_length = 1, example = "ping")]
    pub method: String,
    /// The least version of the method's interface, `major.minor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The method's arguments; an empty object if left out.
    #[serde(default = "no_args")]
    pub args: Value,
    /// The request context that goes along, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// How long to wait for the answer, 1 ms to 24 hours; 60 s if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
}

/// A message that nobody answers: to one receiver (cast) or to a group (fanout).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CastRequest {
    /// `agent/<id>` or `component/<type>` for a cast, `group/<name>` for a fanout.
    pub target: String,
    /// The method's namespace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "agent")]
    pub namespace: Option<String>,
    /// The method.
    #[schema(min_length = 1, example = "ping")]
    pub method: String,
    /// The least version of the method's interface, `major.minor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The method's arguments; an empty object if left out.
    #[serde(default = "no_args")]
    pub args: Value,
    /// The request context that goes along, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// How long the message may wait for its receiver, 1 ms to 24 hours; one hour if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub ttl_ms: Option<u64>,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CallAnswer {
    /// The value that the method returned.
    pub value: Value,
}

/// A message was handed to the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sent {
    /// The message's id, by which the receiver's journal names it (32 hexadecimal digits).
    pub message_id: String,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageRequest {
    /// Begin behind this place: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Entries at the most, 1 to 1000; 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A part of a list, ordered by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// What to ask for next, as `after`: it means nothing by itself. Absent on the last page.
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How a principal proves who it is (protocol section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// Ed25519 and a KEM key of its own.
    Pair,
    /// One symmetric key that the keystore holds too.
    Shared,
}

/// Whether a principal may take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It may.
    Active,
    /// Its credential ran out.
    Expired,
    /// It was revoked.
    Revoked,
}

/// An agent as the keystore knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its id: `agent/<id>` is its short name.
    pub id: String,
    /// Its SPIFFE ID.
    pub principal: String,
    /// Rises whenever the name is given out again.
    pub incarnation: u64,
    /// How it proves who it is.
    pub key_type: KeyType,
    /// The key's epoch.
    pub epoch: u64,
    /// The id of its key as the bus sees it (16 hexadecimal digits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Whether it may take part.
    pub state: State,
    /// When it was added.
    pub created_ms: u64,
    /// When its credential runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// The groups that it is a member of.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// A component type of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Component {
    /// Its type: `component/<name>` is its short name.
    pub name: String,
    /// Its SPIFFE ID.
    pub principal: String,
    /// Rises whenever the name is given out again.
    pub incarnation: u64,
    /// The epoch of its audience key.
    pub epoch: u64,
    /// Whether it may take part.
    pub state: State,
    /// When it was added.
    pub created_ms: u64,
    /// When its credential runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// A group that fanouts go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its name: `group/<name>` is the target.
    pub name: String,
    /// The epoch of its key.
    pub epoch: u64,
    /// How many members it has.
    pub members: u64,
    /// Whether every agent is in it, without being added.
    pub every_agent: bool,
}

/// How the control plane is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The SPIFFE trust domain.
    pub trust_domain: String,
    /// In whose name it calls, `component/<type>`.
    pub component: String,
    /// When this process started.
    pub started_ms: u64,
    /// The bus.
    pub bus: BusStatus,
}

/// How the bus is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BusStatus {
    /// Its address without credentials, or `memory`.
    pub address: String,
    /// Whether messages can be sent at this moment.
    pub connected: bool,
    /// What is wrong if they can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One message as the bus sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TapEvent {
    /// When it passed.
    pub time_ms: u64,
    /// The queue or routing key.
    pub queue: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its kid or session id, if the bytes are a frame (hexadecimal).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Whether an offer stands beside the envelope.
    #[serde(default)]
    pub offer: bool,
    /// Its first bytes (hexadecimal).
    pub head: String,
}

/// What a tap yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapItem {
    /// A message.
    Seen(TapEvent),
    /// This many messages passed faster than they were read.
    Missed(u64),
}

impl CallRequest {
    /// A call without arguments.
    #[must_use]
    pub fn new(target: impl Into<String>, method: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            namespace: None,
            method: method.into(),
            version: None,
            args: no_args(),
            context: None,
            timeout_ms: None,
        }
    }

    /// How long to wait for the answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout_ms.map_or(DEFAULT_CALL_TIMEOUT, Duration::from_millis)
    }
}

impl CastRequest {
    /// A cast without arguments.
    #[must_use]
    pub fn new(target: impl Into<String>, method: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            namespace: None,
            method: method.into(),
            version: None,
            args: no_args(),
            context: None,
            ttl_ms: None,
        }
    }

    /// How long the message may wait, if the request says.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl_ms.map(Duration::from_millis)
    }
}

impl PageRequest {
    /// Entries at the most, within 1 and [`MAX_PAGE`].
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE)
    }
}

fn no_args() -> Value {
    Value::Object(serde_json::Map::new())
}

fn nothing() -> Option<String> {
    None
}
