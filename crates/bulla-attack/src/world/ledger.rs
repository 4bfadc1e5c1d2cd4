//! What ran in the victims' handlers.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::HONEST;
use crate::trouble::Trouble;

/// One run of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Whose handler.
    pub at: String,
    /// Which method.
    pub method: String,
    /// The number in its arguments.
    pub n: u64,
    /// Who sent it, as the handler was told.
    pub sender: String,
}

/// Every run, in order.
#[derive(Debug, Default)]
pub struct Ledger {
    ran: Mutex<Vec<Ran>>,
    done: watch::Sender<bool>,
}

impl Ledger {
    /// Writes a run down.
    pub fn note(&self, ran: Ran) {
        self.ran.lock().push(ran);
    }

    /// Lets slow methods come to their end.
    pub fn finish(&self) {
        self.done.send_replace(true);
    }

    /// Until slow methods may end; not for ever.
    pub(super) async fn finished(&self) {
        let mut done = self.done.subscribe();
        let wait = done.wait_for(|done| *done);
        tokio::time::timeout(Duration::from_secs(30), wait).await.ok();
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.ran.lock().len()
    }

    /// Those after the first `from`.
    pub fn since(&self, from: usize) -> Vec<Ran> {
        self.ran.lock().iter().skip(from).cloned().collect()
    }

    /// Waits until there were so many.
    pub async fn wait(&self, count: usize) -> Result<(), Trouble> {
        let begun = Instant::now();
        while self.count() < count {
            if begun.elapsed() > HONEST {
                return Err(Trouble::new("an honest message did not run"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
