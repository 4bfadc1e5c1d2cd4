//! Agents: adding, showing, revoking and rotating them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Agent, KeyType};

/// Agents that one request adds at the most: they are added in one transaction.
pub const MAX_ADDED: usize = 500;

/// What an agent starts with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartsWith {
    /// A one-time token: the agent makes its keys itself.
    #[default]
    Token,
    /// Its keys.
    Key,
}

/// The suite of a key pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeySuite {
    /// X25519.
    #[default]
    X25519,
    /// X25519 and ML-KEM-768: also holds against a quantum computer.
    XWing,
}

/// How the file that an agent starts with is packed for its way there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileFormat {
    /// As it is.
    #[default]
    File,
    /// User data for cloud-init, which writes the file on the agent's machine.
    CloudInit,
    /// The content of a config drive: several files.
    ConfigDrive,
    /// A fragment for Trove's guest_info.conf.
    Trove,
}

/// Adds agents, all of them or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAgentsRequest {
    /// Their ids, such as `db-1`: 1 to 500.
    #[schema(min_items = 1, max_items = 500, example = json!(["db-1"]))]
    pub ids: Vec<String>,
    /// What they start with.
    #[serde(default)]
    pub starts_with: StartsWith,
    /// A key pair, or a key that the keystore holds too (which comes as `key` only).
    #[serde(default = "pair")]
    pub key_type: KeyType,
    /// The suite of a key pair.
    #[serde(default)]
    pub suite: KeySuite,
    /// How long a token is good, in seconds: 600 to 3600.
    #[serde(default = "half_an_hour")]
    #[schema(minimum = 600, maximum = 3600)]
    pub expires_s: u64,
    /// How the file is packed.
    #[serde(default)]
    pub format: FileFormat,
}

/// Lets an agent join again: one that did not join yet, was off for longer than its keys live, or
/// is in quarantine. What it had before is worth nothing then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejoinRequest {
    /// The suite of its key pair.
    #[serde(default)]
    pub suite: KeySuite,
    /// How long the token is good, in seconds: 600 to 3600.
    #[serde(default = "half_an_hour")]
    #[schema(minimum = 600, maximum = 3600)]
    pub expires_s: u64,
    /// How the file is packed.
    #[serde(default)]
    pub format: FileFormat,
}

/// A file that an agent starts with. Whoever has it can be that agent: keep it secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentFile {
    /// Its name; with folders in it for a config drive.
    pub name: String,
    /// Its content.
    pub content: String,
}

impl std::fmt::Debug for AgentFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An agent that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddedAgent {
    /// Its id.
    pub id: String,
    /// What it starts with.
    pub starts_with: StartsWith,
    /// How it proves who it is.
    pub key_type: KeyType,
    /// When its token runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// What to take to it.
    pub files: Vec<AgentFile>,
}

/// Agents that were added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddedAgents {
    /// In the order in which they were asked for.
    pub agents: Vec<AddedAgent>,
}

/// How far an agent that came with a token has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JoinWord {
    /// Its token waits for it.
    Invited,
    /// Its token was not used in time.
    Expired,
    /// It joined.
    Joined,
    /// There are two copies of it, or of its join file: its credentials are revoked until it is
    /// let join again.
    Quarantined,
}

/// What a credential is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialUse {
    /// Nothing.
    Revoked,
    /// Issued; the agent has not said yet that it has it.
    Announced,
    /// It is the present one.
    InUse,
    /// Followed by another; what was sealed to it is still opened.
    Former,
}

/// A credential of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentCredential {
    /// The id of its key (16 hexadecimal digits).
    pub kid: String,
    /// The key's epoch.
    pub epoch: u64,
    /// What it is good for.
    #[serde(rename = "use")]
    pub used: CredentialUse,
    /// When it was issued.
    pub issued_ms: u64,
    /// When it runs out.
    pub expires_ms: u64,
    /// When the agent destroys its key.
    pub destroyed_ms: u64,
}

/// A key that an agent has with one component type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentPair {
    /// `component/<type>`.
    pub component: String,
    /// The key's id.
    pub kid: String,
    /// The key's epoch.
    pub epoch: u64,
}

/// The key that an agent shares with the keystore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedKey {
    /// Its epoch.
    pub epoch: u64,
    /// Since when.
    pub since_ms: u64,
}

/// The floor of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentFloor {
    /// The lowest level that is accepted from it.
    pub accepts: String,
    /// The level that is sent to it.
    pub sends: String,
    /// A floor that is rehearsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// An agent's last message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastSeen {
    /// When it came.
    pub at_ms: u64,
    /// `namespace.method`.
    pub method: String,
    /// Its level.
    pub level: String,
}

/// Everything about one agent's keys, and no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentDetails {
    /// What lists show of it.
    #[serde(flatten)]
    pub agent: Agent,
    /// The suite of its key.
    pub suite: String,
    /// How far it has got, if it came with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinWord>,
    /// How often two copies of it were found.
    pub alarms: u64,
    /// Its credentials, the newest first.
    pub credentials: Vec<AgentCredential>,
    /// How often it renewed its keys.
    pub renewals: u64,
    /// When it last did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_ms: Option<u64>,
    /// When it is due next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_renewal_ms: Option<u64>,
    /// The key that it shares with the keystore, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_key: Option<SharedKey>,
    /// The keys that were made from that.
    pub pairs: Vec<AgentPair>,
    /// Its floor, once it sent something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<AgentFloor>,
    /// Its last message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<LastSeen>,
}

/// What became of a broker user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerUser {
    /// It is gone, and its connections are closed.
    Removed,
    /// There was none.
    None,
    /// It could not be removed: revoke the agent again once the broker answers.
    NotRemoved,
    /// The control plane does not manage the broker's users.
    Unmanaged,
}

/// An agent that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedAgent {
    /// Its id.
    pub id: String,
    /// Which of its incarnations; absent if it was revoked before and only its broker user was
    /// left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// Groups that got new keys.
    pub groups_rekeyed: Vec<String>,
    /// Its broker user.
    pub broker_user: BrokerUser,
    /// Why its broker user could not be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_problem: Option<String>,
}

/// Has an agent renew its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateAgentRequest {
    /// How long to wait for it, 1 ms to 24 hours; 30 s if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// Leave its keys alone if they were issued after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_by_ms: Option<u64>,
}

/// What became of a request to renew keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// It has new keys.
    Rotated,
    /// It did not answer, and the request waits for it for a day.
    Away,
    /// It was never there: it renews at the half-life of its keys.
    NeverThere,
    /// It has no keys that are good: it did not join yet, or was off for too long.
    WithoutKeys,
    /// It could not.
    Failed,
}

/// What became of an agent that was to renew its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RotatedAgent {
    /// Its id.
    pub id: String,
    /// How it ended.
    pub outcome: Rotation,
    /// Why it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

fn pair() -> KeyType {
    KeyType::Pair
}

fn half_an_hour() -> u64 {
    1800
}
