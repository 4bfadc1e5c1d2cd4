//! Methods that every server has, in the namespace `bulla`.

use serde::{Deserialize, Serialize};

/// Their namespace.
pub const NAMESPACE: &str = "bulla";
/// Stops a running method of the same caller: arguments [`Cancel`].
pub const CANCEL: &str = "cancel";

/// Brings a statement of revocation beside it, and nothing else: nothing is run.
pub const STATEMENT: &str = "statement";

/// Names the request to stop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cancel {
    /// The request's message id, in hexadecimal.
    pub message: String,
}
