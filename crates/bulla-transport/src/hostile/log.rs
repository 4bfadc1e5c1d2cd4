//! What a hostile broker did, for the reader of a failure.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::address::{Address, Inbox, ReplyName};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Since the broker was made, in (virtual) time.
    pub at: Duration,
    /// What happened. Names that differ from run to run are numbered instead.
    pub what: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} s  {}", self.at.as_secs_f64(), self.what)
    }
}

/// Gives reply inboxes, whose names are random, names that are the same in every run.
#[derive(Debug, Default)]
pub(super) struct Aliases(HashMap<ReplyName, usize>);

impl Aliases {
    fn reply(&mut self, name: &ReplyName) -> String {
        let next = self.0.len();
        let number = *self.0.entry(name.clone()).or_insert(next);
        let owner = name.as_str().rsplit_once('.').map_or("", |(owner, _)| owner);
        format!("reply.{owner}.~{number}")
    }

    pub(super) fn address(&mut self, to: &Address) -> String {
        match to {
            Address::Reply { to, from, .. } => format!("{} (from {from})", self.reply(to)),
            Address::Fanout { topic, .. } => format!("{topic} (all)"),
            _ => to.routing_key(),
        }
    }

    pub(super) fn inbox(&mut self, inbox: &Inbox) -> String {
        match inbox {
            Inbox::Reply { name, .. } => self.reply(name),
            _ => inbox.queue_name(),
        }
    }
}
