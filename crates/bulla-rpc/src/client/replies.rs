//! Listening for replies: one inbox a process, replies opened where they arrive.

use std::sync::Arc;

#[cfg(bulla_mutants)]
use bulla_seal::mutants::off;
use bulla_seal::{Detail, MessageId, Outcome, Parsed, Refusal};
use bulla_transport::{Consumer, Outbound, ReplyName, TransportEvent, next_delivery};
use bytes::Bytes;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::deadlines;
use super::pending::{Pending, Reply, Resend};
use crate::endpoint::Endpoint;
use crate::error::{CallError, RemoteError};
use crate::notice::OfferNeeded;
use crate::rate::SenderRates;
use crate::value;

/// Replies that are taken at a stretch.
const BURST: u32 = 64;

#[derive(Clone)]
pub(super) struct Listener {
    pub(super) endpoint: Endpoint,
    pub(super) pending: Arc<Pending>,
    pub(super) reply_name: ReplyName,
    /// How often a message is sent again because a notice asks for it.
    pub(super) resends: Arc<SenderRates>,
}

impl Listener {
    /// Listens until `closed`.
    // Not async: what runs is compiled here, as this crate is optimised (docs/adr/0008).
    #[inline(never)]
    pub(super) fn start(
        self,
        consumer: Box<dyn Consumer>,
        events: broadcast::Receiver<TransportEvent>,
        closed: &CancellationToken,
    ) {
        tokio::spawn(self.clone().run(consumer, closed.clone()));
        tokio::spawn(deadlines::watch(self.pending.clone(), closed.clone()));
        tokio::spawn(self.watch(events, closed.clone()));
    }

    async fn run(self, mut consumer: Box<dyn Consumer>, closed: CancellationToken) {
        let mut ended = std::pin::pin!(closed.cancelled());
        let mut burst = 0_u32;
        loop {
            let delivery = match consumer.next_now().filter(|_| !closed.is_cancelled()) {
                Some(delivery) => Some(delivery),
                None => tokio::select! {
                    biased;
                    () = &mut ended => None,
                    delivery = next_delivery(&mut *consumer) => delivery,
                },
            };
            let Some(delivery) = delivery else { break };
            burst = burst.wrapping_add(1);
            if burst.is_multiple_of(BURST) {
                // Replies without end must not keep this thread from the rest.
                tokio::task::yield_now().await;
            }
            delivery.acker.ack();
            self.take(delivery.payload);
        }
        self.pending.fail_all(&CallError::Closed);
    }

    /// Whose payload is a reply, its call ends, or hears of progress.
    pub(super) fn take(&self, payload: Bytes) {
        if let Some(notice) = OfferNeeded::parse(&payload) {
            self.send_offer(&notice);
        } else if let Err(refusal) = self.open(payload) {
            // A forged or stray reply changes nothing: the call goes on waiting.
            self.endpoint.refused(refusal, "reply refused");
        }
    }

    fn open(&self, payload: Bytes) -> Result<(), Refusal> {
        #[cfg(bulla_mutants)]
        if off(bulla_seal::mutants::Check::NoPlaintext)
            && let Some((id, reply)) = bulla_seal::mutants::plaintext_reply(&payload)
        {
            self.pending.finish(&id, Ok(Reply::Value(reply)));
            return Ok(());
        }
        let parsed = Parsed::parse(payload, self.endpoint.options.max_message)?;
        let Detail::Reply { in_reply_to, .. } = parsed.header().detail else {
            return Err(Refusal::KindNotAllowed);
        };
        let (sent, next) = self.pending.sent(&in_reply_to).ok_or(Refusal::ReplyMismatch)?;
        self.endpoint.note_statement(&parsed);
        self.endpoint.check_standing(&sent.session.standing)?;
        if !sent.asks_statement {
            self.endpoint.check_current(sent.session.standing.party())?;
        }
        let session = &sent.session;
        #[cfg(bulla_mutants)]
        let any = self.endpoint.any_outgoing(parsed.header().handle);
        #[cfg(bulla_mutants)]
        let session = any.as_ref().unwrap_or(session);
        let reply = session.session.open_reply(parsed, &sent.binding)?;
        sent.session.set_proven(true);
        sent.session.has_shown(sent.statement);
        self.endpoint.counters.replies.add(1);
        match reply.outcome {
            // A final outcome ends the stream whatever its index: progress that was lost on
            // the way is no reason to lose the result.
            Outcome::Value if reply.index >= next => {
                self.pending.finish(&in_reply_to, Ok(Reply::Value(reply)));
                Ok(())
            }
            Outcome::Error if reply.index >= next => {
                let body = reply.error()?;
                let error = RemoteError {
                    kind: body.kind.to_owned(),
                    message: body.message.to_owned(),
                    details: body.details.and_then(|item| value::decode(item).ok()).map(Box::new),
                    trace: body.trace.map(str::to_owned),
                };
                self.pending.finish(&in_reply_to, Err(CallError::Remote(error)));
                Ok(())
            }
            Outcome::Progress => {
                let item = Bytes::copy_from_slice(reply.payload());
                if self.pending.progress(&in_reply_to, reply.index, item) {
                    Ok(())
                } else {
                    Err(Refusal::ReplyMismatch)
                }
            }
            Outcome::Value | Outcome::Error => Err(Refusal::ReplyMismatch),
        }
    }

    /// All that a notice can do: the same envelope once more, with the offer.
    fn send_offer(&self, notice: &OfferNeeded) {
        // Anyone on the bus can make a notice up: no more than so many make us send.
        if !self.resends.take(self.endpoint.identity.principal()) {
            self.endpoint.counters.refuse(Refusal::RateLimited.as_str());
            return;
        }
        if let Some(resend) = self.pending.with_offer(&notice.message, &self.endpoint) {
            let this = self.clone();
            tokio::spawn(async move { this.send_again(resend).await });
        }
    }

    /// What the connection does meanwhile.
    async fn watch(
        self,
        mut events: broadcast::Receiver<TransportEvent>,
        closed: CancellationToken,
    ) {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = closed.cancelled() => return,
            };
            match event {
                Ok(TransportEvent::Connected) => self.resend_all().await,
                Ok(TransportEvent::Returned { payload, address }) => {
                    self.returned(&payload, address)
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    async fn resend_all(&self) {
        for resend in self.pending.resend_all() {
            self.send_again(resend).await;
        }
    }

    fn returned(&self, payload: &Bytes, address: String) {
        let max = self.endpoint.options.max_message;
        let id: Option<MessageId> =
            Parsed::parse(payload.clone(), max).ok().map(|parsed| parsed.header().id);
        if let Some(id) = id {
            self.pending.finish(&id, Err(CallError::Unroutable { target: address }));
        }
    }

    async fn send_again(&self, resend: Resend) {
        let outbound =
            Outbound { reply_hint: Some(self.reply_name.clone()), ..Outbound::new(resend.payload) };
        if let Err(error) = self.endpoint.transport.publish(&resend.address, outbound).await {
            tracing::warn!(%error, "a waiting call could not be sent again");
        }
    }
}
