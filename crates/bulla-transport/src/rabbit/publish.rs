//! Publishing over one connection.
//!
//! The client library ties a confirmation to a message by counting, and a returned message to
//! whichever confirmation comes next. So on the shared channel the counting and the queueing of
//! frames happen under one lock, and a mandatory message whose sender waits has a channel to
//! itself while it is on its way.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use super::declare::{self, Confined, short};
use super::started::{Started, started};
use crate::address::Address;
use crate::error::{PublishError, TransportError};
use crate::transport::{Outbound, TransportEvent};

/// Messages on their way whose sender does not wait.
const UNWATCHED: usize = 4096;
/// Mandatory messages on their way whose sender waits.
const MANDATORY: usize = 64;

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

type Sent = Started<lapin::Result<PublisherConfirm>>;

pub(super) struct Publisher {
    shared: Mutex<Option<Arc<Shared>>>,
    opening: tokio::sync::Mutex<()>,
    /// Channels for one mandatory message each, that nobody uses now.
    idle: Mutex<Vec<Channel>>,
    mandatory: Semaphore,
    exchanges: RwLock<HashSet<String>>,
    watcher: mpsc::Sender<Watched>,
    events: broadcast::Sender<TransportEvent>,
    confined: Arc<Confined>,
}

struct Shared {
    channel: Channel,
    order: Mutex<()>,
}

/// What the watcher looks after.
enum Watched {
    Message { sent: Sent, routing_key: ShortString, payload: Bytes },
    Flush(oneshot::Sender<()>),
}

/// A message with everything that the protocol wants to know.
struct Ready {
    exchange: ShortString,
    routing_key: ShortString,
    options: BasicPublishOptions,
    properties: BasicProperties,
    payload: Bytes,
}

impl Ready {
    fn new(exchange: &str, to: &Address, message: &Outbound) -> Result<Self, TransportError> {
        let mode = if message.persistent { 2 } else { 1 };
        let mut properties = BasicProperties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_delivery_mode(mode);
        if let Some(ttl) = message.ttl {
            let ttl = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX);
            properties = properties.with_expiration(ttl.to_string().into());
        }
        if let Some(hint) = &message.reply_hint {
            properties = properties.with_reply_to(short(hint.as_str())?);
        }
        Ok(Self {
            exchange: short(exchange)?,
            routing_key: short(&to.routing_key())?,
            options: BasicPublishOptions { mandatory: message.mandatory, immediate: false },
            properties,
            payload: message.payload.clone(),
        })
    }

    fn send(self, channel: Channel) -> Sent {
        started(async move {
            channel
                .basic_publish(
                    self.exchange,
                    self.routing_key,
                    self.options,
                    &self.payload,
                    self.properties,
                )
                .await
        })
    }
}

impl Publisher {
    pub(super) fn new(events: broadcast::Sender<TransportEvent>, confined: Arc<Confined>) -> Self {
        let (watcher, watched) = mpsc::channel(UNWATCHED);
        tokio::spawn(watch(watched, events.clone()));
        Self {
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
            mandatory: Semaphore::new(MANDATORY),
            exchanges: RwLock::default(),
            watcher,
            events,
            confined,
        }
    }

    pub(super) async fn publish(
        &self,
        connection: &Connection,
        to: &Address,
        message: &Outbound,
    ) -> Result<(), Failure> {
        let exchange = to.exchange_name();
        self.ensure_exchange(connection, &exchange, matches!(to, Address::Fanout { .. })).await?;
        let (confirm, mandatory) = (message.confirm, message.mandatory);
        let ready = Ready::new(&exchange, to, message)?;
        match (confirm, mandatory) {
            (true, true) => self.publish_mandatory(connection, ready).await,
            (true, false) => self.publish_confirmed(connection, ready).await,
            (false, _) => self.publish_unwatched(connection, ready).await,
        }
    }

    /// Waits until the broker has answered for everything that is on its way.
    pub(super) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.watcher.send(Watched::Flush(done)).await.is_ok() {
            // The watcher ends with the connection, and then there is nothing to wait for.
            let _ = wait.await;
        }
    }

    /// Publishing to an exchange that is not there would end the channel.
    async fn ensure_exchange(
        &self,
        connection: &Connection,
        name: &str,
        fanout: bool,
    ) -> Result<(), TransportError> {
        if self.exchanges.read().contains(name) {
            return Ok(());
        }
        declare::exchange(connection, &self.confined, name, fanout).await?;
        self.exchanges.write().insert(name.to_owned());
        Ok(())
    }

    async fn publish_unwatched(
        &self,
        connection: &Connection,
        ready: Ready,
    ) -> Result<(), Failure> {
        let (routing_key, payload) = (ready.routing_key.clone(), ready.payload.clone());
        let room = self.watcher.reserve().await.map_err(|_| Failure::NotSent(gone()))?;
        let sent = self.send_shared(connection, ready).await?;
        room.send(Watched::Message { sent, routing_key, payload });
        Ok(())
    }

    async fn publish_confirmed(
        &self,
        connection: &Connection,
        ready: Ready,
    ) -> Result<(), Failure> {
        let (exchange, key) = (ready.exchange.clone(), ready.routing_key.clone());
        let sent = self.send_shared(connection, ready).await?;
        let confirmation = confirmed(sent).await.map_err(|error| told(&error, &exchange, &key))?;
        let rejected = confirmation.is_nack();
        // A message that came back here belongs to a sender that does not wait.
        if let Some(message) = confirmation.take_message() {
            let _ = self.events.send(returned(message));
        }
        if rejected { Err(Failure::Told(PublishError::Rejected)) } else { Ok(()) }
    }

    async fn publish_mandatory(
        &self,
        connection: &Connection,
        ready: Ready,
    ) -> Result<(), Failure> {
        let _place = self.mandatory.acquire().await.map_err(|_| Failure::NotSent(gone()))?;
        let idle = self.idle.lock().pop().filter(|channel| channel.status().connected());
        let channel = match idle {
            Some(channel) => channel,
            None => confirming(connection).await?,
        };
        let (exchange, key) = (ready.exchange.clone(), ready.routing_key.clone());
        let sent = not_refused(ready.send(channel.clone()))?;
        let confirmation = confirmed(sent).await.map_err(|error| told(&error, &exchange, &key))?;
        self.idle.lock().push(channel);
        let rejected = confirmation.is_nack();
        match confirmation.take_message() {
            Some(_) => Err(Failure::Told(PublishError::Unroutable { address: key.to_string() })),
            None if rejected => Err(Failure::Told(PublishError::Rejected)),
            None => Ok(()),
        }
    }

    async fn send_shared(&self, connection: &Connection, ready: Ready) -> Result<Sent, Failure> {
        let shared = self.shared(connection).await?;
        let order = shared.order.lock();
        let sent = ready.send(shared.channel.clone());
        drop(order);
        not_refused(sent)
    }

    async fn shared(&self, connection: &Connection) -> Result<Arc<Shared>, TransportError> {
        if let Some(shared) = self.open_shared() {
            return Ok(shared);
        }
        let _opening = self.opening.lock().await;
        if let Some(shared) = self.open_shared() {
            return Ok(shared);
        }
        // The last one may have ended because an exchange was deleted.
        self.exchanges.write().clear();
        let channel = confirming(connection).await?;
        let shared = Arc::new(Shared { channel, order: Mutex::default() });
        *self.shared.lock() = Some(Arc::clone(&shared));
        Ok(shared)
    }

    fn open_shared(&self) -> Option<Arc<Shared>> {
        self.shared.lock().clone().filter(|shared| shared.channel.status().connected())
    }
}

async fn confirming(connection: &Connection) -> Result<Channel, TransportError> {
    let channel = declare::open(connection).await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .map_err(|error| declare::refused("publisher confirms".to_owned(), &error))?;
    Ok(channel)
}

/// What failed at once never left.
fn not_refused(sent: Sent) -> Result<Sent, Failure> {
    match sent {
        Started::Ready(Some(Err(error))) => {
            let why = error.to_string();
            Err(Failure::NotSent(TransportError::Unreachable { address: "the broker".into(), why }))
        }
        sent => Ok(sent),
    }
}

async fn confirmed(sent: Sent) -> lapin::Result<Confirmation> {
    sent.await?.await
}

/// A refusal ends the channel with everybody's messages on it; it is told only to the sender
/// whose message it is about.
fn told(error: &lapin::Error, exchange: &ShortString, key: &ShortString) -> Failure {
    let refusal = declare::refused(format!("the message to {key} on {exchange}"), error);
    let mine = matches!(&refusal, TransportError::Refused { why, .. }
        if why.contains(&format!("'{exchange}'"))
            && (!why.contains("to topic") || why.contains(&format!("'{key}'"))));
    Failure::Told(if mine { refusal.into() } else { PublishError::Unconfirmed })
}

fn gone() -> TransportError {
    TransportError::Unreachable {
        address: "the broker".to_owned(),
        why: "the connection was lost".to_owned(),
    }
}

fn returned(message: BasicReturnMessage) -> TransportEvent {
    let delivery = message.delivery;
    TransportEvent::Returned {
        address: delivery.routing_key.to_string(),
        payload: Bytes::from(delivery.data),
    }
}

/// Looks after messages whose senders do not wait.
async fn watch(mut watched: mpsc::Receiver<Watched>, events: broadcast::Sender<TransportEvent>) {
    while let Some(next) = watched.recv().await {
        let (sent, routing_key, payload) = match next {
            Watched::Message { sent, routing_key, payload } => (sent, routing_key, payload),
            Watched::Flush(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let event = match confirmed(sent).await {
            Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => continue,
            Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) => {
                returned(message)
            }
            Ok(Confirmation::Nack(None)) => {
                TransportEvent::Returned { address: routing_key.to_string(), payload }
            }
            // The loss of the connection is an event of its own.
            Err(error) => {
                tracing::debug!(%routing_key, %error, "an unconfirmed message");
                continue;
            }
        };
        // Nobody may be listening.
        let _ = events.send(event);
    }
}
