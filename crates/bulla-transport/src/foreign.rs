//! Exchanges and queues whose names and flags somebody else decided: those of oslo.messaging's peers.
//! Everything about them is said where they are used; nothing here follows from the topology.

use std::sync::Arc;

/// The content type of what is published to such an address.
pub const CONTENT_TYPE: &str = "application/json";
/// Its content encoding.
pub const CONTENT_ENCODING: &str = "utf-8";

/// An exchange.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForeignExchange {
    /// Its name.
    pub name: String,
    /// Gives every message to all of its queues; else it goes by the routing key.
    pub fanout: bool,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// Gone with its last queue.
    pub auto_delete: bool,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForeignQueue {
    /// Its name.
    pub name: String,
    /// The exchange that it is bound to, and the key; `None` if it is reached by its name.
    pub bound: Option<(Arc<ForeignExchange>, String)>,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// Gone with its last consumer.
    pub auto_delete: bool,
    /// This process's own: it is not declared again once its consumer stopped.
    pub own: bool,
    /// Its arguments.
    pub arguments: Vec<(String, Argument)>,
    /// Arguments of consuming from it.
    pub consume: Vec<(String, Argument)>,
}

impl ForeignQueue {
    /// The exchange and the key that messages to it are published with: `None` is the default exchange.
    pub fn route(&self) -> (Option<&Arc<ForeignExchange>>, &str) {
        match &self.bound {
            Some((exchange, key)) => (Some(exchange), key),
            None => (None, &self.name),
        }
    }
}

/// An argument of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Argument {
    /// A number.
    Number(i32),
    /// Text.
    Text(String),
}
