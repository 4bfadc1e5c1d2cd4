//! Methods that every server has, in the namespace `bulla`.

use serde::{Deserialize, Serialize};

/// Their namespace.
pub const NAMESPACE: &str = "bulla";
/// Stops a running method of the same caller: arguments [`Cancel`].
pub const CANCEL: &str = "cancel";

/// Brings a statement of revocation beside it, and nothing else: nothing is run.
pub const STATEMENT: &str = "statement";

/// Has an agent renew its keys now: [`Renew`] to [`Renewed`]. For the control plane alone.
pub const RENEW: &str = "renew";

/// Tells an agent of a policy: [`PolicyNews`] to nothing. For the control plane alone.
pub const POLICY: &str = "policy";

/// What the operator says of policies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyNews {
    /// The document as signed, in base64: it proves itself.
    pub policy: String,
}

/// Which keys to renew.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Renew {
    /// Those that were issued by then, in Unix seconds; all if absent. A request that comes twice
    /// renews once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_by: Option<u64>,
}

/// Which keys there are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// Whether they were renewed for this request.
    pub renewed: bool,
    /// The credential's kid.
    pub kid: String,
    /// Its epoch.
    pub epoch: u32,
    /// When it ends, in Unix seconds.
    pub expires: u64,
}

/// Names the request to stop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cancel {
    /// The request's message id, in hexadecimal.
    pub message: String,
}
