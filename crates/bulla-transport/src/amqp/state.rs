//! What the tasks and the handles of a connection share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::confirms::Confirms;
use super::connection::Event;
use super::content::Message;
use super::error::{AmqpError, Malformed};
use super::handshake::Tuned;
use super::method::{Answer, CHANNEL_CLOSE_OK, MethodId};
use super::outbox::Outbox;

/// Bytes of messages that may wait for a consumer to whom the broker may send without limit.
const BACKLOG: usize = 512 << 20;

/// One connection.
pub(super) struct Core {
    pub(super) outbox: Outbox,
    pub(super) tuned: Tuned,
    channels: Mutex<Channels>,
    up: AtomicBool,
    /// Why it ended.
    pub(super) lost: watch::Sender<Option<Arc<str>>>,
    pub(super) events: mpsc::Sender<Event>,
    /// Reads so far.
    pub(super) reads: AtomicU64,
}

/// The channels by number; the first has number 1.
#[derive(Default)]
struct Channels {
    slots: Vec<Option<Arc<Chan>>>,
    free: Vec<u16>,
}

impl Core {
    pub(super) fn new(tuned: Tuned, events: mpsc::Sender<Event>) -> Self {
        Self {
            outbox: Outbox::default(),
            tuned,
            channels: Mutex::default(),
            up: AtomicBool::new(true),
            lost: watch::Sender::new(None),
            events,
            reads: AtomicU64::new(0),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Ends it for everybody who waits for something. What is still to be sent is sent, unless `now`.
    pub(super) fn end(&self, why: &Arc<str>, now: bool) {
        self.outbox.end(now);
        let first = self.up.swap(false, Ordering::AcqRel);
        let channels = std::mem::take(&mut *self.channels.lock());
        for channel in channels.slots.into_iter().flatten() {
            channel.end(&AmqpError::Lost(Arc::clone(why)));
        }
        if first {
            self.lost.send_replace(Some(Arc::clone(why)));
        }
    }

    /// A channel with the lowest number that is free.
    pub(super) fn add_channel(&self) -> Result<Arc<Chan>, AmqpError> {
        let mut channels = self.channels.lock();
        if !self.is_up() {
            return Err(AmqpError::Lost("the connection was lost".into()));
        }
        let id = match channels.free.pop() {
            Some(id) => id,
            None => u16::try_from(channels.slots.len() + 1)
                .ok()
                .filter(|id| *id <= self.tuned.channel_max)
                .ok_or_else(|| AmqpError::Refused {
                    code: 0,
                    text: "all channels of the connection are in use".into(),
                })?,
        };
        let channel = Arc::new(Chan { id, state: Mutex::default() });
        let index = usize::from(id) - 1;
        if let Some(slot) = channels.slots.get_mut(index) {
            *slot = Some(Arc::clone(&channel));
        } else {
            channels.slots.push(Some(Arc::clone(&channel)));
        }
        Ok(channel)
    }

    pub(super) fn channel(&self, id: u16) -> Result<Arc<Chan>, Malformed> {
        let index = usize::from(id).checked_sub(1);
        let channels = self.channels.lock();
        let channel = index.and_then(|index| channels.slots.get(index)?.clone());
        channel.ok_or(Malformed("a frame for a channel that is not open"))
    }

    /// Both sides are done with it: its number can be used again.
    pub(super) fn remove_channel(&self, id: u16) {
        let mut channels = self.channels.lock();
        let index = usize::from(id).checked_sub(1);
        let taken = index.and_then(|index| channels.slots.get_mut(index)?.take());
        if taken.is_some() {
            channels.free.push(id);
        }
    }
}

/// One channel.
pub(super) struct Chan {
    pub(super) id: u16,
    /// Held while a frame of this channel is put into the outbox, so that nothing of it follows its
    /// end, and answers come in the order of the questions.
    pub(super) state: Mutex<ChanState>,
}

#[derive(Default)]
pub(super) struct ChanState {
    /// Why nothing more can be sent on it.
    pub(super) ended: Option<AmqpError>,
    /// Questions, oldest first.
    asked: VecDeque<(MethodId, oneshot::Sender<Result<Answer, AmqpError>>)>,
    pub(super) consumer: Option<Consuming>,
    pub(super) confirms: Option<Confirms>,
}

impl ChanState {
    /// Whether it can be sent on.
    pub(super) fn open(&mut self) -> Result<&mut Self, AmqpError> {
        match &self.ended {
            None => Ok(self),
            Some(error) => Err(error.clone()),
        }
    }

    /// A question was put whose answer has this id.
    pub(super) fn asks(
        &mut self,
        answer: MethodId,
    ) -> oneshot::Receiver<Result<Answer, AmqpError>> {
        let (sender, receiver) = oneshot::channel();
        self.asked.push_back((answer, sender));
        receiver
    }

    pub(super) fn answered(&mut self, id: MethodId, answer: Answer) -> Result<(), Malformed> {
        match self.asked.pop_front() {
            Some((expected, asker)) if expected == id => {
                // Who asked may have given up.
                let _ = asker.send(Ok(answer));
                Ok(())
            }
            // What was asked before a channel was closed is not answered any more.
            Some(_) if self.ended.is_some() && id == CHANNEL_CLOSE_OK => self.answered(id, answer),
            // Nobody waits for the end of a channel that was dropped.
            None if self.ended.is_some() => Ok(()),
            _ => Err(Malformed("an answer that nobody asked for")),
        }
    }
}

impl Chan {
    pub(super) fn end(&self, error: &AmqpError) {
        let mut state = self.state.lock();
        state.ended.get_or_insert_with(|| error.clone());
        state.consumer = None;
        let asked = std::mem::take(&mut state.asked);
        let confirms = state.confirms.take();
        drop(state);
        for (_, asker) in asked {
            // Who asked may have given up.
            let _ = asker.send(Err(error.clone()));
        }
        if let Some(mut confirms) = confirms {
            confirms.fail(error);
        }
    }
}

/// Where a channel's messages go.
pub(super) struct Consuming {
    pub(super) messages: mpsc::UnboundedSender<Message>,
    pub(super) backlog: Arc<Backlog>,
    /// Whether messages are to be acknowledged.
    pub(super) acks: bool,
    /// Whether the consumer wants to know where a message was published to.
    pub(super) with_route: bool,
}

/// What waits for a consumer. A broker that sends more than it may is not to fill the memory.
#[derive(Debug)]
pub(super) struct Backlog {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    most_messages: usize,
    most_bytes: usize,
}

impl Backlog {
    /// For a consumer that has so many messages unacknowledged at the most; 0 and none for no limit.
    pub(super) fn new(prefetch: u16, no_ack: bool) -> Self {
        let limited = prefetch != 0 && !no_ack;
        Self {
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            most_messages: if limited { prefetch.into() } else { usize::MAX },
            most_bytes: if limited { usize::MAX } else { BACKLOG },
        }
    }

    pub(super) fn add(&self, bytes: usize) -> Result<(), Malformed> {
        let messages = self.messages.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if messages > self.most_messages {
            return Err(Malformed("more messages than the prefetch allows"));
        }
        if bytes > self.most_bytes {
            return Err(Malformed("more messages than their consumer can take"));
        }
        Ok(())
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(channel_max: u16) -> Core {
        let tuned = Tuned { channel_max, frame_max: 4096, heartbeat: 0 };
        Core::new(tuned, mpsc::channel(1).0)
    }

    #[test]
    fn a_number_is_used_again_when_both_sides_are_done() {
        let core = core(2);
        let (first, second) = (core.add_channel().unwrap(), core.add_channel().unwrap());
        assert_eq!((first.id, second.id), (1, 2));
        assert!(matches!(core.add_channel(), Err(AmqpError::Refused { .. })));
        core.remove_channel(1);
        core.remove_channel(1);
        assert!(core.channel(1).is_err());
        assert_eq!(core.add_channel().unwrap().id, 1);
        assert!(core.add_channel().is_err());
        for unknown in [0, 3] {
            assert!(core.channel(unknown).is_err());
        }
    }

    #[test]
    fn the_end_is_told_to_all_who_wait_and_to_all_who_come() {
        let core = core(9);
        let channel = core.add_channel().unwrap();
        let mut asked = channel.state.lock().asks((20, 11));
        core.end(&"gone".into(), true);
        assert!(matches!(asked.try_recv(), Ok(Err(AmqpError::Lost(_)))));
        assert!(channel.state.lock().open().is_err());
        assert!(core.add_channel().is_err());
        assert_eq!(core.lost.borrow().as_deref(), Some("gone"));
        core.end(&"again".into(), true);
        assert_eq!(core.lost.borrow().as_deref(), Some("gone"));
    }

    #[test]
    fn answers_must_have_been_asked_for() {
        let mut state = ChanState::default();
        assert!(state.answered((20, 11), Answer::Done).is_err());
        let mut first = state.asks((20, 11));
        assert!(state.answered((50, 11), Answer::Done).is_err());
        assert!(first.try_recv().is_err());
        let (_second, mut close) = (state.asks((50, 11)), state.asks(CHANNEL_CLOSE_OK));
        state.ended = Some(AmqpError::NameTooLong);
        state.answered(CHANNEL_CLOSE_OK, Answer::Done).unwrap();
        assert_eq!(close.try_recv().unwrap().unwrap(), Answer::Done);
    }

    #[test]
    fn a_broker_that_sends_more_than_it_may_is_found_out() {
        let limited = Backlog::new(2, false);
        limited.add(1 << 30).unwrap();
        limited.add(1 << 30).unwrap();
        limited.remove(1 << 30);
        limited.add(1).unwrap();
        assert!(limited.add(1).is_err());
        let unlimited = Backlog::new(2, true);
        for _ in 0..1000 {
            unlimited.add(1).unwrap();
        }
        assert!(unlimited.add(BACKLOG).is_err());
    }
}
