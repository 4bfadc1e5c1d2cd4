//! The runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla_services::{Postgres, Proxy, RabbitCluster, RabbitMq, Redis};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Failed;
use crate::caller::{self, Traffic};
use crate::deployment::KeyFiles;
use crate::dice::Dice;
use crate::faults::Schedule;
use crate::fleet::{Deaths, Fleet};
use crate::progress::Progress;
use crate::report::Report;
use crate::settings::{ClaimsAt, Point, Settings};
use crate::tally::Tally;
use crate::worker::executions;

/// A lost run holds its call for so long.
const LEASE: Duration = Duration::from_secs(2);
/// Longer than any restart here takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Run {
    /// `kill -9` of workers at random moments; claims in Redis.
    Kill,
    /// Workers die at each point between receiving and acknowledging; claims in PostgreSQL.
    Points,
    /// RabbitMQ is stopped or crashes, and comes back.
    Broker,
    /// Redis, which holds the claims, is stopped or crashes, and comes back.
    Redis,
    /// PostgreSQL, which holds the claims, is stopped or crashes, and comes back.
    Postgres,
    /// The network between workers, caller, broker and claim store is cut, or hangs.
    Network,
    /// Of three RabbitMQ nodes, the one that leads the service's quorum queue crashes.
    Cluster,
    /// Workers die right after a method ran, with claims that forget: a run that must fail.
    Forgetful,
}

impl Run {
    /// Those that must pass.
    pub const ALL: [Self; 7] = [
        Self::Kill,
        Self::Points,
        Self::Broker,
        Self::Redis,
        Self::Postgres,
        Self::Network,
        Self::Cluster,
    ];

    fn deaths(self) -> Deaths {
        match self {
            Self::Kill => Deaths::Random,
            Self::Points => Deaths::AtPoints,
            Self::Forgetful => Deaths::At(Point::Executed),
            _ => Deaths::None,
        }
    }

    /// Calls in flight. A death loses what its worker had in hand; with more in hand than it lives
    /// to serve, little but deaths would be seen.
    fn at_a_time(self) -> usize {
        if self.deaths() == Deaths::None { 64 } else { 8 }
    }

    /// Faults of servers and networks.
    fn faults(self, calls: u64) -> u64 {
        match self {
            Self::Kill | Self::Points | Self::Forgetful => 0,
            Self::Broker => (calls / 2000).max(1),
            Self::Redis | Self::Postgres => (calls / 1000).max(2),
            Self::Network => (calls / 300).max(4),
            Self::Cluster => (calls / 4000).max(1),
        }
    }
}

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Numbered calls.
    pub calls: u64,
    /// What random moments come from.
    pub seed: u64,
    /// The program that is a worker when it is called with the word `worker`.
    pub program: PathBuf,
}

/// The servers of a run, and how they are reached.
struct Scene {
    run: Run,
    folder: tempfile::TempDir,
    broker: Broker,
    store: Store,
    /// Before the broker, for each worker, and for the caller.
    networks: [Proxy; 3],
    /// Before the claim store.
    store_network: Proxy,
}

enum Broker {
    One(Box<RabbitMq>),
    Cluster(RabbitCluster),
}

enum Store {
    Redis(Redis),
    Postgres(Postgres),
    Nowhere,
}

impl Plan {
    /// Makes a run and counts.
    ///
    /// # Errors
    /// It could not be made, for instance for want of a server.
    pub async fn make(&self, run: Run) -> Result<Report, Failed> {
        let begun = Instant::now();
        let mut scene = tokio::task::block_in_place(|| Scene::start(run))?;
        let keys = KeyFiles::write(scene.folder.path()).await?;
        let progress = Arc::new(Progress::default());
        let workers = scene.workers(&keys)?;
        let (program, deaths) = (self.program.clone(), run.deaths());
        let size = (self.calls, self.seed);
        let mut fleet = Fleet::start(program, workers, deaths, size, progress.clone());
        fleet.ready().await?;
        let client = caller::client(&keys.caller, &scene.bus(2)).await?;
        let traffic = Traffic { calls: self.calls, at_a_time: run.at_a_time(), timeout: TIMEOUT };
        let calls = tokio::spawn(caller::call_all(client.clone(), traffic, progress.clone()));
        let faults = scene.faults(self, &progress).await;
        let told = calls.await??;
        // What is still on its way has its chance to run a second time.
        tokio::time::sleep(2 * LEASE).await;
        client.close();
        let mut events = fleet.stop().await;
        let faults = faults?;
        if faults > 0 {
            events.insert("faults".to_owned(), faults);
        }
        let tally = Tally::count(&told, &executions(&scene.records())?);
        Ok(Report { run, tally, events, seconds: begun.elapsed().as_secs_f64() })
    }
}

impl Scene {
    fn start(run: Run) -> Result<Self, Failed> {
        let broker = match run {
            Run::Cluster => Broker::Cluster(RabbitCluster::start()?),
            _ => Broker::One(Box::new(RabbitMq::start()?)),
        };
        let store = match run {
            Run::Postgres | Run::Points => Store::Postgres(Postgres::start()?),
            Run::Forgetful => Store::Nowhere,
            _ => Store::Redis(Redis::start()?),
        };
        let ports = broker.ports();
        let network = |n: usize| {
            let port = ports.get(n % ports.len().max(1)).copied();
            Ok::<_, Failed>(Proxy::start(port.ok_or("no broker")?)?)
        };
        let networks = [network(0)?, network(1)?, network(2)?];
        let store_network = Proxy::start(store.port())?;
        let folder = tempfile::Builder::new().prefix("bulla-chaos-").tempdir()?;
        std::fs::create_dir(folder.path().join("records"))?;
        Ok(Self { run, folder, broker, store, networks, store_network })
    }

    fn records(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    /// The broker's address for a worker or, with 2, the caller.
    fn bus(&self, who: usize) -> String {
        let port = self.networks.get(who).map_or(0, Proxy::port);
        match &self.broker {
            Broker::One(rabbit) => rabbit.url_at(port),
            Broker::Cluster(cluster) => {
                cluster.nodes().first().map(|node| node.url_at(port)).unwrap_or_default()
            }
        }
    }

    fn workers(&self, keys: &KeyFiles) -> Result<[Settings; 2], Failed> {
        let worker = |n: usize, key_file: &Path| Settings {
            key_file: key_file.to_owned(),
            bus: self.bus(n),
            claims: self.store.at(self.store_network.port()),
            records: self.records(),
            replicated: self.run == Run::Cluster,
            lease_ms: u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX),
            death: None,
        };
        let [first, second] = &keys.workers;
        Ok([worker(0, first), worker(1, second)])
    }

    async fn faults(&mut self, plan: &Plan, progress: &Progress) -> Result<u64, Failed> {
        let dice = Dice::new(plan.seed ^ 1);
        let (calls, faults) = (plan.calls, self.run.faults(plan.calls));
        let schedule = Schedule { calls, faults, progress, dice: &dice };
        let [first, second, caller] = &self.networks;
        match (self.run, &mut self.broker, &mut self.store) {
            (Run::Broker, Broker::One(rabbit), _) => schedule.restarts(&mut **rabbit).await,
            (Run::Redis, _, Store::Redis(redis)) => schedule.restarts(redis).await,
            (Run::Postgres, _, Store::Postgres(postgres)) => schedule.restarts(postgres).await,
            (Run::Network, ..) => {
                schedule.cuts(&[first, &self.store_network, caller, second]).await
            }
            (Run::Cluster, Broker::Cluster(cluster), _) => {
                schedule.leaders(cluster, &[first, second, caller]).await
            }
            _ => Ok(0),
        }
    }
}

impl Broker {
    fn ports(&self) -> Vec<u16> {
        match self {
            Self::One(rabbit) => vec![rabbit.port()],
            Self::Cluster(cluster) => cluster.nodes().iter().map(RabbitMq::port).collect(),
        }
    }
}

impl Store {
    fn port(&self) -> u16 {
        match self {
            Self::Redis(redis) => redis.port(),
            Self::Postgres(postgres) => postgres.port(),
            Self::Nowhere => 0,
        }
    }

    fn at(&self, port: u16) -> ClaimsAt {
        match self {
            Self::Redis(redis) => ClaimsAt::Redis(redis.url_at(port)),
            Self::Postgres(postgres) => ClaimsAt::Postgres(postgres.url_at(port)),
            Self::Nowhere => ClaimsAt::Nowhere,
        }
    }
}

/// What happened in a run, by name, and how often.
pub(crate) type Events = BTreeMap<String, u64>;
