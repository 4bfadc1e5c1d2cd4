//! What a broker sees, taken from the broker itself: a queue of our own bound to everything.

use std::time::SystemTime;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, Consumer};

use super::declare::{Confined, exchange, short};
use super::dial::dial;
use super::options::RabbitOptions;
use crate::address::Address;
use crate::error::TransportError;
use crate::memory::Tapped;

/// A live copy of what is published to agents, of replies, and of what goes to some other topics.
/// Needs a broker user that may bind to them, as an operator's may and an agent's may not.
pub struct RabbitTap {
    // Held open: closing it ends the consumer.
    _connection: Connection,
    consumer: Consumer,
}

impl RabbitTap {
    /// Watches, of the control exchange `name`, what goes to agents, requests to join, replies, and
    /// each of `topics`: `component.…`, or that of a group's fanouts.
    pub async fn open(
        options: &RabbitOptions,
        name: &str,
        topics: &[String],
    ) -> Result<Self, TransportError> {
        let connection = dial(options).await?;
        let (exchanges, confined) = (watched(name, topics), Confined::default());
        for (name, fanout) in &exchanges {
            exchange(&connection, &confined, name, *fanout).await?;
        }
        let consumer = Self::consume(&connection, &exchanges).await.map_err(|error| {
            TransportError::Refused {
                what: "to watch the exchanges".into(),
                why: error.to_string(),
            }
        })?;
        Ok(Self { _connection: connection, consumer })
    }

    async fn consume(
        connection: &Connection,
        exchanges: &[(String, bool)],
    ) -> Result<Consumer, Box<dyn std::error::Error + Send + Sync>> {
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel.queue_declare(short("")?, options, FieldTable::default()).await?;
        let queue = queue.name().clone();
        for (name, _) in exchanges {
            let options = QueueBindOptions::default();
            let (name, every) = (short(name)?, short("#")?);
            channel.queue_bind(queue.clone(), name, every, options, FieldTable::default()).await?;
        }
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        Ok(channel.basic_consume(queue, short("")?, options, FieldTable::default()).await?)
    }

    /// The next message; `None` when the connection is gone.
    pub async fn next(&mut self) -> Option<Tapped> {
        let delivery = self.consumer.next().await?.ok()?;
        Some(Tapped {
            at: SystemTime::now(),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            reply_to: delivery.properties.reply_to().as_ref().map(ToString::to_string),
            payload: delivery.data.into(),
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
