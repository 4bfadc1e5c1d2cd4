//! The bus that a process is on, from settings.

use std::sync::Arc;
use std::time::Duration;

use bulla_oslo::{OsloTransport, Queues};
use bulla_rpc::EndpointOptions;
use bulla_rpc::identity::BusEntry;
use bulla_transport::memory::{Tap, Tapped};
use bulla_transport::{
    ConsumeOptions, Logins, MemoryBus, QueueOptions, QueueTransport, RabbitOptions, RabbitTap,
    RabbitTransport, ReplyName, Transport, TransportError,
};

use bulla::QUEUE_SCHEME;

use crate::failure::{Failure, Result};
use crate::settings::{self, Carrier};

/// In this process's memory, a RabbitMQ by one of two carriers, or a queue service.
#[derive(Clone)]
pub(crate) enum Bus {
    Memory(MemoryBus),
    Rabbit(Box<RabbitOptions>),
    Queue(Box<QueueOptions>),
    Oslo(Box<Oslo>),
}

/// A RabbitMQ that carries messages in oslo.messaging's bodies.
#[derive(Clone)]
pub(crate) struct Oslo {
    rabbit: RabbitOptions,
    queues: Queues,
    max_frame: usize,
}

impl Oslo {
    fn new(rabbit: RabbitOptions, bus: &settings::Bus) -> Self {
        let max_frame = bus.max_message.unwrap_or(bulla_seal::DEFAULT_MAX_FRAME);
        let rabbit = rabbit.max_message(bulla_oslo::wire::max_body(max_frame));
        Self { rabbit, queues: bus.oslo.queues(), max_frame }
    }

    pub(crate) fn address(&self) -> String {
        self.rabbit.address()
    }

    pub(crate) async fn connect(&self) -> std::result::Result<OsloTransport, TransportError> {
        let rabbit = RabbitTransport::connect(self.rabbit.clone()).await?;
        Ok(OsloTransport::new(Arc::new(rabbit), self.queues.clone(), self.max_frame))
    }
}

/// What passes, as the bus sees it.
pub(crate) enum AnyTap {
    Memory(Tap),
    Rabbit(Box<RabbitTap>),
}

impl AnyTap {
    pub(crate) async fn next(&mut self) -> Option<Tapped> {
        match self {
            Self::Memory(tap) => tap.next().await,
            Self::Rabbit(tap) => tap.next().await,
        }
    }

    /// Messages that were too fast to be shown.
    pub(crate) fn missed(&self) -> u64 {
        match self {
            Self::Memory(tap) => tap.missed(),
            Self::Rabbit(_) => 0,
        }
    }
}

impl Bus {
    /// The bus of the settings: RabbitMQ if they name one, else a new one in memory.
    pub(crate) fn from_settings(bus: &settings::Bus, name: &str) -> Result<Self> {
        let Some(url) = &bus.url else { return Ok(Self::Memory(MemoryBus::new())) };
        if url.starts_with(QUEUE_SCHEME) {
            return Self::queue(url, bus);
        }
        let mut options = RabbitOptions::new(url)?.connection_name(format!("bulla {name}"));
        if let Some(ca) = &bus.ca {
            options = options.ca_file(ca)?;
        }
        options = match (&bus.client_cert, &bus.client_key) {
            (Some(cert), Some(key)) => options.client_certificate_files(cert, key)?,
            (None, None) => options,
            _ => {
                return Err(Failure::usage(
                    "a client certificate needs its key: set both client-cert and client-key",
                ));
            }
        };
        if bus.carrier == Carrier::Native {
            return Ok(Self::Rabbit(Box::new(options)));
        }
        if bus.quorum_queues {
            return Err(Failure::usage(
                "[bus] quorum-queues is the native carrier's: on the oslo carrier set \
                 oslo = { rabbit_quorum_queue = true }, as oslo.messaging's services have it",
            ));
        }
        Ok(Self::Oslo(Box::new(Oslo::new(options, bus))))
    }

    fn queue(url: &str, bus: &settings::Bus) -> Result<Self> {
        let mut options = QueueOptions::new(url)?;
        if let Some(ca) = &bus.ca {
            options = options.ca_file(ca)?;
        }
        if let (Some(cert), Some(key)) = (&bus.client_cert, &bus.client_key) {
            options = options.client_certificate_files(cert, key)?;
        }
        Ok(Self::Queue(Box::new(options)))
    }

    /// The same with the logins of a key file, which change with its keys.
    pub(crate) fn with_logins(self, entry: &BusEntry) -> Self {
        match self {
            Self::Rabbit(options) => {
                Self::Rabbit(Box::new(options.logins(Logins::of_urls(entry.urls()))))
            }
            Self::Oslo(oslo) => {
                let rabbit = oslo.rabbit.logins(Logins::of_urls(entry.urls()));
                Self::Oslo(Box::new(Oslo { rabbit, ..*oslo }))
            }
            other @ (Self::Memory(_) | Self::Queue(_)) => other,
        }
    }

    pub(crate) async fn transport(&self) -> Result<Arc<dyn Transport>> {
        Ok(match self {
            Self::Memory(bus) => Arc::new(bus.transport()),
            Self::Rabbit(options) => Arc::new(RabbitTransport::connect((**options).clone()).await?),
            Self::Queue(options) => Arc::new(QueueTransport::connect((**options).clone()).await?),
            Self::Oslo(oslo) => Arc::new(oslo.connect().await?),
        })
    }

    /// The address without credentials.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Memory(_) => "memory".to_owned(),
            Self::Rabbit(options) => options.address(),
            Self::Oslo(oslo) => oslo.address(),
            Self::Queue(options) => options.address(),
        }
    }

    pub(crate) fn is_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    pub(crate) fn is_queue(&self) -> bool {
        matches!(self, Self::Queue(_))
    }

    pub(crate) fn is_oslo(&self) -> bool {
        matches!(self, Self::Oslo(_))
    }

    /// Whether it shows what passes ([`Self::tap`]).
    pub(crate) fn can_be_tapped(&self) -> bool {
        matches!(self, Self::Memory(_) | Self::Rabbit(_))
    }

    /// Watches what is published, fanouts of `topics` and answers to `caller` too.
    pub(crate) async fn tap(
        &self,
        exchange: &str,
        topics: &[String],
        caller: &ReplyName,
    ) -> Result<AnyTap> {
        Ok(match self {
            Self::Memory(bus) => AnyTap::Memory(bus.tap()),
            Self::Rabbit(options) => {
                let callers = std::slice::from_ref(caller);
                let tap = RabbitTap::open(options, exchange, topics, callers).await?;
                AnyTap::Rabbit(Box::new(tap))
            }
            Self::Queue(_) => {
                return Err(Failure::new(
                    "a queue service shows nobody what passes; `GET /v2/queues/NAME/stats` there \
                     says what waits",
                ));
            }
            Self::Oslo(..) => {
                return Err(Failure::usage(
                    "tap watches the native carrier's exchanges; on the oslo carrier use RabbitMQ's \
                     own firehose (rabbitmqctl trace_on)",
                ));
            }
        })
    }
}

/// An endpoint's settings from the bus's.
pub(crate) fn endpoint_options(bus: &settings::Bus) -> Result<EndpointOptions> {
    let mut options = EndpointOptions {
        queues: ConsumeOptions {
            replicated: bus.quorum_queues,
            queue_ttl: bus.message_ttl_s.map(Duration::from_secs),
            ..ConsumeOptions::default()
        },
        ..EndpointOptions::default()
    };
    if let Some(exchange) = &bus.exchange {
        options.exchange.clone_from(exchange);
    }
    if let Some(size) = bus.max_message {
        if !(1024..=bulla_seal::MAX_FRAME).contains(&size) {
            return Err(Failure::usage("max-message must be 1024 to 16777216 bytes"));
        }
        options.max_message = size;
    }
    Ok(options)
}
