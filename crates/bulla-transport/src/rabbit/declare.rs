//! Exchanges, queues and bindings.

use std::sync::atomic::{AtomicBool, Ordering};

use super::foreign;
use crate::address::{Address, Inbox};
use crate::amqp::{
    AmqpError, Channel, Connection, ExchangeDeclare, QueueDeclare, QueueState, Value,
};
use crate::error::TransportError;
use crate::topology::ExchangeKind;
use crate::transport::ConsumeOptions;

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;

/// Whether our user was refused to make an exchange: from then on those that are there are looked
/// for first, so that the broker's log is not full of it.
#[derive(Debug, Default)]
pub(super) struct Confined(AtomicBool);

/// The exchange of `name`.
pub(super) async fn exchange(
    connection: &Connection,
    confined: &Confined,
    name: &str,
    kind: ExchangeKind,
) -> Result<(), TransportError> {
    let what = || format!("to declare the exchange {name}");
    let kind = kind.as_str();
    let first = confined.0.load(Ordering::Relaxed);
    for passive in [first, !first] {
        let channel = open(connection).await?;
        let exchange = ExchangeDeclare { name, kind, passive, durable: true, auto_delete: false };
        match channel.exchange_declare(&exchange).await {
            Ok(()) => return Ok(()),
            // A confined user may not configure; what the operator made is enough.
            Err(error) if !passive && !first && code(&error) == Some(ACCESS_REFUSED) => {
                confined.0.store(true, Ordering::Relaxed);
            }
            Err(error) if passive && first && code(&error) == Some(NOT_FOUND) => {}
            Err(error) => return Err(refused(what(), &error)),
        }
    }
    Err(TransportError::Refused { what: what(), why: "access refused".to_owned() })
}

/// The exchange that messages to this address are published to, if it has to be there first.
pub(super) async fn exchange_of(
    connection: &Connection,
    confined: &Confined,
    name: &str,
    to: &Address,
) -> Result<(), TransportError> {
    match to {
        // The broker's own.
        Address::Foreign { exchange: None, .. } => Ok(()),
        Address::Foreign { exchange: Some(it), .. } => foreign::exchange(connection, it).await,
        _ => exchange(connection, confined, name, to.exchange_kind()).await,
    }
}

/// The queue of an inbox with its exchange and binding.
pub(super) async fn inbox(
    connection: &Connection,
    confined: &Confined,
    inbox: &Inbox,
    options: &ConsumeOptions,
) -> Result<(), TransportError> {
    if let Inbox::Foreign(queue) = inbox {
        return foreign::queue(connection, queue).await;
    }
    let (queue, from) = (inbox.queue_name(), inbox.exchange_name());
    exchange(connection, confined, &from, inbox.exchange_kind()).await?;
    let what = || format!("to declare the queue {queue}");
    let channel = open(connection).await?;
    let mut arguments = Vec::with_capacity(2);
    if let Some(limit) = options.queue_ttl {
        let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        arguments.push(("x-message-ttl", Value::Number(limit)));
    }
    if options.replicated && !matches!(inbox, Inbox::Reply { .. }) {
        arguments.push(("x-queue-type", Value::Text("quorum")));
    }
    let declaration = QueueDeclare { arguments: &arguments, ..declaration(inbox, &queue) };
    match channel.queue_declare(&declaration).await {
        Ok(_) => {}
        Err(error) if code(&error) == Some(ACCESS_REFUSED) => {
            return found(connection, inbox).await;
        }
        Err(error) => return Err(refused(what(), &error)),
    }
    channel
        .queue_bind(&queue, &from, &inbox.binding_key())
        .await
        .map_err(|error| refused(format!("to bind the queue {queue} to {from}"), &error))
}

/// Whether the operator made the queue for a user who may not.
async fn found(connection: &Connection, inbox: &Inbox) -> Result<(), TransportError> {
    let queue = inbox.queue_name();
    look(connection, inbox, &queue)
        .await?
        .map(drop)
        .map_err(|error| refused(format!("to use the queue {queue}"), &error))
}

/// What the broker says of a queue.
async fn look(
    connection: &Connection,
    inbox: &Inbox,
    queue: &str,
) -> Result<Result<QueueState, AmqpError>, TransportError> {
    let channel = open(connection).await?;
    let declaration = QueueDeclare { passive: true, ..declaration(inbox, queue) };
    Ok(channel.queue_declare(&declaration).await)
}

/// How many consumers and waiting messages the queue of an inbox has; none if there is no queue.
pub(super) async fn counts(
    connection: &Connection,
    inbox: &Inbox,
) -> Result<(u32, u32), TransportError> {
    let queue = inbox.queue_name();
    match look(connection, inbox, &queue).await? {
        Ok(found) => Ok((found.consumers, found.messages)),
        Err(error) if code(&error) == Some(NOT_FOUND) => Ok((0, 0)),
        Err(error) => Err(refused(format!("to say who consumes from {queue}"), &error)),
    }
}

/// Removes the queue of an inbox; the broker takes it well if there is none.
pub(super) async fn delete(connection: &Connection, inbox: &Inbox) -> Result<(), TransportError> {
    let queue = inbox.queue_name();
    let channel = open(connection).await?;
    channel
        .queue_delete(&queue)
        .await
        .map_err(|error| refused(format!("to delete the queue {queue}"), &error))
}

/// Removes an exchange; the broker takes it well if there is none.
pub(super) async fn remove_exchange(
    connection: &Connection,
    name: &str,
) -> Result<(), TransportError> {
    let channel = open(connection).await?;
    channel
        .exchange_delete(name)
        .await
        .map_err(|error| refused(format!("to delete the exchange {name}"), &error))
}

fn declaration<'a>(inbox: &Inbox, name: &'a str) -> QueueDeclare<'a> {
    let reply = matches!(inbox, Inbox::Reply { .. });
    QueueDeclare {
        name,
        passive: false,
        durable: !reply,
        exclusive: reply,
        auto_delete: reply,
        arguments: &[],
    }
}

pub(super) async fn open(connection: &Connection) -> Result<Channel, TransportError> {
    connection.channel().await.map_err(|error| refused("a channel".to_owned(), &error))
}

/// Whether the broker still holds the exclusive queue of our lost connection.
pub(super) fn is_locked(error: &TransportError) -> bool {
    matches!(error, TransportError::Refused { why, .. } if why.starts_with("RESOURCE_LOCKED"))
}

fn code(error: &AmqpError) -> Option<u16> {
    match error {
        AmqpError::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

pub(super) fn refused(what: String, error: &AmqpError) -> TransportError {
    let (code, said) = match error {
        AmqpError::Refused { code, text } => (*code, text),
        AmqpError::Lost(why) => {
            return TransportError::Unreachable {
                address: "the broker".to_owned(),
                why: why.to_string(),
            };
        }
        AmqpError::NameTooLong => {
            return TransportError::Refused {
                what: "a queue or routing key of more than 255 bytes".to_owned(),
                why: "AMQP has no longer names; choose a shorter topic or server name".to_owned(),
            };
        }
    };
    let why = match code {
        PRECONDITION_FAILED => {
            format!("{said} (it exists with other properties: delete it, or ask for the same)")
        }
        RESOURCE_LOCKED => format!("{said} (another process has it: choose another process name)"),
        _ => said.to_string(),
    };
    TransportError::Refused { what, why }
}
