//! What a hostile broker can do with one message.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::address::{Address, Inbox, ReplyName};
use crate::transport::Outbound;

pub use super::frame::{Splice, Strip};

/// What was published, as it was published.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Counts from 0.
    pub n: usize,
    /// Who published it: the name that its transport was given.
    pub by: String,
    /// Where to.
    pub to: Address,
    /// The message.
    pub message: Outbound,
}

impl Sent {
    /// Whether it was sent to a reply inbox: a reply or a notice.
    pub fn is_reply(&self) -> bool {
        matches!(self.to, Address::Reply { .. })
    }

    /// Whether a queue for `inbox` would have got it.
    pub fn lands_in(&self, inbox: &Inbox) -> bool {
        match (&self.to, inbox) {
            (Address::Topic { exchange: e, topic: t }, Inbox::Topic { exchange, topic })
            | (Address::Fanout { exchange: e, topic: t }, Inbox::Fanout { exchange, topic, .. }) => {
                (e, t) == (exchange, topic)
            }
            (
                Address::Server { exchange: e, topic: t, server: s },
                Inbox::Server { exchange, topic, server },
            ) => (e, t, s) == (exchange, topic, server),
            (Address::Reply { exchange: e, to, .. }, Inbox::Reply { exchange, name }) => {
                (e, to) == (exchange, name)
            }
            _ => false,
        }
    }
}

/// One thing to do with a message. A plan answers with any number of them: none drops the
/// message, two deliver it twice. Numbers of other messages are those of [`Sent::n`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Deliver it as it is.
    Pass,
    /// Deliver it later.
    Delay(Duration),
    /// Deliver it when that many more were published.
    Hold(usize),
    /// Invert one bit, anywhere (modulo its length in bits).
    Flip(u64),
    /// Keep that many of its first bytes (modulo its length).
    Cut(u64),
    /// Deliver it elsewhere.
    Reroute(Address),
    /// Put it together with another message.
    Splice(Splice, usize),
    /// Put this item into the frame's last place, where statements travel.
    Last(Bytes),
    /// Take something off.
    Strip(Strip),
    /// Name another place for notices, or none.
    Hint(Option<ReplyName>),
    /// Deliver an earlier message again, where it was sent.
    Replay(usize),
    /// Deliver an earlier message where this one goes.
    InPlace(usize),
    /// Deliver this where the earlier one went, and the earlier one where this one goes.
    Swap(usize),
    /// Deliver that many bytes of noise where this goes.
    Noise(usize, u64),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Delay(pause) => write!(f, "delay {} ms", pause.as_millis()),
            Self::Hold(more) => write!(f, "hold for {more}"),
            Self::Flip(bit) => write!(f, "flip bit {bit}"),
            Self::Cut(keep) => write!(f, "cut at {keep}"),
            Self::Reroute(_) => f.write_str("re-route"),
            Self::Splice(what, other) => write!(f, "splice {what:?} of #{other}"),
            Self::Last(_) => f.write_str("something in the last place"),
            Self::Strip(what) => write!(f, "strip {what:?}"),
            Self::Hint(None) => f.write_str("hint to nobody"),
            Self::Hint(Some(_)) => f.write_str("hint to another"),
            Self::Replay(other) => write!(f, "replay #{other}"),
            Self::InPlace(other) => write!(f, "#{other} in its place"),
            Self::Swap(other) => write!(f, "swap with #{other}"),
            Self::Noise(len, _) => write!(f, "{len} B of noise"),
        }
    }
}
