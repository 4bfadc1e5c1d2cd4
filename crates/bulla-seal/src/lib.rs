//! Sealed messages for RPC.
#![allow(missing_docs, reason = "being written")]
pub mod id;
pub mod principal;
pub mod wire;
pub use id::{Digest, Kid, MessageId, SessionId};
pub use principal::{GroupName, NameError, Party, Principal, PrincipalKind, TrustDomain};
pub use wire::{Level, MessageKind, Outcome, Suite, SuiteSet};
