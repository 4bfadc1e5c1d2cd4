//! Queues by name, as far as they were looked up.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::metadata::Settings;
use crate::name::Place;
use crate::store::Metadata;

/// Queues that are known at the most; beyond that it begins anew.
const MAX: usize = 65_536;

/// A queue.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Its number: another one after it was purged, or made anew.
    pub(super) n: i64,
    pub(super) metadata: Arc<Metadata>,
    pub(super) settings: Arc<Settings>,
}

impl Row {
    pub(super) fn new(n: i64, metadata: Metadata) -> Self {
        let settings = Arc::new(Settings::of(&metadata));
        Self { n, metadata: Arc::new(metadata), settings }
    }
}

/// Only this process changes the file, and says so here once a change is committed.
#[derive(Default)]
pub(super) struct Known(Mutex<Held>);

#[derive(Default)]
struct Held {
    rows: HashMap<Place, Row>,
    /// How often something was forgotten.
    mark: u64,
}

impl Known {
    /// A queue, and a mark for [`Known::learn`].
    pub(super) fn find(&self, at: &Place) -> (Option<Row>, u64) {
        let held = self.0.lock();
        (held.rows.get(at).cloned(), held.mark)
    }

    /// The mark of now.
    pub(super) fn mark(&self) -> u64 {
        self.0.lock().mark
    }

    /// Remembers what was read since `mark`, unless something changed in between.
    pub(super) fn learn(&self, at: &Place, row: Row, mark: u64) {
        let mut held = self.0.lock();
        if held.mark != mark {
            return;
        }
        if held.rows.len() >= MAX {
            held.rows.clear();
        }
        held.rows.insert(at.clone(), row);
    }

    /// Queues that were changed.
    pub(super) fn forget(&self, changed: &[Place]) {
        if changed.is_empty() {
            return;
        }
        let mut held = self.0.lock();
        held.mark += 1;
        for at in changed {
            held.rows.remove(at);
        }
    }
}
