//! Exchanges and queues with somebody else's names and flags.

use super::declare::{open, refused};
use crate::amqp::{Connection, ExchangeDeclare, QueueDeclare, Value};
use crate::error::TransportError;
use crate::foreign::{Argument, ForeignExchange, ForeignQueue};

pub(super) async fn exchange(
    connection: &Connection,
    exchange: &ForeignExchange,
) -> Result<(), TransportError> {
    let name = exchange.name.as_str();
    let declared = ExchangeDeclare {
        name,
        kind: if exchange.fanout { "fanout" } else { "topic" },
        passive: false,
        durable: exchange.durable,
        auto_delete: exchange.auto_delete,
    };
    let channel = open(connection).await?;
    let done = channel.exchange_declare(&declared).await;
    done.map_err(|error| refused(format!("to declare the exchange {name}"), &error))
}

pub(super) async fn queue(
    connection: &Connection,
    queue: &ForeignQueue,
) -> Result<(), TransportError> {
    if let Some((from, _)) = &queue.bound {
        exchange(connection, from).await?;
    }
    let name = queue.name.as_str();
    let arguments = arguments(&queue.arguments);
    let declared = QueueDeclare {
        name,
        passive: false,
        durable: queue.durable,
        exclusive: false,
        auto_delete: queue.auto_delete,
        arguments: &arguments,
    };
    let channel = open(connection).await?;
    let done = channel.queue_declare(&declared).await;
    done.map_err(|error| refused(format!("to declare the queue {name}"), &error))?;
    if let Some((from, key)) = &queue.bound {
        let bound = channel.queue_bind(name, &from.name, key).await;
        bound.map_err(|error| refused(format!("to bind the queue {name}"), &error))?;
    }
    Ok(())
}

pub(super) fn arguments(arguments: &[(String, Argument)]) -> Vec<(&str, Value<'_>)> {
    let each = arguments.iter().map(|(name, argument)| match argument {
        Argument::Number(number) => (name.as_str(), Value::Number(i64::from(*number))),
        Argument::Text(text) => (name.as_str(), Value::Text(text)),
    });
    each.collect()
}
