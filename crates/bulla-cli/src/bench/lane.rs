//! What is measured side by side: the same calls, plain and sealed.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_guard::{
    ClaimStore, Limits, MemoryClaims, NewStore, SqliteClaims, SqliteOptions, StoreOptions,
};
use bulla_journal::{Events, Journal, Options, SigningKey};
use bulla_rpc::{Client, Clock, Router, Server, ServerOptions, SystemClock, Target};
use bulla_seal::Suite;
use bulla_transport::memory::MemoryBus;
use bulla_transport::{
    Inbox, QueueOptions, QueueTransport, RabbitOptions, RabbitTransport, Transport,
};
use serde::{Deserialize, Serialize};

use super::plain::{PlainClient, PlainServer};
use super::threads::Threads;
use super::world::{CALLER, EXCHANGE, World};
use super::{BenchError, CONCURRENT_METHODS, Claims, KeyType};
use crate::control::bus::Oslo;

/// The method that is called. It is not read-only: every call makes a claim.
pub(super) const METHOD: &str = "echo";
/// Ids that one lane may make: they are remembered until they expire, which is after the bench.
const IDS: u64 = 200_000_000;

/// Arguments and result of the echo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Echo {
    pub(super) text: String,
}

impl Echo {
    pub(super) fn of_size(bytes: usize) -> Self {
        Self { text: "x".repeat(bytes) }
    }
}

/// The bus that is measured on.
#[derive(Clone)]
pub(crate) enum Bus {
    Memory(MemoryBus),
    Rabbit(Box<RabbitOptions>),
    Oslo(Box<Oslo>),
    Queue(Box<QueueOptions>),
}

impl Bus {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Memory(_) => "memory".to_owned(),
            Self::Rabbit(options) => format!("rabbit at {}", options.address()),
            Self::Oslo(oslo) => format!("rabbit at {}, oslo carrier", oslo.address()),
            Self::Queue(options) => format!("queue service at {}", options.address()),
        }
    }

    /// One party's own way onto the bus, served by the thread that asks.
    async fn transport(self) -> Result<Arc<dyn Transport>, BenchError> {
        Ok(match self {
            Self::Memory(bus) => Arc::new(bus.transport()),
            Self::Rabbit(options) => Arc::new(RabbitTransport::connect(*options).await?),
            Self::Oslo(oslo) => Arc::new(oslo.connect().await?),
            Self::Queue(options) => Arc::new(QueueTransport::connect(*options).await?),
        })
    }

    /// The caller's and the agent's, each on its thread.
    async fn transports(&self, threads: &Threads) -> Result<[Arc<dyn Transport>; 2], BenchError> {
        let caller = threads.client.run(self.clone().transport()).await?;
        Ok([caller, threads.server.run(self.clone().transport()).await?])
    }
}

/// A client and a server of one sort.
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) threads: Arc<Threads>,
    rpc: Rpc,
    executed: Arc<AtomicU64>,
    inbox: Inbox,
    transports: [Arc<dyn Transport>; 2],
    _state: Option<Folder>,
    _journal: Option<(Events, Folder)>,
}

enum Rpc {
    Plain { client: PlainClient, server: PlainServer },
    Sealed { client: Client, target: Target, server: Server },
}

impl Lane {
    pub(super) async fn plain(
        (bus, threads): (&Bus, &Arc<Threads>),
        name: &'static str,
        word: &str,
    ) -> Result<Self, BenchError> {
        let [caller, agent] = bus.transports(threads).await?;
        let (me, topic) = (format!("agent/{name}-{word}"), format!("agent.{name}-{word}"));
        let executed = Arc::new(AtomicU64::new(0));
        let server = {
            let (agent, topic, executed) = (agent.clone(), topic.clone(), executed.clone());
            let server = async move { PlainServer::start(agent, &topic, &me, executed).await };
            threads.server.run(server).await?
        };
        let process = format!("{name}{word}");
        let component = format!("component/{CALLER}");
        let client = {
            let (caller, topic) = (caller.clone(), topic.clone());
            let client =
                async move { PlainClient::start(caller, &topic, &component, &process).await };
            threads.client.run(client).await?
        };
        Ok(Self {
            name,
            threads: threads.clone(),
            rpc: Rpc::Plain { client, server },
            executed,
            inbox: Inbox::Topic { exchange: EXCHANGE.to_owned(), topic },
            transports: [caller, agent],
            _state: None,
            _journal: None,
        })
    }

    pub(super) async fn sealed(
        (bus, threads): (&Bus, &Arc<Threads>),
        name: &'static str,
        word: &str,
        keys: KeyType,
        claims: Claims,
        journal: bool,
    ) -> Result<Self, BenchError> {
        let [caller, agent] = bus.transports(threads).await?;
        let id = format!("{name}-{word}");
        let transports = (caller.clone(), agent.clone());
        let journal = if journal { Some(journal_of(name)?) } else { None };
        let events = journal.as_ref().map(|(events, _)| events.clone());
        let ends = World::new()?.with_journal(events).pair(&id, keys, Suite::X25519, transports)?;
        let executed = Arc::new(AtomicU64::new(0));
        let counter = executed.clone();
        let router = Router::new().method(METHOD, move |_, args: Echo| {
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(args))
        });
        let (claims, state) = claim_store(claims).await?;
        let options =
            ServerOptions { concurrency: CONCURRENT_METHODS, ..ServerOptions::new(claims) };
        let inbox = ends.target.inbox(EXCHANGE).ok_or(BenchError::Broken("a target's inbox"))?;
        let server = async move { Ok(Server::start(ends.agent, router, options).await?) };
        let server = threads.server.run(server).await?;
        Ok(Self {
            name,
            threads: threads.clone(),
            rpc: Rpc::Sealed { client: Client::new(ends.caller), target: ends.target, server },
            executed,
            inbox,
            transports: [caller, agent],
            _state: state,
            _journal: journal,
        })
    }

    pub(super) async fn call(&self, args: &Echo) -> Result<Echo, BenchError> {
        match &self.rpc {
            Rpc::Plain { client, .. } => client.call(args).await,
            Rpc::Sealed { client, target, .. } => Ok(client.call(target, METHOD, args).await?),
        }
    }

    pub(super) async fn cast(&self, args: &Echo) -> Result<(), BenchError> {
        match &self.rpc {
            Rpc::Plain { client, .. } => client.cast(args).await,
            Rpc::Sealed { client, target, .. } => {
                client.cast(target, METHOD, args).await?;
                Ok(())
            }
        }
    }

    /// How many methods ran so far.
    pub(super) fn executed(&self) -> u64 {
        self.executed.load(Ordering::Relaxed)
    }

    /// Anything that was refused, for the report: there should be nothing.
    pub(super) fn refusals(&self) -> u64 {
        match &self.rpc {
            Rpc::Plain { .. } => 0,
            Rpc::Sealed { client, server, .. } => [client.endpoint(), server.endpoint()]
                .iter()
                .map(|endpoint| endpoint.counters().refusals().values().sum::<u64>())
                .sum(),
        }
    }

    /// Ends it and takes its queue off the bus.
    pub(super) async fn close(self) -> Result<(), BenchError> {
        let [caller, agent] = &self.transports;
        match self.rpc {
            Rpc::Plain { server, .. } => server.close().await,
            Rpc::Sealed { client, server, .. } => {
                client.close();
                server.drain(std::time::Duration::from_secs(5)).await;
            }
        }
        let deleted = agent.delete(&self.inbox).await;
        caller.close().await;
        agent.close().await;
        Ok(deleted?)
    }
}

/// A journal as the control plane keeps one by default, and the folder that it is in.
fn journal_of(name: &str) -> Result<(Events, Folder), BenchError> {
    let folder = Folder::new()?;
    let (key, _) = SigningKey::generate("bulla.bench/journal")?;
    let options = Options::new(&format!("bulla.bench/journal/{name}"));
    let journal = Journal::open(&folder.0.join("journal"), key, options)?;
    Ok((Events::to(Arc::new(journal)), folder))
}

async fn claim_store(claims: Claims) -> Result<(Arc<dyn ClaimStore>, Option<Folder>), BenchError> {
    let limits = Limits { shared: IDS, ..Limits::default() };
    let store = StoreOptions { limits, ..StoreOptions::default() };
    // The queue's name is as new as this process, so nothing was received before.
    Ok(match claims {
        Claims::Memory => (Arc::new(MemoryClaims::for_new_bus(store)), None),
        Claims::Sqlite => {
            let folder = Folder::new()?;
            let now_ms = SystemClock.now().ns / 1_000_000;
            let options = SqliteOptions::new(NewStore::NothingBefore, now_ms);
            let options = SqliteOptions { store, ..options };
            let claims = SqliteClaims::open(folder.0.join("claims.sqlite"), options).await?;
            (Arc::new(claims), Some(folder))
        }
    })
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, BenchError> {
        let path = std::env::temp_dir().join(format!("bulla-bench-{}", super::world::unique()?));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|source| BenchError::Io { what: path.display().to_string(), source })?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is no secret and in the temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
