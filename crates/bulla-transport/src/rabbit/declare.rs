//! Exchanges, queues and bindings.

use std::sync::atomic::{AtomicBool, Ordering};

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use crate::address::Inbox;
use crate::error::TransportError;
use crate::transport::ConsumeOptions;

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;

/// A name as the protocol takes it.
pub(super) fn short(name: &str) -> Result<ShortString, TransportError> {
    ShortString::try_new(name).map_err(|_| TransportError::Refused {
        what: "a queue or routing key of more than 255 bytes".to_owned(),
        why: "AMQP has no longer names; choose a shorter topic or server name".to_owned(),
    })
}

/// Whether our user was refused to make an exchange: from then on those that are there are looked
/// for first, so that the broker's log is not full of it.
#[derive(Debug, Default)]
pub(super) struct Confined(AtomicBool);

/// The exchange of `name`, which holds fanouts or topics.
pub(super) async fn exchange(
    connection: &Connection,
    confined: &Confined,
    name: &str,
    fanout: bool,
) -> Result<(), TransportError> {
    let what = || format!("to declare the exchange {name}");
    let kind = if fanout { ExchangeKind::Fanout } else { ExchangeKind::Topic };
    let first = confined.0.load(Ordering::Relaxed);
    for passive in [first, !first] {
        let channel = open(connection).await?;
        let options =
            ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
        let declared = channel
            .exchange_declare(short(name)?, kind.clone(), options, FieldTable::default())
            .await;
        match declared {
            Ok(()) => {
                close(&channel).await;
                return Ok(());
            }
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

/// The queue of an inbox with its exchange and binding.
pub(super) async fn inbox(
    connection: &Connection,
    confined: &Confined,
    inbox: &Inbox,
    options: &ConsumeOptions,
) -> Result<(), TransportError> {
    let (queue, from) = (inbox.queue_name(), inbox.exchange_name());
    exchange(connection, confined, &from, matches!(inbox, Inbox::Fanout { .. })).await?;
    let what = || format!("to declare the queue {queue}");
    let channel = open(connection).await?;
    let declared = channel
        .queue_declare(short(&queue)?, declaration(inbox, false), arguments(inbox, options))
        .await;
    match declared {
        Ok(_) => {}
        Err(error) if code(&error) == Some(ACCESS_REFUSED) => {
            return found(connection, inbox).await;
        }
        Err(error) => return Err(refused(what(), &error)),
    }
    channel
        .queue_bind(
            short(&queue)?,
            short(&from)?,
            short(&inbox.binding_key())?,
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(|error| refused(format!("to bind the queue {queue} to {from}"), &error))?;
    close(&channel).await;
    Ok(())
}

/// Whether the operator made the queue for a user who may not.
async fn found(connection: &Connection, inbox: &Inbox) -> Result<(), TransportError> {
    let queue = inbox.queue_name();
    let channel = open(connection).await?;
    channel
        .queue_declare(short(&queue)?, declaration(inbox, true), FieldTable::default())
        .await
        .map_err(|error| refused(format!("to use the queue {queue}"), &error))?;
    close(&channel).await;
    Ok(())
}

/// How many consumers and waiting messages the queue of an inbox has; none if there is no queue.
pub(super) async fn counts(
    connection: &Connection,
    inbox: &Inbox,
) -> Result<(u32, u32), TransportError> {
    let queue = inbox.queue_name();
    let channel = open(connection).await?;
    let found = channel
        .queue_declare(short(&queue)?, declaration(inbox, true), FieldTable::default())
        .await;
    match found {
        Ok(found) => {
            close(&channel).await;
            Ok((found.consumer_count(), found.message_count()))
        }
        Err(error) if code(&error) == Some(NOT_FOUND) => Ok((0, 0)),
        Err(error) => Err(refused(format!("to say who consumes from {queue}"), &error)),
    }
}

/// Removes the queue of an inbox; the broker takes it well if there is none.
pub(super) async fn delete(connection: &Connection, inbox: &Inbox) -> Result<(), TransportError> {
    let queue = inbox.queue_name();
    let channel = open(connection).await?;
    channel
        .queue_delete(short(&queue)?, QueueDeleteOptions::default())
        .await
        .map_err(|error| refused(format!("to delete the queue {queue}"), &error))?;
    close(&channel).await;
    Ok(())
}

/// Removes an exchange; the broker takes it well if there is none.
pub(super) async fn remove_exchange(
    connection: &Connection,
    name: &str,
) -> Result<(), TransportError> {
    let channel = open(connection).await?;
    channel
        .exchange_delete(short(name)?, ExchangeDeleteOptions::default())
        .await
        .map_err(|error| refused(format!("to delete the exchange {name}"), &error))?;
    close(&channel).await;
    Ok(())
}

fn declaration(inbox: &Inbox, passive: bool) -> QueueDeclareOptions {
    let reply = matches!(inbox, Inbox::Reply { .. });
    QueueDeclareOptions {
        passive,
        durable: !reply,
        exclusive: reply,
        auto_delete: reply,
        nowait: false,
    }
}

fn arguments(inbox: &Inbox, options: &ConsumeOptions) -> FieldTable {
    let mut arguments = FieldTable::default();
    if let Some(limit) = options.queue_ttl {
        let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(limit));
    }
    if options.replicated && !matches!(inbox, Inbox::Reply { .. }) {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    }
    arguments
}

pub(super) async fn open(connection: &Connection) -> Result<Channel, TransportError> {
    connection.create_channel().await.map_err(|error| refused("a channel".to_owned(), &error))
}

pub(super) async fn close(channel: &Channel) {
    // One that is gone already is as good.
    let _ = channel.close(200, "done".into()).await;
}

/// Whether the broker still holds the exclusive queue of our lost connection.
pub(super) fn is_locked(error: &TransportError) -> bool {
    matches!(error, TransportError::Refused { why, .. } if why.starts_with("RESOURCE_LOCKED"))
}

pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => Some(refusal.get_id()),
        _ => None,
    }
}

pub(super) fn refused(what: String, error: &lapin::Error) -> TransportError {
    let ErrorKind::ProtocolError(refusal) = error.kind() else {
        return TransportError::Unreachable {
            address: "the broker".to_owned(),
            why: error.to_string(),
        };
    };
    let said = refusal.get_message();
    let why = match refusal.get_id() {
        PRECONDITION_FAILED => {
            format!("{said} (it exists with other properties: delete it, or ask for the same)")
        }
        RESOURCE_LOCKED => format!("{said} (another process has it: choose another process name)"),
        _ => said.to_string(),
    };
    TransportError::Refused { what, why }
}
