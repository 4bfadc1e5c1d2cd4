//! One party of a world: its endpoint, its methods, and the broker's hand at it.

use std::sync::Arc;
use std::time::Duration;

use bulla_guard::{ClaimStore, Limits, MemoryClaims, StoreOptions};
use bulla_rpc::{
    Client, Context, Endpoint, HandlerResult, Identity, Method, RemoteError, Router, Server,
    ServerOptions, Target,
};
use bulla_seal::{GroupName, Level};
use serde_json::{Value, json};

use super::{
    Authority, Hand, Keyring, Keys, Ledger, PATIENCE, Pending, Ran, SECRET_ERROR, SECRET_RESULT,
    Shifted, World,
};
use crate::bus::Bus;
use crate::cell::Kind;
use crate::suite::Settings;
use crate::trouble::Trouble;

/// A party.
pub struct Peer {
    /// Its secrets.
    pub keys: Keyring,
    /// Its directory.
    pub directory: Arc<Keys>,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Its client.
    pub client: Client,
    /// The broker's hand at it.
    pub hand: Arc<Hand>,
    clock: Arc<Shifted>,
    trust: bulla_seal::TrustStore,
}

/// How a party serves.
#[derive(Clone)]
pub struct PeerOptions {
    /// Its claims; new ones in memory unless given.
    pub claims: Option<Arc<dyn ClaimStore>>,
    /// How much its own new claim store holds.
    pub limits: Limits,
    /// The lowest level taken.
    pub level: Level,
    /// Whether a signature is demanded inside the seal.
    pub inner_signature: bool,
    /// Methods at a time.
    pub concurrency: usize,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            claims: None,
            limits: Limits::default(),
            level: Level::Sealed,
            inner_signature: false,
            concurrency: 256,
        }
    }
}

impl PeerOptions {
    /// With these claims.
    pub fn with(claims: &Arc<MemoryClaims>) -> Self {
        Self { claims: Some(claims.clone()), ..Self::default() }
    }
}

impl Peer {
    /// A party on `bus`.
    pub fn new(
        bus: &Bus,
        authority: &Authority,
        keys: Keyring,
        clock: &Arc<Shifted>,
        settings: &Settings,
    ) -> Result<Self, Trouble> {
        let hand = Arc::new(Hand::new(bus.honest()));
        let directory = Arc::new(Keys::default());
        let trust = authority.trust.clone();
        let mut peer_settings = settings.clone();
        peer_settings.endpoint.queues.prefetch = settings.endpoint.queues.prefetch;
        let endpoint = Endpoint::with_clock(
            keys.identity(&trust)?,
            directory.clone(),
            hand.clone(),
            peer_settings.endpoint,
            clock.clone(),
        )?;
        let client = Client::new(endpoint.clone());
        Ok(Self { keys, directory, endpoint, client, hand, clock: clock.clone(), trust })
    }

    /// The same party in a new process: nothing remembered. On another exchange, if one is given.
    pub fn again(&self, exchange: Option<&str>) -> Result<Self, Trouble> {
        self.another(exchange, |identity| identity)
    }

    /// The same party in a new process, with another view of itself.
    pub fn with_identity(
        &self,
        change: impl FnOnce(Identity) -> Identity,
    ) -> Result<Self, Trouble> {
        self.another(None, change)
    }

    fn another(
        &self,
        exchange: Option<&str>,
        change: impl FnOnce(Identity) -> Identity,
    ) -> Result<Self, Trouble> {
        let mut options = self.endpoint.options().clone();
        if let Some(exchange) = exchange {
            exchange.clone_into(&mut options.exchange);
        }
        let endpoint = Endpoint::with_clock(
            change(self.keys.identity(&self.trust)?),
            self.directory.clone(),
            self.hand.clone(),
            options,
            self.clock.clone(),
        )?;
        let client = Client::new(endpoint.clone());
        Ok(Self {
            keys: self.keys.clone(),
            directory: self.directory.clone(),
            endpoint,
            client,
            hand: self.hand.clone(),
            clock: self.clock.clone(),
            trust: self.trust.clone(),
        })
    }

    /// Looks keys up where `other` does.
    pub fn share_directory(&mut self, other: &Self) -> Result<(), Trouble> {
        self.directory = other.directory.clone();
        *self = self.again(None)?;
        Ok(())
    }

    /// Takes note of another's credential.
    pub fn learn(&self, other: &Keyring) {
        // A shared-key agent has pair keys, and verifies the credentials that come with fanouts.
        if let (None, Some(receive)) = (&self.keys.k, &other.receive) {
            self.directory.known().add_peer(receive.credential.clone());
        }
    }

    /// A refusal's count so far.
    pub fn refusals(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.endpoint.counters().refusals()
    }

    pub(super) async fn start(
        &self,
        world: &World,
        options: &PeerOptions,
    ) -> Result<Server, Trouble> {
        let store = StoreOptions { limits: options.limits, ..StoreOptions::default() };
        let claims = match &options.claims {
            Some(claims) => claims.clone(),
            // Nobody used these queues before: their names are new.
            None => Arc::new(MemoryClaims::for_new_bus(store)),
        };
        let options = ServerOptions {
            only_host: true,
            level: options.level,
            inner_signature: options.inner_signature,
            concurrency: options.concurrency,
            ..ServerOptions::new(claims)
        };
        let router = router(&world.ledger, self.keys.name());
        let server = Server::start(self.endpoint.clone(), router, options).await?;
        if self.keys.party.principal.is_agent() {
            server.join_groups().await?;
        }
        Ok(server)
    }

    /// Sends one message of the world's kind to the honest agent or the group.
    pub(super) async fn send(
        &self,
        world: &World,
        method: &'static str,
        n: u64,
    ) -> Result<Option<Pending>, Trouble> {
        let target = Target::Principal(world.agent.keys.party.principal.clone());
        match world.cell.kind {
            Kind::Call | Kind::Reply => {
                Ok(Some(self.call_within(&target, method, n, world.life().min(PATIENCE))))
            }
            Kind::Cast => {
                self.cast_within(&target, method, n, world.life()).await?;
                Ok(None)
            }
            Kind::Fanout => {
                self.fanout_within(&world.group.group, method, n, world.life()).await?;
                Ok(None)
            }
        }
    }

    /// Starts a call.
    pub fn call(&self, target: &Target, method: &'static str, n: u64) -> Pending {
        self.call_within(target, method, n, PATIENCE)
    }

    fn call_within(
        &self,
        target: &Target,
        method: &'static str,
        n: u64,
        life: Duration,
    ) -> Pending {
        let (client, target) = (self.client.clone(), target.clone());
        tokio::spawn(async move {
            let request = client.request(&target, method).timeout(life).cancel_on_drop(false);
            request.call(&World::args(n)).await
        })
    }

    /// Casts.
    pub async fn cast(&self, target: &Target, method: &str, n: u64) -> Result<(), Trouble> {
        self.cast_within(target, method, n, Duration::from_secs(60)).await
    }

    async fn cast_within(
        &self,
        target: &Target,
        method: &str,
        n: u64,
        life: Duration,
    ) -> Result<(), Trouble> {
        let request = self.client.request(target, method).ttl(life);
        request.cast(&World::args(n)).await?;
        Ok(())
    }

    /// Fans out.
    pub async fn fanout(&self, group: &GroupName, method: &str, n: u64) -> Result<(), Trouble> {
        self.fanout_within(group, method, n, Duration::from_secs(60)).await
    }

    async fn fanout_within(
        &self,
        group: &GroupName,
        method: &str,
        n: u64,
        life: Duration,
    ) -> Result<(), Trouble> {
        let target = Target::Group(group.clone());
        let request = self.client.request(&target, method).ttl(life);
        request.fanout(&World::args(n)).await?;
        Ok(())
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({})", self.keys.party)
    }
}

/// What an honest call returns.
pub(super) fn result(n: u64) -> Value {
    json!({ "n": n, "secret": SECRET_RESULT })
}

fn router(ledger: &Arc<Ledger>, at: &str) -> Router {
    let method = |name: &'static str| {
        let (ledger, at) = (ledger.clone(), at.to_owned());
        Method::new(name, move |context: Context, args: Value| {
            let n = args.get("n").and_then(Value::as_u64).unwrap_or_default();
            let ledger = ledger.clone();
            ledger.note(Ran {
                at: at.clone(),
                method: name.to_owned(),
                n,
                sender: context.sender().principal.to_string(),
            });
            async move {
                if name == "slow" {
                    ledger.finished().await;
                }
                outcome(name, n)
            }
        })
    };
    let open = |name| method(name).open_to_agents().open_to_components();
    let health = Method::new("health", |_, args: Value| async move {
        Ok(args.get("n").and_then(Value::as_u64).unwrap_or_default())
    });
    let mut router = Router::new().with(health.open_to_agents().open_to_components());
    for name in ["work", "wipe", "fail", "slow"] {
        router = router.with(open(name));
    }
    router.with(open("work").version(2, 0)).with(open("work").namespace("db")).with(method("admin"))
}

fn outcome(name: &str, n: u64) -> HandlerResult<Value> {
    match name {
        "fail" => Err(RemoteError::new("Failed", SECRET_ERROR)),
        _ => Ok(result(n)),
    }
}
