//! Publishing over one connection.
//!
//! A message whose sender waits goes over a channel on which the broker answers for each; one whose
//! sender does not, over another, so that nobody pays for answers that nobody reads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;
use parking_lot::{Mutex, RwLock};

use super::declare::{self, Confined};
use crate::address::Address;
use crate::amqp::{AmqpError, Channel, Confirmation, Connection, Publish};
use crate::error::{PublishError, TransportError};
use crate::foreign;
use crate::transport::Outbound;

/// Addresses that are remembered at the most.
const KNOWN: usize = 10_000;

const CONTENT_TYPE: &str = "application/cose";

/// Why a message was not sent.
pub(super) enum Failure {
    /// It never reached the connection: it can go out on the next one.
    NotSent(TransportError),
    /// It is for its sender to know.
    Told(PublishError),
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Unreachable { .. } => Self::NotSent(error),
            error => Self::Told(error.into()),
        }
    }
}

pub(super) struct Publisher {
    unwatched: Place,
    confirmed: Place,
    known: RwLock<Known>,
    confined: Arc<Confined>,
}

/// What was published to.
#[derive(Default)]
struct Known {
    names: HashMap<Address, Arc<Names>, RandomState>,
    /// Exchanges that are there.
    exchanges: HashSet<String>,
}

/// An address as the protocol has it.
struct Names {
    exchange: String,
    routing_key: String,
}

/// A channel that is opened when it is needed, and again when a refusal has closed it.
#[derive(Default)]
struct Place {
    channel: Mutex<Option<Channel>>,
    opening: tokio::sync::Mutex<()>,
}

impl Place {
    fn open(&self) -> Option<Channel> {
        self.channel.lock().clone().filter(Channel::is_open)
    }
}

impl Publisher {
    pub(super) fn new(confined: Arc<Confined>) -> Self {
        Self {
            unwatched: Place::default(),
            confirmed: Place::default(),
            known: RwLock::default(),
            confined,
        }
    }

    /// Sends a message, for whose way into the connection it waits at most `patience`.
    pub(super) async fn publish(
        &self,
        connection: &Connection,
        to: &Address,
        message: &Outbound,
        patience: Duration,
    ) -> Result<(), Failure> {
        let names = self.names(connection, to).await?;
        let channel = self.channel(connection, message.confirm).await?;
        if tokio::time::timeout(patience, channel.room()).await.is_err() {
            return Err(Failure::Told(PublishError::Transport(TransportError::Unreachable {
                address: "the broker".to_owned(),
                why: format!("it took nothing for {} s", patience.as_secs_f32()),
            })));
        }
        let Names { exchange, routing_key } = &*names;
        let ready = ready(to, &names, message);
        if !message.confirm {
            return channel.publish(&ready).map_err(not_sent);
        }
        match channel.publish_confirmed(&ready).map_err(not_sent)?.await {
            Ok(Confirmation::Taken) => Ok(()),
            Ok(Confirmation::Rejected) => Err(Failure::Told(PublishError::Rejected)),
            Ok(Confirmation::Unroutable) => {
                Err(Failure::Told(PublishError::Unroutable { address: routing_key.clone() }))
            }
            Err(error) => Err(told(&error, exchange, routing_key)),
        }
    }

    /// Sends a message whose sender does not wait, to a known address over an open channel with room;
    /// `None` if it can't.
    pub(super) fn publish_now(
        &self,
        to: &Address,
        message: &Outbound,
    ) -> Option<Result<(), PublishError>> {
        if message.confirm {
            return None;
        }
        let names = self.known.read().names.get(to).map(Arc::clone)?;
        let channel = self.unwatched.open().filter(Channel::has_room)?;
        match channel.publish(&ready(to, &names, message)).map_err(not_sent) {
            Ok(()) => Some(Ok(())),
            Err(Failure::Told(error)) => Some(Err(error)),
            Err(Failure::NotSent(_)) => None,
        }
    }

    /// Waits until the broker has taken everything that is on its way.
    pub(super) async fn flush(&self) {
        let channel = self.unwatched.open();
        if let Some(channel) = channel {
            channel.close().await;
        }
    }

    /// The names of an address. Publishing to an exchange that is not there would end the channel.
    async fn names(
        &self,
        connection: &Connection,
        to: &Address,
    ) -> Result<Arc<Names>, TransportError> {
        if let Some(names) = self.known.read().names.get(to) {
            return Ok(Arc::clone(names));
        }
        let names = Names { exchange: to.exchange_name(), routing_key: to.routing_key() };
        if !self.known.read().exchanges.contains(&names.exchange) {
            declare::exchange_of(connection, &self.confined, &names.exchange, to).await?;
        }
        let names = Arc::new(names);
        let mut known = self.known.write();
        if known.names.len() >= KNOWN {
            known.names.clear();
        }
        known.exchanges.insert(names.exchange.clone());
        // An address of one call does not come again.
        if !matches!(to, Address::Reply { to, .. } if to.call().is_some()) {
            known.names.insert(to.clone(), Arc::clone(&names));
        }
        Ok(names)
    }

    async fn channel(
        &self,
        connection: &Connection,
        confirm: bool,
    ) -> Result<Channel, TransportError> {
        let place = if confirm { &self.confirmed } else { &self.unwatched };
        if let Some(channel) = place.open() {
            return Ok(channel);
        }
        let _opening = place.opening.lock().await;
        if let Some(channel) = place.open() {
            return Ok(channel);
        }
        let channel = declare::open(connection).await?;
        if confirm {
            let confirming = channel.confirm().await;
            confirming
                .map_err(|error| declare::refused("publisher confirms".to_owned(), &error))?;
        }
        if place.channel.lock().replace(channel.clone()).is_some() {
            // The last one may have ended because an exchange was deleted.
            *self.known.write() = Known::default();
        }
        Ok(channel)
    }
}

/// A message as the protocol has it.
fn ready<'a>(to: &Address, names: &'a Names, message: &'a Outbound) -> Publish<'a> {
    let (content_type, content_encoding) = match to {
        Address::Foreign { .. } => (foreign::CONTENT_TYPE, Some(foreign::CONTENT_ENCODING)),
        _ => (CONTENT_TYPE, None),
    };
    Publish {
        exchange: &names.exchange,
        routing_key: &names.routing_key,
        mandatory: message.mandatory,
        content_type,
        content_encoding,
        persistent: message.persistent || content_encoding.is_some(),
        reply_to: message.reply_hint.as_ref().map(|hint| hint.as_str()),
        expiration: message.ttl.map(|ttl| u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX)),
        body: &message.payload,
    }
}

/// What failed at once never left.
fn not_sent(error: AmqpError) -> Failure {
    match error {
        AmqpError::NameTooLong => declare::refused(String::new(), &error).into(),
        AmqpError::Lost(_) | AmqpError::Refused { .. } => {
            Failure::NotSent(TransportError::Unreachable {
                address: "the broker".to_owned(),
                why: error.to_string(),
            })
        }
    }
}

/// A refusal ends the channel with everybody's messages on it; it is told only to the sender
/// whose message it is about.
fn told(error: &AmqpError, exchange: &str, key: &str) -> Failure {
    let refusal = declare::refused(format!("the message to {key} on {exchange}"), error);
    let mine = matches!(&refusal, TransportError::Refused { why, .. }
        if why.contains(&format!("'{exchange}'"))
            && (!why.contains("to topic") || why.contains(&format!("'{key}'"))));
    Failure::Told(if mine { refusal.into() } else { PublishError::Unconfirmed })
}
