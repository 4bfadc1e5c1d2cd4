//! How bytes travel between parties that do not trust what carries them.

pub mod address;
mod error;
mod transport;

pub use address::{Address, Inbox, ReplyName};
pub use error::{PublishError, TransportError};
pub use transport::{
    Acker, Capabilities, ConsumeOptions, Consumer, Delivery, Outbound, Settle, Transport,
    TransportEvent,
};
