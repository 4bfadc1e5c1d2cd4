//! Calls that wait for their replies, by message id.

use std::collections::HashMap;
use std::sync::Arc;

use bulla_seal::mutants::{Check, off};
use bulla_seal::{Frame, MessageId, OpenedReply, ReplyBinding};
use bulla_transport::Address;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

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
    /// Only the last one is wanted.
    Last(oneshot::Sender<Event>),
    /// Progress too.
    All(mpsc::Sender<Event>),
}

impl Events {
    /// Passes the last event on. A caller that reads nothing finds the channel closed and no
    /// result: an error.
    fn end(self, event: Event) {
        match self {
            Self::Last(last) => drop(last.send(event)),
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

/// A call that waits.
pub(super) struct PendingCall {
    pub(super) sent: Arc<SentCall>,
    /// Index of the next reply.
    pub(super) next: u16,
    /// Whether the message was sent again with its offer.
    pub(super) offered: bool,
    pub(super) events: Events,
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
}

/// A message to send again.
pub(super) struct Resend {
    pub(super) address: Arc<Address>,
    pub(super) payload: Bytes,
}

/// All waiting calls.
#[derive(Default)]
pub(super) struct Pending {
    shards: [Mutex<HashMap<MessageId, PendingCall>>; SHARDS],
    /// What a caller that takes several final replies to one call holds on to.
    #[cfg(bulla_mutants)]
    ended: Mutex<HashMap<MessageId, Arc<SentCall>>>,
}

impl Pending {
    fn shard(&self, id: &MessageId) -> &Mutex<HashMap<MessageId, PendingCall>> {
        let [first, ..] = self.shards.each_ref();
        let index = usize::from(id.0.first().copied().unwrap_or_default()) % SHARDS;
        self.shards.get(index).unwrap_or(first)
    }

    /// For a caller that wants progress.
    pub(super) fn channel() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
        mpsc::channel(BACKLOG)
    }

    pub(super) fn insert(&self, id: MessageId, call: PendingCall) {
        self.shard(&id).lock().insert(id, call);
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
            call.events.end(event);
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
                call.events.end(Err(error.clone()));
            }
        }
    }
}
