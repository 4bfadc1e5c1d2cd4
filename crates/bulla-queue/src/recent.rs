//! What queues' metadata meant a moment ago, for stores that other hosts use, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metadata::Settings;
use crate::name::Place;

/// How long a change that another host made may go unnoticed.
const FRESH: Duration = Duration::from_secs(1);
/// Queues that are known at the most; beyond that it begins anew.
const MAX: usize = 65_536;

/// Settings of queues, as they were read lately.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Held>);

#[derive(Default)]
struct Held {
    known: HashMap<Place, (Instant, Arc<Settings>)>,
    /// How often something was forgotten.
    mark: u64,
}

impl Recent {
    /// A queue's settings, if they are known, and a mark for [`Recent::learn`].
    pub(crate) fn find(&self, at: &Place) -> (Option<Arc<Settings>>, u64) {
        let held = self.0.lock();
        let known = held.known.get(at).filter(|(read, _)| read.elapsed() < FRESH);
        (known.map(|(_, settings)| settings.clone()), held.mark)
    }

    /// Remembers what was read since `mark`, unless something changed in between.
    pub(crate) fn learn(&self, at: &Place, settings: &Arc<Settings>, mark: u64) {
        let mut held = self.0.lock();
        if held.mark != mark {
            return;
        }
        if held.known.len() >= MAX {
            held.known.clear();
        }
        held.known.insert(at.clone(), (Instant::now(), settings.clone()));
    }

    /// A queue was changed here.
    pub(crate) fn forget(&self, at: &Place) {
        let mut held = self.0.lock();
        held.mark += 1;
        held.known.remove(at);
    }
}
