//! A throw-away deployment: a root, issuers and credentials that exist in this process only.

use std::sync::Arc;

use bulla_journal::Events;
use bulla_rpc::{
    Clock, Endpoint, EndpointOptions, Identity, JournalCalls, PairKey, ReceiveKey, StaticDirectory,
    SystemClock, Target,
};
use bulla_seal::{
    Credential, GroupKey, GroupName, Issuer, IssuerCredential, IssuerRight, KemSecretKey, Kid,
    Level, MAX_FRAME, OsRandom, Party, Principal, Random, Secret, SignedCredential, SigningKey,
    Suite, SuiteSet, TrustDomain, TrustStore, Validity, shared,
};
use bulla_transport::{ConsumeOptions, Transport};

use super::{BenchError, KeyType};

/// The exchange that benches travel on, so that nothing of theirs is in the product's way.
pub(super) const EXCHANGE: &str = "bulla.bench";
/// Who calls.
pub(super) const CALLER: &str = "control";

/// The issuers, and what everybody trusts.
pub(super) struct World {
    trust: TrustStore,
    agents: Issuer,
    components: Issuer,
    validity: Validity,
    group: GroupKey,
    random: OsRandom,
    journal: Option<Events>,
}

/// A component that calls an agent, each with its own way onto the bus.
pub(super) struct Ends {
    pub(super) caller: Endpoint,
    pub(super) agent: Endpoint,
    pub(super) target: Target,
}

impl World {
    pub(super) fn new() -> Result<Self, BenchError> {
        let mut random = OsRandom::default();
        let domain = TrustDomain::new("bulla.bench")?;
        let now = SystemClock.now().secs();
        let validity = Validity { not_before: now - 600, not_after: now + 86_400 };
        let root = SigningKey::generate(&mut random)?;
        let mut trust = TrustStore::new(domain.clone(), root.verifying_key());
        let mut issuer = |right| -> Result<Issuer, BenchError> {
            let key = SigningKey::generate(&mut random)?;
            let credential = IssuerCredential {
                kid: kid(&mut random)?,
                domain: domain.clone(),
                right,
                key: key.verifying_key(),
                validity,
            };
            trust.add_issuer(&credential.sign(&root))?;
            Ok(Issuer::new(key, credential)?)
        };
        let agents = issuer(IssuerRight::Agents)?;
        let components = issuer(IssuerRight::Components)?;
        let group = GroupName::new("all")?;
        let group = GroupKey { group, epoch: 1, key: Secret::generate(&mut random)? };
        Ok(Self { trust, agents, components, validity, group, random, journal: None })
    }

    /// The agent's calls go there, if that is given.
    pub(super) fn with_journal(self, journal: Option<Events>) -> Self {
        Self { journal, ..self }
    }

    /// A component with a key pair that calls the agent `id`, which has keys of the given sort.
    pub(super) fn pair(
        &mut self,
        id: &str,
        keys: KeyType,
        suite: Suite,
        (caller, agent): (Arc<dyn Transport>, Arc<dyn Transport>),
    ) -> Result<Ends, BenchError> {
        let party = Party::new(Principal::agent(id)?, 1);
        let target = Target::Principal(party.principal.clone());
        let (books, agent_books) = (self.directory(), self.directory());
        let component = self.component(suite)?;
        let identity = match keys {
            KeyType::Pair => self.key_pair(&party, suite, &books)?,
            KeyType::Shared => self.shared_key(&party, component.party(), &books, &agent_books)?,
        };
        Ok(Ends {
            caller: endpoint(component, books, caller, None)?,
            agent: endpoint(identity, agent_books, agent, self.journal.take())?,
            target,
        })
    }

    fn directory(&self) -> Arc<StaticDirectory> {
        let directory = StaticDirectory::new();
        directory.add_group_key(self.group.clone());
        Arc::new(directory)
    }

    fn component(&mut self, suite: Suite) -> Result<Identity, BenchError> {
        let party = Party::new(Principal::component(CALLER)?, 1);
        let key = SigningKey::generate(&mut self.random)?;
        let kem = KemSecretKey::generate(suite, &mut self.random)?;
        let signing = Credential {
            signing: Some(key.verifying_key()),
            instance: Some("bench".to_owned()),
            ..self.credential(&party)?
        };
        let audience = Credential { kem: Some(kem.public().clone()), ..self.credential(&party)? };
        let signing = Arc::new(self.components.issue(&signing)?);
        let audience = Arc::new(self.components.issue(&audience)?);
        let receive = vec![ReceiveKey { credential: audience, key: kem }];
        Ok(Identity::pair(self.trust.clone(), key, signing, receive)?)
    }

    fn key_pair(
        &mut self,
        party: &Party,
        suite: Suite,
        callers_books: &StaticDirectory,
    ) -> Result<Identity, BenchError> {
        let key = SigningKey::generate(&mut self.random)?;
        let kem = KemSecretKey::generate(suite, &mut self.random)?;
        let credential = Credential {
            signing: Some(key.verifying_key()),
            kem: Some(kem.public().clone()),
            ..self.credential(party)?
        };
        let credential: Arc<SignedCredential> = Arc::new(self.agents.issue(&credential)?);
        callers_books.add_peer(credential.clone());
        let receive = vec![ReceiveKey { credential: credential.clone(), key: kem }];
        Ok(Identity::pair(self.trust.clone(), key, credential, receive)?)
    }

    fn shared_key(
        &mut self,
        agent: &Party,
        component: &Party,
        callers_books: &StaticDirectory,
        agents_books: &StaticDirectory,
    ) -> Result<Identity, BenchError> {
        let k = Secret::<32>::generate(&mut self.random)?;
        let kid = kid(&mut self.random)?;
        let key = shared::pair_key(&k, agent, &component.principal, 1);
        callers_books.add_pair(PairKey { kid, key: key.clone(), peer: agent.clone(), epoch: 1 });
        agents_books.add_pair(PairKey { kid, key, peer: component.clone(), epoch: 1 });
        Ok(Identity::shared(self.trust.clone(), agent.clone(), k))
    }

    fn credential(&mut self, party: &Party) -> Result<Credential, BenchError> {
        Ok(Credential {
            kid: kid(&mut self.random)?,
            party: party.clone(),
            epoch: 1,
            signing: None,
            kem: None,
            suites: SuiteSet::all(),
            validity: self.validity,
            accepts: Level::Sealed,
            sends: Level::Sealed,
            roles: Vec::new(),
            instance: None,
        })
    }
}

fn endpoint(
    identity: Identity,
    directory: Arc<StaticDirectory>,
    transport: Arc<dyn Transport>,
    journal: Option<Events>,
) -> Result<Endpoint, BenchError> {
    let journal_calls = if journal.is_some() { JournalCalls::Mutating } else { JournalCalls::None };
    let options = EndpointOptions {
        exchange: EXCHANGE.to_owned(),
        max_message: MAX_FRAME,
        queues: ConsumeOptions::default(),
        events: journal.unwrap_or_default(),
        journal_calls,
        ..EndpointOptions::default()
    };
    Ok(Endpoint::new(identity, directory, transport, options)?)
}

fn kid(random: &mut OsRandom) -> Result<Kid, BenchError> {
    let mut bytes = [0; 8];
    random.fill(&mut bytes)?;
    Ok(Kid(bytes))
}

/// A word of hexadecimal digits that no other run has.
pub(super) fn unique() -> Result<String, BenchError> {
    let mut bytes = [0; 4];
    OsRandom::default().fill(&mut bytes)?;
    Ok(format!("{:08x}", u32::from_be_bytes(bytes)))
}
