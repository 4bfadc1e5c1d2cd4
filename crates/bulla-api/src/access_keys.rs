//! Access keys of operators and programs; and what is wrong with a deployment.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An access key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessKey {
    /// Its id, which is no secret.
    pub id: String,
    /// Whose it is, `operator/<name>` or `program/<name>`.
    pub user: String,
    /// When it was made.
    pub created_ms: u64,
    /// When it was last used, as far as that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_ms: Option<u64>,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Whether it is refused for now.
    pub disabled: bool,
}

/// Makes an access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAccessKeyRequest {
    /// Whose: `operator/<name>` for a person, `program/<name>` for anything else.
    #[schema(example = "operator/ada")]
    pub user: String,
    /// When it ends; never if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// A new access key. Its secret is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddedAccessKey {
    /// What lists show of it.
    #[serde(flatten)]
    pub key: AccessKey,
    /// What requests are signed with.
    pub secret_key: String,
}

impl std::fmt::Debug for AddedAccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddedAccessKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Changes an access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeAccessKeyRequest {
    /// Whether it is refused from now on, or taken again.
    pub disabled: bool,
}

/// An access key that was changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedAccessKey {
    /// Its id.
    pub id: String,
    /// Whether it is refused for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Whether it was removed.
    #[serde(default)]
    pub removed: bool,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// It is as it should be.
    Good,
    /// Worth knowing.
    Note,
    /// It is wrong.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What.
    pub what: String,
    /// How much it matters.
    pub grade: Grade,
    /// How it is, and what to do.
    pub text: String,
}

/// What is wrong with the deployment, as far as this process can see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Examination {
    /// Whether nothing is.
    pub good: bool,
    /// Everything that was looked at.
    pub findings: Vec<Finding>,
}
