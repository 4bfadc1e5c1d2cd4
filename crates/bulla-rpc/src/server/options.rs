//! Settings of a server.

use std::sync::Arc;
use std::time::Duration;

use bulla_guard::{ClaimStore, Worker};
use bulla_seal::Level;

use crate::pipeline::{Authorization, DefaultRule};
use crate::unsealed::Unsealed;

/// Settings of a server.
#[derive(Clone)]
pub struct ServerOptions {
    /// What remembers which messages ran.
    pub claims: Arc<dyn ClaimStore>,
    /// Tells this process from others that use the same store.
    pub worker: Worker,
    /// How long a lost run holds its message. Extended while the method runs.
    pub lease: Duration,
    /// Methods that run at the same time at the most.
    pub concurrency: usize,
    /// Methods that run at the same time for one agent at the most, at a component; a quarter of
    /// `concurrency` unless set. Four times as many wait, more are refused.
    pub per_agent: Option<usize>,
    /// The lowest level taken.
    pub level: Level,
    /// Whether each request must carry its sender's signature inside the seal: then not even the
    /// theft of this receiver's key lets anyone forge one (protocol section 1).
    pub inner_signature: bool,
    /// Who may run what.
    pub authorization: Arc<dyn Authorization>,
    /// What reads messages that are not sealed, to be let through by exemptions; none are read unless
    /// given.
    pub unsealed: Option<Arc<dyn Unsealed>>,
    /// The operator's word that no other host of this component runs, for a claim store that is
    /// not shared.
    pub only_host: bool,
    /// On a claim store that is not shared, and without the word `only_host`: start if the bus says
    /// that nobody else consumes from this component's queue. That is the broker's word: it keeps
    /// operators from mistakes, and is asked at the start only.
    pub only_host_by_bus: bool,
    /// Requests of read-only methods per second and sender.
    pub read_only_per_second: u32,
    /// Denials that a sender is told per second.
    pub denials_per_second: u32,
}

impl ServerOptions {
    /// The defaults, with `claims`: 60 s leases, 256 methods at a time, level `sealed`, the
    /// default rule.
    pub fn new(claims: Arc<dyn ClaimStore>) -> Self {
        Self {
            claims,
            worker: Worker(random_worker()),
            lease: Duration::from_secs(60),
            concurrency: 256,
            per_agent: None,
            level: Level::Sealed,
            inner_signature: false,
            authorization: Arc::new(DefaultRule),
            unsealed: None,
            only_host: false,
            only_host_by_bus: false,
            read_only_per_second: 20_000,
            denials_per_second: 20,
        }
    }
}

impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions")
            .field("claims", &self.claims)
            .field("worker", &self.worker)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

fn random_worker() -> u64 {
    use bulla_seal::{OsRandom, Random};
    let mut bytes = [0; 8];
    match OsRandom::default().fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    }
}
