//! Component types and their hosts; groups and their members.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agents::KeySuite;

/// Members that one request adds at the most.
pub const MAX_MEMBERS: usize = 1000;

/// Adds a component type, or another host of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddComponentRequest {
    /// The type, such as `conductor`.
    #[schema(example = "conductor")]
    pub name: String,
    /// Which host its key file is for; `<name>-1` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The suite of the type's key.
    #[serde(default)]
    pub suite: KeySuite,
}

/// A host of a component type, with its key file. Whoever has that is this host: keep it secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddedComponent {
    /// The type.
    pub name: String,
    /// The host.
    pub instance: String,
    /// Whether the type is new.
    pub new: bool,
    /// What the key file holds.
    pub key_file: String,
    /// Whether the type has no database role yet, though others do.
    pub database_role_missing: bool,
}

impl std::fmt::Debug for AddedComponent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddedComponent")
            .field("name", &self.name)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// A component type with a new key to receive with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RotatedComponent {
    /// The type.
    pub name: String,
    /// The new key's epoch.
    pub epoch: u64,
    /// The new key's id.
    pub kid: String,
    /// When the new key runs out.
    pub expires_ms: u64,
}

/// A host that was revoked, and what was made new because of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedHost {
    /// The type.
    pub name: String,
    /// The host.
    pub instance: String,
    /// The ids of its signing keys.
    pub kids: Vec<String>,
    /// The epoch of the type's new key to receive with.
    pub epoch: u64,
    /// The epoch of the type's new pair keys with agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair_epoch: Option<u64>,
    /// Groups that got new keys.
    pub groups_rekeyed: Vec<String>,
}

/// Adds a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddGroupRequest {
    /// Its name.
    #[schema(example = "rack-7")]
    pub name: String,
    /// Its first members, `agent/<id>` or `component/<type>`.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub members: Vec<String>,
}

/// Adds members to a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMembersRequest {
    /// `agent/<id>` or `component/<type>`.
    #[schema(min_items = 1, max_items = 1000)]
    pub members: Vec<String>,
}

/// A group that was added or got members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExtendedGroup {
    /// Its name.
    pub name: String,
    /// Whether it is new.
    pub new: bool,
    /// Who was not in it before.
    pub added: Vec<String>,
    /// Why members' broker users may not listen to it yet: then `bulla broker sync`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_problem: Option<String>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// `agent/<id>` or `component/<type>`.
    pub principal: String,
}
