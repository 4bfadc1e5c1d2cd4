//! RabbitMQ (AMQP 0-9-1) with oslo.messaging's topology.
//!
//! | what | name | kind |
//! |---|---|---|
//! | control exchange | `<exchange>` | topic, durable |
//! | exchange of agents' topics | `<exchange>.agent` | topic, durable |
//! | exchange of a component type | `<exchange>.component.<type>` | topic, durable |
//! | exchange of requests to join | `<exchange>.enrol` | topic, durable |
//! | topic, server queue | `<topic>`, `<topic>.<server>` | durable, bound with its own name |
//! | fanout exchange | `<topic>_fanout` | fanout, durable |
//! | fanout queue | `<topic>_fanout_<member>` | durable, one for each member |
//! | exchange of answers to components | `<exchange>.reply` | direct, durable |
//! | their reply queue | `reply.<name>` | exclusive, auto-delete, bound with `<name>` |
//! | exchange of answers to agents | `<exchange>.agent.reply` | topic, durable |
//! | their reply queue | `reply.<name>` | exclusive, auto-delete, bound with `<name>.#` |
//!
//! A reply is published with the key `<name>`, to agents `<name>.<who answers>`, never through the default
//! exchange, so that a broker user who answers can be kept from all other queues.
//!
//! A message that was sent without waiting for the broker's confirmation may be lost with the
//! connection, which [`TransportEvent::Lost`] tells; one that was confirmed is not.

mod acks;
mod consumer;
mod declare;
mod dial;
mod foreign;
mod link;
mod options;
mod publish;
mod tap;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::broadcast;

pub use options::RabbitOptions;
pub use tap::RabbitTap;

use crate::address::{Address, Inbox};
use crate::error::{PublishError, TransportError};
use crate::login::Logins;
use crate::transport::{
    Capabilities, ConsumeOptions, Consumer, Outbound, Transport, TransportEvent,
};
use consumer::RabbitConsumer;
use link::Link;
use publish::Failure;

/// A connection to RabbitMQ that restores itself. Dropping it ends the connection.
pub struct RabbitTransport {
    link: Arc<Link>,
}

impl RabbitTransport {
    /// Connects.
    ///
    /// # Errors
    /// When the broker can't be reached, TLS fails, or it refuses us; there are no retries yet,
    /// so that a wrong address is told at once.
    pub async fn connect(options: RabbitOptions) -> Result<Self, TransportError> {
        Ok(Self { link: Link::connect(options).await? })
    }

    /// Removes an exchange with all its bindings, once nobody needs it again. One that is not
    /// there is as good.
    pub async fn remove_exchange(&self, name: &str) -> Result<(), TransportError> {
        let live = self.link.live().await?;
        declare::remove_exchange(&live.connection, name).await
    }

    /// Sends over the connection that is there, or the next one while the message lives.
    async fn send(&self, to: &Address, mut message: Outbound) -> Result<(), PublishError> {
        let started = Instant::now();
        let ttl = message.ttl;
        let patience = ttl.unwrap_or(self.link.options.patience);
        loop {
            let left = patience.saturating_sub(started.elapsed());
            let live = tokio::time::timeout(left, self.link.live())
                .await
                .map_err(|_| self.down(patience))??;
            // The wait counts against the message's time.
            message.ttl = ttl.map(|ttl| ttl.saturating_sub(started.elapsed()));
            let left = patience.saturating_sub(started.elapsed());
            match live.publisher.publish(&live.connection, to, &message, left).await {
                Ok(()) => return Ok(()),
                Err(Failure::Told(error)) => return Err(error),
                Err(Failure::NotSent(error)) => {
                    tracing::debug!(%error, "a message waits for the connection");
                    tokio::time::sleep(link::RETRY).await;
                }
            }
        }
    }

    fn down(&self, waited: Duration) -> TransportError {
        TransportError::Unreachable {
            address: self.link.options.address(),
            why: format!("no connection for {} s; it is being restored", waited.as_secs_f32()),
        }
    }
}

impl std::fmt::Debug for RabbitTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RabbitTransport").field(&self.link.options).finish()
    }
}

#[async_trait]
impl Transport for RabbitTransport {
    fn name(&self) -> &'static str {
        "rabbit"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            ttl: true,
            prefetch: true,
            returns_unroutable: true,
            redelivers: true,
            counts_consumers: true,
            max_message: self.link.options.max_message,
        }
    }

    async fn declare(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<(), TransportError> {
        let live = self.link.live().await?;
        declare::inbox(&live.connection, &self.link.confined, inbox, options).await?;
        self.link.remember(inbox, options);
        Ok(())
    }

    async fn publish(&self, to: &Address, message: Outbound) -> Result<(), PublishError> {
        let (size, limit) = (message.payload.len(), self.link.options.max_message);
        if size > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        self.send(to, message).await
    }

    fn publish_now(&self, to: &Address, message: &Outbound) -> Option<Result<(), PublishError>> {
        let (size, limit) = (message.payload.len(), self.link.options.max_message);
        if size > limit {
            return Some(Err(PublishError::TooLarge { size, limit }));
        }
        self.link.live_now()?.publisher.publish_now(to, message)
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let live = self.link.live().await?;
        let consumer = RabbitConsumer::start(Arc::clone(&self.link), &live, inbox, options).await?;
        Ok(Box::new(consumer))
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        self.link.forget(inbox);
        let live = self.link.live().await?;
        declare::delete(&live.connection, inbox).await
    }

    async fn consumers(&self, inbox: &Inbox) -> Result<u32, TransportError> {
        let live = self.link.live().await?;
        Ok(declare::counts(&live.connection, inbox).await?.0)
    }

    async fn waiting(&self, inbox: &Inbox) -> Result<u64, TransportError> {
        let live = self.link.live().await?;
        Ok(declare::counts(&live.connection, inbox).await?.1.into())
    }

    fn logins(&self) -> Option<&Logins> {
        self.link.options.logins.as_ref()
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        self.link.events.subscribe()
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

impl Drop for RabbitTransport {
    fn drop(&mut self) {
        // The connection ends with its last user.
        drop(self.link.abandon());
    }
}
