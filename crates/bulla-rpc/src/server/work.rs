//! The loop that takes deliveries and settles them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bulla_seal::mutants::{Check, off};
use bulla_transport::{Acker, Address, Consumer, Delivery, Outbound, PublishError, next_delivery};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::endpoint::Endpoint;
use crate::pipeline::open::{Message, Origin, Processed};
use crate::pipeline::shares::Slot;
use crate::pipeline::{MaybeReady, Pipeline, Settlement};
use crate::trace::{OpenSpan, Parent, SpanKind};

/// How long a message waits before it goes back to its queue when it could not be judged.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Messages that are taken at a stretch.
const BURST: u32 = 64;
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
        let mut pipeline = self.pipeline.clone();
        let alone = is_alone();
        let stopping = self.stop.clone();
        let mut stopped = std::pin::pin!(stopping.cancelled());
        let mut burst = 0_u32;
        // What is there is taken first: waiting for the end at the same time costs more than
        // looking for it now and then.
        while !self.stop.is_cancelled() {
            let delivery = match consumer.next_now() {
                Some(delivery) => Some(delivery),
                None => tokio::select! {
                    biased;
                    delivery = next_delivery(&mut *consumer) => delivery,
                    () = &mut stopped => None,
                },
            };
            let Some(delivery) = delivery else { break };
            burst = burst.wrapping_add(1);
            if burst.is_multiple_of(BURST) {
                // Messages without end must not keep this thread from the rest.
                tokio::task::yield_now().await;
            }
            if delivery.redelivered && off(Check::FlagIgnored) {
                delivery.acker.ack();
                continue;
            }
            let Delivery { payload, inbox, reply_hint, acker, .. } = delivery;
            let origin = Origin { inbox, reply_hint };
            let Some(sifted) = pipeline.sift(payload, &origin) else {
                drop_refused(acker);
                continue;
            };
            // After the delivery: an inbox where nothing arrives keeps no permit from the others.
            let permit = match self.permits.clone().try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => tokio::select! {
                    biased;
                    permit = self.permits.clone().acquire_owned() => permit.ok(),
                    () = &mut stopped => None,
                },
            };
            let Some(permit) = permit else {
                acker.put_back();
                break;
            };
            let slot = Slot::new(self.permits.clone(), permit);
            let message = Message { sifted, origin, slot };
            if alone {
                self.clone().run_here(&mut pipeline, message, acker);
            } else {
                self.tasks.spawn(self.clone().deal_with(message, acker));
            }
        }
        consumer.stop().await;
    }

    /// Takes one delivery that came another way than through a consumer.
    pub(super) async fn take_one(self: Arc<Self>, delivery: Delivery) {
        let Delivery { payload, inbox, reply_hint, acker, .. } = delivery;
        let origin = Origin { inbox, reply_hint };
        let Some(sifted) = self.pipeline.sift(payload, &origin) else {
            return drop_refused(acker);
        };
        let permit = tokio::select! {
            biased;
            permit = self.permits.clone().acquire_owned() => permit.ok(),
            () = self.stop.cancelled() => None,
        };
        let Some(permit) = permit else { return acker.put_back() };
        let slot = Slot::new(self.permits.clone(), permit);
        self.deal_with(Message { sifted, origin, slot }, acker).await;
    }

    async fn deal_with(self: Arc<Self>, message: Message, acker: Acker) {
        let begun = Instant::now();
        let Ok(processed) = self.pipeline.clone().call(message).await;
        self.settle(processed, acker, begun).await;
    }

    /// Runs a message on this thread's own task as far as it goes without waiting; what is left
    /// becomes a task.
    fn run_here(self: Arc<Self>, pipeline: &mut Pipeline, message: Message, acker: Acker) {
        let begun = Instant::now();
        // One message that makes something panic must not end the taking of others.
        let call = catch_unwind(AssertUnwindSafe(|| pipeline.call(message)));
        let running = match call {
            Ok(MaybeReady::Ready(processed)) => {
                if let Some((processed, acker)) = self.settle_now(processed, acker, begun) {
                    let work = self.clone();
                    self.tasks.spawn(async move { work.settle(processed, acker, begun).await });
                }
                return;
            }
            Ok(running) => running,
            Err(_) => {
                tracing::error!(
                    "a message made a step of its way panic; it goes back to its queue"
                );
                let work = self.clone();
                self.tasks.spawn(async move { work.put_back(acker, RETRY_AFTER).await });
                return;
            }
        };
        let work = self.clone();
        self.tasks.spawn(async move {
            let Ok(processed) = running.await;
            work.settle(processed, acker, begun).await;
        });
    }

    /// Settles what can be settled without waiting; gives the rest back.
    fn settle_now(
        &self,
        processed: Processed,
        acker: Acker,
        begun: Instant,
    ) -> Option<(Processed, Acker)> {
        if processed.span.is_some() {
            return Some((processed, acker));
        }
        match &processed.settlement {
            Settlement::Refused => drop_refused(acker),
            Settlement::Done { reply, .. } => {
                if let Some((address, payload)) = reply {
                    let outbound = Outbound::new(payload.clone());
                    match self.endpoint.transport.publish_now(address, &outbound) {
                        Some(sent) => told_not_sent(&sent),
                        None => return Some((processed, acker)),
                    }
                }
                self.done(acker, begun);
            }
            Settlement::Hold(_) | Settlement::Retry => return Some((processed, acker)),
        }
        None
    }

    async fn settle(&self, processed: Processed, acker: Acker, begun: Instant) {
        let Processed { settlement, mut span, slot } = processed;
        let pause = match settlement {
            Settlement::Refused => {
                if let Some(span) = &mut span {
                    span.fail("refused");
                }
                return drop_refused(acker);
            }
            Settlement::Done { reply, error } => {
                if let (Some(span), Some(error)) = (&mut span, error) {
                    span.fail(&error);
                }
                if let Some((address, payload)) = reply {
                    self.reply(&address, payload, span.as_ref()).await;
                }
                return self.done(acker, begun);
            }
            Settlement::Hold(pause) => pause.min(HOLD_AT_MOST),
            Settlement::Retry => {
                self.endpoint.counters.retried.add(1);
                RETRY_AFTER
            }
        };
        // What only waits does not keep others from running.
        drop(slot);
        self.put_back(acker, pause).await;
    }

    async fn put_back(&self, acker: Acker, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
        acker.put_back();
    }

    fn done(&self, acker: Acker, begun: Instant) {
        acker.ack();
        self.endpoint.counters.handling.observe(begun.elapsed());
    }

    async fn reply(&self, address: &Address, payload: Bytes, span: Option<&OpenSpan>) {
        let parent = span.map(|span| Parent::Own(span.context()));
        let mut span = parent
            .and_then(|parent| self.endpoint.span(SpanKind::Producer, parent, || "reply".into()));
        // A reply that is lost here is sent again when the request comes again.
        let sent = self.endpoint.transport.publish(address, Outbound::new(payload)).await;
        told_not_sent(&sent);
        if let (Some(span), Err(_)) = (&mut span, &sent) {
            span.fail("not-sent");
        }
    }
}

/// Whether this thread is the runtime's only one: there a task for each message gains nothing. Elsewhere
/// messages run on all of them.
fn is_alone() -> bool {
    Handle::current().metrics().num_workers() == 1
}

fn told_not_sent(sent: &Result<(), PublishError>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "a reply could not be sent");
    }
}

/// What is refused is gone: it would be refused again.
fn drop_refused(acker: Acker) {
    if off(Check::RefusedGone) {
        acker.put_back();
    } else {
        acker.ack();
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}
