//! Serving methods: consuming from this principal's inboxes and running what arrives.

mod alone;
mod options;
mod watch;
mod work;

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bulla_guard::{ClaimStore, SweepRequest};
use bulla_seal::GroupName;
use bulla_transport::{Consumer, Delivery, Inbox, TransportError};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use options::ServerOptions;

use crate::clock::millis;
use crate::endpoint::Endpoint;
use crate::pipeline;
use crate::router::Router;
use crate::target::{Target, group_topic};
use alone::Alone;
use watch::Watch;
use work::Work;

/// How often the wall clock is compared with the monotonic one.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often leases and old ids are looked after.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often others' floors and exemptions are looked for.
const FLOORS_EVERY: Duration = Duration::from_secs(1);
/// Every how many times the census is written down.
const CENSUS_EVERY: u64 = 10;

/// For what was taken before another host was seen.
const LAST_GRACE: Duration = Duration::from_secs(10);

/// A running server. Dropping it does not stop it: call [`Server::drain`].
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    work: Arc<Work>,
    consumers: TaskTracker,
    stop: CancellationToken,
    groups: Mutex<HashSet<GroupName>>,
    claims: Arc<dyn ClaimStore>,
    capacity: usize,
}

/// What a server has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Messages that were taken from the bus and are not dealt with.
    pub messages: usize,
    /// How many of them hold a worker.
    pub running: usize,
    /// Workers.
    pub capacity: usize,
}

/// A server could not start.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The bus can't be consumed from.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Several hosts would consume from one queue, each remembering alone what ran.
    #[error(
        "component hosts compete for one queue, but this claim store is not shared between them: \
         a message could run on two hosts; use a shared store, or run one host and say so \
         (`only_host`)"
    )]
    UnsharedStore,
    /// Somebody else consumes from the queue already.
    #[error(
        "another consumer is on the queue `{queue}`, and this claim store is not shared between \
         hosts: a message could run on both. Give all hosts one store (Redis, PostgreSQL or \
         MariaDB: `[claims] store`), or stop the other host; if there is none (a consumer of a \
         host that lost its power stays until the broker misses its heartbeats), say so: \
         `only-host`"
    )]
    NotAlone {
        /// The queue.
        queue: String,
    },
}

impl Server {
    /// Starts consuming: the principal's own topic, a component's host queue, and its groups'.
    pub async fn start(
        endpoint: Endpoint,
        router: Router,
        options: ServerOptions,
    ) -> Result<Self, ServeError> {
        let principal = endpoint.identity.principal().clone();
        let unshared = principal.is_component() && !options.claims.is_shared();
        if unshared && !options.only_host && !options.only_host_by_bus {
            return Err(ServeError::UnsharedStore);
        }
        let alone = unshared.then(|| Alone::new(&endpoint, &principal, &options)).flatten();
        if let Some(alone) = &alone {
            alone.before().await?;
        }
        let pipeline = pipeline::build(&endpoint, Arc::new(router), &options);
        let stop = CancellationToken::new();
        let work = Arc::new(Work {
            endpoint: endpoint.clone(),
            pipeline,
            permits: Arc::new(Semaphore::new(options.concurrency)),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        let server = Self {
            endpoint,
            work,
            consumers: TaskTracker::new(),
            stop,
            groups: Mutex::default(),
            claims: options.claims.clone(),
            capacity: options.concurrency,
        };
        // An exemption that is not known yet lets nothing through.
        refresh_floors(&server.endpoint).await;
        let exchange = server.endpoint.options.exchange.clone();
        let mut targets = vec![Target::Principal(principal.clone())];
        if let Some(instance) = server.endpoint.identity.instance() {
            targets.push(Target::Server(principal, instance.to_owned()));
        }
        for inbox in targets.iter().filter_map(|target| target.inbox(&exchange)) {
            server.consume(&inbox).await?;
        }
        if let Some(alone) = &alone
            && let Err(error) = alone.after().await
        {
            server.drain(LAST_GRACE).await;
            return Err(error);
        }
        server.sweep(&options);
        server.keep_floors();
        Ok(server)
    }

    /// What it has in hand just now.
    pub fn load(&self) -> Load {
        Load {
            messages: self.work.tasks.len(),
            running: self.capacity.saturating_sub(self.work.permits.available_permits()),
            capacity: self.capacity,
        }
    }

    /// Whether a message would be run at once.
    pub fn has_room(&self) -> bool {
        self.work.permits.available_permits() > 0 && !self.stop.is_cancelled()
    }

    /// What remembers which messages ran here.
    pub fn claims(&self) -> &Arc<dyn ClaimStore> {
        &self.claims
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Listens to the groups that the directory names, beside those that it listens to already.
    pub async fn join_groups(&self) -> Result<(), ServeError> {
        let groups = match self.endpoint.directory.groups().await {
            Ok(groups) => groups,
            Err(error) => {
                tracing::warn!(%error, "groups are not known yet");
                return Ok(());
            }
        };
        for group in groups {
            if !self.groups.lock().insert(group.clone()) {
                continue;
            }
            let inbox = Inbox::Fanout {
                exchange: self.endpoint.options.exchange.clone(),
                topic: group_topic(&group),
                member: self.member_name(),
            };
            if let Err(error) = self.consume(&inbox).await {
                // The next time it is tried again.
                self.groups.lock().remove(&group);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Unique among a group's members: the principal, and the host of a component.
    fn member_name(&self) -> String {
        let identity = &self.endpoint.identity;
        let principal = bulla_transport::address::routing_word(identity.principal().as_str());
        match identity.instance() {
            Some(instance) => format!("{principal}.{}", instance.replace('.', "~")),
            None => principal,
        }
    }

    /// Consumes from an inbox beside its own: one that the settings of a deployment name.
    ///
    /// # Errors
    /// The bus can't be consumed from.
    pub async fn consume(&self, inbox: &Inbox) -> Result<(), ServeError> {
        let options = &self.endpoint.options.queues;
        let consumer = self.endpoint.transport.consume(inbox, options).await?;
        self.work_on(consumer);
        Ok(())
    }

    /// Takes a delivery that no consumer brings, from an inbox that it [consumes](Self::consume) from. Whoever
    /// polls the future runs it: on its own thread, that goes as far as the method's first wait. When the
    /// server drains, it waits for it.
    pub fn take(&self, delivery: Delivery) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.work.tasks.track_future(self.work.clone().take_one(delivery)))
    }

    // Not async: what runs is compiled here, as this crate is optimised (docs/adr/0008).
    #[inline(never)]
    fn work_on(&self, consumer: Box<dyn Consumer>) {
        self.consumers.spawn(self.work.clone().take(consumer));
    }

    fn sweep(&self, options: &ServerOptions) {
        let (endpoint, store, worker) =
            (self.endpoint.clone(), options.claims.clone(), options.worker);
        let lease_ms = u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let (mut due, mut look) =
                (tokio::time::interval(SWEEP_EVERY), tokio::time::interval(LOOK_EVERY));
            let mut watch = Watch::new(&endpoint);
            loop {
                let looks = tokio::select! {
                    () = stop.cancelled() => return,
                    _ = look.tick() => true,
                    _ = due.tick() => false,
                };
                let now_ms = millis(endpoint.clock.now());
                if looks {
                    watch.look(&endpoint, &*store, now_ms).await;
                    continue;
                }
                let swept = store.sweep(SweepRequest { now_ms, worker, lease_ms }).await;
                match swept {
                    Ok(swept) if !swept.in_doubt.is_empty() => {
                        tracing::warn!(
                            count = swept.in_doubt.len(),
                            "runs were lost; their outcome is unknown"
                        );
                    }
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "the claim store could not be swept"),
                }
            }
        });
    }

    /// Looks for what other processes raised and for exemptions, and writes the census down.
    fn keep_floors(&self) {
        let (endpoint, stop) = (self.endpoint.clone(), self.stop.clone());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(FLOORS_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for n in 1u64.. {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = tick.tick() => {}
                }
                refresh_floors(&endpoint).await;
                if n % CENSUS_EVERY == 0 {
                    write_census(&endpoint).await;
                }
            }
        });
    }

    /// Takes nothing new, lets what runs end within `grace`, then returns how many were cut off.
    /// What was not taken yet stays in its queue. The transport is left open for last words.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.stop.cancel();
        self.consumers.close();
        self.consumers.wait().await;
        self.work.tasks.close();
        let ended = tokio::time::timeout(grace, self.work.tasks.wait()).await;
        write_census(&self.endpoint).await;
        match ended {
            Ok(()) => 0,
            Err(_) => self.work.tasks.len(),
        }
    }
}

async fn refresh_floors(endpoint: &Endpoint) {
    if let Err(error) = endpoint.refresh_floors().await {
        tracing::error!(%error, "what others raised or exempted is not known");
    }
}

async fn write_census(endpoint: &Endpoint) {
    if let Err(error) = endpoint.floors.flush().await {
        tracing::warn!(%error, "the census could not be written down");
    }
}
