//! Floors of peers, the census, and exemptions, as they go over the API (protocol section 8).
//! Levels are `plaintext`, `aes-cbc`, `signed` and `sealed`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is known of a peer's levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its short name, `agent/<id>` or `component/<type>`.
    pub principal: String,
    /// Rises whenever the name is given out again.
    pub incarnation: u64,
    /// The lowest level that is accepted from it.
    pub accepts: String,
    /// The level that is sent to it.
    pub sends: String,
    /// A floor that is rehearsed: what is below is counted and not refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What came from it.
    pub seen: Vec<Seen>,
    /// What it may do below its floor.
    pub exemptions: Vec<PeerExemption>,
}

/// Messages of one method and level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Seen {
    /// `namespace.method`; `*` for what had no row of its own.
    pub method: String,
    /// Their level.
    pub level: String,
    /// How many were accepted.
    pub count: u64,
    /// When the last came.
    pub last_ms: u64,
    /// How many of them were below the rehearsed floor, or let through by an exemption.
    pub below: u64,
    /// When the last of those came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_below_ms: Option<u64>,
}

/// An exemption from a peer's floor, for one method and a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerExemption {
    /// Names it (16 hexadecimal digits).
    pub id: String,
    /// Whose messages.
    pub principal: String,
    /// `namespace.method`, or the method alone.
    pub method: String,
    /// The lowest level that is let through.
    pub level: String,
    /// When it ends.
    pub until_ms: u64,
    /// Whether it holds now.
    pub live: bool,
}

/// Gives an exemption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExemptRequest {
    /// `agent/<id>` or `component/<type>`.
    pub principal: String,
    /// `namespace.method`, or the method alone.
    pub method: String,
    /// The lowest level that is let through.
    pub level: String,
    /// When it ends; at most 90 days from now.
    pub until_ms: u64,
}

/// Raises a peer's floor, or rehearses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RaiseRequest {
    /// `agent/<id>` or `component/<type>`.
    pub principal: String,
    /// The new floor.
    pub level: String,
    /// Only count what would be refused.
    #[serde(default)]
    pub shadow: bool,
}

/// An exemption was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TakenBack {
    /// Which.
    pub id: String,
}
