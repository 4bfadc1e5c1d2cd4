//! Whom a message is for, and the names on the bus that follow from it.

use std::fmt;
use std::str::FromStr;

use bulla_seal::{GroupName, NameError, Principal};
use bulla_transport::address::routing_word;
use bulla_transport::{Address, Inbox};

/// The exchange that everything travels on unless configured.
pub const DEFAULT_EXCHANGE: &str = "bulla";

/// Whom a message is for: `agent/<id>`, `component/<type>`, `component/<type>@<server>` or
/// `group/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// One principal; of a component, any one host.
    Principal(Principal),
    /// One host of a component.
    Server(Principal, String),
    /// Every member of a group.
    Group(GroupName),
    /// A principal behind a topic that its deployment names, on the oslo carrier.
    Named {
        /// Who is behind it.
        principal: Principal,
        /// The control exchange.
        exchange: String,
        /// The topic.
        topic: String,
        /// One server of the topic.
        server: Option<String>,
    },
    /// A group behind such a topic.
    NamedGroup {
        /// Who listens.
        group: GroupName,
        /// The control exchange.
        exchange: String,
        /// The topic.
        topic: String,
    },
}

impl Target {
    /// The principal, unless it is a group.
    pub fn principal(&self) -> Option<&Principal> {
        match self {
            Self::Principal(principal)
            | Self::Server(principal, _)
            | Self::Named { principal, .. } => Some(principal),
            Self::Group(_) | Self::NamedGroup { .. } => None,
        }
    }

    /// The group, if it is one.
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Self::Group(group) | Self::NamedGroup { group, .. } => Some(group),
            _ => None,
        }
    }

    /// The exchange that it is on: its own, or the `default` one.
    pub fn exchange<'a>(&'a self, default: &'a str) -> &'a str {
        match self {
            Self::Named { exchange, .. } | Self::NamedGroup { exchange, .. } => exchange,
            _ => default,
        }
    }

    /// The server of a directed message.
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Server(_, server) => Some(server),
            Self::Named { server, .. } => server.as_deref(),
            _ => None,
        }
    }

    /// The topic on the bus.
    pub fn topic(&self) -> String {
        match self {
            Self::Principal(principal) | Self::Server(principal, _) => topic_of(principal),
            Self::Group(group) => group_topic(group),
            Self::Named { topic, .. } | Self::NamedGroup { topic, .. } => topic.clone(),
        }
    }

    /// Where it is published.
    pub fn address(&self, exchange: &str) -> Address {
        let (exchange, topic) = (self.exchange(exchange).to_owned(), self.topic());
        match self {
            Self::Principal(_) | Self::Named { server: None, .. } => {
                Address::Topic { exchange, topic }
            }
            Self::Named { server: Some(server), .. } => {
                Address::Server { exchange, topic, server: server.clone() }
            }
            Self::Server(_, server) => {
                Address::Server { exchange, topic, server: routing_word(server) }
            }
            Self::Group(_) | Self::NamedGroup { .. } => Address::Fanout { exchange, topic },
        }
    }

    /// The inbox that it lands in, for a principal.
    pub fn inbox(&self, exchange: &str) -> Option<Inbox> {
        let (exchange, topic) = (self.exchange(exchange).to_owned(), self.topic());
        match self {
            Self::Principal(_) | Self::Named { server: None, .. } => {
                Some(Inbox::Topic { exchange, topic })
            }
            Self::Named { server: Some(server), .. } => {
                Some(Inbox::Server { exchange, topic, server: server.clone() })
            }
            Self::Server(_, server) => {
                Some(Inbox::Server { exchange, topic, server: routing_word(server) })
            }
            Self::Group(_) | Self::NamedGroup { .. } => None,
        }
    }
}

/// A principal's topic: `agent.<id>`, `component.<type>`, with dots of the name as `~`.
pub fn topic_of(principal: &Principal) -> String {
    routing_word(principal.as_str())
}

/// A group's topic: `group.<name>`.
pub fn group_topic(group: &GroupName) -> String {
    format!("group.{}", routing_word(group.as_str()))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(principal) => principal.fmt(f),
            Self::Server(principal, server) => write!(f, "{principal}@{server}"),
            Self::Group(group) => group.fmt(f),
            Self::Named { principal, topic, server: None, .. } => {
                write!(f, "{principal} (topic {topic})")
            }
            Self::Named { principal, topic, server: Some(server), .. } => {
                write!(f, "{principal} (topic {topic}, server {server})")
            }
            Self::NamedGroup { group, topic, .. } => write!(f, "{group} (topic {topic})"),
        }
    }
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(group) = text.strip_prefix("group/") {
            return GroupName::new(group).map(Self::Group);
        }
        match text.split_once('@') {
            Some((principal, server)) => {
                bulla_seal::principal::check_name("server", server)?;
                Ok(Self::Server(principal.parse()?, server.to_owned()))
            }
            None => text.parse().map(Self::Principal),
        }
    }
}

impl From<Principal> for Target {
    fn from(principal: Principal) -> Self {
        Self::Principal(principal)
    }
}

impl From<GroupName> for Target {
    fn from(group: GroupName) -> Self {
        Self::Group(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in ["agent/db-1", "component/api", "component/api@host.1", "group/all"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for bad in ["db-1", "group/", "component/api@", "agent/a/b", "group/a b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_named_topic_is_taken_as_it_is() {
        let named = |server: Option<&str>| Target::Named {
            principal: "component/conductor".parse().unwrap(),
            exchange: "trove".into(),
            topic: "trove-conductor".into(),
            server: server.map(str::to_owned),
        };
        let (exchange, topic) = ("trove".to_owned(), "trove-conductor".to_owned());
        let (host, any) = (named(Some("h.1")), named(None));
        assert_eq!(
            any.address("bulla"),
            Address::Topic { exchange: exchange.clone(), topic: topic.clone() }
        );
        let server = "h.1".to_owned();
        assert_eq!(host.address("bulla"), Address::Server { exchange, topic, server });
        assert_eq!(host.principal().unwrap().as_str(), "component/conductor");
    }

    #[test]
    fn no_name_reaches_into_anothers_topic() {
        let dotted: Target = "agent/a.b".parse().unwrap();
        let server: Target = "component/api@b.c".parse().unwrap();
        assert_eq!(dotted.topic(), "agent.a~b");
        assert_eq!(
            server.address("x"),
            Address::Server {
                exchange: "x".into(),
                topic: "component.api".into(),
                server: "b~c".into()
            }
        );
    }
}
