//! Calls that wait for their replies, by message id.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bulla_seal::mutants::{Check, off};
use bulla_seal::{Frame, MessageId, OpenedReply, ReplyBinding};
use bulla_transport::Address;
use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::deadlines::Deadlines;

use crate::endpoint::Endpoint;
use crate::error::CallError;
use crate::sessions::OutSession;
use crate::standing::fitting;

/// Replies that a slow caller may leave unread before progress is dropped.
const BACKLOG: usize = 64;
const SHARDS: usize = 16;

/// What a call gets: any number of signs of progress, then the value.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are values; a box is one allocation a call"
)]
pub(super) enum Reply {
    /// More follows. One CBOR item.
    Progress(Bytes),
    /// The result.
    Value(OpenedReply),
}

/// What a waiting call gets, or why it gets nothing.
pub(super) type Event = Result<Reply, CallError>;

/// Where a call's events go.
pub(super) enum Events {
    /// Only the last one is wanted: it goes into [`SentCall::last`].
    Last,
    /// Progress too.
    All(mpsc::Sender<Event>),
}

impl Events {
    /// Passes the last event on. A caller that reads nothing finds the channel closed and no
    /// result: an error.
    fn end(self, sent: &SentCall, event: Event) {
        match self {
            Self::Last => sent.last.set(event),
            Self::All(all) => drop(all.try_send(event)),
        }
    }

    /// Passes progress on, unless the caller is too slow: the last place is for the result.
    fn progress(&self, item: Bytes) {
        if let Self::All(all) = self
            && all.capacity() > 1
        {
            drop(all.try_send(Ok(Reply::Progress(item))));
        }
    }
}

/// The place of a call's last event, where its caller waits for it.
#[derive(Default)]
pub(super) struct Last(Mutex<Place>);

#[derive(Default)]
#[expect(clippy::large_enum_variant, reason = "nearly all calls end with an event")]
enum Place {
    #[default]
    Empty,
    Waits(Waker),
    Here(Event),
}

impl Last {
    fn set(&self, event: Event) {
        let before = std::mem::replace(&mut *self.0.lock(), Place::Here(event));
        if let Place::Waits(waker) = before {
            waker.wake();
        }
    }

    /// The event, once.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut place = self.0.lock();
        match &mut *place {
            Place::Here(_) => match std::mem::take(&mut *place) {
                Place::Here(event) => Poll::Ready(event),
                _ => Poll::Pending,
            },
            Place::Waits(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Place::Empty => {
                *place = Place::Waits(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A call that waits.
pub(super) struct PendingCall {
    pub(super) sent: Arc<SentCall>,
    /// Index of the next reply.
    pub(super) next: u16,
    /// Whether the message was sent again with its offer.
    pub(super) offered: bool,
    pub(super) events: Events,
    /// When it ends without an answer, unless its caller looks after that itself.
    pub(super) deadline: Option<Instant>,
}

impl PendingCall {
    fn end(self, event: Event) {
        self.events.end(&self.sent, event);
    }
}

/// What was sent, and what its replies are opened with.
pub(super) struct SentCall {
    pub(super) frame: Frame,
    pub(super) address: Arc<Address>,
    pub(super) session: Arc<OutSession>,
    pub(super) binding: ReplyBinding,
    /// The epoch of the statement that it carried; 0 for none.
    pub(super) statement: u64,
    /// It asks for a statement, which proves itself: its reply counts without a current one.
    pub(super) asks_statement: bool,
    pub(super) last: Last,
}

/// A message to send again.
pub(super) struct Resend {
    pub(super) address: Arc<Address>,
    pub(super) payload: Bytes,
}

type Calls = HashMap<MessageId, PendingCall, RandomState>;

/// All waiting calls.
#[derive(Default)]
pub(super) struct Pending {
    shards: [Mutex<Calls>; SHARDS],
    pub(super) deadlines: Deadlines,
    /// What a caller that takes several final replies to one call holds on to.
    #[cfg(bulla_mutants)]
    ended: Mutex<HashMap<MessageId, Arc<SentCall>>>,
}

impl Pending {
    fn shard(&self, id: &MessageId) -> &Mutex<Calls> {
        let [first, ..] = self.shards.each_ref();
        let index = usize::from(id.0.first().copied().unwrap_or_default()) % SHARDS;
        self.shards.get(index).unwrap_or(first)
    }

    /// For a caller that wants progress.
    pub(super) fn channel() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
        mpsc::channel(BACKLOG)
    }

    pub(super) fn insert(&self, id: MessageId, call: PendingCall) {
        let deadline = call.deadline;
        self.shard(&id).lock().insert(id, call);
        if let Some(deadline) = deadline {
            self.deadlines.add(deadline);
        }
    }

    /// Ends the calls that had no answer in time; how many calls there are.
    pub(super) fn expire(&self, now: Instant) -> usize {
        self.deadlines.begin();
        let mut left = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let late = |call: &PendingCall| call.deadline.is_some_and(|deadline| deadline <= now);
            let over: Vec<PendingCall> =
                shard.extract_if(|_, call| late(call)).map(|(_, call)| call).collect();
            left += shard.len();
            let next = shard.values().filter_map(|call| call.deadline).min();
            drop(shard);
            for call in over {
                call.end(Err(late_answer()));
            }
            if let Some(next) = next {
                self.deadlines.add(next);
            }
        }
        left
    }

    pub(super) fn remove(&self, id: &MessageId) -> Option<PendingCall> {
        self.shard(id).lock().remove(id)
    }

    /// What is needed to open a reply, taken out of the lock, and the index of the next.
    pub(super) fn sent(&self, id: &MessageId) -> Option<(Arc<SentCall>, u16)> {
        let shard = self.shard(id).lock();
        #[cfg(bulla_mutants)]
        if let (true, Some(sent)) = (off(Check::ReplyOnce), self.ended.lock().get(id)) {
            return Some((sent.clone(), 0));
        }
        let call = shard.get(id)?;
        Some((call.sent.clone(), call.next))
    }

    /// Ends a call with its last event.
    pub(super) fn finish(&self, id: &MessageId, event: Event) {
        if let Some(call) = self.remove(id) {
            #[cfg(bulla_mutants)]
            self.ended.lock().insert(*id, call.sent.clone());
            call.end(event);
        }
    }

    /// Passes progress on, if none later came before; a slow caller misses some.
    pub(super) fn progress(&self, id: &MessageId, index: u16, item: Bytes) -> bool {
        let mut shard = self.shard(id).lock();
        // One that was lost on the way takes none of the later ones with it.
        let Some(call) = shard.get_mut(id).filter(|call| index >= call.next) else { return false };
        call.next = index.saturating_add(1);
        call.events.progress(item);
        true
    }

    /// The same envelope with its offer, once a call.
    pub(super) fn with_offer(&self, id: &MessageId, endpoint: &Endpoint) -> Option<Resend> {
        let mut shard = self.shard(id).lock();
        let call = shard.get_mut(id).filter(|call| !call.offered || off(Check::ResendOnce))?;
        let offer = call.sent.session.offer.as_ref()?;
        call.offered = true;
        call.sent.session.set_proven(false);
        // A peer that lost its sessions lost its statement too.
        let statement = call.sent.session.statement(endpoint, true);
        let size = call.sent.frame.bytes().len() + offer.len();
        let statement = fitting(&statement, size, endpoint.options.max_message);
        let payload = call.sent.frame.with(Some(offer), statement.map(|bytes| &bytes[..]));
        Some(Resend { address: call.sent.address.clone(), payload })
    }

    /// Everything that waits, to be sent again after the connection was lost: the receiver's
    /// claims make sure that nothing runs twice.
    pub(super) fn resend_all(&self) -> Vec<Resend> {
        let resend = |call: &PendingCall| Resend {
            address: call.sent.address.clone(),
            payload: call.sent.frame.bytes().clone(),
        };
        self.shards
            .iter()
            .flat_map(|shard| shard.lock().values().map(resend).collect::<Vec<_>>())
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    pub(super) fn fail_all(&self, error: &CallError) {
        for shard in &self.shards {
            for (_, call) in std::mem::take(&mut *shard.lock()) {
                call.end(Err(error.clone()));
            }
        }
    }
}

/// Its caller says who did not answer, and for how long.
pub(super) fn late_answer() -> CallError {
    CallError::Timeout { target: String::new(), after: Duration::ZERO }
}
