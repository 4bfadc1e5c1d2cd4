//! Where messages go and where they are taken from.
//!
//! The names follow oslo.messaging: an exchange with a queue for a topic, one for a server of the
//! topic, and a fanout exchange. Replies go through exchanges of their own, never the broker's
//! default exchange, with a routing key that names who asked, so that a broker user who answers can
//! be kept from all other queues.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::foreign::{ForeignExchange, ForeignQueue};

/// Where a message is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Any one consumer of a topic.
    Topic {
        /// The control exchange.
        exchange: String,
        /// The topic.
        topic: String,
    },
    /// One server of a topic.
    Server {
        /// The control exchange.
        exchange: String,
        /// The topic.
        topic: String,
        /// The server.
        server: String,
    },
    /// Every consumer of a topic.
    Fanout {
        /// The control exchange.
        exchange: String,
        /// The topic.
        topic: String,
    },
    /// The process that asked.
    Reply {
        /// The control exchange; replies travel on `<exchange>.reply`.
        exchange: String,
        /// Whose reply inbox.
        to: ReplyName,
        /// Who answers: the short form of the principal. Part of the routing key of answers to
        /// agents.
        from: String,
    },
    /// Where somebody else's names lead.
    Foreign {
        /// The exchange; `None` for the broker's default exchange.
        exchange: Option<Arc<ForeignExchange>>,
        /// The routing key.
        key: String,
    },
}

/// What a process consumes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Inbox {
    /// The shared queue of a topic: competing consumers.
    Topic {
        /// The control exchange.
        exchange: String,
        /// The topic.
        topic: String,
    },
    /// The queue of one server of a topic.
    Server {
        /// The control exchange.
        exchange: String,
        /// The topic.
        topic: String,
        /// The server.
        server: String,
    },
    /// One member's own queue behind a topic's fanout exchange.
    Fanout {
        /// The control exchange.
        exchange: String,
        /// The topic.
        topic: String,
        /// The member's name, unique among the members: it names the queue, so that what was
        /// sent while the member was away waits there.
        member: String,
    },
    /// This process's replies: exclusive, gone with the process.
    Reply {
        /// The control exchange.
        exchange: String,
        /// The inbox's name.
        name: ReplyName,
    },
    /// A queue with somebody else's names.
    Foreign(Arc<ForeignQueue>),
}

impl Inbox {
    /// Whether it is this process's own, for replies.
    pub fn is_own(&self) -> bool {
        match self {
            Self::Reply { .. } => true,
            Self::Foreign(queue) => queue.own,
            _ => false,
        }
    }
}

/// What names of reply queues begin with on the oslo carrier.
const QUEUE: &str = "reply_";

/// The name of a reply inbox: whose it is (a principal's short form) and which process's.
/// At most 96 bytes in its text form `<principal>.<process>`, with `/` and `.` of the principal
/// written as `.` and `~`: `agent/db-1` and process `9f3a` give `agent.db-1.9f3a`.
///
/// A carrier that has queues of its own for replies has names of its own too ([`ReplyName::queue`]).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReplyName {
    // Shared: it goes along with every call.
    text: Arc<str>,
    call: Option<CallTag>,
}

/// What a carrier's own reply names have beside the queue: which of a driver's calls is answered. It
/// routes, and nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallTag {
    /// The driver's id of the call.
    pub id: [u8; 16],
    /// How often the driver wants a sign of life.
    pub alive_every: Option<Duration>,
}

impl ReplyName {
    /// Longest text form, in bytes: room for the longest principal and a process of 16 digits. A
    /// longer hint is ignored (protocol section 3).
    pub const MAX: usize = 96;

    /// The inbox of `process` (letters and digits) of the principal with the short form
    /// `principal`; `None` if the name would be too long or `process` has other characters.
    pub fn new(principal: &str, process: &str) -> Option<Self> {
        let process_ok = !process.is_empty() && process.bytes().all(|b| b.is_ascii_alphanumeric());
        let text = format!("{}.{process}", routing_word(principal));
        (process_ok && text.len() <= Self::MAX).then(|| Self { text: text.into(), call: None })
    }

    /// A reply queue of the oslo carrier, by its name: `reply_` and more printable ASCII without quotes
    /// and backslashes, 255 bytes at the most.
    pub fn queue(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(QUEUE)?;
        let printable = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        let ok = !rest.is_empty() && name.len() <= 255 && name.bytes().all(printable);
        ok.then(|| Self { text: name.into(), call: None })
    }

    /// Whether it is the name of such a queue. What [`ReplyName::parse`] reads never is.
    pub fn is_queue(&self) -> bool {
        self.text.starts_with(QUEUE)
    }

    /// From the text form; `None` unless it has the form that [`ReplyName::new`] gives.
    pub fn parse(text: &str) -> Option<Self> {
        Self::is_name(text).then(|| Self { text: text.into(), call: None })
    }

    /// The same, of a text that is owned already.
    pub fn from_text(text: Arc<str>) -> Option<Self> {
        Self::is_name(&text).then_some(Self { text, call: None })
    }

    fn is_name(text: &str) -> bool {
        let mut words = text.split('.');
        let (Some(kind), Some(name), Some(process)) = (words.next(), words.next(), words.next())
        else {
            return false;
        };
        words.next().is_none()
            && matches!(kind, "agent" | "component")
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~'))
            && !process.is_empty()
            && process.bytes().all(|b| b.is_ascii_alphanumeric())
            && text.len() <= Self::MAX
    }

    /// A reply queue of the oslo carrier, of one call.
    #[must_use]
    pub fn for_call(mut self, call: CallTag) -> Self {
        self.call = Some(call);
        self
    }

    /// What a carrier needs to answer one call.
    pub fn call(&self) -> Option<CallTag> {
        self.call
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the inbox belongs to the principal with the short form `principal`.
    pub fn belongs_to(&self, principal: &str) -> bool {
        self.text
            .strip_prefix(routing_word(principal).as_str())
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|process| !process.contains('.'))
    }
}

impl fmt::Display for ReplyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ReplyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A principal's short form as words of a routing key: `/` becomes `.`, and a `.` of the name
/// becomes `~` (which no name may hold), so that no name can reach into another's.
pub fn routing_word(principal: &str) -> String {
    principal.replace('.', "~").replace('/', ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_names_stay_in_their_name_space() {
        let name = ReplyName::new("agent/db.1", "9f3a").unwrap();
        assert_eq!(name.as_str(), "agent.db~1.9f3a");
        assert!(name.belongs_to("agent/db.1"));
        assert!(!name.belongs_to("agent/db"));
        assert!(!ReplyName::new("agent/db", "9f3a").unwrap().belongs_to("agent/d"));
        assert_eq!(ReplyName::parse("agent.db~1.9f3a"), Some(name));
        for bad in
            ["", "agent.db", "agent.db.1.9", "host.db.1", "agent..9", "agent.db.", "agent.d b.1"]
        {
            assert_eq!(ReplyName::parse(bad), None, "{bad}");
        }
        assert_eq!(ReplyName::new("agent/db", "a.b"), None);
    }

    #[test]
    fn reply_queues_are_told_by_their_name() {
        let queue = ReplyName::queue("reply_host:trove:1").unwrap();
        assert!(queue.is_queue() && !queue.belongs_to("agent/db"));
        assert!(!ReplyName::new("agent/db", "9f3a").unwrap().is_queue());
        let long = format!("reply_{}", "a".repeat(250));
        for bad in
            ["reply_", "trove-taskmanager", "reply_ 1", "reply_\"", "reply_\\", "reply_ü", &long]
        {
            assert_eq!(ReplyName::queue(bad), None, "{bad}");
        }
    }
}
