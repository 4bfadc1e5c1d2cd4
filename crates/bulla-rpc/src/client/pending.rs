//! Calls that wait for their replies, by message id.

use std::collections::HashMap;
use std::sync::Arc;

use bulla_seal::{Frame, MessageId, ReplyBinding};
use bulla_transport::Address;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::error::CallError;
use crate::sessions::OutSession;

/// Replies that a slow caller may leave unread before progress is dropped.
const BACKLOG: usize = 64;
const SHARDS: usize = 16;

/// What a waiting call gets.
pub(super) type Event = Result<super::Reply, CallError>;

/// A call that waits.
pub(super) struct PendingCall {
    pub(super) frame: Frame,
    pub(super) address: Address,
    pub(super) session: Arc<OutSession>,
    pub(super) binding: ReplyBinding,
    /// Index of the next reply.
    pub(super) next: u16,
    /// Whether the message was sent again with its offer.
    pub(super) offered: bool,
    pub(super) events: mpsc::Sender<Event>,
}

/// What is needed to open a reply, taken out of the lock.
pub(super) struct ReplyKeys {
    pub(super) session: Arc<OutSession>,
    pub(super) binding: ReplyBinding,
    pub(super) next: u16,
}

/// A message to send again.
pub(super) struct Resend {
    pub(super) address: Address,
    pub(super) payload: Bytes,
}

/// All waiting calls.
#[derive(Default)]
pub(super) struct Pending {
    shards: [Mutex<HashMap<MessageId, PendingCall>>; SHARDS],
}

impl Pending {
    fn shard(&self, id: &MessageId) -> &Mutex<HashMap<MessageId, PendingCall>> {
        let [first, ..] = self.shards.each_ref();
        let index = usize::from(id.0.first().copied().unwrap_or_default()) % SHARDS;
        self.shards.get(index).unwrap_or(first)
    }

    pub(super) fn channel() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
        mpsc::channel(BACKLOG)
    }

    pub(super) fn insert(&self, id: MessageId, call: PendingCall) {
        self.shard(&id).lock().insert(id, call);
    }

    pub(super) fn remove(&self, id: &MessageId) -> Option<PendingCall> {
        self.shard(id).lock().remove(id)
    }

    pub(super) fn keys(&self, id: &MessageId) -> Option<ReplyKeys> {
        let shard = self.shard(id).lock();
        let call = shard.get(id)?;
        Some(ReplyKeys {
            session: call.session.clone(),
            binding: call.binding.clone(),
            next: call.next,
        })
    }

    /// Ends a call with its last event.
    pub(super) fn finish(&self, id: &MessageId, event: Event) {
        if let Some(call) = self.remove(id) {
            // A caller that reads nothing finds the channel closed and no result: an error.
            let _ = call.events.try_send(event);
        }
    }

    /// Passes progress on, if none later came before; a slow caller misses some.
    pub(super) fn progress(&self, id: &MessageId, index: u16, item: Bytes) -> bool {
        let mut shard = self.shard(id).lock();
        // One that was lost on the way takes none of the later ones with it.
        let Some(call) = shard.get_mut(id).filter(|call| index >= call.next) else { return false };
        call.next = index.saturating_add(1);
        // The last place is for the result.
        if call.events.capacity() > 1 {
            let _ = call.events.try_send(Ok(super::Reply::Progress(item)));
        }
        true
    }

    /// The same envelope with its offer, once a call.
    pub(super) fn with_offer(&self, id: &MessageId) -> Option<Resend> {
        let mut shard = self.shard(id).lock();
        let call = shard.get_mut(id).filter(|call| !call.offered)?;
        let offer = call.session.offer.as_ref()?;
        call.offered = true;
        call.session.set_proven(false);
        Some(Resend { address: call.address.clone(), payload: call.frame.with_offer(offer) })
    }

    /// Everything that waits, to be sent again after the connection was lost: the receiver's
    /// claims make sure that nothing runs twice.
    pub(super) fn resend_all(&self) -> Vec<Resend> {
        let resend = |call: &PendingCall| Resend {
            address: call.address.clone(),
            payload: call.frame.bytes().clone(),
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
                let _ = call.events.try_send(Err(error.clone()));
            }
        }
    }
}
