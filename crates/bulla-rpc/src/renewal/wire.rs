//! The methods by which credentials are renewed, version 1.0 of namespace `renewal` at
//! `component/control`, and what they take and give. Binary values are base64, kids 16 hexadecimal
//! digits.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Their namespace.
pub const NAMESPACE: &str = "renewal";
/// An agent's next credential: [`RenewArgs`] to [`RenewAnswer`].
pub const AGENT: &str = "agent";
/// The agent has its next credential and receives under it: [`HoldArgs`] to nothing.
pub const HOLD: &str = "hold";
/// The password of the agent's own broker user: [`LoginArgs`] to [`LoginAnswer`].
pub const LOGIN: &str = "login";
/// A component host's next signing credential: [`RenewArgs`] to [`RenewAnswer`].
pub const HOST: &str = "host";
/// What a component type receives with: [`ReceiveArgs`] to [`ReceiveAnswer`].
pub const RECEIVE: &str = "receive";

/// A request to renew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewArgs {
    /// [`RenewalClaims`](bulla_seal::RenewalClaims) as the new key signed them.
    pub request: String,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// The credential as signed.
    pub credential: String,
    /// Credentials of peers to know: the control plane's newest.
    #[serde(default)]
    pub peers: Vec<String>,
    /// The agent's own broker user, if it has one whose password it is to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_user: Option<String>,
}

/// Which credential is held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldArgs {
    /// Its kid.
    pub kid: String,
}

/// The broker password that an agent made for itself.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct LoginArgs {
    /// The kid of its present credential.
    pub kid: String,
    /// The password: 32 bytes in base64url without padding.
    pub password: String,
    /// Whether the connection that it asks over was opened with it. If not, all its connections are
    /// closed once the broker has the password, so that nobody stays who has only the former one.
    pub used: bool,
}

impl fmt::Debug for LoginArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginArgs({}, ..)", self.kid)
    }
}

/// What became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoginAnswer {
    /// Whether the broker has it. If not, somebody else is logged in as this agent: it is to ask
    /// again later, and goes on with the former one meanwhile.
    pub done: bool,
}

/// What a host has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReceiveArgs {
    /// The kids of the audience credentials that it receives under.
    pub have: Vec<String>,
}

/// What it is to have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReceiveAnswer {
    /// Every key of its type, newest first; `None` if that is what it has.
    pub keys: Option<Vec<AudienceKey>>,
}

/// A key to receive with.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct AudienceKey {
    /// `x25519` or `x-wing`.
    pub suite: String,
    /// The private key.
    pub key: String,
    /// Its credential.
    pub credential: String,
}

impl fmt::Debug for AudienceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AudienceKey({}, ..)", self.suite)
    }
}
