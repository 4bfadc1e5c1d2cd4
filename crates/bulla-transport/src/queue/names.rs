//! Names of queues. They are hashes, because a queue's name is short and of few letters; whose queue
//! it is stands at a fixed place, so that a service can tell who may take from it.
//!
//! | inbox | name |
//! |---|---|
//! | topic or server of an agent, of a component type, of anything else | `a-`, `c-`, `t-` *owner* `-` *inbox* |
//! | replies to a component, to an agent | `r-`, `s-` *owner* `-` *inbox* |
//! | member of a fanout | `f-` *topic* `-` *owner* |
//! | parts of a large message | `x-` *chance* |

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::address::{Address, Inbox, routing_word};

/// Letters of a hash of 128 bits.
const HASH: usize = 22;

/// What a queue of the transport is for, as far as its name says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueUse {
    /// Messages to its owner.
    Own,
    /// Messages to a component, or answers to one.
    Component,
    /// Parts of a large message, for whoever knows the name.
    Parts,
    /// Anything else.
    Other,
}

impl QueueUse {
    /// What a queue is to a principal (`agent/db-1`).
    #[must_use]
    pub fn of(queue: &str, principal: &str) -> Self {
        let owner = hash(&[&routing_word(principal)]);
        let (kind, rest) = queue.split_at_checked(2).unwrap_or_default();
        let first = rest.get(..HASH).unwrap_or_default();
        let second = rest.get(HASH + 1..).unwrap_or_default();
        let whole = rest.len() == 2 * HASH + 1 && rest.as_bytes().get(HASH) == Some(&b'-');
        match kind {
            "a-" | "c-" | "r-" | "s-" if whole && first == owner => Self::Own,
            "f-" if whole && second == owner => Self::Own,
            "c-" | "r-" if whole => Self::Component,
            "x-" if rest.len() == HASH => Self::Parts,
            _ => Self::Other,
        }
    }
}

/// The queue of an inbox.
pub(super) fn inbox(inbox: &Inbox) -> String {
    let exchange: &str = match inbox {
        Inbox::Topic { exchange, .. }
        | Inbox::Server { exchange, .. }
        | Inbox::Fanout { exchange, .. }
        | Inbox::Reply { exchange, .. } => exchange,
        // Somebody else's names belong to a broker that others use; here they are ours to no one.
        Inbox::Foreign(queue) => return owned("x-", &queue.name, "foreign", &queue.name),
    };
    match inbox {
        Inbox::Fanout { topic, member, .. } => {
            // Of an agent it is the principal as a routing word (`agent.db-1`).
            format!("{}{}", fanout(exchange, topic), hash(&[member]))
        }
        Inbox::Topic { topic, .. } | Inbox::Server { topic, .. } => {
            owned(kind(topic), &owner(topic), exchange, &inbox.queue_name())
        }
        Inbox::Reply { name, .. } => reply(exchange, name.as_str()),
        Inbox::Foreign(queue) => owned("x-", &queue.name, exchange, &queue.name),
    }
}

/// The queue that a message goes to; none for a fanout, which goes to many.
pub(super) fn address(address: &Address) -> Option<String> {
    match address {
        Address::Fanout { .. } => None,
        Address::Topic { exchange, topic } => {
            Some(owned(kind(topic), &owner(topic), exchange, topic))
        }
        Address::Server { exchange, topic, server } => {
            Some(owned(kind(topic), &owner(topic), exchange, &format!("{topic}.{server}")))
        }
        Address::Reply { exchange, to, .. } => Some(reply(exchange, to.as_str())),
        Address::Foreign { key, .. } => Some(owned("x-", key, "foreign", key)),
    }
}

/// What the queues of a fanout's members begin with.
pub(super) fn fanout(exchange: &str, topic: &str) -> String {
    format!("f-{}-", hash(&[exchange, topic]))
}

/// A queue for the parts of one message.
pub(super) fn parts(chance: &[u8; 16]) -> String {
    format!("x-{}", URL_SAFE_NO_PAD.encode(chance))
}

fn reply(exchange: &str, name: &str) -> String {
    let kind = if name.starts_with("agent.") { "s-" } else { "r-" };
    owned(kind, &owner(name), exchange, &format!("reply.{name}"))
}

fn owned(kind: &str, owner: &str, exchange: &str, inbox: &str) -> String {
    format!("{kind}{}-{}", hash(&[owner]), hash(&[exchange, inbox]))
}

fn kind(topic: &str) -> &'static str {
    match topic.split_once('.') {
        Some(("agent", _)) => "a-",
        Some(("component", _)) => "c-",
        _ => "t-",
    }
}

/// Kind and name of a principal: the first two words.
fn owner(text: &str) -> String {
    text.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn hash(parts: &[&str]) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    let digest = digest(&SHA256, &bytes);
    URL_SAFE_NO_PAD.encode(digest.as_ref().get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::ReplyName;

    const AGENT: &str = "agent/db.1";

    fn topic(topic: &str) -> (String, String) {
        let (exchange, topic) = ("bulla".to_owned(), topic.to_owned());
        let at = Address::Topic { exchange: exchange.clone(), topic: topic.clone() };
        (inbox(&Inbox::Topic { exchange, topic }), address(&at).unwrap())
    }

    #[test]
    fn what_is_sent_there_is_taken_there_and_fits() {
        for name in ["agent.db~1", "component.control", "enrol.control", "db"] {
            let (inbox, address) = topic(name);
            assert_eq!(inbox, address);
            assert!(inbox.len() <= 64 && inbox.len() == 2 + 2 * HASH + 1, "{inbox}");
        }
        let to = ReplyName::new(AGENT, "9f3a").unwrap();
        let own = inbox(&Inbox::Reply { exchange: "bulla".into(), name: to.clone() });
        let at = Address::Reply { exchange: "bulla".into(), to, from: "component/x".into() };
        assert_eq!(Some(own), address(&at));
    }

    #[test]
    fn a_name_says_whose_it_is() {
        let of = |queue: &str| QueueUse::of(queue, AGENT);
        assert_eq!(of(&topic("agent.db~1").0), QueueUse::Own);
        assert_eq!(of(&topic("agent.db~2").0), QueueUse::Other);
        assert_eq!(of(&topic("component.control").0), QueueUse::Component);
        assert_eq!(of(&topic("enrol.control").0), QueueUse::Other);
        let member = |member: &str| {
            let (exchange, topic) = ("bulla".to_owned(), "group.all".to_owned());
            inbox(&Inbox::Fanout { exchange, topic, member: member.to_owned() })
        };
        assert_eq!(of(&member(&routing_word(AGENT))), QueueUse::Own);
        assert_eq!(of(&member(&routing_word("agent/db.2"))), QueueUse::Other);
        assert!(member("agent.db~1").starts_with(&fanout("bulla", "group.all")));
        let reply = |principal: &str| {
            let name = ReplyName::new(principal, "9f3a").unwrap();
            inbox(&Inbox::Reply { exchange: "bulla".to_owned(), name })
        };
        assert_eq!(of(&reply(AGENT)), QueueUse::Own);
        assert_eq!(of(&reply("agent/db.2")), QueueUse::Other);
        assert_eq!(of(&reply("component/control")), QueueUse::Component);
        assert_eq!(of(&parts(&[0; 16])), QueueUse::Parts);
        for odd in ["", "a", "a-", "ä-", &format!("a-{}", "x".repeat(45)), "f-x"] {
            assert_eq!(of(odd), QueueUse::Other, "{odd}");
        }
    }
}
