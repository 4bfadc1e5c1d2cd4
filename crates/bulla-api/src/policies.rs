//! Policies: who may call what.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Largest text of a policy, in bytes.
pub const MAX_POLICY: usize = 4 << 20;

/// Which policy counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyStanding {
    /// The version that is active; 0 is the built-in rule.
    pub active: u32,
    /// Rises with every change.
    pub sequence: u64,
    /// Whether another judges in the shadow.
    pub shadow: bool,
}

/// Where a version came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyOrigin {
    /// An operator activated it.
    Command,
    /// The file that the settings name.
    File,
    /// It says again what an earlier one said.
    RollBack,
}

/// A version of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersion {
    /// Its number, from 1.
    pub version: u32,
    /// Whether it is the one that counts.
    pub active: bool,
    /// Where it came from.
    pub origin: PolicyOrigin,
    /// The version that it says again; 0 is the built-in rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_of: Option<u32>,
    /// When it was activated.
    pub created_ms: u64,
    /// Its text in Cedar, where one version is asked for. Absent for the built-in rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// The text of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySource {
    /// In Cedar, up to 4 MiB.
    #[schema(max_length = 4_194_304)]
    pub source: String,
}

/// A mistake in a policy, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyMistake {
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What a sender reaches by one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyReach {
    /// Who sends.
    pub from: String,
    /// Who receives; `group/<name>` of a fanout by the API, `component/control` of its own operations.
    pub to: String,
    /// `permit` or `forbid`.
    pub effect: String,
    /// `call`, `cast`, `fanout`, `reply-progress`.
    pub actions: Vec<String>,
    /// The method; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What has to hold.
    pub conditions: Vec<String>,
    /// The rule's id.
    pub rule: String,
}

/// What there is to say of a policy before it is activated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyCheck {
    /// Whether it can be activated.
    pub good: bool,
    /// Why not.
    pub mistakes: Vec<PolicyMistake>,
    /// How many rules it has.
    pub rules: u64,
    /// Its size as receivers get it, in bytes.
    pub bytes: u64,
    /// Who reaches what by it; whoever is not listed reaches nothing.
    pub reach: Vec<PolicyReach>,
}

/// One request, to be judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExplainRequest {
    /// Who sends, `agent/<id>` or `component/<type>`; or a user of the API, `operator/<name>`,
    /// `program/<name>` or `user/<name>@<domain>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "agent/db-1")]
    pub from: Option<String>,
    /// The roles of the sender's credential, or that the settings give a user of the API.
    pub roles: Vec<String>,
    /// The project that the token of a user of Keystone's is for.
    pub projects: Vec<String>,
    /// The groups that the sender is in.
    pub groups: Vec<String>,
    /// Who receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "component/conductor")]
    pub to: Option<String>,
    /// `call` (if left out), `cast`, `fanout` or `reply-progress`; of users of the API `api:call` (if
    /// left out), `api:cast`, `api:fanout`, `api:read`, `api:manage` or `api:watch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `namespace.method`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "instance.report")]
    pub method: Option<String>,
    /// The method's version, `1.0` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Value>,
    /// The exchange, if it is not the deployment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// The topic, if it is not the receiver's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Whether the receiver opened the method to agents.
    pub open_to_agents: bool,
    /// Whether the receiver opened the method to components.
    pub open_to_components: bool,
    /// Whether the method changes nothing.
    pub read_only: bool,
    /// The time to judge at, in Unix seconds; now if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<u64>,
    /// A policy to judge by instead of the active one, in Cedar.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4_194_304)]
    pub source: Option<String>,
}

/// How a rule stands to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleStanding {
    /// The rule's id.
    pub rule: String,
    /// `permit` or `forbid`.
    pub effect: String,
    /// `holds`, `fails`, `elsewhere` (it is about something else) or `faulty` (it can't be judged).
    pub stands: String,
    /// In words.
    pub why: String,
}

/// How a request is judged, and what would have to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// By which policy.
    pub policy: String,
    /// The decision.
    pub allowed: bool,
    /// The rule that decided.
    pub rule: String,
    /// What to change for the other decision, each a way of its own.
    pub to_change: Vec<String>,
    /// Every rule.
    pub rules: Vec<RuleStanding>,
}

/// Goes back to an earlier version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBackRequest {
    /// Which, 0 for the built-in rule; the one before the active one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// What counts now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyChange {
    /// The version that is active; 0 is the built-in rule.
    pub version: u32,
    /// Rises with every change.
    pub sequence: u64,
    /// The version that it says again; 0 is the built-in rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_of: Option<u32>,
}

/// The policy in the shadow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowStanding {
    /// Whether one judges there.
    pub shadow: bool,
    /// Rises with every change.
    pub sequence: u64,
    /// Its text in Cedar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What the policy in the shadow would decide otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Who sent; empty for several.
    pub sender: String,
    /// `namespace.method`; empty for several.
    pub method: String,
    /// Who received.
    pub receiver: String,
    /// What was decided.
    pub allowed: bool,
    /// By which rule.
    pub rule: String,
    /// By which rule it would be decided otherwise.
    pub candidate_rule: String,
    /// How often.
    pub count: u64,
    /// When last.
    pub last_ms: u64,
}
