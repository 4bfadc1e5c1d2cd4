//! Names of exchanges, queues and routing keys: oslo.messaging's queues and keys, on exchanges that
//! are apart where rights are to be apart. The in-memory bus shows the same names, so that what one
//! learns there is true of a broker.
//!
//! A broker's user is confined by the exchanges that it may write to. What its routing keys are held
//! to besides is not enough: RabbitMQ 3.10 does not look at the keys in the headers `CC` and `BCC`,
//! nor at the key that a queue's dead letters get. So an exchange that an agent has to write to leads
//! to nobody whom the agent may not write to (`docs/adr/0010-exchanges-by-who-writes.md`).
//!
//! Answers to components, half of all messages, go through a direct exchange: with a topic exchange there
//! a call took RabbitMQ 3.10 a third more processor time (`docs/adr/0004-reply-exchange.md`).

use std::sync::Arc;

use crate::address::{Address, Inbox, ReplyName, routing_word};
use crate::foreign::ForeignExchange;

/// How an exchange finds the queues of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// By the routing key, which is a queue's binding key.
    Direct,
    /// By the routing key, which a queue's binding key may match as a pattern. A broker can hold
    /// users to routing and binding keys here.
    Topic,
    /// Every queue that is bound.
    Fanout,
}

impl ExchangeKind {
    /// AMQP's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

impl Address {
    /// The kind of exchange that a message to this address is published to.
    pub fn exchange_kind(&self) -> ExchangeKind {
        match self {
            Self::Fanout { .. } => ExchangeKind::Fanout,
            Self::Reply { to, .. } => reply_kind(to),
            _ => ExchangeKind::Topic,
        }
    }

    /// The exchange that a message to this address is published to.
    pub fn exchange_name(&self) -> String {
        match self {
            Self::Topic { exchange, topic } | Self::Server { exchange, topic, .. } => {
                topic_exchange(exchange, topic)
            }
            Self::Fanout { topic, .. } => fanout_exchange(topic),
            Self::Reply { exchange, to, .. } => reply_exchange(exchange, to),
            Self::Foreign { exchange, .. } => named(exchange.as_ref()),
        }
    }

    /// The routing key that it is published with.
    pub fn routing_key(&self) -> String {
        match self {
            Self::Topic { topic, .. } | Self::Fanout { topic, .. } => topic.clone(),
            Self::Server { topic, server, .. } => format!("{topic}.{server}"),
            Self::Reply { to, from, .. } => match reply_kind(to) {
                ExchangeKind::Topic => format!("{to}.{}", routing_word(from)),
                _ => to.to_string(),
            },
            Self::Foreign { key, .. } => key.clone(),
        }
    }
}

impl Inbox {
    /// The queue that is consumed from.
    pub fn queue_name(&self) -> String {
        match self {
            Self::Topic { topic, .. } => topic.clone(),
            Self::Server { topic, server, .. } => format!("{topic}.{server}"),
            Self::Fanout { topic, member, .. } => {
                format!("{}_{}", fanout_exchange(topic), routing_word(member))
            }
            Self::Reply { name, .. } => format!("reply.{name}"),
            Self::Foreign(queue) => queue.name.clone(),
        }
    }

    /// The kind of exchange that the queue is bound to.
    pub fn exchange_kind(&self) -> ExchangeKind {
        match self {
            Self::Fanout { .. } => ExchangeKind::Fanout,
            Self::Reply { name, .. } => reply_kind(name),
            _ => ExchangeKind::Topic,
        }
    }

    /// The exchange that the queue is bound to.
    pub fn exchange_name(&self) -> String {
        match self {
            Self::Topic { exchange, topic } | Self::Server { exchange, topic, .. } => {
                topic_exchange(exchange, topic)
            }
            Self::Fanout { topic, .. } => fanout_exchange(topic),
            Self::Reply { exchange, name } => reply_exchange(exchange, name),
            Self::Foreign(queue) => named(queue.route().0),
        }
    }

    /// The key that it is bound with.
    pub fn binding_key(&self) -> String {
        match self {
            Self::Topic { topic, .. } | Self::Fanout { topic, .. } => topic.clone(),
            Self::Server { topic, server, .. } => format!("{topic}.{server}"),
            Self::Reply { name, .. } => match reply_kind(name) {
                ExchangeKind::Topic => format!("{name}.#"),
                _ => name.to_string(),
            },
            Self::Foreign(queue) => queue.route().1.to_owned(),
        }
    }
}

/// The broker's default exchange has no name.
fn named(exchange: Option<&Arc<ForeignExchange>>) -> String {
    exchange.map(|exchange| exchange.name.clone()).unwrap_or_default()
}

fn fanout_exchange(topic: &str) -> String {
    format!("{topic}_fanout")
}

/// Agents' queues are on one exchange, to which only components write; those of a component type on
/// one of their own, so that an agent can be let write to it and to no other; requests to join on
/// one of their own. Other topics are on the control exchange.
fn topic_exchange(exchange: &str, topic: &str) -> String {
    let mut words = topic.split('.');
    match (words.next(), words.next()) {
        (Some("agent"), Some(_)) => format!("{exchange}.agent"),
        (Some("component"), Some(name)) => format!("{exchange}.component.{name}"),
        (Some("enrol"), Some(_)) => format!("{exchange}.enrol"),
        _ => exchange.to_owned(),
    }
}

/// Answers to agents are apart from those to components: agents write only to the latter.
fn reply_exchange(exchange: &str, to: &ReplyName) -> String {
    match reply_kind(to) {
        ExchangeKind::Topic => format!("{exchange}.agent.reply"),
        _ => format!("{exchange}.reply"),
    }
}

/// An agent binds its reply queue itself, and only a topic exchange holds it to its own keys; nobody but
/// components, which may do all of this, binds to the other.
fn reply_kind(to: &ReplyName) -> ExchangeKind {
    if to.as_str().starts_with("agent.") { ExchangeKind::Topic } else { ExchangeKind::Direct }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_oslo_messaging_but_for_replies() {
        let (exchange, topic) = ("bulla".to_owned(), "db".to_owned());
        let server = Address::Server {
            exchange: exchange.clone(),
            topic: topic.clone(),
            server: "db-1".to_owned(),
        };
        assert_eq!(
            (server.exchange_name(), server.routing_key()),
            ("bulla".into(), "db.db-1".into())
        );
        let member =
            Inbox::Fanout { exchange: exchange.clone(), topic, member: "agent/db-1".into() };
        assert_eq!(member.queue_name(), "db_fanout_agent.db-1");
        let to = ReplyName::new("component/api", "9f3a").unwrap();
        let reply = Address::Reply { exchange, to, from: "agent/db.1".to_owned() };
        assert_eq!(reply.exchange_name(), "bulla.reply");
        assert_eq!(reply.routing_key(), "component.api.9f3a");
        let (exchange, from) = ("bulla".to_owned(), "component/api".to_owned());
        let to = ReplyName::new("agent/db.1", "9f3a").unwrap();
        let reply = Address::Reply { exchange, to, from };
        assert_eq!(reply.exchange_name(), "bulla.agent.reply");
        assert_eq!(reply.routing_key(), "agent.db~1.9f3a.component.api");
    }

    #[test]
    fn what_agents_write_to_leads_to_no_agent_and_to_one_component() {
        let topic = |topic: &str| {
            let topic = topic.to_owned();
            Address::Topic { exchange: "bulla".to_owned(), topic }.exchange_name()
        };
        assert_eq!(topic("agent.db-1"), "bulla.agent");
        assert_eq!(topic("component.api"), "bulla.component.api");
        assert_eq!(topic("enrol.control"), "bulla.enrol");
        assert_eq!(topic("agent"), "bulla");
        let host = Inbox::Server {
            exchange: "bulla".to_owned(),
            topic: "component.api".to_owned(),
            server: "host~1".to_owned(),
        };
        assert_eq!(host.exchange_name(), "bulla.component.api");
        let reply = |principal: &str| {
            let name = ReplyName::new(principal, "9f3a").unwrap();
            Inbox::Reply { exchange: "bulla".to_owned(), name }.exchange_name()
        };
        assert_eq!(reply("agent/db-1"), "bulla.agent.reply");
        assert_eq!(reply("component/agent.x"), "bulla.reply");
    }
}
