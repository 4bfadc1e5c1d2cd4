//! oslo.messaging's wire form over RabbitMQ: as a carrier of sealed messages, and towards peers that
//! do not seal yet.
//!
//! # What it is
//!
//! - [`OsloTransport`]: the oslo carrier, with the names and flags of [`Queues`]: sealed messages over
//!   oslo.messaging's exchanges and queues, in bodies that its driver takes.
//! - [`Carriers`]: that carrier beside the native one, for a service whose control plane is on the native.
//! - [`LegacyReader`] and [`ClearClient`]: peers that do not seal, in clear or with Trove's serializer
//!   ([`legacy`]). Only what an exemption of the operator's names, for a time, in either direction.
//! - [`wire`]: the bodies of messages, read strictly and written as oslo.messaging writes them: sealed
//!   ones (section 19 of `docs/protocol.md`), and those of peers that do not seal.
//!
//! # What it is not
//!
//! It decides nothing about trust. What is outside of the seal routes and is believed by nobody.

mod carriers;
mod clear;
mod digest;
mod ids;
pub mod legacy;
mod queues;
mod transport;
pub mod wire;

pub use carriers::Carriers;
pub use clear::{
    ClearClient, ClearError, ClearRequest, Form, LegacyPeer, LegacyReader, Peer, Rule,
};
pub use ids::Ids;
pub use legacy::{LegacyFile, LegacyFileError};
pub use queues::Queues;
pub use transport::OsloTransport;
