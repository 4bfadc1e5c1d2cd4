//! A client of AMQP 0-9-1, as thin as a message's path allows (docs/adr/0013-amqp-client.md).
//!
//! A connection is two tasks. The reader takes what the broker sends apart and hands each message to
//! whoever consumes it; the writer sends what all others have put into one buffer, everything that is
//! there in one write. Who publishes puts frames into that buffer and is done: no message goes from
//! task to task on its way. A third task, which sleeps, keeps the heartbeat.
//!
//! ```text
//! Channel::publish ─► Outbox ─► writer ─► socket ─► reader ─► Chan ─► Deliveries::next
//! ```
//!
//! It speaks what [`rabbit`](crate::rabbit) needs and nothing more, and it believes nothing: a frame
//! that is larger than agreed, a method that nobody asked for, a body that is longer than its header
//! said end the connection. Restoring a connection is not its business.

mod channel;
mod confirms;
mod connection;
mod content;
mod error;
mod frame;
mod handshake;
mod method;
mod outbox;
mod read;
mod reader;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod uri;
mod write;

pub(crate) use channel::{Channel, Deliveries};
pub(crate) use confirms::Confirmation;
pub(crate) use connection::{Connection, Event};
pub(crate) use content::{Message, Publish};
pub(crate) use error::{AmqpError, DialError};
pub(crate) use handshake::{Credentials, Hello};
pub(crate) use method::{ExchangeDeclare, QueueDeclare, QueueState, Value};
pub(crate) use stream::Stream;
pub(crate) use uri::{Mechanism, Uri};
