//! What becomes of claimed messages: they are deleted many at a time, their claims renewed while
//! somebody has them in hand, and given up when they are put back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::PATIENCE;
use super::http::Way;

/// Ids that a service takes at a time.
const IDS: usize = 20;
/// How often it is looked for claims to renew.
const LOOK: Duration = Duration::from_secs(1);

pub(super) enum Command {
    Ack {
        queue: String,
        claim: String,
        id: String,
    },
    PutBack {
        queue: String,
        claim: String,
    },
    /// The queue with the parts of a message.
    Remove(String),
    Flush(oneshot::Sender<()>),
    /// Gives up everything that is in hand.
    Close(oneshot::Sender<()>),
}

/// The way to whoever settles.
#[derive(Clone)]
pub(super) struct Settler {
    commands: mpsc::UnboundedSender<Command>,
    held: Arc<Mutex<HashMap<(String, String), Held>>>,
    terms: Bytes,
    http: Way,
}

/// A claim.
struct Held {
    /// Messages that are not settled.
    open: usize,
    /// Whether any of them is to go back.
    back: bool,
    renewed: Instant,
}

impl Settler {
    pub(super) fn start(http: Way) -> Self {
        let (commands, queue) = mpsc::unbounded_channel();
        let seconds = http.options.claim.as_secs().max(1);
        let terms = Bytes::from(format!("{{\"ttl\":{seconds},\"grace\":{seconds}}}"));
        let settler = Self { commands, held: Arc::default(), terms, http };
        let (held, terms, http) =
            (settler.held.clone(), settler.terms.clone(), settler.http.clone());
        tokio::spawn(Settling::run(held, terms, http, queue));
        settler
    }

    /// What is asked of a claim.
    pub(super) fn terms(&self) -> Bytes {
        self.terms.clone()
    }

    pub(super) fn claimed(&self, queue: &str, claim: &str, messages: usize) {
        let held = Held { open: messages, back: false, renewed: Instant::now() };
        self.held.lock().insert((queue.to_owned(), claim.to_owned()), held);
    }

    /// Gives a claim up at once, where nobody may be there to do it.
    pub(super) async fn give_back(&self, queue: &str, claim: &str) {
        self.held.lock().remove(&(queue.to_owned(), claim.to_owned()));
        let path = format!("/v2/queues/{queue}/claims/{claim}");
        if let Err(error) = self.http.ask(Method::DELETE, &path, Bytes::new(), PATIENCE).await {
            tracing::debug!(%error, "a claim could not be given up");
        }
    }

    pub(super) fn send(&self, command: Command) {
        // It ends with the transport, which gave everything up.
        let _ = self.commands.send(command);
    }

    /// Until what was settled is settled.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.send(Command::Flush(done));
        let _ = flushed.await;
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        self.send(Command::Close(done));
        let _ = closed.await;
    }
}

struct Settling {
    held: Arc<Mutex<HashMap<(String, String), Held>>>,
    terms: Bytes,
    http: Way,
    /// Ids and claims to be deleted, by queue.
    due: HashMap<String, Vec<(String, String)>>,
}

impl Settling {
    async fn run(
        held: Arc<Mutex<HashMap<(String, String), Held>>>,
        terms: Bytes,
        http: Way,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        let mut settling = Self { held, terms, http, due: HashMap::new() };
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut some = Vec::new();
            tokio::select! {
                taken = commands.recv_many(&mut some, 256) => {
                    if taken == 0 {
                        settling.give_up().await;
                        return;
                    }
                }
                _ = look.tick() => settling.renew().await,
            }
            let mut told = Vec::new();
            let mut closed = None;
            for command in some {
                match command {
                    Command::Flush(done) => told.push(done),
                    Command::Close(done) => closed = Some(done),
                    command => settling.take(command).await,
                }
            }
            settling.delete().await;
            settling.release().await;
            for done in told {
                // Who asked may be gone.
                let _ = done.send(());
            }
            if let Some(done) = closed {
                commands.close();
                settling.give_up().await;
                let _ = done.send(());
                return;
            }
        }
    }

    async fn take(&mut self, command: Command) {
        match command {
            Command::Ack { queue, claim, id } => {
                self.settled(&queue, &claim, false);
                self.due.entry(queue).or_default().push((id, claim));
            }
            Command::PutBack { queue, claim } => self.settled(&queue, &claim, true),
            Command::Remove(queue) => {
                let path = format!("/v2/queues/{queue}");
                self.ask(Method::DELETE, &path, Bytes::new()).await;
            }
            Command::Flush(_) | Command::Close(_) => {}
        }
    }

    fn settled(&self, queue: &str, claim: &str, back: bool) {
        if let Some(held) = self.held.lock().get_mut(&(queue.to_owned(), claim.to_owned())) {
            held.open = held.open.saturating_sub(1);
            held.back |= back;
        }
    }

    /// Deletes what was acknowledged. What can't be deleted comes again, to whoever has the next claim.
    async fn delete(&mut self) {
        for (queue, due) in std::mem::take(&mut self.due) {
            for some in due.chunks(IDS) {
                let list = |of: fn(&(String, String)) -> &str| {
                    some.iter().map(of).collect::<Vec<_>>().join(",")
                };
                let (ids, claims) = (list(|one| &one.0), list(|one| &one.1));
                let path = format!("/v2/queues/{queue}/messages?ids={ids}&claim_ids={claims}");
                self.ask(Method::DELETE, &path, Bytes::new()).await;
            }
        }
    }

    /// Gives up the claims of which something is to go back, once nothing else of them is in hand.
    async fn release(&mut self) {
        let mut over = Vec::new();
        self.held.lock().retain(|of, held| {
            if held.open == 0 && held.back {
                over.push(of.clone());
            }
            held.open > 0
        });
        for (queue, claim) in over {
            let path = format!("/v2/queues/{queue}/claims/{claim}");
            self.ask(Method::DELETE, &path, Bytes::new()).await;
        }
    }

    async fn renew(&mut self) {
        let (every, now) = (self.http.options.claim / 3, Instant::now());
        let mut due = Vec::new();
        for (of, held) in self.held.lock().iter_mut() {
            if now.duration_since(held.renewed) >= every {
                held.renewed = now;
                due.push(of.clone());
            }
        }
        for (queue, claim) in due {
            let path = format!("/v2/queues/{queue}/claims/{claim}");
            let terms = self.terms.clone();
            if self.ask(Method::PATCH, &path, terms).await == Some(StatusCode::NOT_FOUND) {
                self.held.lock().remove(&(queue, claim));
            }
        }
    }

    async fn give_up(&mut self) {
        self.delete().await;
        for held in self.held.lock().values_mut() {
            held.back = true;
            held.open = 0;
        }
        self.release().await;
    }

    /// What is not done now, time does.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Option<StatusCode> {
        match self.http.ask(method, path, body, PATIENCE).await {
            Ok(answer) => Some(answer.status),
            Err(error) => {
                tracing::debug!(%error, "a message could not be settled");
                None
            }
        }
    }
}
