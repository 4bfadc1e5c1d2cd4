//! A small deployment on the in-memory bus.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared by several test binaries"
)]

pub mod gate;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bulla_guard::{MemoryClaims, StoreOptions};
use bulla_rpc::*;
use bulla_seal::*;
use bulla_transport::TransportEvent;
use bulla_transport::hostile::{HostileBroker, HostileTransport, Plan};
use bulla_transport::memory::MemoryBus;

pub struct World {
    pub bus: MemoryBus,
    pub root: SigningKey,
    pub trust: TrustStore,
    pub agents: Issuer,
    pub components: Issuer,
    pub revocation: Issuer,
    pub operator: Issuer,
    pub directory: Arc<StaticDirectory>,
    pub group: GroupKey,
}

pub fn now() -> UnixTime {
    SystemClock.now()
}

impl World {
    pub fn new() -> Self {
        let mut random = OsRandom::default();
        let domain = TrustDomain::new("bulla.example").unwrap();
        let root = SigningKey::generate(&mut random).unwrap();
        let mut trust = TrustStore::new(domain.clone(), root.verifying_key());
        let mut issuer = |right, kid| {
            let key = SigningKey::generate(&mut random).unwrap();
            let credential = IssuerCredential {
                kid: Kid([kid; 8]),
                domain: domain.clone(),
                right,
                key: key.verifying_key(),
                // Longer than what it issues a moment later.
                validity: Validity {
                    not_before: now().secs() - 3600,
                    not_after: now().secs() + 2 * 86_400,
                },
            };
            trust.add_issuer(&credential.sign(&root)).unwrap();
            Issuer::new(key, credential).unwrap()
        };
        let agents = issuer(IssuerRight::Agents, 0xa1);
        let components = issuer(IssuerRight::Components, 0xc1);
        let revocation = issuer(IssuerRight::Revocation, 0xe1);
        let operator = issuer(IssuerRight::Exemptions, 0xf1);
        let group = GroupName::new("all").unwrap();
        let group = GroupKey { group, epoch: 1, key: Secret::generate(&mut random).unwrap() };
        let directory = Arc::new(StaticDirectory::new());
        directory.add_group_key(group.clone());
        Self {
            bus: MemoryBus::new(),
            root,
            trust,
            agents,
            components,
            revocation,
            operator,
            directory,
            group,
        }
    }

    /// A statement of this epoch that is current now, with what `change` puts into it.
    pub fn statement(&self, epoch: u64, change: impl FnOnce(&mut Statement)) -> SignedStatement {
        let now = now().secs();
        let mut statement = Statement {
            epoch,
            issued_at: now,
            not_after: now + 3600,
            revoked: vec![],
            lowest: vec![],
            groups: vec![],
        };
        change(&mut statement);
        self.revocation.state(&statement).unwrap()
    }

    /// An agent that acts on components' messages only while it holds a current statement.
    pub fn strict_agent(&self, id: &str) -> Endpoint {
        self.endpoint(self.agent_identity(id, Suite::X25519, 1).requiring_statement())
    }

    /// An exemption of one method for an hour.
    pub fn exemption(&self, peer: &Party, method: &str, level: Level) -> SignedExemption {
        let mut id = [0; 8];
        OsRandom::default().fill(&mut id).unwrap();
        let (not_before, until) = (now().secs() - 1, now().secs() + 3600);
        let (id, peer, method) = (Kid(id), peer.clone(), method.to_owned());
        let exemption = Exemption { id, peer, method, level, not_before, until };
        self.operator.exempt(&exemption).unwrap()
    }

    pub fn agent(&self, id: &str) -> Endpoint {
        self.agent_with(id, Suite::X25519)
    }

    pub fn agent_with(&self, id: &str, suite: Suite) -> Endpoint {
        self.endpoint(self.agent_identity(id, suite, 1))
    }

    pub fn agent_identity(&self, id: &str, suite: Suite, incarnation: u32) -> Identity {
        self.agent_keys(id, suite, incarnation).identity(&self.trust)
    }

    pub fn agent_keys(&self, id: &str, suite: Suite, incarnation: u32) -> Keys {
        let mut random = OsRandom::default();
        let party = Party::new(Principal::agent(id).unwrap(), incarnation);
        let key = SigningKey::generate(&mut random).unwrap();
        let kem = KemSecretKey::generate(suite, &mut random).unwrap();
        let credential = Credential {
            signing: Some(key.verifying_key()),
            kem: Some(kem.public().clone()),
            ..credential(&party)
        };
        let credential = Arc::new(self.agents.issue(&credential).unwrap());
        self.directory.add_peer(credential.clone());
        let receive = vec![ReceiveKey { credential: credential.clone(), key: kem }];
        Keys::Pair { key, signing: credential, receive }
    }

    pub fn component(&self, name: &str, instance: &str) -> Endpoint {
        self.endpoint(self.component_identity(name, instance, 1, validity()))
    }

    /// A host of a component whose signing credential has this epoch and validity.
    pub fn component_identity(
        &self,
        name: &str,
        instance: &str,
        epoch: u32,
        valid: Validity,
    ) -> Identity {
        self.component_keys(name, instance, epoch, valid).identity(&self.trust)
    }

    pub fn component_keys(&self, name: &str, instance: &str, epoch: u32, valid: Validity) -> Keys {
        let mut random = OsRandom::default();
        let party = Party::new(Principal::component(name).unwrap(), 1);
        let key = SigningKey::generate(&mut random).unwrap();
        let kem = KemSecretKey::generate(Suite::X25519, &mut random).unwrap();
        let signing = Credential {
            signing: Some(key.verifying_key()),
            instance: Some(instance.into()),
            epoch,
            validity: valid,
            ..credential(&party)
        };
        let audience = Credential { kem: Some(kem.public().clone()), ..credential(&party) };
        let signing = Arc::new(self.components.issue(&signing).unwrap());
        let audience = Arc::new(self.components.issue(&audience).unwrap());
        self.directory.add_peer(audience.clone());
        let receive = vec![ReceiveKey { credential: audience, key: kem }];
        Keys::Pair { key, signing, receive }
    }

    pub fn endpoint(&self, identity: Identity) -> Endpoint {
        self.endpoint_at(identity, Arc::new(SystemClock))
    }

    pub fn endpoint_at(&self, identity: Identity, clock: Arc<dyn Clock>) -> Endpoint {
        let transport = Arc::new(self.bus.transport());
        let options = EndpointOptions::default();
        Endpoint::with_clock(identity, self.directory.clone(), transport, options, clock).unwrap()
    }

    /// An endpoint whose messages go through a hostile broker of its own.
    pub fn hostile(&self, identity: Identity, plan: Plan) -> (Endpoint, Bus) {
        let broker = HostileBroker::new(&self.bus, plan);
        let transport = Arc::new(broker.transport(identity.principal().as_str()));
        let options = EndpointOptions::default();
        let endpoint =
            Endpoint::new(identity, self.directory.clone(), transport.clone(), options).unwrap();
        (endpoint, Bus { broker, transport })
    }

    /// An agent with one shared key, and its pair key with `component` at both ends.
    pub fn shared_agent(&self, id: &str, component: &str) -> Endpoint {
        let (keys, own) = self.shared_keys(id, component);
        let transport = Arc::new(self.bus.transport());
        let identity = keys.identity(&self.trust);
        Endpoint::new(identity, own, transport, EndpointOptions::default()).unwrap()
    }

    /// Its keys, and what it knows; `component` knows it from here on.
    pub fn shared_keys(&self, id: &str, component: &str) -> (Keys, Arc<StaticDirectory>) {
        let mut random = OsRandom::default();
        let party = Party::new(Principal::agent(id).unwrap(), 1);
        let component = Principal::component(component).unwrap();
        let k = Secret::generate(&mut random).unwrap();
        let mut kid = [0; 8];
        random.fill(&mut kid).unwrap();
        let key = shared::pair_key(&k, &party, &component, 1);
        let pair = PairKey { kid: Kid(kid), key, peer: party.clone(), epoch: 1 };
        self.directory.add_pair(pair);
        let keys = Keys::Shared { party, k };
        let own = StaticDirectory::new();
        let identity = keys.identity(&self.trust);
        own.add_pair(identity.derive_pair(Kid(kid), &component, 1).unwrap());
        own.add_group_key(self.group.clone());
        (keys, Arc::new(own))
    }
}

/// What an identity is made of, for one that starts anew.
#[derive(Clone)]
pub enum Keys {
    Pair { key: SigningKey, signing: Arc<SignedCredential>, receive: Vec<ReceiveKey> },
    Shared { party: Party, k: Secret<32> },
}

impl Keys {
    pub fn identity(&self, trust: &TrustStore) -> Identity {
        match self.clone() {
            Self::Pair { key, signing, receive } => {
                Identity::pair(trust.clone(), key, signing, receive).unwrap()
            }
            Self::Shared { party, k } => Identity::shared(trust.clone(), party, k),
        }
    }
}

/// One endpoint's own hostile broker, and its way onto it.
pub struct Bus {
    broker: HostileBroker,
    pub transport: Arc<HostileTransport>,
}

impl Bus {
    pub fn tell(&self, event: TransportEvent) {
        self.transport.tell(event);
    }
}

impl std::ops::Deref for Bus {
    type Target = HostileBroker;

    fn deref(&self) -> &HostileBroker {
        &self.broker
    }
}

pub fn claims() -> Arc<MemoryClaims> {
    Arc::new(MemoryClaims::for_new_bus(StoreOptions::default()))
}

pub fn options() -> ServerOptions {
    ServerOptions { only_host: true, ..ServerOptions::new(claims()) }
}

/// The machine's clock, put forward or back.
#[derive(Default)]
pub struct Shifted(AtomicI64);

impl Shifted {
    pub fn by(seconds: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(seconds)))
    }

    pub fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Shifted {
    fn now(&self) -> UnixTime {
        let ns = self.0.load(Ordering::SeqCst) * 1_000_000_000;
        UnixTime::from_ns(SystemClock.now().ns.checked_add_signed(ns).unwrap())
    }
}

/// Tokio's clock as the wall clock: under paused time it moves only when everyone waits.
pub struct Virtual {
    base: u64,
    start: tokio::time::Instant,
}

impl Virtual {
    /// From the present second on.
    pub fn from_now() -> Arc<Self> {
        Arc::new(Self { base: now().secs(), start: tokio::time::Instant::now() })
    }
}

impl Clock for Virtual {
    fn now(&self) -> UnixTime {
        let passed = u64::try_from(self.start.elapsed().as_nanos()).unwrap();
        UnixTime::from_ns(self.base * 1_000_000_000 + passed)
    }
}

/// Waits until something is so; only a hang makes it fail.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to this: {what}");
}

pub fn validity() -> Validity {
    Validity { not_before: now().secs() - 600, not_after: now().secs() + 86_400 }
}

pub fn credential(party: &Party) -> Credential {
    let mut kid = [0; 8];
    OsRandom::default().fill(&mut kid).unwrap();
    Credential {
        kid: Kid(kid),
        party: party.clone(),
        epoch: 1,
        signing: None,
        kem: None,
        suites: SuiteSet::all(),
        validity: validity(),
        accepts: Level::Sealed,
        sends: Level::Sealed,
        roles: vec![],
        instance: None,
    }
}
