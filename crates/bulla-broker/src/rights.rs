//! What an agent's broker user may do.
//!
//! RabbitMQ asks three regular expressions of a user, over names of queues and exchanges: what it
//! may *configure* (declare, delete), *write* (publish to an exchange, bind a queue) and *read*
//! (consume, get, purge, bind to an exchange). *Topic permissions* hold routing keys of publishing
//! (write) and keys of bindings (read) on one exchange to expressions of their own.
//!
//! The keys of publishing are a second fence only: RabbitMQ 3.10 does not look at keys in the headers
//! `CC` and `BCC`, at those that dead letters get, or at what an alternate exchange leads to. The
//! first fence is which exchanges a user may write to at all; the topology is made so that none of an
//! agent's leads to another agent, or to a component type that agents may not call
//! (`docs/adr/0010-exchanges-by-who-writes.md`).

use bulla_transport::address::routing_word;
use bulla_transport::{Address, ExchangeKind, Inbox, ReplyName};

/// The topic of requests to join.
const ENROL: &str = "enrol.control";
/// Any process's part of a reply name.
const PROCESS: &str = "[0-9A-Za-z]+";
/// No name and no key but the empty one.
const NOTHING: &str = "^$";

/// An agent, as far as the broker has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its id, without `agent/`.
    pub id: String,
    /// The groups that it is in, by their bare names.
    pub groups: Vec<String>,
}

/// The permissions of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// What it may declare and delete.
    pub configure: String,
    /// What it may publish to, and which queues it may bind.
    pub write: String,
    /// What it may consume from, and which exchanges it may bind to.
    pub read: String,
    /// For each topic exchange in `write` and `read`, which keys.
    pub topics: Vec<TopicRights>,
}

/// The keys that a user may use on one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRights {
    /// The exchange.
    pub exchange: String,
    /// Keys to publish with.
    pub write: String,
    /// Keys to bind with.
    pub read: String,
}

impl Rights {
    /// Those of `agent`, on the control exchange `exchange`; it may call the component types
    /// `components`.
    pub fn of(agent: &Agent, exchange: &str, components: &[String]) -> Self {
        let names = Names { exchange, agent, own: routing_word(&format!("agent/{}", agent.id)) };
        let queues = names.queues();
        let (mut write, mut read) = (queues.clone(), queues.clone());
        let (replies, mine) = (names.reply("component.x.1"), names.reply("agent.x.1"));
        let called: Vec<_> = components.iter().map(|name| names.component(name)).collect();
        write.extend([quoted(&replies), quoted(&names.of_topic(ENROL))]);
        write.extend(called.iter().map(|(exchange, _)| quoted(exchange)));
        let agents = names.of_topic(&names.own);
        read.extend([quoted(&agents), quoted(&mine)]);
        read.extend(agent.groups.iter().map(|group| quoted(&names.fanout(group))));
        let own = quoted(&names.own);
        let nothing = || NOTHING.to_owned();
        let mut topics = vec![
            TopicRights { exchange: agents, write: nothing(), read: whole(&own) },
            TopicRights {
                exchange: mine,
                write: nothing(),
                read: whole(&format!(r"{own}\.{PROCESS}\.#")),
            },
        ];
        topics.extend(called.into_iter().map(|(exchange, topic)| TopicRights {
            exchange,
            write: whole(&quoted(&topic)),
            read: nothing(),
        }));
        Self { configure: any(&queues), write: any(&write), read: any(&read), topics }
    }
}

/// The exchanges that agents need and may not make, each with its kind.
pub(crate) fn exchanges(
    exchange: &str,
    components: &[String],
    groups: &[String],
) -> Vec<(String, ExchangeKind)> {
    let nobody = Agent { id: "x".to_owned(), groups: Vec::new() };
    let names = Names { exchange, agent: &nobody, own: "agent.x".to_owned() };
    let topics = [names.of_topic(&names.own), names.of_topic(ENROL), names.reply("agent.x.1")];
    let topics = topics.into_iter().chain(components.iter().map(|name| names.component(name).0));
    let mut all: Vec<_> = topics.map(|name| (name, ExchangeKind::Topic)).collect();
    all.push((names.reply("component.x.1"), ExchangeKind::Direct));
    all.extend(groups.iter().map(|group| (names.fanout(group), ExchangeKind::Fanout)));
    all
}

/// Names on the bus, from where everybody has them: the topology.
struct Names<'a> {
    exchange: &'a str,
    agent: &'a Agent,
    /// The agent's topic.
    own: String,
}

impl Names<'_> {
    fn of_topic(&self, topic: &str) -> String {
        let (exchange, topic) = (self.exchange.to_owned(), topic.to_owned());
        Address::Topic { exchange, topic }.exchange_name()
    }

    /// A component type's exchange and topic.
    fn component(&self, name: &str) -> (String, String) {
        let topic = routing_word(&format!("component/{name}"));
        (self.of_topic(&topic), topic)
    }

    /// The exchange of answers to somebody like `name`.
    fn reply(&self, name: &str) -> String {
        let exchange = self.exchange.to_owned();
        let name = ReplyName::parse(name);
        name.map(|name| Inbox::Reply { exchange, name }.exchange_name()).unwrap_or_default()
    }

    fn fanout(&self, group: &str) -> String {
        let (exchange, topic) = (self.exchange.to_owned(), group_topic(group));
        Address::Fanout { exchange, topic }.exchange_name()
    }

    /// Its queues: its topic's, those of its replies, and one in each group.
    fn queues(&self) -> Vec<String> {
        let own = quoted(&self.own);
        let mut queues = vec![own.clone(), format!(r"reply\.{own}\.{PROCESS}")];
        queues.extend(self.agent.groups.iter().map(|group| {
            let (exchange, topic) = (self.exchange.to_owned(), group_topic(group));
            quoted(&Inbox::Fanout { exchange, topic, member: self.own.clone() }.queue_name())
        }));
        queues
    }
}

fn group_topic(group: &str) -> String {
    format!("group.{}", routing_word(group))
}

/// A name as a regular expression.
fn quoted(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, c| {
        if !(c.is_alphanumeric() || matches!(c, '-' | '_' | '~')) {
            text.push('\\');
        }
        text.push(c);
        text
    })
}

/// That and nothing more: `$` would also match before a line feed.
fn whole(pattern: &str) -> String {
    format!(r"^{pattern}\z")
}

fn any(patterns: &[String]) -> String {
    whole(&format!("({})", patterns.join("|")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(id: &str, groups: &[&str]) -> Rights {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Rights::of(&Agent { id: id.to_owned(), groups }, "bulla", &["control".to_owned()])
    }

    #[test]
    fn an_agent_may_use_its_own_names_and_no_others() {
        let rights = rights("db.1", &["all", "dbs.x"]);
        let queues = r"agent\.db~1|reply\.agent\.db~1\.[0-9A-Za-z]+|group\.all_fanout_agent~db~1|group\.dbs~x_fanout_agent~db~1";
        assert_eq!(rights.configure, format!(r"^({queues})\z"));
        assert_eq!(
            rights.write,
            format!(r"^({queues}|bulla\.reply|bulla\.enrol|bulla\.component\.control)\z")
        );
        assert_eq!(
            rights.read,
            format!(
                r"^({queues}|bulla\.agent|bulla\.agent\.reply|group\.all_fanout|group\.dbs~x_fanout)\z"
            )
        );
        let topics: Vec<_> =
            rights.topics.iter().map(|t| (&t.exchange[..], &t.write[..], &t.read[..])).collect();
        assert_eq!(
            topics,
            [
                ("bulla.agent", "^$", r"^agent\.db~1\z"),
                ("bulla.agent.reply", "^$", r"^agent\.db~1\.[0-9A-Za-z]+\.#\z"),
                ("bulla.component.control", r"^component\.control\z", "^$"),
            ]
        );
    }

    #[test]
    fn the_names_are_the_ones_that_the_transport_uses() {
        let exchange = || "bulla".to_owned();
        let name = ReplyName::new("agent/db.1", "9f3a").unwrap();
        let inbox = Inbox::Reply { exchange: exchange(), name };
        assert_eq!(inbox.queue_name(), "reply.agent.db~1.9f3a");
        assert_eq!(inbox.binding_key(), "agent.db~1.9f3a.#");
        let all = exchanges("bulla", &["control".into()], &["all".into()]);
        let names: Vec<_> =
            all.iter().map(|(name, kind)| format!("{name} {}", kind.as_str())).collect();
        assert_eq!(
            names,
            [
                "bulla.agent topic",
                "bulla.enrol topic",
                "bulla.agent.reply topic",
                "bulla.component.control topic",
                "bulla.reply direct",
                "group.all_fanout fanout"
            ]
        );
    }

    #[test]
    fn an_exchange_with_signs_in_its_name_stays_a_name() {
        let agent = Agent { id: "a".into(), groups: Vec::new() };
        let rights = Rights::of(&agent, "x.*|y", &[]);
        assert!(rights.write.contains(r"x\.\*\|y\.reply"), "{}", rights.write);
    }
}
