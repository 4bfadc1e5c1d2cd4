//! A small deployment on the in-memory bus.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test binaries"
)]

use std::sync::Arc;

use bulla_guard::{MemoryClaims, StoreOptions};
use bulla_rpc::*;
use bulla_seal::*;
use bulla_transport::memory::MemoryBus;

pub struct World {
    pub bus: MemoryBus,
    pub trust: TrustStore,
    pub agents: Issuer,
    pub components: Issuer,
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
                validity: validity(),
            };
            trust.add_issuer(&credential.sign(&root)).unwrap();
            Issuer::new(key, credential).unwrap()
        };
        let agents = issuer(IssuerRight::Agents, 0xa1);
        let components = issuer(IssuerRight::Components, 0xc1);
        let group = GroupName::new("all").unwrap();
        let group = GroupKey { group, epoch: 1, key: Secret::generate(&mut random).unwrap() };
        let directory = Arc::new(StaticDirectory::new());
        directory.add_group_key(group.clone());
        Self { bus: MemoryBus::new(), trust, agents, components, directory, group }
    }

    pub fn agent(&self, id: &str) -> Endpoint {
        self.agent_with(id, Suite::X25519)
    }

    pub fn agent_with(&self, id: &str, suite: Suite) -> Endpoint {
        let mut random = OsRandom::default();
        let party = Party::new(Principal::agent(id).unwrap(), 1);
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
        let identity = Identity::pair(self.trust.clone(), key, credential, receive).unwrap();
        self.endpoint(identity)
    }

    pub fn component(&self, name: &str, instance: &str) -> Endpoint {
        let mut random = OsRandom::default();
        let party = Party::new(Principal::component(name).unwrap(), 1);
        let key = SigningKey::generate(&mut random).unwrap();
        let kem = KemSecretKey::generate(Suite::X25519, &mut random).unwrap();
        let signing = Credential {
            signing: Some(key.verifying_key()),
            instance: Some(instance.into()),
            ..credential(&party)
        };
        let audience = Credential { kem: Some(kem.public().clone()), ..credential(&party) };
        let signing = Arc::new(self.components.issue(&signing).unwrap());
        let audience = Arc::new(self.components.issue(&audience).unwrap());
        self.directory.add_peer(audience.clone());
        let receive = vec![ReceiveKey { credential: audience, key: kem }];
        let identity = Identity::pair(self.trust.clone(), key, signing, receive).unwrap();
        self.endpoint(identity)
    }

    pub fn endpoint(&self, identity: Identity) -> Endpoint {
        let transport = Arc::new(self.bus.transport());
        let options = EndpointOptions::default();
        Endpoint::new(identity, self.directory.clone(), transport, options).unwrap()
    }
}

pub fn claims() -> Arc<MemoryClaims> {
    Arc::new(MemoryClaims::for_new_bus(StoreOptions::default()))
}

pub fn options() -> ServerOptions {
    ServerOptions { only_host: true, ..ServerOptions::new(claims()) }
}

fn validity() -> Validity {
    Validity { not_before: now().secs() - 600, not_after: now().secs() + 86_400 }
}

fn credential(party: &Party) -> Credential {
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
