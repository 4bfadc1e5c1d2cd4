//! What a broker sees, taken from the broker itself: a queue of our own bound to everything.

use std::collections::HashSet;
use std::time::SystemTime;

use foldhash::quality::RandomState;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::declare::{Confined, exchange};
use super::dial::dial;
use super::options::RabbitOptions;
use crate::address::{Address, Inbox, ReplyName};
use crate::amqp::{AmqpError, Channel, Connection, Deliveries, Message, QueueDeclare};
use crate::error::TransportError;
use crate::memory::Tapped;
use crate::topology::ExchangeKind;

/// Reply queues whose answers are watched at the most.
const ANSWERED: usize = 10_000;

/// A live copy of what is published to agents, of replies, and of what goes to some other topics.
/// Needs a broker user that may bind to them, as an operator's may and an agent's may not.
///
/// Answers to components are on a direct exchange, which shows only those whose reply queue is known: the ones
/// named to [`RabbitTap::open`], and each that a watched request names, from then on. A caller's first answer may
/// be quicker than the tap.
pub struct RabbitTap {
    seen: mpsc::UnboundedReceiver<Tapped>,
    /// Ends with this.
    _watching: JoinSet<()>,
}

/// The tap's queue.
struct Watch {
    exchange: String,
    channel: Channel,
    queue: String,
    answered: HashSet<String, RandomState>,
}

impl RabbitTap {
    /// Watches, of the control exchange `name`, what goes to agents, requests to join, replies, and
    /// each of `topics`: `component.…`, or that of a group's fanouts; answers to `callers` from the first.
    pub async fn open(
        options: &RabbitOptions,
        name: &str,
        topics: &[String],
        callers: &[ReplyName],
    ) -> Result<Self, TransportError> {
        let (connection, _) = dial(options).await?;
        let (exchanges, confined) = (watched(name, topics), Confined::default());
        for (name, kind) in &exchanges {
            exchange(&connection, &confined, name, *kind).await?;
        }
        let watching = Self::watch(&connection, name, &exchanges, callers).await;
        let (watch, deliveries) = watching.map_err(|error| TransportError::Refused {
            what: "to watch the exchanges".into(),
            why: error.to_string(),
        })?;
        let (tell, seen) = mpsc::unbounded_channel();
        let mut watching = JoinSet::new();
        watching.spawn(watch.run(deliveries, tell));
        Ok(Self { seen, _watching: watching })
    }

    async fn watch(
        connection: &Connection,
        name: &str,
        exchanges: &[(String, ExchangeKind)],
        callers: &[ReplyName],
    ) -> Result<(Watch, Deliveries), AmqpError> {
        let channel = connection.channel().await?;
        let queue = QueueDeclare { exclusive: true, auto_delete: true, ..QueueDeclare::default() };
        let queue = channel.queue_declare(&queue).await?.name;
        let patterns = exchanges.iter().filter(|(_, kind)| *kind != ExchangeKind::Direct);
        for (name, _) in patterns {
            channel.queue_bind(&queue, name, "#").await?;
        }
        let exchange = name.to_owned();
        let mut watch =
            Watch { exchange, channel, queue: queue.clone(), answered: HashSet::default() };
        for caller in callers {
            watch.answers_to(caller.clone()).await?;
        }
        let deliveries = watch.channel.consume(&queue, 0, true, true, &[]).await?;
        Ok((watch, deliveries))
    }

    /// The next message; `None` when the connection is gone.
    pub async fn next(&mut self) -> Option<Tapped> {
        self.seen.recv().await
    }
}

impl Watch {
    async fn run(mut self, mut deliveries: Deliveries, tell: mpsc::UnboundedSender<Tapped>) {
        while let Some(message) = deliveries.next().await {
            let caller = message.reply_to.clone().and_then(ReplyName::from_text);
            if let Some(caller) = caller
                && self.answers_to(caller).await.is_err()
            {
                // The channel is gone with it.
                return;
            }
            if let Some(tapped) = tapped(message)
                && tell.send(tapped).is_err()
            {
                return;
            }
        }
    }

    /// Shows the answers to `caller` from now on.
    async fn answers_to(&mut self, caller: ReplyName) -> Result<(), AmqpError> {
        let inbox = Inbox::Reply { exchange: self.exchange.clone(), name: caller };
        let key = inbox.binding_key();
        if inbox.exchange_kind() != ExchangeKind::Direct
            || self.answered.len() >= ANSWERED
            || !self.answered.insert(key.clone())
        {
            return Ok(());
        }
        self.channel.queue_bind(&self.queue, &inbox.exchange_name(), &key).await
    }
}

fn tapped(message: Message) -> Option<Tapped> {
    let route = message.route?;
    Some(Tapped {
        at: SystemTime::now(),
        exchange: route.exchange,
        routing_key: route.routing_key,
        reply_to: message.reply_to.map(|name| name.to_string()),
        payload: message.body,
    })
}

/// The exchanges and their kinds.
fn watched(name: &str, topics: &[String]) -> Vec<(String, ExchangeKind)> {
    let kinds = [
        (".agent", ExchangeKind::Topic),
        (".enrol", ExchangeKind::Topic),
        (".reply", ExchangeKind::Direct),
        (".agent.reply", ExchangeKind::Topic),
    ];
    let mut exchanges: Vec<_> = kinds.map(|(part, kind)| (format!("{name}{part}"), kind)).into();
    exchanges.extend(topics.iter().map(|topic| {
        let (exchange, topic) = (name.to_owned(), topic.clone());
        let to = if topic.starts_with("component.") {
            Address::Topic { exchange, topic }
        } else {
            Address::Fanout { exchange, topic }
        };
        (to.exchange_name(), to.exchange_kind())
    }));
    exchanges
}

impl std::fmt::Debug for RabbitTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RabbitTap")
    }
}
