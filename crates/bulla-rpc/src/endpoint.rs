//! What client and server of one process share: identity, directory, transport, clock, sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_guard::floor::{FloorError, FloorStore, Floors, MemoryFloors};
use bulla_journal::{Event, Events, Text, events};
use bulla_seal::{
    DEFAULT_MAX_FRAME, DEFAULT_SKEW, Exemption, GroupName, Hedge, Level, MAX_FRAME, OsRandom,
    Pooled, Principal, Random, RandomFailed,
};
use bulla_transport::{ConsumeOptions, ReplyName, Transport};
use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock};
use crate::counters::Counters;
use crate::directory::Directory;
use crate::identity::Identity;
use crate::rate::SenderRates;
use crate::sessions::{Incoming, Outgoing};
use crate::standing::Revocation;
use crate::target::DEFAULT_EXCHANGE;
use crate::trace::Tracer;

/// One process as one principal on one bus. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

#[doc(hidden)]
pub struct Inner {
    pub(crate) identity: Identity,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: EndpointOptions,
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
    pub(crate) revocation: Revocation,
    pub(crate) floors: Floors,
    pub(crate) counters: Counters,
    told: SenderRates,
    pub(crate) reply_name: ReplyName,
    clients: AtomicU64,
    random: Mutex<Pooled<OsRandom>>,
    counter: AtomicU64,
    boot: [u8; 16],
}

/// Settings of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// The exchange that everything travels on.
    pub exchange: String,
    /// Largest frame in bytes, sent or taken; at most 16 MiB.
    pub max_message: usize,
    /// Allowed difference of clocks, in seconds.
    pub skew: u64,
    /// How long an offer is good for, in seconds; at most an hour.
    pub offer_life: u64,
    /// Offers of strangers whose signatures are verified per second at the most; half as many
    /// more are kept for senders that had a session here.
    pub offers_per_second: u32,
    /// Unknown key ids that are looked up per second at the most; half as many more are kept for
    /// those that named a key here before.
    pub lookups_per_second: u32,
    /// Sessions to peers whose keys are kept ready, some 5 KiB each; the others, with less than one, rest
    /// until they are used again, which takes some microseconds.
    pub awake_sessions: usize,
    /// How queues of topics, servers and group members are declared; the same for everyone who
    /// declares one.
    pub queues: ConsumeOptions,
    /// Whether this endpoint renews credentials: it then opens an agent's request to renew under a
    /// credential that was followed by another, to tell a second copy of the agent by it.
    pub renews: bool,
    /// Where the floors of peers are kept; in memory unless given (protocol section 8).
    pub floors: Option<Arc<dyn FloorStore>>,
    /// Where events go; they are only logged and counted unless given.
    pub events: Events,
    /// Which calls that are run here are events.
    pub journal_calls: JournalCalls,
    /// What takes spans of traces; there are none unless given.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// Groups behind topics that do not have their names, on the oslo carrier.
    pub groups: Vec<NamedGroup>,
}

/// A group behind a topic of another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedGroup {
    /// The control exchange.
    pub exchange: String,
    /// The topic.
    pub topic: String,
    /// Who listens.
    pub group: GroupName,
}

/// Which calls are told one by one as events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JournalCalls {
    /// None.
    #[default]
    None,
    /// Those of methods that change something.
    Mutating,
    /// Those of `read_only` methods too.
    All,
}

/// Refusals and denials of one proven sender that are told one by one, per second: more would let a
/// compromised agent fill the disk. What is beyond is told in sum.
const TOLD_PER_SECOND: u32 = 50;

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            exchange: DEFAULT_EXCHANGE.to_owned(),
            max_message: DEFAULT_MAX_FRAME,
            skew: DEFAULT_SKEW,
            offer_life: 3600,
            offers_per_second: 2000,
            lookups_per_second: 500,
            awake_sessions: 4096,
            queues: ConsumeOptions::default(),
            renews: false,
            floors: None,
            events: Events::default(),
            journal_calls: JournalCalls::None,
            tracer: None,
            groups: Vec::new(),
        }
    }
}

impl Endpoint {
    /// An endpoint on the machine's clock.
    pub fn new(
        identity: Identity,
        directory: Arc<dyn Directory>,
        transport: Arc<dyn Transport>,
        options: EndpointOptions,
    ) -> Result<Self, RandomFailed> {
        Self::with_clock(identity, directory, transport, options, Arc::new(SystemClock))
    }

    /// An endpoint on a given clock.
    pub fn with_clock(
        identity: Identity,
        directory: Arc<dyn Directory>,
        transport: Arc<dyn Transport>,
        mut options: EndpointOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RandomFailed> {
        options.max_message = options.max_message.min(MAX_FRAME);
        let floors = options.floors.clone().unwrap_or_else(|| Arc::new(MemoryFloors::new()));
        let mut random = Pooled::new(OsRandom::default());
        let mut process = [0; 8];
        random.fill(&mut process)?;
        let process = format!("{:016x}", u64::from_be_bytes(process));
        let reply_name =
            transport.reply_name(identity.principal().as_str(), &process).ok_or(RandomFailed)?;
        let boot = boot_id().map_or_else(|| random.next16(), Ok)?;
        Ok(Self(Arc::new(Inner {
            identity,
            directory,
            transport,
            clock,
            incoming: Incoming::new(&options),
            outgoing: Outgoing::new(&options),
            options,
            revocation: Revocation::default(),
            floors: Floors::new(floors),
            counters: Counters::default(),
            told: SenderRates::new(TOLD_PER_SECOND),
            reply_name,
            clients: AtomicU64::new(0),
            random: Mutex::new(random),
            counter: AtomicU64::new(0),
            boot,
        })))
    }

    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Where keys of peers come from.
    pub fn directory(&self) -> &Arc<dyn Directory> {
        &self.0.directory
    }

    /// What carries its messages.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.0.transport
    }

    /// Its settings.
    pub fn options(&self) -> &EndpointOptions {
        &self.0.options
    }

    /// The floors of its peers, and the census.
    pub fn floors(&self) -> &Floors {
        &self.0.floors
    }

    /// Takes over what other processes raised and which exemptions were given or taken back;
    /// whether there was anything. A server does it every second.
    ///
    /// # Errors
    /// The store of floors can't be read.
    pub async fn refresh_floors(&self) -> Result<bool, FloorError> {
        let trust = self.0.identity.trust();
        let verify = |bytes: &[u8]| match trust.verify_exemption(bytes) {
            Ok(exemption) => Some(Exemption::clone(&exemption)),
            Err(refusal) => {
                let refusal = refusal.as_str();
                self.0.counters.refuse(refusal);
                self.events().emit(events::ExemptionRefused { refusal });
                None
            }
        };
        self.0.floors.refresh(verify).await
    }

    /// Whether a live exemption lets a message of this level go to `peer` for `method`
    /// (`namespace.method`); its use is counted and told. For what talks to peers that do not seal.
    pub fn use_exemption(&self, peer: &Principal, method: &str, level: Level) -> Option<Exemption> {
        let now = self.now().secs();
        let exemptions = self.0.floors.exemptions();
        let fits = exemptions.iter().find(|exemption| {
            exemption.is_live(now)
                && exemption.peer.principal == *peer
                && exemption.method == method
                && level >= exemption.level
        })?;
        self.0.counters.exempted.add(1);
        let (exemption, until) = (Text::of(&fits.id), fits.until);
        let sender = fits.peer.clone();
        self.tell(peer, events::ExemptionUsed { exemption, sender, level, until });
        Some(fits.clone())
    }

    /// A reply inbox of one client's own: two that share one would take each other's replies.
    pub(crate) fn next_reply_name(&self) -> ReplyName {
        let base = &self.0.reply_name;
        let n = self.0.clients.fetch_add(1, Ordering::Relaxed);
        let process = base.as_str().rsplit('.').next().unwrap_or_default();
        let own = format!("{process}{n}");
        match self.0.transport.reply_name(self.0.identity.principal().as_str(), &own) {
            Some(name) if n > 0 => name,
            _ => base.clone(),
        }
    }

    /// Counts of what was refused, answered and so on.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// The way of what happens here, into log and journal.
    pub fn events(&self) -> &Events {
        &self.0.options.events
    }

    /// Tells what a proven sender did, unless it does too much of it.
    pub(crate) fn tell(&self, sender: &Principal, event: impl Into<Event>) {
        if self.0.told.take(sender) {
            self.events().emit(event);
        } else if let Some(count) = self.0.counters.refuse_sampled("too-many-refusals") {
            let (refusal, what) = ("too-many-refusals", "of one sender, more than are told");
            self.events().emit(events::MessageRefused { refusal, count, what });
        }
    }

    pub(crate) fn next_random(&self) -> Result<[u8; 16], RandomFailed> {
        self.0.random.lock().next16()
    }

    /// What the hedged rule needs for the next message (protocol section 3).
    pub(crate) fn hedge(&self) -> Result<Hedge, RandomFailed> {
        let random = self.next_random()?;
        Ok(Hedge {
            random,
            now: self.now(),
            counter: self.0.counter.fetch_add(1, Ordering::Relaxed),
            boot: self.0.boot,
        })
    }
}

impl std::ops::Deref for Endpoint {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.identity.party())
    }
}

/// The kernel's id of this boot.
fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16).ok().map(u128::to_be_bytes)
}
