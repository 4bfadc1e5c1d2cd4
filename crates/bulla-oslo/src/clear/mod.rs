//! Peers that do not seal. Nothing here is tried on its own: each peer and method is named by an exemption
//! of the operator's, with an end (section 14 of `docs/protocol.md`).

mod client;
mod reader;

pub use client::{ClearClient, ClearError, ClearRequest, Form, Peer};
pub use reader::{LegacyPeer, LegacyReader, Rule};
