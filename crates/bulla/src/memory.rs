//! A deployment inside one process, for tests of services and for trying things out: the
//! in-memory bus, a root key that nobody keeps, and a directory that everyone shares. The sealing
//! is the real one; only the broker and the enrolment are not there.

use std::sync::Arc;

use bulla_guard::{MemoryClaims, StoreOptions};
use bulla_rpc::{
    Clock, Endpoint, EndpointOptions, Identity, ReceiveKey, ServerOptions, StaticDirectory,
    SystemClock,
};
use bulla_seal::{
    Credential, GroupKey, GroupName, Issuer, IssuerCredential, IssuerRight, KemSecretKey, Kid,
    Level, OsRandom, Party, Principal, Random, Refusal, Secret, SignedCredential, SigningKey,
    Suite, SuiteSet, TrustDomain, TrustStore, Validity,
};
use bulla_transport::Transport;
use thiserror::Error;

pub use bulla_transport::MemoryBus;
pub use bulla_transport::memory::{Tap, Tapped};

/// How long everything in such a deployment is good for, in seconds.
const LIFETIME: u64 = 86_400;
/// How long its issuers are: nothing that they issue may outlive them.
const ISSUERS_LIFETIME: u64 = 30 * LIFETIME;

/// A principal could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Its name can't be used.
    #[error(transparent)]
    Name(#[from] bulla_seal::NameError),
    /// The machine gives no random bytes.
    #[error(transparent)]
    Random(#[from] bulla_seal::RandomFailed),
    /// A credential was refused.
    #[error("a credential was refused: {0}")]
    Credential(#[from] Refusal),
    /// A key can't be used.
    #[error(transparent)]
    Offer(#[from] bulla_seal::OfferError),
}

/// A deployment inside one process. Group `all` has everyone in it.
#[derive(Debug)]
pub struct Deployment {
    bus: MemoryBus,
    trust: TrustStore,
    agents: Issuer,
    components: Issuer,
    directory: Arc<StaticDirectory>,
}

/// Settings of a server on the in-memory bus: it was born with this process, so that nothing can
/// have run before.
pub fn server_options() -> ServerOptions {
    let claims = Arc::new(MemoryClaims::for_new_bus(StoreOptions::default()));
    ServerOptions { only_host: true, ..ServerOptions::new(claims) }
}

impl Deployment {
    /// A new one with an empty bus.
    pub fn new() -> Result<Self, MemoryError> {
        let mut random = OsRandom::default();
        let domain = TrustDomain::new("bulla.local")?;
        let root = SigningKey::generate(&mut random)?;
        let mut trust = TrustStore::new(domain.clone(), root.verifying_key());
        let mut issuer = |right| {
            let key = SigningKey::generate(&mut random)?;
            let credential = IssuerCredential {
                kid: kid()?,
                domain: domain.clone(),
                right,
                key: key.verifying_key(),
                validity: validity(ISSUERS_LIFETIME),
            };
            trust.add_issuer(&credential.sign(&root))?;
            Ok::<_, MemoryError>(Issuer::new(key, credential)?)
        };
        let (agents, components) = (issuer(IssuerRight::Agents)?, issuer(IssuerRight::Components)?);
        let directory = Arc::new(StaticDirectory::new());
        let deployment = Self { bus: MemoryBus::new(), trust, agents, components, directory };
        deployment.add_group("all")?;
        Ok(deployment)
    }

    /// The bus; [`MemoryBus::tap`] shows what a broker would see.
    pub fn bus(&self) -> &MemoryBus {
        &self.bus
    }

    /// An agent with a key pair.
    pub fn agent(&self, id: &str) -> Result<Endpoint, MemoryError> {
        self.agent_over(id, Arc::new(self.bus.transport()))
    }

    /// The same on another bus: what is tried out over a real broker still needs no enrolment.
    pub fn agent_over(
        &self,
        id: &str,
        transport: Arc<dyn Transport>,
    ) -> Result<Endpoint, MemoryError> {
        let party = Party::new(Principal::agent(id)?, 1);
        let (key, kem) = keys()?;
        let credential = self.agents.issue(&Credential {
            signing: Some(key.verifying_key()),
            kem: Some(kem.public().clone()),
            ..blank(party)?
        })?;
        let credential = Arc::new(credential);
        let receive = ReceiveKey { credential: credential.clone(), key: kem };
        self.endpoint(key, credential, receive, transport)
    }

    /// The host `instance` of a component type.
    pub fn component(&self, name: &str, instance: &str) -> Result<Endpoint, MemoryError> {
        self.component_over(name, instance, Arc::new(self.bus.transport()))
    }

    /// The same on another bus.
    pub fn component_over(
        &self,
        name: &str,
        instance: &str,
        transport: Arc<dyn Transport>,
    ) -> Result<Endpoint, MemoryError> {
        bulla_seal::principal::check_name("instance name", instance)?;
        let party = Party::new(Principal::component(name)?, 1);
        let (key, kem) = keys()?;
        let signing = self.components.issue(&Credential {
            signing: Some(key.verifying_key()),
            instance: Some(instance.to_owned()),
            ..blank(party.clone())?
        })?;
        let audience = self
            .components
            .issue(&Credential { kem: Some(kem.public().clone()), ..blank(party)? })?;
        let receive = ReceiveKey { credential: Arc::new(audience), key: kem };
        self.endpoint(key, Arc::new(signing), receive, transport)
    }

    /// A group with everyone in it.
    pub fn add_group(&self, name: &str) -> Result<(), MemoryError> {
        let key = Secret::generate(&mut OsRandom::default())?;
        self.directory.add_group_key(GroupKey { group: GroupName::new(name)?, epoch: 1, key });
        Ok(())
    }

    fn endpoint(
        &self,
        key: SigningKey,
        signing: Arc<SignedCredential>,
        receive: ReceiveKey,
        transport: Arc<dyn Transport>,
    ) -> Result<Endpoint, MemoryError> {
        self.directory.add_peer(receive.credential.clone());
        let identity = Identity::pair(self.trust.clone(), key, signing, vec![receive])?;
        let options = EndpointOptions::default();
        Ok(Endpoint::new(identity, self.directory.clone(), transport, options)?)
    }
}

fn keys() -> Result<(SigningKey, KemSecretKey), MemoryError> {
    let mut random = OsRandom::default();
    Ok((SigningKey::generate(&mut random)?, KemSecretKey::generate(Suite::X25519, &mut random)?))
}

fn kid() -> Result<Kid, MemoryError> {
    let mut kid = [0; Kid::LEN];
    OsRandom::default().fill(&mut kid)?;
    Ok(Kid(kid))
}

fn validity(lifetime: u64) -> Validity {
    let now = SystemClock.now().secs();
    Validity { not_before: now.saturating_sub(120), not_after: now.saturating_add(lifetime) }
}

fn blank(party: Party) -> Result<Credential, MemoryError> {
    Ok(Credential {
        kid: kid()?,
        party,
        epoch: 1,
        signing: None,
        kem: None,
        suites: SuiteSet::all(),
        validity: validity(LIFETIME),
        accepts: Level::Sealed,
        sends: Level::Sealed,
        roles: Vec::new(),
        instance: None,
    })
}
