//! Who waits for a message.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::name::Place;

/// Those who wait, by queue. It costs nothing for a queue for which nobody does.
#[derive(Default)]
pub(crate) struct Arrivals {
    waiting: Mutex<HashMap<Place, watch::Sender<()>>>,
}

/// Somebody who waits.
pub(crate) struct Waiting {
    at: Place,
    arrivals: Arc<Arrivals>,
    heard: watch::Receiver<()>,
}

impl Arrivals {
    /// Begins to wait: what arrives from now on is heard.
    pub(crate) fn wait(self: &Arc<Self>, at: &Place) -> Waiting {
        let mut waiting = self.waiting.lock();
        let heard = waiting.entry(at.clone()).or_insert_with(|| watch::channel(()).0).subscribe();
        Waiting { at: at.clone(), arrivals: Arc::clone(self), heard }
    }

    /// Something arrived in a queue.
    pub(crate) fn tell(&self, at: &Place) {
        if let Some(waiting) = self.waiting.lock().get(at) {
            waiting.send_replace(());
        }
    }

    /// Something may have arrived in any queue.
    pub(crate) fn tell_all(&self) {
        for waiting in self.waiting.lock().values() {
            waiting.send_replace(());
        }
    }
}

impl Waiting {
    /// Until something arrives.
    pub(crate) async fn heard(&mut self) {
        // The sender is there as long as somebody waits.
        let _ = self.heard.changed().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.arrivals.waiting.lock();
        // Its own is one.
        if waiting.get(&self.at).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[tokio::test]
    async fn what_arrives_is_heard_and_nothing_is_left() {
        let arrivals = Arc::new(Arrivals::default());
        let at = Place::new("p".into(), "q", &Limits::default()).unwrap();
        let mut first = arrivals.wait(&at);
        let mut second = arrivals.wait(&at);
        arrivals.tell(&at);
        first.heard().await;
        second.heard().await;
        drop(first);
        assert_eq!(arrivals.waiting.lock().len(), 1);
        drop(second);
        assert!(arrivals.waiting.lock().is_empty());
    }
}
