//! Names of exchanges, queues and routing keys: oslo.messaging's, with replies on an exchange of
//! their own. The in-memory bus shows the same names, so that what one learns there is true of a
//! broker.

use crate::address::{Address, Inbox, routing_word};

impl Address {
    /// The exchange that a message to this address is published to.
    pub fn exchange_name(&self) -> String {
        match self {
            Self::Topic { exchange, .. } | Self::Server { exchange, .. } => exchange.clone(),
            Self::Fanout { topic, .. } => fanout_exchange(topic),
            Self::Reply { exchange, .. } => reply_exchange(exchange),
        }
    }

    /// The routing key that it is published with.
    pub fn routing_key(&self) -> String {
        match self {
            Self::Topic { topic, .. } | Self::Fanout { topic, .. } => topic.clone(),
            Self::Server { topic, server, .. } => format!("{topic}.{server}"),
            Self::Reply { to, from, .. } => format!("{to}.{}", routing_word(from)),
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
        }
    }

    /// The exchange that the queue is bound to.
    pub fn exchange_name(&self) -> String {
        match self {
            Self::Topic { exchange, .. } | Self::Server { exchange, .. } => exchange.clone(),
            Self::Fanout { topic, .. } => fanout_exchange(topic),
            Self::Reply { exchange, .. } => reply_exchange(exchange),
        }
    }

    /// The key that it is bound with.
    pub fn binding_key(&self) -> String {
        match self {
            Self::Topic { topic, .. } | Self::Fanout { topic, .. } => topic.clone(),
            Self::Server { topic, server, .. } => format!("{topic}.{server}"),
            Self::Reply { name, .. } => format!("{name}.#"),
        }
    }
}

fn fanout_exchange(topic: &str) -> String {
    format!("{topic}_fanout")
}

fn reply_exchange(exchange: &str) -> String {
    format!("{exchange}.reply")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::ReplyName;

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
        assert_eq!(reply.routing_key(), "component.api.9f3a.agent.db~1");
    }
}
