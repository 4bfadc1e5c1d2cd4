//! Sealed RPC.
pub use bulla_rpc::*;
