//! A whole deployment on one hostile broker: two hosts of a caller, two workers that share their
//! claims, agents of each kind of key, crashes and restarts; all in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulla_guard::{ClaimStore, MemoryClaims, NewStore, SqliteClaims, SqliteOptions, StoreOptions};
use bulla_rpc::client::Step;
use bulla_rpc::*;
use bulla_seal::Suite;
use bulla_transport::TransportEvent;
use bulla_transport::hostile::{HostileBroker, HostileTransport, Plan, Random, Weights};

use crate::book::{self, Book, router};
use crate::common::*;
use crate::stores::{Fault, Faulty, Mortal, Patient};

/// Small, so that a lost store is not blind for long.
const SKEW: u64 = 5;
const LEASE: Duration = Duration::from_millis(900);
const SVC: [&str; 2] = ["component/svc@h1", "component/svc@h2"];
const MEMBERS: [&str; 5] = ["agent/db-1", "agent/db-2", "agent/sk-1", SVC[0], SVC[1]];

/// Who calls whom: caller, target, where it may run.
type Pair = (&'static str, &'static str, &'static [&'static str]);
const PAIRS: [Pair; 11] = [
    ("component/control@h1", "agent/db-1", &["agent/db-1"]),
    ("component/control@h1", "agent/db-2", &["agent/db-2"]),
    ("component/control@h1", "component/svc", &SVC),
    ("component/control@h1", "component/svc@h1", &["component/svc@h1"]),
    ("component/control@h2", "agent/db-1", &["agent/db-1"]),
    ("component/control@h2", "component/svc", &SVC),
    ("component/control@h2", "component/svc@h2", &["component/svc@h2"]),
    ("agent/db-1", "component/svc", &SVC),
    ("agent/sk-1", "component/svc", &SVC),
    ("component/svc@h1", "agent/sk-1", &["agent/sk-1"]),
    ("component/svc@h2", "agent/sk-1", &["agent/sk-1"]),
];

/// What keeps the claims of the two workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    Memory,
    Sqlite,
    Faulty(Fault),
}

pub struct Stage {
    world: World,
    clock: Arc<Virtual>,
    pub broker: HostileBroker,
    pub book: Book,
    keys: BTreeMap<&'static str, (Keys, Arc<StaticDirectory>)>,
    clients: BTreeMap<&'static str, (Client, Arc<HostileTransport>)>,
    servers: BTreeMap<&'static str, Process>,
    stores: BTreeMap<&'static str, Arc<dyn ClaimStore>>,
    /// Refusals of processes that are gone.
    refused: BTreeMap<&'static str, u64>,
    file: Option<(tempfile::TempDir, SqliteClaims)>,
}

/// A server as the operating system sees it.
struct Process {
    server: Server,
    transport: Arc<HostileTransport>,
    claims: Mortal,
}

fn store_options() -> StoreOptions {
    StoreOptions { skew_s: SKEW, ..StoreOptions::default() }
}

fn shorter(end: &str) -> String {
    end.split('@').next().unwrap().into()
}

impl Stage {
    pub async fn set(plan: Plan, shared: Shared) -> Self {
        let (world, clock) = (World::new(), Virtual::from_now());
        let broker = HostileBroker::new(&world.bus, plan);
        let mut stage = Self {
            broker,
            clock,
            book: Book::default(),
            keys: BTreeMap::new(),
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            stores: BTreeMap::new(),
            refused: BTreeMap::new(),
            file: None,
            world,
        };
        // The second suite costs most of the time that a seed takes.
        let second_suite = stage.broker.seed().is_none_or(|seed| seed % 3 == 0);
        stage.make_keys(second_suite);
        stage.make_stores(shared).await;
        for name in stage.keys.keys().copied().collect::<Vec<_>>() {
            let (endpoint, transport) = stage.endpoint(name);
            stage.clients.insert(name, (Client::new(endpoint), transport));
        }
        for name in MEMBERS {
            stage.start(name).await;
        }
        stage
    }

    fn make_keys(&mut self, second_suite: bool) {
        let world = &self.world;
        let host = |name: &str, host: &str| world.component_keys(name, host, 1, validity());
        let directory = world.directory.clone();
        let hosts = [("control", "h1"), ("svc", "h1")].map(|(name, h)| host(name, h));
        // Hosts of one component have one audience key and signing keys of their own.
        let second = |first: &Keys, name: &str| match (first, host(name, "h2")) {
            (Keys::Pair { receive, .. }, Keys::Pair { key, signing, .. }) => {
                directory.add_peer(receive[0].credential.clone());
                Keys::Pair { key, signing, receive: receive.clone() }
            }
            _ => unreachable!(),
        };
        let others = [second(&hosts[0], "control"), second(&hosts[1], "svc")];
        let [control, svc] = hosts;
        let [control2, svc2] = others;
        let db1 = world.agent_keys("db-1", Suite::X25519, 1);
        let suite = if second_suite { Suite::XWing } else { Suite::X25519 };
        let db2 = world.agent_keys("db-2", suite, 1);
        let (sk, own) = world.shared_keys("sk-1", "svc");
        for (name, keys, directory) in [
            ("component/control@h1", control, directory.clone()),
            ("component/control@h2", control2, directory.clone()),
            (SVC[0], svc, directory.clone()),
            (SVC[1], svc2, directory.clone()),
            ("agent/db-1", db1, directory.clone()),
            ("agent/db-2", db2, directory),
            ("agent/sk-1", sk, own),
        ] {
            self.keys.insert(name, (keys, directory));
        }
    }

    async fn make_stores(&mut self, shared: Shared) {
        let memory = || MemoryClaims::for_new_bus(store_options());
        let between: Arc<dyn ClaimStore> = match shared {
            Shared::Memory => Arc::new(memory()),
            Shared::Faulty(fault) => Arc::new(Faulty { store: memory(), fault }),
            Shared::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let options = SqliteOptions {
                    store: store_options(),
                    ..SqliteOptions::new(NewStore::NothingBefore, self.clock.now().ns / 1_000_000)
                };
                let store = SqliteClaims::open(folder.path().join("c.db"), options).await.unwrap();
                self.file = Some((folder, store.clone()));
                Arc::new(Patient(store))
            }
        };
        for name in MEMBERS {
            let own: Arc<dyn ClaimStore> =
                if SVC.contains(&name) { between.clone() } else { Arc::new(memory()) };
            self.stores.insert(name, own);
        }
    }

    fn endpoint(&self, name: &str) -> (Endpoint, Arc<HostileTransport>) {
        let (keys, directory) = &self.keys[name];
        let transport = Arc::new(self.broker.transport(name));
        let endpoint = Endpoint::with_clock(
            keys.identity(&self.world.trust),
            directory.clone(),
            transport.clone(),
            EndpointOptions { skew: SKEW, ..EndpointOptions::default() },
            self.clock.clone(),
        );
        (endpoint.unwrap(), transport)
    }

    async fn start(&mut self, name: &'static str) {
        let (endpoint, transport) = self.endpoint(name);
        let claims = Mortal::new(self.stores[name].clone());
        let options = ServerOptions {
            lease: LEASE,
            concurrency: 8,
            ..ServerOptions::new(Arc::new(claims.clone()))
        };
        let server = Server::start(endpoint, router(&self.book, name), options).await.unwrap();
        server.join_groups().await.unwrap();
        self.servers.insert(name, Process { server, transport, claims });
    }

    /// `kill -9`, and after a while a new process; with a store of its own, it may be lost too.
    async fn restart(&mut self, name: &'static str, lose: bool) {
        let Some(process) = self.servers.remove(name) else { return };
        process.claims.kill();
        process.transport.crash().await;
        self.count_refusals(&process.server);
        tokio::time::sleep(Duration::from_millis(150)).await;
        if lose && !SVC.contains(&name) {
            self.broker.remark(&format!("the claims of {name} are lost"));
            let now_ms = self.clock.now().ns / 1_000_000;
            self.stores.insert(name, Arc::new(MemoryClaims::new(store_options(), now_ms)));
        }
        self.start(name).await;
    }

    /// A process stands still for longer than its leases; its connection is made anew meanwhile.
    fn stall(&self, name: &str, pause: Duration) {
        let Some(process) = self.servers.get(name) else { return };
        self.broker.remark(&format!("{name} stands still for {} ms", pause.as_millis()));
        let (claims, transport) = (process.claims.clone(), process.transport.clone());
        claims.stop(true);
        transport.reconnect();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            claims.stop(false);
        });
    }

    fn count_refusals(&mut self, server: &Server) {
        for (name, count) in server.endpoint().counters().refusals() {
            *self.refused.entry(name).or_default() += count;
        }
    }

    /// Requests of all kinds over some seconds, with restarts in between.
    pub async fn play(&mut self, seed: u64, requests: u32) {
        let mut random = Random::new(seed, u64::MAX);
        let mut running = tokio::task::JoinSet::new();
        let restarts = [requests / 3, requests / 2, requests * 4 / 5];
        for k in 0..requests {
            if restarts.contains(&k) {
                let name = MEMBERS[random.index(MEMBERS.len())];
                match random.below(3) {
                    0 => self.stall(name, LEASE + Duration::from_millis(random.below(1500))),
                    lose => self.restart(name, lose == 1).await,
                }
            }
            if random.percent(4) {
                let (_, transport) = self.clients.values().nth(random.index(7)).unwrap();
                transport.tell(TransportEvent::Connected);
            }
            self.ask(&mut random, &mut running);
            tokio::time::sleep(Duration::from_millis(random.below(60))).await;
        }
        while let Some(end) = running.join_next().await {
            end.unwrap();
        }
    }

    fn ask(&self, random: &mut Random, running: &mut tokio::task::JoinSet<()>) {
        let (by, to, places) = PAIRS[random.index(PAIRS.len())];
        let (client, book) = (self.clients[by].0.clone(), self.book.clone());
        let target: Target = to.parse().unwrap();
        let sender = shorter(by);
        let timeout = Duration::from_millis(800 + random.below(3000));
        match random.below(12) {
            0 => {
                let n = book.ask("component/control", "tell", &MEMBERS);
                let client = self.clients["component/control@h1"].0.clone();
                running.spawn(async move {
                    let all = "group/all".parse().unwrap();
                    client.fanout(&all, "tell", &n).await.unwrap();
                });
            }
            1 => {
                let n = book.ask(&sender, "count", places);
                running.spawn(async move {
                    client.cast(&target, "count", &n).await.unwrap();
                });
            }
            2 | 3 => {
                let n = book.ask(&sender, "steps", places);
                running.spawn(async move { follow(&client, &target, n, timeout, &book).await });
            }
            4 => {
                // A caller that changes its mind.
                let n = book.ask(&sender, "slow", places);
                let patience = Duration::from_millis(random.below(600));
                running.spawn(async move {
                    let call = client.request(&target, "slow").timeout(timeout).call(&n);
                    if let Ok(end) = tokio::time::timeout(patience, call).await {
                        book.ended(n, end);
                    }
                });
            }
            other => {
                let method = match other {
                    5 | 6 => "slow",
                    7 => "again",
                    8 => "read",
                    _ => "count",
                };
                let n = book.ask(&sender, method, places);
                running.spawn(async move {
                    let end = client.request(&target, method).timeout(timeout).call(&n).await;
                    book.ended(n, end);
                });
            }
        }
    }

    /// The broker mends its ways: every pair must come to work again, after one timeout at the
    /// most for what was withheld.
    pub async fn recover(&mut self) {
        self.broker.obey(Plan::honest()).await;
        // Who lost its claims is blind that long; who hangs has a lease.
        tokio::time::sleep(Duration::from_secs(SKEW + 3)).await;
        for (by, to, places) in PAIRS {
            let target: Target = to.parse().unwrap();
            let client = &self.clients[by].0;
            let mut tries = 0;
            loop {
                let n = self.book.ask(&shorter(by), "count", places);
                let request = client.request(&target, "count").timeout(Duration::from_secs(2));
                let end = request.call(&n).await;
                let done = end.is_ok();
                self.book.ended(n, end);
                tries += 1;
                if done {
                    break;
                }
                if tries == 3 {
                    self.book.wrong(format!("{by} and {to} are stuck"));
                    break;
                }
            }
        }
    }

    /// Everything that anyone ever asked, once more, to where it went.
    pub async fn replay_everything(&mut self) {
        let before = self.book.runs();
        for sent in self.broker.requests() {
            self.broker.inject(&sent.to, sent.message.payload).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        for (n, runs) in self.book.runs() {
            // What may run again did, perhaps.
            let was = before.get(&n).map_or(0, Vec::len);
            if was == 0 && runs.is_empty() {
                self.book.wrong(format!("{n} ran from nowhere"));
            }
        }
    }

    /// What is wrong at the end, and what came of it all.
    pub async fn verdict(mut self) -> (Vec<String>, Summary) {
        let mut wrong = self.book.verdict(&self.broker.replies());
        for (name, (client, _)) in &self.clients {
            if client.waiting() > 0 {
                wrong.push(format!("{name} left {} calls behind", client.waiting()));
            }
        }
        let servers = std::mem::take(&mut self.servers);
        let mut refused = std::mem::take(&mut self.refused);
        let clients = self.clients.values().map(|(client, _)| client.endpoint().counters());
        let counters = servers.values().map(|process| process.server.endpoint().counters());
        for counters in counters.chain(clients) {
            for (name, count) in counters.refusals() {
                *refused.entry(name).or_default() += count;
            }
        }
        if let Some((_, store)) = self.file.take() {
            store.close().await;
        }
        (wrong, Summary { ends: self.book.ends(), refused })
    }
}

/// How calls ended, and what was refused.
#[derive(Debug, Default)]
pub struct Summary {
    pub ends: BTreeMap<String, u32>,
    pub refused: BTreeMap<&'static str, u64>,
}

impl Summary {
    pub fn add(&mut self, other: Self) {
        for (name, count) in other.ends {
            *self.ends.entry(name).or_default() += count;
        }
        for (name, count) in other.refused {
            *self.refused.entry(name).or_default() += count;
        }
    }
}

/// A call with progress, to its very end and one step beyond.
async fn follow(client: &Client, target: &Target, n: u32, timeout: Duration, book: &Book) {
    let stream = client.request(target, "steps").timeout(timeout).stream(&n).await;
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return book.ended(n, Err(error)),
    };
    let (mut last, mut ended) = (None, false);
    while let Some(step) = stream.next::<(u32, u32), book::Value>().await {
        if ended {
            book.wrong(format!("{n} got something after its end"));
        }
        match step {
            Ok(Step::Progress(item)) => {
                book.progressed(n, last, item);
                last = Some(item.1);
            }
            Ok(Step::Done(value)) => {
                ended = true;
                book.ended(n, Ok(value));
            }
            Err(error) => {
                ended = true;
                book.ended(n, Err(error));
            }
        }
    }
}

/// One seed from beginning to end, in a runtime of its own: what is wrong, a summary, and the
/// broker's log.
pub fn run(seed: u64, weights: Weights, shared: Shared) -> (Vec<String>, Summary, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stage = Stage::set(Plan::weighted(seed, weights), shared).await;
        stage.play(seed, 30).await;
        stage.recover().await;
        stage.replay_everything().await;
        let broker = stage.broker.clone();
        let (wrong, summary) = stage.verdict().await;
        let log: Vec<_> = broker.log().iter().map(ToString::to_string).collect();
        (wrong, summary, log.join("\n"))
    })
}
