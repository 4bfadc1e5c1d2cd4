//! Messages that the broker has to answer for.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::error::{AmqpError, Malformed};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// The broker has it.
    Taken,
    /// The broker does not take it.
    Rejected,
    /// It was mandatory, and no queue takes it.
    Unroutable,
}

pub(super) type Told = Result<Confirmation, AmqpError>;

/// A mandatory message: the broker names it by showing it.
#[derive(Debug)]
pub(super) struct Mandatory {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) body: Bytes,
}

#[derive(Debug)]
struct Waiting {
    done: oneshot::Sender<Told>,
    mandatory: Option<Mandatory>,
    returned: bool,
}

/// The messages of a channel, in the order in which they left. Tags count from 1 without a gap.
#[derive(Debug)]
pub(super) struct Confirms {
    /// The tag of the first that is in the list.
    first: u64,
    waiting: VecDeque<Option<Waiting>>,
}

impl Confirms {
    pub(super) fn new() -> Self {
        Self { first: 1, waiting: VecDeque::new() }
    }

    /// The next message has left.
    pub(super) fn sent(&mut self, mandatory: Option<Mandatory>) -> oneshot::Receiver<Told> {
        let (done, told) = oneshot::channel();
        self.waiting.push_back(Some(Waiting { done, mandatory, returned: false }));
        told
    }

    /// The broker gives a message back: the oldest that is the same, for they come back in order.
    /// Whether there was one.
    pub(super) fn returned(&mut self, exchange: &str, routing_key: &str, body: &[u8]) -> bool {
        let same = |waiting: &&mut Waiting| {
            let it = waiting.mandatory.as_ref().filter(|_| !waiting.returned);
            it.is_some_and(|it| {
                it.routing_key == routing_key && it.exchange == exchange && it.body == body
            })
        };
        let found = self.waiting.iter_mut().flatten().find(same);
        found.map(|waiting| waiting.returned = true).is_some()
    }

    /// The broker answers for a message, or for all up to it.
    pub(super) fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        taken: bool,
    ) -> Result<(), Malformed> {
        const UNKNOWN: Malformed = Malformed("an answer for a message that was not sent");
        // All that there are.
        let last = (self.first + self.waiting.len() as u64).saturating_sub(1);
        let tag = if tag == 0 && multiple { last } else { tag };
        let index = tag.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let index = index.filter(|index| *index < self.waiting.len()).ok_or(UNKNOWN)?;
        if multiple {
            self.waiting.drain(..=index).flatten().for_each(|waiting| waiting.end(taken));
            self.first = tag + 1;
        } else if let Some(waiting) = self.waiting.get_mut(index).and_then(Option::take) {
            waiting.end(taken);
        }
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, error: &AmqpError) {
        for waiting in self.waiting.drain(..).flatten() {
            // Who waited may have given up.
            let _ = waiting.done.send(Err(error.clone()));
        }
    }
}

impl Waiting {
    fn end(self, taken: bool) {
        let what = match (self.returned, taken) {
            (true, _) => Confirmation::Unroutable,
            (false, true) => Confirmation::Taken,
            (false, false) => Confirmation::Rejected,
        };
        // Who waited may have given up.
        let _ = self.done.send(Ok(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mandatory(routing_key: &str) -> Option<Mandatory> {
        let body = Bytes::from_static(b"body");
        Some(Mandatory { exchange: "e".to_owned(), routing_key: routing_key.to_owned(), body })
    }

    fn told(receiver: &mut oneshot::Receiver<Told>) -> Option<Confirmation> {
        receiver.try_recv().ok().map(Result::unwrap)
    }

    #[test]
    fn each_message_gets_its_own_answer_in_any_order() {
        let mut confirms = Confirms::new();
        let mut told_of: Vec<_> = (0..5).map(|_| confirms.sent(None)).collect();
        confirms.settle(3, false, false).unwrap();
        assert_eq!(told(&mut told_of[2]), Some(Confirmation::Rejected));
        assert_eq!(told(&mut told_of[0]), None);
        confirms.settle(2, true, true).unwrap();
        assert_eq!(told(&mut told_of[0]), Some(Confirmation::Taken));
        assert_eq!(told(&mut told_of[1]), Some(Confirmation::Taken));
        assert_eq!(confirms.first, 4, "what is settled is gone");
        for unknown in [3, 6, 0] {
            assert!(confirms.settle(unknown, false, true).is_err(), "{unknown}");
        }
        confirms.settle(5, true, true).unwrap();
        assert_eq!(told(&mut told_of[4]), Some(Confirmation::Taken));
        assert!(confirms.waiting.is_empty());
    }

    #[test]
    fn what_comes_back_is_found_by_what_it_is() {
        let mut confirms = Confirms::new();
        let mut first = confirms.sent(mandatory("a"));
        let mut second = confirms.sent(mandatory("b"));
        let mut third = confirms.sent(None);
        assert!(confirms.returned("e", "b", b"body"));
        assert!(!confirms.returned("e", "b", b"body"), "once");
        assert!(!confirms.returned("e", "a", b"other"));
        confirms.settle(3, true, true).unwrap();
        assert_eq!(told(&mut first), Some(Confirmation::Taken));
        assert_eq!(told(&mut second), Some(Confirmation::Unroutable));
        assert_eq!(told(&mut third), Some(Confirmation::Taken));
    }

    #[test]
    fn a_lost_channel_is_told_to_all_who_wait() {
        let mut confirms = Confirms::new();
        let mut waiting = confirms.sent(None);
        confirms.fail(&AmqpError::Lost("gone".into()));
        assert!(matches!(waiting.try_recv(), Ok(Err(AmqpError::Lost(_)))));
    }
}
