//! Acknowledgements in batches: one `basic.ack` with `multiple` for the prefix that is settled
//! without a gap, single ones only for what has been waiting behind a gap for a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::amqp::{AmqpError, Channel};
use crate::transport::Settle;

/// Settled deliveries that are not waited for more of.
const BATCH: usize = 32;
/// How long a settled delivery waits for company.
const GATHER: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// Somebody has it in hand.
    Open,
    /// Settled since the last batch.
    Settled,
    /// Settled before the last batch, but something in front of it was not.
    Stuck,
    /// The broker was told already.
    Told,
}

/// What to tell the broker, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Batch {
    put_back: Vec<u64>,
    single: Vec<u64>,
    up_to: Option<u64>,
    /// Something is stuck behind a gap: come again.
    again: bool,
}

/// The deliveries of one channel. A tag means nothing on any other channel, and nothing here
/// ever leaves its channel: after a reconnection there is a new one of these.
#[derive(Default)]
struct Window {
    /// The tag of the first mark; tags count from 1 without a gap.
    first: u64,
    marks: VecDeque<Mark>,
    put_back: Vec<u64>,
    fresh: usize,
    open: usize,
    ended: bool,
}

impl Window {
    fn delivered(&mut self, tag: u64) {
        if self.marks.is_empty() {
            self.first = tag;
        }
        // A tag that we never saw is not ours to settle.
        while self.first + (self.marks.len() as u64) < tag {
            self.marks.push_back(Mark::Told);
        }
        self.marks.push_back(Mark::Open);
        self.open += 1;
    }

    fn settle(&mut self, tag: u64, put_back: bool) {
        let index = tag.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(mark) = index.and_then(|index| self.marks.get_mut(index)) else { return };
        if *mark != Mark::Open {
            return;
        }
        self.open -= 1;
        if put_back {
            *mark = Mark::Told;
            self.put_back.push(tag);
        } else {
            *mark = Mark::Settled;
            self.fresh += 1;
        }
    }

    fn take(&mut self) -> Batch {
        let mut batch = Batch { put_back: std::mem::take(&mut self.put_back), ..Batch::default() };
        self.fresh = 0;
        while let Some(mark) = self.marks.front().filter(|mark| **mark != Mark::Open) {
            // The last tag told must be one that the broker still waits for.
            if *mark != Mark::Told {
                batch.up_to = Some(self.first);
            }
            self.first += 1;
            self.marks.pop_front();
        }
        for (tag, mark) in (self.first..).zip(self.marks.iter_mut()) {
            match mark {
                Mark::Stuck => {
                    *mark = Mark::Told;
                    batch.single.push(tag);
                }
                Mark::Settled => {
                    *mark = Mark::Stuck;
                    batch.again = true;
                }
                Mark::Open | Mark::Told => {}
            }
        }
        batch
    }

    fn is_finished(&self) -> bool {
        self.ended && self.open == 0
    }

    fn is_urgent(&self, threshold: usize) -> bool {
        self.fresh >= threshold || !self.put_back.is_empty() || self.ended
    }
}

pub(super) struct Acks {
    channel: Channel,
    threshold: usize,
    window: Mutex<Window>,
    wake: Notify,
    urgent: Notify,
}

impl Acks {
    /// Starts the batcher of a channel whose consumer has this prefetch.
    pub(super) fn start(channel: Channel, prefetch: u16) -> Arc<Self> {
        // With a small prefetch waiting for company would starve the consumer.
        let threshold = match prefetch {
            0 => BATCH,
            limited => (usize::from(limited) / 4).clamp(1, BATCH),
        };
        let acks = Arc::new(Self {
            channel,
            threshold,
            window: Mutex::default(),
            wake: Notify::new(),
            urgent: Notify::new(),
        });
        tokio::spawn(Arc::clone(&acks).run());
        acks
    }

    /// A delivery is handed out.
    pub(super) fn deliver(self: &Arc<Self>, tag: u64) -> RabbitAcker {
        self.window.lock().delivered(tag);
        RabbitAcker { acks: Arc::clone(self), tag, settled: false }
    }

    /// No more deliveries come; the channel closes when the last one is settled.
    pub(super) fn end(&self) {
        self.window.lock().ended = true;
        self.wake.notify_one();
        self.urgent.notify_one();
    }

    /// Tells the broker now what is settled.
    pub(super) fn flush(&self) {
        // If the channel is gone, the broker delivers again what it was not told about.
        let _ = self.tell();
    }

    fn settle(&self, tag: u64, put_back: bool) {
        let mut window = self.window.lock();
        let idle = window.fresh == 0 && window.put_back.is_empty();
        window.settle(tag, put_back);
        let urgent = window.is_urgent(self.threshold);
        drop(window);
        if idle {
            self.wake.notify_one();
        }
        if urgent {
            self.urgent.notify_one();
        }
    }

    async fn run(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            let urgent = self.window.lock().is_urgent(self.threshold);
            if !urgent {
                tokio::select! {
                    () = self.urgent.notified() => {}
                    () = tokio::time::sleep(GATHER) => {}
                }
            }
            let Ok(again) = self.tell() else {
                // The channel is gone: the broker delivers again what it was not told about.
                return;
            };
            if !again && self.window.lock().is_finished() {
                self.channel.close().await;
                return;
            }
            if again {
                self.wake.notify_one();
            }
        }
    }

    /// Sends a batch before anybody can take the next one: were a later `multiple` to overtake it, a
    /// message put back would be acknowledged. Whether to come again soon.
    fn tell(&self) -> Result<bool, AmqpError> {
        let mut window = self.window.lock();
        let batch = window.take();
        for tag in batch.put_back {
            self.channel.put_back(tag)?;
        }
        for tag in batch.single {
            self.channel.ack(tag, false)?;
        }
        if let Some(tag) = batch.up_to {
            self.channel.ack(tag, true)?;
        }
        Ok(batch.again)
    }
}

/// Settles one delivery; dropping it puts the delivery back.
pub(super) struct RabbitAcker {
    acks: Arc<Acks>,
    tag: u64,
    settled: bool,
}

impl Settle for RabbitAcker {
    fn ack(mut self: Box<Self>) {
        self.settled = true;
        self.acks.settle(self.tag, false);
    }

    fn put_back(self: Box<Self>) {
        // Dropping it does.
    }
}

impl Drop for RabbitAcker {
    fn drop(&mut self) {
        if !self.settled {
            self.acks.settle(self.tag, true);
        }
    }
}

/// A delivery that the broker forgot when it sent it.
pub(super) struct NoAck;

impl Settle for NoAck {
    fn ack(self: Box<Self>) {}
    fn put_back(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(count: u64) -> Window {
        let mut window = Window::default();
        (1..=count).for_each(|tag| window.delivered(tag));
        window
    }

    #[test]
    fn a_prefix_is_one_acknowledgement() {
        let mut window = window(5);
        for tag in [2, 1, 3] {
            window.settle(tag, false);
        }
        assert_eq!(window.take(), Batch { up_to: Some(3), ..Batch::default() });
        assert_eq!(window.take(), Batch::default());
        assert_eq!(window.open, 2);
    }

    #[test]
    fn what_is_behind_a_gap_goes_alone_in_the_second_round_and_never_twice() {
        let mut window = window(4);
        window.settle(2, false);
        window.settle(3, false);
        assert_eq!(window.take(), Batch { again: true, ..Batch::default() });
        assert_eq!(window.take(), Batch { single: vec![2, 3], ..Batch::default() });
        window.settle(1, false);
        assert_eq!(window.take(), Batch { up_to: Some(1), ..Batch::default() });
        window.settle(4, false);
        assert_eq!(window.take(), Batch { up_to: Some(4), ..Batch::default() });
    }

    #[test]
    fn a_batch_never_ends_with_a_tag_that_the_broker_was_told_about() {
        let mut window = window(3);
        window.settle(3, true);
        window.settle(1, false);
        window.settle(2, false);
        let batch = window.take();
        assert_eq!(batch, Batch { put_back: vec![3], up_to: Some(2), ..Batch::default() });
        window.settle(3, false);
        assert_eq!(window.take(), Batch::default(), "a second word about a delivery is ignored");
    }
}
