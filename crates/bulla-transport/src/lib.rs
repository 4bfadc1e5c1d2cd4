//! How bytes travel between parties that do not trust what carries them.

pub mod address;
#[cfg(feature = "rabbit")]
mod amqp;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
pub mod foreign;
#[cfg(feature = "hostile")]
pub mod hostile;
mod login;
pub mod memory;
#[cfg(feature = "queue")]
pub mod queue;
#[cfg(feature = "rabbit")]
pub mod rabbit;
mod topology;
mod transport;

pub use address::{Address, CallTag, Inbox, ReplyName};
pub use error::{PublishError, TransportError};
pub use login::{Login, Logins, with_password};
pub use memory::{MemoryBus, MemoryTransport};
#[cfg(feature = "queue")]
pub use queue::{QueueOptions, QueueTransport, QueueUse, RequestKey};
#[cfg(feature = "rabbit")]
pub use rabbit::{RabbitOptions, RabbitTap, RabbitTransport};
pub use topology::ExchangeKind;
pub use transport::{
    Acker, Capabilities, ConsumeOptions, Consumer, DEFAULT_MAX_MESSAGE, Delivery, Outbound, Settle,
    Transport, TransportEvent, next_delivery,
};
