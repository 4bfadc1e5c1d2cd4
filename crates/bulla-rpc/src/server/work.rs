//! The loop that takes deliveries and settles them.

use std::sync::Arc;
use std::time::Duration;

use bulla_seal::mutants::{Check, off};
use bulla_transport::{Address, Consumer, Delivery, Outbound};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::endpoint::Endpoint;
use crate::pipeline::open::Sifted;
use crate::pipeline::shares::Slot;
use crate::pipeline::{Pipeline, Settlement};
use crate::trace::{OpenSpan, Parent, SpanKind};

/// How long a message waits before it goes back to its queue when it could not be judged.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A duplicate is held no longer than this at a time.
const HOLD_AT_MOST: Duration = Duration::from_secs(60);

pub(super) struct Work {
    pub(super) endpoint: Endpoint,
    pub(super) pipeline: Pipeline,
    pub(super) permits: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Work {
    /// Takes deliveries until the consumer or the server stops; at most as many at a time as
    /// there are permits, so that the rest waits in the queue.
    pub(super) async fn take(self: Arc<Self>, mut consumer: Box<dyn Consumer>) {
        // What is there is taken first: waiting for the end at the same time costs more than
        // looking for it now and then.
        while !self.stop.is_cancelled() {
            let delivery = match consumer.next_now() {
                Some(delivery) => Some(delivery),
                None => tokio::select! {
                    biased;
                    delivery = consumer.next() => delivery,
                    () = self.stop.cancelled() => None,
                },
            };
            let Some(mut delivery) = delivery else { break };
            if delivery.redelivered && off(Check::FlagIgnored) {
                delivery.acker.ack();
                continue;
            }
            let Some(sifted) = self.pipeline.sift(&mut delivery) else {
                drop_refused(delivery);
                // A flood must not keep this thread from the rest.
                tokio::task::coop::consume_budget().await;
                continue;
            };
            // After the delivery: an inbox where nothing arrives keeps no permit from the others.
            let permit = tokio::select! {
                biased;
                permit = self.permits.clone().acquire_owned() => permit.ok(),
                () = self.stop.cancelled() => None,
            };
            let Some(permit) = permit else {
                delivery.acker.put_back();
                break;
            };
            self.tasks.spawn(self.clone().deal_with(sifted, delivery, permit));
        }
        consumer.stop().await;
    }

    /// Takes one delivery that came another way than through a consumer.
    pub(super) async fn take_one(self: Arc<Self>, mut delivery: Delivery) {
        let Some(sifted) = self.pipeline.sift(&mut delivery) else {
            return drop_refused(delivery);
        };
        let permit = tokio::select! {
            biased;
            permit = self.permits.clone().acquire_owned() => permit.ok(),
            () = self.stop.cancelled() => None,
        };
        match permit {
            Some(permit) => self.deal_with(sifted, delivery, permit).await,
            None => delivery.acker.put_back(),
        }
    }

    async fn deal_with(
        self: Arc<Self>,
        sifted: Sifted,
        delivery: Delivery,
        permit: OwnedSemaphorePermit,
    ) {
        let slot = Slot::new(self.permits.clone(), permit);
        let held = self.run(sifted, delivery, &slot).await;
        // What only waits does not keep others from running.
        slot.release();
        if let Some((delivery, pause)) = held {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
            delivery.acker.put_back();
        }
    }

    async fn run(
        &self,
        sifted: Sifted,
        delivery: Delivery,
        slot: &Slot,
    ) -> Option<(Delivery, Duration)> {
        let message = (sifted, delivery, slot.clone());
        let begun = Instant::now();
        let Ok((settlement, delivery, mut span)) = self.pipeline.clone().call(message).await;
        let counters = &self.endpoint.counters;
        match settlement {
            Settlement::Refused => {
                if let Some(span) = &mut span {
                    span.fail("refused");
                }
                drop_refused(delivery);
            }
            Settlement::Done { reply, error } => {
                if let (Some(span), Some(error)) = (&mut span, error) {
                    span.fail(&error);
                }
                if let Some((address, payload)) = reply {
                    self.reply(&address, payload, span.as_ref()).await;
                }
                delivery.acker.ack();
                counters.handling.observe(begun.elapsed());
            }
            Settlement::Hold(pause) => return Some((delivery, pause.min(HOLD_AT_MOST))),
            Settlement::Retry => {
                counters.retried.add(1);
                return Some((delivery, RETRY_AFTER));
            }
        }
        None
    }

    async fn reply(&self, address: &Address, payload: Bytes, span: Option<&OpenSpan>) {
        let parent = span.map(|span| Parent::Own(span.context()));
        let mut span = parent
            .and_then(|parent| self.endpoint.span(SpanKind::Producer, parent, || "reply".into()));
        // A reply that is lost here is sent again when the request comes again.
        if let Err(error) = self.endpoint.transport.publish(address, Outbound::new(payload)).await {
            tracing::warn!(%error, "a reply could not be sent");
            if let Some(span) = &mut span {
                span.fail("not-sent");
            }
        }
    }
}

/// What is refused is gone: it would be refused again.
fn drop_refused(delivery: Delivery) {
    if off(Check::RefusedGone) {
        delivery.acker.put_back();
    } else {
        delivery.acker.ack();
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}
