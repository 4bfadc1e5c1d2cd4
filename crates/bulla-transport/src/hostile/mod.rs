//! A broker that is against everybody, for tests: it drops, delays, doubles, reorders, re-routes,
//! splices, cuts, flips, strips, makes flags up, swaps replies, and replays whatever it ever saw,
//! also to a receiver that starts anew. It has the manners of the in-memory bus underneath, so it
//! does all of it in tokio's virtual time.
//!
//! What it does is a [`Plan`]: a script, or weights and a seed. The same seed does the same again,
//! and [`HostileBroker::log`] says what that was; a test that fails prints seed and log by itself,
//! and `BULLA_SEED` ([`seeds`]) runs one seed again.
//!
//! ```
//! use bulla_transport::hostile::{HostileBroker, Plan, Weights};
//! use bulla_transport::MemoryBus;
//!
//! let broker = HostileBroker::new(&MemoryBus::new(), Plan::weighted(7, Weights::default()));
//! let alice = broker.transport("alice"); // a `Transport` like any other
//! let bob = broker.transport("bob");
//! # let _ = (alice, bob);
//! # async {
//! broker.obey(Plan::honest()).await; // from now on
//! # };
//! ```

mod act;
mod consumer;
mod frame;
mod log;
mod plan;
mod transport;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

pub use act::{Act, Sent, Splice, Strip};
pub use frame::{cut, flip};
pub use log::Entry;
pub use plan::{Plan, Random, SEED_VARIABLE, Weights, seeds};
pub use transport::HostileTransport;

use crate::address::{Address, Inbox};
use crate::memory::{MemoryBus, MemoryTransport};
use crate::transport::{Outbound, Transport};
use log::Aliases;

/// Lines of the log that a failing test prints.
const LAST_LINES: usize = 200;

/// A hostile broker; cheap to clone, all clones are the same broker.
#[derive(Clone)]
pub struct HostileBroker(Arc<Inner>);

struct Inner {
    bus: MemoryBus,
    own: MemoryTransport,
    plan: Mutex<Arc<Plan>>,
    seen: Mutex<Seen>,
    deliveries: AtomicU64,
    start: Instant,
    /// Kept when the plan changes: a failure is run again from the first one.
    seed: Option<u64>,
}

#[derive(Default)]
struct Seen {
    sent: Vec<Sent>,
    /// Acts that wait until so many messages were published.
    held: Vec<(usize, Address, Outbound)>,
    starts: HashMap<Inbox, u64>,
    aliases: Aliases,
    log: Vec<Entry>,
}

impl HostileBroker {
    /// A broker around `bus`, with a plan.
    pub fn new(bus: &MemoryBus, plan: Plan) -> Self {
        Self(Arc::new(Inner {
            bus: bus.clone(),
            own: bus.transport(),
            seed: plan.seed(),
            plan: Mutex::new(Arc::new(plan)),
            seen: Mutex::default(),
            deliveries: AtomicU64::new(0),
            start: Instant::now(),
        }))
    }

    /// One party's way onto it. `name` is for the log.
    pub fn transport(&self, name: &str) -> HostileTransport {
        HostileTransport::new(self.clone(), self.0.bus.transport(), name)
    }

    /// Follows another plan from now on, and lets go of what it held.
    pub async fn obey(&self, plan: Plan) {
        self.note(|_| format!("-- plan: {plan:?}"));
        *self.0.plan.lock() = Arc::new(plan);
        let held = std::mem::take(&mut self.0.seen.lock().held);
        for (_, to, message) in held {
            self.send(&to, message).await;
        }
    }

    /// The seed of its first plan.
    pub fn seed(&self) -> Option<u64> {
        self.0.seed
    }

    /// Everything that was published so far, as it was published.
    pub fn sent(&self) -> Vec<Sent> {
        self.0.seen.lock().sent.clone()
    }

    /// The requests and fanouts among it.
    pub fn requests(&self) -> Vec<Sent> {
        self.sent().into_iter().filter(|sent| !sent.is_reply()).collect()
    }

    /// The replies and notices among it.
    pub fn replies(&self) -> Vec<Sent> {
        self.sent().into_iter().filter(Sent::is_reply).collect()
    }

    /// Publishes something of its own, or of somebody's once more. No plan, no record.
    pub async fn inject(&self, to: &Address, payload: Bytes) {
        self.send(to, Outbound::new(payload)).await;
    }

    /// What it did.
    pub fn log(&self) -> Vec<Entry> {
        self.0.seen.lock().log.clone()
    }

    /// Adds a line of the test's own to the log.
    pub fn remark(&self, what: &str) {
        self.note(|_| format!("-- {what}"));
    }

    async fn send(&self, to: &Address, message: Outbound) {
        // What finds no queue is gone, and nobody is told.
        self.0.own.publish(to, Outbound { mandatory: false, ..message }).await.ok();
    }

    fn note(&self, what: impl FnOnce(&mut Aliases) -> String) {
        let mut seen = self.0.seen.lock();
        let what = what(&mut seen.aliases);
        seen.log.push(Entry { at: self.0.start.elapsed(), what });
    }

    /// Writes a message down and decides what becomes of it.
    fn decide(&self, by: &str, to: &Address, message: &Outbound) -> (Sent, Vec<Act>) {
        let plan = self.0.plan.lock().clone();
        let mut seen = self.0.seen.lock();
        let n = seen.sent.len();
        let sent = Sent { n, by: by.to_owned(), to: to.clone(), message: message.clone() };
        let acts = plan.decide(&sent, &seen.sent);
        let what = describe(&sent, &acts, &mut seen.aliases);
        seen.log.push(Entry { at: self.0.start.elapsed(), what });
        seen.sent.push(sent.clone());
        (sent, acts)
    }

    fn earlier(&self, n: usize) -> Option<Sent> {
        self.0.seen.lock().sent.get(n).cloned()
    }

    /// Does one act. `Act::Pass` is the publisher's own to do: it hears how that went.
    async fn perform(&self, sent: &Sent, act: Act) {
        let payload = &sent.message.payload;
        let altered = |payload: Bytes| Outbound { payload, ..sent.message.clone() };
        match act {
            Act::Pass => self.send(&sent.to, sent.message.clone()).await,
            Act::Delay(pause) => {
                let (this, sent) = (self.clone(), sent.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    this.send(&sent.to, sent.message).await;
                });
            }
            Act::Hold(more) => {
                let held = (sent.n + more, sent.to.clone(), sent.message.clone());
                self.0.seen.lock().held.push(held);
            }
            Act::Flip(bit) => self.send(&sent.to, altered(frame::flip(payload, bit))).await,
            Act::Cut(keep) => self.send(&sent.to, altered(frame::cut(payload, keep))).await,
            Act::Reroute(elsewhere) => self.send(&elsewhere, sent.message.clone()).await,
            Act::Splice(what, n) => {
                let Some(other) = self.earlier(n) else { return };
                let payload = frame::splice(payload, &other.message.payload, what);
                self.send(&sent.to, altered(payload)).await;
            }
            Act::Last(item) => self.send(&sent.to, altered(frame::last(payload, &item))).await,
            Act::Strip(Strip::Properties) => self.inject(&sent.to, payload.clone()).await,
            Act::Strip(what) => self.send(&sent.to, altered(frame::strip(payload, what))).await,
            Act::Hint(reply_hint) => {
                self.send(&sent.to, Outbound { reply_hint, ..sent.message.clone() }).await;
            }
            Act::Replay(n) => {
                let Some(other) = self.earlier(n) else { return };
                self.send(&other.to, other.message).await;
            }
            Act::InPlace(n) => {
                let Some(other) = self.earlier(n) else { return };
                self.send(&sent.to, other.message).await;
            }
            Act::Swap(n) => {
                let Some(other) = self.earlier(n) else { return };
                self.send(&sent.to, other.message).await;
                self.send(&other.to, sent.message.clone()).await;
            }
            Act::Noise(len, seed) => self.inject(&sent.to, noise(len, seed)).await,
        }
    }

    /// Delivers what was held until now.
    async fn release(&self) {
        let due: Vec<_> = {
            let mut seen = self.0.seen.lock();
            let count = seen.sent.len();
            seen.held.extract_if(.., |(at, ..)| *at < count).collect()
        };
        for (_, to, message) in due {
            self.send(&to, message).await;
        }
    }

    /// A receiver starts: one that was there before is given old messages again.
    async fn receiver_starts(&self, by: &str, inbox: &Inbox) {
        let plan = self.0.plan.lock().clone();
        let (again, start) = {
            let mut seen = self.0.seen.lock();
            let starts = seen.starts.entry(inbox.clone()).or_default();
            *starts += 1;
            let start = *starts;
            let chosen = |sent: &&Sent| {
                start > 1 && sent.lands_in(inbox) && plan.replays_at_start(start, sent.n)
            };
            (seen.sent.iter().filter(chosen).cloned().collect::<Vec<_>>(), start)
        };
        let count = again.len();
        self.note(|aliases| {
            let inbox = aliases.inbox(inbox);
            format!("-- {by} consumes from {inbox}, consumer {start}: {count} replayed")
        });
        for sent in again {
            self.send(&sent.to, sent.message).await;
        }
    }

    fn next_delivery(&self) -> (u64, Arc<Plan>) {
        (self.0.deliveries.fetch_add(1, Ordering::Relaxed), self.0.plan.lock().clone())
    }
}

fn describe(sent: &Sent, acts: &[Act], aliases: &mut Aliases) -> String {
    let mut what = format!(
        "#{} {} to {} ({} B): ",
        sent.n,
        sent.by,
        aliases.address(&sent.to),
        sent.message.payload.len()
    );
    match acts {
        [] => what.push_str("drop"),
        [first, more @ ..] => {
            what.push_str(&first.to_string());
            more.iter().for_each(|act| what.push_str(&format!("; {act}")));
        }
    }
    what
}

fn noise(len: usize, seed: u64) -> Bytes {
    let mut random = Random::new(seed, 0);
    (0..len).map(|_| (random.next() >> 32) as u8).collect()
}

impl fmt::Debug for HostileBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostileBroker({:?})", self.0.plan.lock())
    }
}

impl Drop for Inner {
    /// Says how to run a failure again, and what led to it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = &self.seen.get_mut().log;
        for entry in log.get(log.len().saturating_sub(LAST_LINES)..).unwrap_or_default() {
            eprintln!("{entry}");
        }
        if let Some(seed) = self.seed {
            eprintln!("run it again with {SEED_VARIABLE}={seed}");
        }
    }
}
