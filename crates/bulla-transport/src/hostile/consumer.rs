//! Deliveries of a hostile broker: with false flags, and taken back from a party that is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::HostileBroker;
use crate::transport::{Acker, Consumer, Delivery, Settle};

/// What a party was given and did not settle yet.
#[derive(Default)]
pub(super) struct InHand(Mutex<BTreeMap<u64, Acker>>);

impl InHand {
    fn keep(self: &Arc<Self>, n: u64, acker: Acker) -> Acker {
        self.0.lock().insert(n, acker);
        Acker::new(Kept { in_hand: self.clone(), n })
    }

    fn take(&self, n: u64) -> Option<Acker> {
        self.0.lock().remove(&n)
    }

    pub(super) fn put_all_back(&self) {
        // The newest first: each goes to the front of its queue.
        let all = std::mem::take(&mut *self.0.lock());
        all.into_values().rev().for_each(Acker::put_back);
    }
}

struct Kept {
    in_hand: Arc<InHand>,
    n: u64,
}

impl Settle for Kept {
    fn ack(self: Box<Self>) {
        if let Some(acker) = self.in_hand.take(self.n) {
            acker.ack();
        }
    }

    fn put_back(self: Box<Self>) {
        // Dropping it does.
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(acker) = self.in_hand.take(self.n) {
            acker.put_back();
        }
    }
}

pub(super) struct HostileConsumer {
    pub(super) broker: HostileBroker,
    pub(super) name: Arc<str>,
    pub(super) in_hand: Arc<InHand>,
    pub(super) inner: Box<dyn Consumer>,
}

#[async_trait]
impl Consumer for HostileConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        let mut delivery = self.inner.next().await?;
        let (n, plan) = self.broker.next_delivery();
        let (flag, hint) = plan.lies(n);
        delivery.redelivered ^= flag;
        if hint {
            delivery.reply_hint = None;
        }
        let (size, said) = (delivery.payload.len(), delivery.redelivered);
        self.broker.note(|aliases| {
            let inbox = aliases.inbox(&delivery.inbox);
            let said = if said { ", said to be redelivered" } else { "" };
            format!("   {} takes {size} B from {inbox}{said}", self.name)
        });
        delivery.acker = self.in_hand.keep(n, delivery.acker);
        Some(delivery)
    }

    async fn stop(&mut self) {
        self.inner.stop().await;
    }
}
