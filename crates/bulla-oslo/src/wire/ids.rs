//! Ids and names that route a message. None of them is believed.

use std::fmt;
use std::time::Duration;

/// The start of every reply queue's name.
const REPLY: &str = "reply_";
/// Longest name of a queue, in bytes: AMQP's.
const LONGEST: usize = 255;
/// The longest monitor timeout that means something: a day.
const LONGEST_MONITOR: f64 = 86_400.0;

/// 16 bytes that are written as 32 lower-case hexadecimal digits: `_msg_id`, `_unique_id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// From its text; `None` unless it is exactly 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !digits {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a reply queue: `reply_` and more, of characters that need no escape in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplyQueue(String);

impl ReplyQueue {
    /// From its text; `None` unless it has that form.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| matches!(b, b'!'..=b'~') && b != b'"' && b != b'\\';
        let ok = text.len() <= LONGEST
            && text.strip_prefix(REPLY).is_some_and(|rest| !rest.is_empty())
            && text.bytes().all(plain);
        ok.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplyQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a call is answered: what its sender's driver goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// `_msg_id`: what the reply names.
    pub id: Id,
    /// `_reply_q`: where it goes.
    pub reply_queue: ReplyQueue,
    /// `_timeout`: how long the caller waits between two signs of life (`call_monitor_timeout`), in
    /// seconds; `None` if it wants none.
    pub monitor: Option<Monitor>,
}

/// A positive number of seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Monitor(f64);

impl Monitor {
    /// `None` unless it is positive and at most a day.
    pub fn from_secs(seconds: f64) -> Option<Self> {
        (seconds > 0.0 && seconds <= LONGEST_MONITOR).then_some(Self(seconds))
    }

    /// The number of seconds.
    pub fn secs(self) -> f64 {
        self.0
    }

    /// How often a sign of life is due: twice as often as it is waited for, and not at all if that were
    /// more than once a second (oslo.messaging's rule).
    pub fn every(self) -> Option<Duration> {
        (self.0 >= 2.0).then(|| Duration::from_secs_f64(self.0 / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_queues_have_one_form() {
        let id = Id::parse("29d095e615a842798d9948f7db6b87bc").unwrap();
        assert_eq!(id.to_string(), "29d095e615a842798d9948f7db6b87bc");
        for bad in
            ["", "29", "29D095E615A842798D9948F7DB6B87BC", "+9d095e615a842798d9948f7db6b87bc"]
        {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
        for good in ["reply_f85e", "reply_host-1:trove-api:3", "reply_agent.db~1.9f"] {
            assert_eq!(ReplyQueue::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "reply_", "taskmanager", "reply_a\"b", "reply_a b", "reply_\\", "reply_é"]
        {
            assert_eq!(ReplyQueue::parse(bad), None, "{bad}");
        }
        assert_eq!(ReplyQueue::parse(&format!("reply_{}", "a".repeat(250))), None);
    }

    #[test]
    fn signs_of_life_come_twice_as_often_as_they_are_waited_for() {
        let every = |seconds| Monitor::from_secs(seconds).and_then(Monitor::every);
        assert_eq!(every(3.0), Some(Duration::from_millis(1500)));
        assert_eq!(every(2.0), Some(Duration::from_secs(1)));
        for none in [0.0, -1.0, 1.9, f64::NAN, f64::INFINITY, 90_000.0] {
            assert_eq!(every(none), None, "{none}");
        }
    }
}
