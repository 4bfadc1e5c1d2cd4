//! The writer's thread.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Status;
use super::log::Log;
use super::queue::{Batch, Queue, Work};
use crate::schema::Text;
use crate::schema::events::{EventsLost, JournalClosed, JournalOpened};

/// Events that come within this are written together.
const GATHER: Duration = Duration::from_millis(10);

pub(super) fn start(mut log: Log, queue: Arc<Queue>) -> io::Result<JoinHandle<()>> {
    if let Some(version) = log.options.version {
        let size = log.size();
        log.own(&JournalOpened { version, size }.into());
    }
    let writer = Writer { log, queue, why: String::new(), failed: None };
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run())
}

struct Writer {
    log: Log,
    queue: Arc<Queue>,
    /// Why events were lost.
    why: String,
    /// When it failed last.
    failed: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        // What was found at the opening.
        self.settle(true);
        let mut spare = Batch::new();
        loop {
            let failing = self.failed.is_some();
            let deadline = match self.failed {
                Some(at) => Some(at + self.log.options.retry),
                None => self.log.deadline(),
            };
            let work = self.queue.next(deadline, failing, spare);
            if work.closing {
                return self.end(&work);
            }
            self.add(&work);
            let settled = self.settle(work.flush.is_some());
            if let Some(flush) = work.flush.filter(|_| settled) {
                self.queue.served(flush);
            }
            if settled && !work.events.is_empty() {
                self.queue.gather(GATHER);
            }
            spare = work.events;
        }
    }

    fn add(&mut self, work: &Work) {
        for (time, event) in &work.events {
            self.log.add(*time, event);
        }
        if work.lost > 0 {
            let why =
                if self.why.is_empty() { "more came than could be written" } else { &self.why };
            self.log.own(&EventsLost { lost: work.lost, why: Text::new(why) }.into());
            self.why.clear();
        }
    }

    /// Whether all that is due is done.
    fn settle(&mut self, all: bool) -> bool {
        let settled = self.log.settle(all);
        self.log.show(&self.queue.gauges);
        match settled {
            Ok(()) => {
                if self.queue.set_status(Status::Writing) {
                    tracing::warn!("the journal can be written again");
                }
                self.failed = None;
                true
            }
            Err(error) => {
                self.log.doubt();
                self.why = error.to_string();
                let why = self.why.clone();
                if self.queue.set_status(Status::Failing { why }) {
                    tracing::error!(%error, "the journal can't be written");
                }
                self.failed = Some(Instant::now());
                false
            }
        }
    }

    fn end(mut self, work: &Work) {
        self.add(work);
        if self.log.options.version.is_some() {
            let size = self.log.size();
            self.log.own(&JournalClosed { size }.into());
        }
        let ended = self.log.checkpoint();
        if let Err(error) = &ended {
            self.queue.lose(work.events.len() as u64);
            tracing::error!(%error, "the journal could not be written to its end");
        }
        self.queue.set_status(Status::Closed);
    }
}
