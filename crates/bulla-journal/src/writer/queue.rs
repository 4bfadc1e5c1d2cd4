//! What waits to be written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Health, OnFull, Status};
use crate::emit::NoRoom;
use crate::instant::now_nanos;
use crate::schema::Event;

/// Events with their times, in Unix nanoseconds.
pub(super) type Batch = Vec<(u64, Event)>;

/// So much room is kept for the next batch.
const SPARE: usize = 4096;

pub(super) struct Queue {
    capacity: usize,
    on_full: OnFull,
    inner: Mutex<Inner>,
    /// There is something to do.
    work: Condvar,
    /// Something was done.
    done: Condvar,
    lost: AtomicU64,
    pub(super) gauges: Gauges,
}

/// How far the writer is.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    /// Records in the journal, and how many of them the last checkpoint covers.
    pub(super) records: AtomicU64,
    pub(super) signed: AtomicU64,
    /// When that was made, in Unix seconds; 0 if it is not known.
    pub(super) signed_at: AtomicU64,
    /// When the oldest event happened that is not on the disk, in Unix nanoseconds; 0 for none.
    pub(super) unsynced: AtomicU64,
}

struct Inner {
    events: Batch,
    /// The writer lets more come together, and is not to be woken for them.
    gathering: bool,
    status: Status,
    closing: bool,
    /// Events that were lost and are not recorded as that yet.
    lost: u64,
    /// Who asked for everything to be on the disk, and for whom it is.
    asked: u64,
    served: u64,
}

/// What the writer is to do next.
pub(super) struct Work {
    pub(super) events: Batch,
    pub(super) lost: u64,
    pub(super) flush: Option<u64>,
    pub(super) closing: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize, on_full: OnFull) -> Self {
        let inner = Inner {
            events: Vec::new(),
            gathering: false,
            status: Status::Writing,
            closing: false,
            lost: 0,
            asked: 0,
            served: 0,
        };
        Self {
            capacity,
            on_full,
            inner: Mutex::new(inner),
            work: Condvar::new(),
            done: Condvar::new(),
            lost: AtomicU64::new(0),
            gauges: Gauges::default(),
        }
    }

    /// How it does, and how far it is.
    pub(super) fn health(&self) -> Health {
        let (status, queued, oldest) = {
            let inner = self.inner.lock();
            let oldest = inner.events.first().map(|(time, _)| *time);
            (inner.status.clone(), inner.events.len(), oldest)
        };
        let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        let known = |value: u64| Some(value).filter(|value| *value > 0);
        let oldest = known(read(&self.gauges.unsynced)).into_iter().chain(oldest).min();
        let lag = oldest.map_or(0, |oldest| now_nanos().saturating_sub(oldest));
        Health {
            status,
            queued,
            capacity: self.capacity,
            lost: self.lost_in_all(),
            lag: Duration::from_nanos(lag),
            records: read(&self.gauges.records),
            signed: read(&self.gauges.signed),
            signed_at: known(read(&self.gauges.signed_at)),
        }
    }

    pub(super) fn put(&self, time: u64, event: Event) {
        let mut inner = self.inner.lock();
        if inner.closing || inner.events.len() >= self.capacity {
            inner.lost += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        inner.events.push((time, event));
        let count = inner.events.len();
        let wake = if inner.gathering { count == self.many() } else { count == 1 };
        drop(inner);
        if wake {
            self.work.notify_one();
        }
    }

    /// What may be refused leaves a quarter of the queue to what has happened already.
    pub(super) fn put_first(&self, time: u64, event: Event) -> Result<(), NoRoom> {
        if !self.room() {
            return Err(NoRoom);
        }
        self.put(time, event);
        Ok(())
    }

    pub(super) fn room(&self) -> bool {
        if self.on_full == OnFull::Lose {
            return true;
        }
        let inner = self.inner.lock();
        inner.status == Status::Writing && inner.events.len() < (self.capacity / 4 * 3).max(1)
    }

    pub(super) fn status(&self) -> Status {
        self.inner.lock().status.clone()
    }

    pub(super) fn lost_in_all(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn flush(&self) -> Result<(), NoRoom> {
        let mut inner = self.inner.lock();
        inner.asked += 1;
        let mine = inner.asked;
        self.work.notify_one();
        while inner.served < mine {
            if inner.status != Status::Writing {
                return Err(NoRoom);
            }
            self.done.wait(&mut inner);
        }
        Ok(())
    }

    pub(super) fn close(&self) {
        self.inner.lock().closing = true;
        self.work.notify_one();
    }

    /// Waits for something to do, until `deadline`; takes nothing while `holding`. The events that
    /// were done before give their buffer.
    pub(super) fn next(&self, deadline: Option<Instant>, holding: bool, mut spare: Batch) -> Work {
        spare.clear();
        spare.shrink_to(SPARE);
        let mut inner = self.inner.lock();
        loop {
            let ready = !holding && (!inner.events.is_empty() || inner.asked > inner.served);
            if ready || inner.closing {
                break;
            }
            match deadline {
                None => self.work.wait(&mut inner),
                Some(deadline) if self.work.wait_until(&mut inner, deadline).timed_out() => break,
                Some(_) => {}
            }
        }
        if holding && !inner.closing {
            return Work { events: Vec::new(), lost: 0, flush: None, closing: false };
        }
        Work {
            events: std::mem::replace(&mut inner.events, spare),
            lost: std::mem::take(&mut inner.lost),
            flush: (inner.asked > inner.served).then_some(inner.asked),
            closing: inner.closing,
        }
    }

    /// Lets more come together, unless somebody waits or the queue fills up.
    pub(super) fn gather(&self, pause: Duration) {
        let end = Instant::now() + pause;
        let mut inner = self.inner.lock();
        inner.gathering = true;
        while !inner.closing && inner.asked == inner.served && inner.events.len() < self.many() {
            if self.work.wait_until(&mut inner, end).timed_out() {
                break;
            }
        }
        inner.gathering = false;
    }

    /// So many events are written without waiting for more.
    fn many(&self) -> usize {
        (self.capacity / 8).max(1)
    }

    pub(super) fn served(&self, flush: u64) {
        self.inner.lock().served = flush;
        self.done.notify_all();
    }

    /// Returns whether it was another before.
    pub(super) fn set_status(&self, status: Status) -> bool {
        let mut inner = self.inner.lock();
        let moved = inner.status != status;
        inner.status = status;
        drop(inner);
        self.done.notify_all();
        moved
    }

    /// Events that could not be written after all.
    pub(super) fn lose(&self, count: u64) {
        self.inner.lock().lost += count;
        self.lost.fetch_add(count, Ordering::Relaxed);
    }
}
