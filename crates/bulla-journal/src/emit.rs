//! Where events go: they are counted, told in the log, and given to a sink.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use thiserror::Error;

use crate::instant::now_nanos;
use crate::schema::{Event, SCHEMA};

/// The sink can't keep the event, and is configured to have nothing happen that it can't keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the journal can't take more just now (a full disk, or more events than it can write)")]
pub struct NoRoom;

/// Takes events. It must not wait for anything.
pub trait Sink: Send + Sync + std::fmt::Debug + 'static {
    /// Takes an event that happened at `time` (Unix nanoseconds) whatever comes of it.
    fn take(&self, time: u64, event: Event);

    /// Takes an event before it happens.
    ///
    /// # Errors
    /// It must not happen.
    fn take_first(&self, time: u64, event: Event) -> Result<(), NoRoom> {
        self.take(time, event);
        Ok(())
    }

    /// Whether what changes something may happen at all.
    fn room(&self) -> bool {
        true
    }
}

/// The way of events from where they happen. Cheap to clone; without a sink they are counted and
/// logged.
#[derive(Clone, Default)]
pub struct Events(Arc<Inner>);

#[derive(Default)]
struct Inner {
    counts: Counts,
    sink: Option<Arc<dyn Sink>>,
}

struct Counts {
    plain: [AtomicU64; SCHEMA.len()],
    labelled: Mutex<BTreeMap<(usize, &'static str), u64>>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { plain: [const { AtomicU64::new(0) }; SCHEMA.len()], labelled: Mutex::default() }
    }
}

impl Events {
    /// Events that go to `sink` too.
    pub fn to(sink: Arc<dyn Sink>) -> Self {
        Self(Arc::new(Inner { counts: Counts::default(), sink: Some(sink) }))
    }

    /// Tells that something happened.
    pub fn emit(&self, event: impl Into<Event>) {
        let event = event.into();
        self.count(&event);
        event.log();
        if let Some(sink) = &self.0.sink {
            sink.take(now_nanos(), event);
        }
    }

    /// Tells the sink alone that something happened, where whoever did it is told otherwise.
    pub fn record(&self, event: impl Into<Event>) {
        let event = event.into();
        self.count(&event);
        if let Some(sink) = &self.0.sink {
            sink.take(now_nanos(), event);
        }
    }

    /// Tells that something is about to happen.
    ///
    /// # Errors
    /// It must not: the journal can't keep it.
    pub fn emit_first(&self, event: impl Into<Event>) -> Result<(), NoRoom> {
        if !self.room() {
            return Err(NoRoom);
        }
        let event = event.into();
        self.count(&event);
        event.log();
        match &self.0.sink {
            Some(sink) => sink.take_first(now_nanos(), event),
            None => Ok(()),
        }
    }

    /// Whether what changes something may happen at all.
    pub fn room(&self) -> bool {
        self.0.sink.as_ref().is_none_or(|sink| sink.room())
    }

    fn count(&self, event: &Event) {
        let (label, amount) = event.measure();
        let index = event.index();
        if let Some(count) = self.0.counts.plain.get(index) {
            count.fetch_add(amount, Ordering::Relaxed);
        }
        if !label.is_empty() {
            *self.0.counts.labelled.lock().entry((index, label)).or_default() += amount;
        }
    }

    /// What was counted: metric, label (`""` without one), count. Metrics at zero are left out.
    pub fn counted(&self) -> Vec<(&'static str, &'static str, u64)> {
        let labelled = self.0.counts.labelled.lock().clone();
        let mut out = Vec::new();
        for (index, (info, count)) in SCHEMA.iter().zip(&self.0.counts.plain).enumerate() {
            let of_it = labelled.range((index, "")..(index + 1, ""));
            let before = out.len();
            out.extend(of_it.map(|((_, label), count)| (info.metric, *label, *count)));
            let count = count.load(Ordering::Relaxed);
            if out.len() == before && count > 0 {
                out.push((info.metric, "", count));
            }
        }
        out
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Events").field(&self.0.sink).finish()
    }
}

/// Keeps events in memory, for tests.
#[derive(Debug, Default)]
pub struct Recorder {
    events: Mutex<Vec<Event>>,
    full: std::sync::atomic::AtomicBool,
}

impl Recorder {
    /// A recorder, and the way of events to it.
    pub fn new() -> (Arc<Self>, Events) {
        let recorder = Arc::new(Self::default());
        (recorder.clone(), Events::to(recorder))
    }

    /// What was recorded so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// What was recorded under `name`.
    pub fn named(&self, name: &str) -> Vec<Event> {
        self.events.lock().iter().filter(|event| event.name() == name).cloned().collect()
    }

    /// From now on there is no room, or there is again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }
}

impl Sink for Recorder {
    fn take(&self, _: u64, event: Event) {
        self.events.lock().push(event);
    }

    fn take_first(&self, time: u64, event: Event) -> Result<(), NoRoom> {
        if !self.room() {
            return Err(NoRoom);
        }
        self.take(time, event);
        Ok(())
    }

    fn room(&self) -> bool {
        !self.full.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::events::{EventsLost, MessageRefused};

    #[test]
    fn events_are_counted_by_label_and_amount_and_recorded() {
        let (recorder, events) = Recorder::new();
        let refused = |refusal, count| MessageRefused { refusal, count, what: "message" };
        events.emit(refused("malformed", 3));
        events.emit(refused("malformed", 2));
        events.emit(refused("expired", 1));
        events.emit(EventsLost { lost: 7, why: "test".into() });
        assert_eq!(
            events.counted(),
            [
                ("bulla_unproven_refused_total", "expired", 1),
                ("bulla_unproven_refused_total", "malformed", 5),
                ("bulla_events_lost_total", "", 7),
            ]
        );
        assert_eq!(recorder.events().len(), 4);
        recorder.set_full(true);
        assert_eq!(events.emit_first(refused("expired", 1)), Err(NoRoom));
        assert_eq!(recorder.events().len(), 4);
    }
}
