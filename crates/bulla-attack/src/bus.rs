//! The bus that is attacked.

use std::sync::Arc;

use bulla_transport::memory::{MemoryBus, Tap, Tapped};
use bulla_transport::{RabbitOptions, RabbitTap, RabbitTransport, ReplyName, Transport};

use crate::trouble::Trouble;

/// A bus in memory, or a RabbitMQ.
#[derive(Clone)]
pub enum Bus {
    /// In this process.
    Memory(MemoryBus),
    /// A broker.
    Rabbit(Arc<Rabbit>),
}

/// A broker, with the connection of those who are attacked and the intruder's.
pub struct Rabbit {
    options: RabbitOptions,
    honest: Arc<RabbitTransport>,
    intruder: Arc<RabbitTransport>,
}

impl Bus {
    /// A new bus in memory.
    pub fn memory() -> Self {
        Self::Memory(MemoryBus::new())
    }

    /// Connects to a broker, twice.
    pub async fn rabbit(options: RabbitOptions) -> Result<Self, Trouble> {
        let connect = || RabbitTransport::connect(options.clone());
        let (honest, intruder) = (Arc::new(connect().await?), Arc::new(connect().await?));
        Ok(Self::Rabbit(Arc::new(Rabbit { options, honest, intruder })))
    }

    /// A short name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Rabbit(_) => "rabbitmq",
        }
    }

    /// Its address without credentials.
    pub fn address(&self) -> String {
        match self {
            Self::Memory(_) => "memory".to_owned(),
            Self::Rabbit(rabbit) => rabbit.options.address(),
        }
    }

    /// The way onto the bus of one who is attacked.
    pub fn honest(&self) -> Arc<dyn Transport> {
        match self {
            Self::Memory(bus) => Arc::new(bus.transport()),
            Self::Rabbit(rabbit) => rabbit.honest.clone(),
        }
    }

    /// The intruder's way onto the bus: with the same login, on a connection of its own.
    pub fn intruder(&self) -> Arc<dyn Transport> {
        match self {
            Self::Memory(bus) => Arc::new(bus.transport()),
            Self::Rabbit(rabbit) => rabbit.intruder.clone(),
        }
    }

    /// A copy of everything that is published to `exchange`, its replies and the fanout exchanges
    /// of `topics`; on a broker an answer to somebody else than `callers` may be missed once.
    pub async fn tap(
        &self,
        exchange: &str,
        topics: &[String],
        callers: &[ReplyName],
    ) -> Result<AnyTap, Trouble> {
        Ok(match self {
            Self::Memory(bus) => AnyTap::Memory(bus.tap()),
            Self::Rabbit(rabbit) => {
                let tap = RabbitTap::open(&rabbit.options, exchange, topics, callers).await?;
                AnyTap::Rabbit(Box::new(tap))
            }
        })
    }

    /// Closes the suite's connections; what is exclusive to them goes too.
    pub async fn close(&self) {
        if let Self::Rabbit(rabbit) = self {
            rabbit.honest.close().await;
            rabbit.intruder.close().await;
        }
    }

    /// Removes exchanges that the suite made.
    pub async fn remove_exchanges(&self, names: &[String]) {
        if let Self::Rabbit(rabbit) = self {
            for name in names {
                if let Err(error) = rabbit.intruder.remove_exchange(name).await {
                    tracing::warn!(%error, exchange = name, "an exchange of the suite stays behind");
                }
            }
        }
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bus({})", self.address())
    }
}

/// What passes, as the bus sees it.
pub enum AnyTap {
    /// Of a bus in memory.
    Memory(Tap),
    /// Of a broker.
    Rabbit(Box<RabbitTap>),
}

impl AnyTap {
    /// The next message; `None` when the bus is gone.
    pub async fn next(&mut self) -> Option<Tapped> {
        match self {
            Self::Memory(tap) => tap.next().await,
            Self::Rabbit(tap) => tap.next().await,
        }
    }
}

impl std::fmt::Debug for AnyTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnyTap")
    }
}
