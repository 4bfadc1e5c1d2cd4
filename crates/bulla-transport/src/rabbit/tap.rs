//! What a broker sees, taken from the broker itself: a queue of our own bound to everything.

use std::time::SystemTime;

use super::declare::{Confined, exchange};
use super::dial::dial;
use super::options::RabbitOptions;
use crate::address::Address;
use crate::amqp::{AmqpError, Channel, Connection, Deliveries, QueueDeclare};
use crate::error::TransportError;
use crate::memory::Tapped;

/// A live copy of what is published to agents, of replies, and of what goes to some other topics.
/// Needs a broker user that may bind to them, as an operator's may and an agent's may not.
pub struct RabbitTap {
    // Held open: closing it ends the consumer.
    _channel: Channel,
    deliveries: Deliveries,
}

impl RabbitTap {
    /// Watches, of the control exchange `name`, what goes to agents, requests to join, replies, and
    /// each of `topics`: `component.…`, or that of a group's fanouts.
    pub async fn open(
        options: &RabbitOptions,
        name: &str,
        topics: &[String],
    ) -> Result<Self, TransportError> {
        let (connection, _) = dial(options).await?;
        let (exchanges, confined) = (watched(name, topics), Confined::default());
        for (name, fanout) in &exchanges {
            exchange(&connection, &confined, name, *fanout).await?;
        }
        let consuming = Self::consume(&connection, &exchanges).await.map_err(|error| {
            TransportError::Refused {
                what: "to watch the exchanges".into(),
                why: error.to_string(),
            }
        })?;
        Ok(Self { _channel: consuming.0, deliveries: consuming.1 })
    }

    async fn consume(
        connection: &Connection,
        exchanges: &[(String, bool)],
    ) -> Result<(Channel, Deliveries), AmqpError> {
        let channel = connection.channel().await?;
        let queue = QueueDeclare { exclusive: true, auto_delete: true, ..QueueDeclare::default() };
        let queue = channel.queue_declare(&queue).await?.name;
        for (name, _) in exchanges {
            channel.queue_bind(&queue, name, "#").await?;
        }
        let deliveries = channel.consume(&queue, 0, true, true, &[]).await?;
        Ok((channel, deliveries))
    }

    /// The next message; `None` when the connection is gone.
    pub async fn next(&mut self) -> Option<Tapped> {
        let message = self.deliveries.next().await?;
        let route = message.route?;
        Some(Tapped {
            at: SystemTime::now(),
            exchange: route.exchange,
            routing_key: route.routing_key,
            reply_to: message.reply_to.map(|name| name.to_string()),
            payload: message.body,
        })
    }
}

/// The exchanges, and which of them are fanout exchanges.
fn watched(name: &str, topics: &[String]) -> Vec<(String, bool)> {
    let always = [".agent", ".enrol", ".reply", ".agent.reply"];
    let mut exchanges: Vec<_> = always.map(|part| (format!("{name}{part}"), false)).into();
    exchanges.extend(topics.iter().map(|topic| {
        let (exchange, topic) = (name.to_owned(), topic.clone());
        if topic.starts_with("component.") {
            (Address::Topic { exchange, topic }.exchange_name(), false)
        } else {
            (Address::Fanout { exchange, topic }.exchange_name(), true)
        }
    }));
    exchanges
}

impl std::fmt::Debug for RabbitTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RabbitTap")
    }
}
