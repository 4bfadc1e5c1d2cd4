//! The connection that is there now, and its restoration when it is lost.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};

use super::acks::Acks;
use super::declare::{self, Confined};
use super::dial::dial;
use super::options::RabbitOptions;
use super::publish::Publisher;
use crate::address::Inbox;
use crate::amqp::{Connection, Event};
use crate::error::TransportError;
use crate::transport::{ConsumeOptions, TransportEvent};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often those who wait for a connection look for it.
const LOOK: Duration = Duration::from_millis(500);
/// How soon a message is tried again that did not reach its connection.
pub(super) const RETRY: Duration = Duration::from_millis(50);
/// How long closing waits for the broker.
const CLOSING: Duration = Duration::from_secs(5);

/// What happens on a connection.
type Told = mpsc::Receiver<Event>;

/// One connection, from greeting to end.
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) publisher: Publisher,
}

impl Live {
    pub(super) fn is_up(&self) -> bool {
        self.connection.is_up()
    }
}

#[derive(Clone)]
pub(super) enum State {
    Down,
    Up(Arc<Live>),
    Closed,
}

/// What a transport and its consumers share.
pub(super) struct Link {
    pub(super) options: RabbitOptions,
    state: watch::Sender<State>,
    pub(super) events: broadcast::Sender<TransportEvent>,
    pub(super) confined: Arc<Confined>,
    /// What has to be declared again after a loss.
    declared: Mutex<HashMap<Inbox, ConsumeOptions>>,
    /// What has to be told to the broker before closing.
    acks: Mutex<Vec<Weak<Acks>>>,
}

impl Link {
    pub(super) async fn connect(options: RabbitOptions) -> Result<Arc<Self>, TransportError> {
        let (connection, told) = dial(&options).await?;
        let events = broadcast::Sender::new(256);
        let confined = Arc::new(Confined::default());
        let publisher = Publisher::new(Arc::clone(&confined));
        let live = Arc::new(Live { connection, publisher });
        let link = Arc::new(Self {
            options,
            state: watch::Sender::new(State::Up(Arc::clone(&live))),
            events,
            confined,
            declared: Mutex::default(),
            acks: Mutex::default(),
        });
        link.keep(live, told);
        Ok(link)
    }

    /// Restores the connection whenever it is lost.
    // Not async: what runs is compiled here, as this crate is optimised (docs/adr/0008).
    #[inline(never)]
    fn keep(self: &Arc<Self>, live: Arc<Live>, told: Told) {
        tokio::spawn(supervise(Arc::clone(self), live, told));
    }

    /// The connection, if it is up.
    pub(super) fn live_now(&self) -> Option<Arc<Live>> {
        match &*self.state.borrow() {
            State::Up(live) if live.is_up() => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// The connection, waiting for it if it is down.
    pub(super) async fn live(&self) -> Result<Arc<Live>, TransportError> {
        if let Some(live) = self.live_now() {
            return Ok(live);
        }
        let mut state = self.state.subscribe();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Up(live) if live.is_up() => return Ok(live),
                State::Closed => return Err(TransportError::Closed),
                // Lost, but not noticed yet, or being restored.
                State::Up(_) | State::Down => {}
            }
            let looked = tokio::time::timeout(LOOK, state.changed()).await;
            if matches!(looked, Ok(Err(_))) {
                return Err(TransportError::Closed);
            }
        }
    }

    /// Resolves when the transport is closed.
    pub(super) async fn closed(&self) {
        let mut state = self.state.subscribe();
        // An error would mean that the sender, which is us, is gone.
        let _ = state.wait_for(|state| matches!(state, State::Closed)).await;
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.state.borrow(), State::Closed)
    }

    pub(super) fn remember(&self, inbox: &Inbox, options: &ConsumeOptions) {
        self.declared.lock().insert(inbox.clone(), options.clone());
    }

    pub(super) fn forget(&self, inbox: &Inbox) {
        self.declared.lock().remove(inbox);
    }

    pub(super) fn watch_acks(&self, acks: &Arc<Acks>) {
        let mut all = self.acks.lock();
        all.retain(|acks| acks.strong_count() > 0);
        all.push(Arc::downgrade(acks));
    }

    /// Ends everything without a word to the broker but the end of the connection.
    pub(super) fn abandon(&self) -> Option<Arc<Live>> {
        match self.state.send_replace(State::Closed) {
            State::Up(live) => Some(live),
            State::Down | State::Closed => None,
        }
    }

    pub(super) async fn close(&self) {
        let Some(live) = self.abandon() else { return };
        let all: Vec<_> = self.acks.lock().iter().filter_map(Weak::upgrade).collect();
        let orderly = async {
            for acks in all {
                acks.flush();
            }
            live.publisher.flush().await;
            live.connection.close().await;
        };
        if tokio::time::timeout(CLOSING, orderly).await.is_err() {
            tracing::warn!(address = %self.options.address(), "the broker did not answer the closing");
        }
    }

    /// Changes the state unless the transport is closed.
    fn turn(&self, to: State) -> bool {
        self.state.send_if_modified(|state| {
            let open = !matches!(state, State::Closed);
            if open {
                *state = to;
            }
            open
        })
    }

    fn tell(&self, event: TransportEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    async fn redeclare(&self, connection: &Connection) -> Result<(), TransportError> {
        let declared = self.declared.lock().clone();
        for (inbox, options) in declared {
            match declare::inbox(connection, &self.confined, &inbox, &options).await {
                Ok(()) => {}
                Err(error @ TransportError::Refused { .. }) if !declare::is_locked(&error) => {
                    tracing::warn!(%error, "a queue could not be declared again");
                }
                // Lost again, or the broker has not noticed the loss yet.
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Notices the loss of a connection and restores it, until the transport is closed.
async fn supervise(link: Arc<Link>, mut live: Arc<Live>, mut told: Told) {
    loop {
        let Some(why) = end_of(&link, &live, &mut told).await else { return };
        if !link.turn(State::Down) {
            return;
        }
        drop(live);
        tracing::warn!(address = %link.options.address(), %why, "lost the broker");
        link.tell(TransportEvent::Lost { why });
        let Some(next) = restore(&link).await else { return };
        (live, told) = next;
        if !link.turn(State::Up(Arc::clone(&live))) {
            return;
        }
        tracing::info!(address = %link.options.address(), "connected to the broker again");
        link.tell(TransportEvent::Connected);
    }
}

/// Why the connection ended; `None` when we closed it.
async fn end_of(link: &Link, live: &Live, told: &mut Told) -> Option<String> {
    loop {
        let event = tokio::select! {
            () = link.closed() => return None,
            why = live.connection.lost() => return Some(why.to_string()),
            Some(event) = told.recv() => event,
        };
        link.tell(match event {
            Event::Blocked(why) => TransportEvent::Blocked { why },
            Event::Unblocked => TransportEvent::Unblocked,
            Event::Returned { routing_key, body } => {
                TransportEvent::Returned { address: routing_key, payload: body }
            }
        });
    }
}

/// Connects and declares again, with growing pauses; `None` when the transport is closed.
async fn restore(link: &Link) -> Option<(Arc<Live>, Told)> {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::select! {
            () = link.closed() => return None,
            () = tokio::time::sleep(jittered(pause)) => {}
        }
        match attempt(link).await {
            Ok(restored) => return Some(restored),
            Err(error) => tracing::debug!(%error, "no connection yet"),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn attempt(link: &Link) -> Result<(Arc<Live>, Told), TransportError> {
    let (connection, told) = dial(&link.options).await?;
    link.redeclare(&connection).await?;
    let publisher = Publisher::new(Arc::clone(&link.confined));
    Ok((Arc::new(Live { connection, publisher }), told))
}

/// Between half and the whole of a pause, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let share = RandomState::new().hash_one(0) % 512;
    pause.mul_f64((512 + share) as f64 / 1024.0)
}
