//! A small trust domain for tests: a root, two issuers, a component and an agent.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "shared by several test binaries"
)]

use std::sync::Arc;

use bulla_seal::*;

pub const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// Deterministic "randomness", so that everything made here can be made again.
pub struct Counting(pub u64);

impl Random for Counting {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
        for chunk in out.chunks_mut(32) {
            self.0 += 1;
            let block = Digest::of(&self.0.to_be_bytes());
            chunk.copy_from_slice(&block.0[..chunk.len()]);
        }
        Ok(())
    }
}

pub struct World {
    pub root: SigningKey,
    pub domain: TrustDomain,
    pub trust: TrustStore,
    pub agents: Issuer,
    pub components: Issuer,
    pub revocation: Issuer,
    pub operator: Issuer,
    pub random: Counting,
}

pub struct Agent {
    pub party: Party,
    pub key: SigningKey,
    pub kem: KemSecretKey,
    pub credential: Arc<SignedCredential>,
}

pub struct Component {
    pub party: Party,
    pub key: SigningKey,
    pub signing: Arc<SignedCredential>,
    pub kem: KemSecretKey,
    pub audience: Arc<SignedCredential>,
}

pub const LIFE: Validity = Validity { not_before: 1_799_990_000, not_after: 1_900_000_000 };

impl World {
    pub fn new() -> Self {
        let mut random = Counting(0);
        let domain = TrustDomain::new("bulla.example").unwrap();
        let root = SigningKey::generate(&mut random).unwrap();
        let mut trust = TrustStore::new(domain.clone(), root.verifying_key());
        let mut issuer = |right, kid, seed: Option<u8>| {
            let key = match seed {
                Some(seed) => SigningKey::from_seed(Secret::new([seed; 32])).unwrap(),
                None => SigningKey::generate(&mut random).unwrap(),
            };
            let credential = IssuerCredential {
                kid: Kid([kid; 8]),
                domain: domain.clone(),
                right,
                key: key.verifying_key(),
                validity: LIFE,
            };
            trust.add_issuer(&credential.sign(&root)).unwrap();
            Issuer::new(key, credential).unwrap()
        };
        let agents = issuer(IssuerRight::Agents, 0xa1, None);
        let components = issuer(IssuerRight::Components, 0xc1, None);
        let revocation = issuer(IssuerRight::Revocation, 0xe1, Some(0xe2));
        let operator = issuer(IssuerRight::Exemptions, 0xf1, Some(0xf2));
        Self { root, domain, trust, agents, components, revocation, operator, random }
    }

    pub fn credential(&mut self, party: &Party) -> Credential {
        let mut kid = [0; 8];
        self.random.fill(&mut kid).unwrap();
        Credential {
            kid: Kid(kid),
            party: party.clone(),
            epoch: 1,
            signing: None,
            kem: None,
            suites: SuiteSet::all(),
            validity: LIFE,
            accepts: Level::Sealed,
            sends: Level::Sealed,
            roles: Vec::new(),
            instance: None,
        }
    }

    pub fn agent(&mut self, id: &str, suite: Suite) -> Agent {
        let party = Party::new(Principal::agent(id).unwrap(), 1);
        let key = SigningKey::generate(&mut self.random).unwrap();
        let kem = KemSecretKey::generate(suite, &mut self.random).unwrap();
        let mut credential = self.credential(&party);
        credential.signing = Some(key.verifying_key());
        credential.kem = Some(kem.public().clone());
        let credential = Arc::new(self.agents.issue(&credential).unwrap());
        Agent { party, key, kem, credential }
    }

    pub fn component(&mut self, name: &str, suite: Suite) -> Component {
        let party = Party::new(Principal::component(name).unwrap(), 1);
        let key = SigningKey::generate(&mut self.random).unwrap();
        let kem = KemSecretKey::generate(suite, &mut self.random).unwrap();
        let mut signing = self.credential(&party);
        signing.signing = Some(key.verifying_key());
        signing.instance = Some("host-1".into());
        signing.roles = vec!["group:all".into()];
        let signing = Arc::new(self.components.issue(&signing).unwrap());
        let mut audience = self.credential(&party);
        audience.kem = Some(kem.public().clone());
        let audience = Arc::new(self.components.issue(&audience).unwrap());
        Component { party, key, signing, kem, audience }
    }
}

impl Component {
    pub fn initiator(&self, world: &World) -> Initiator {
        Initiator::new(self.key.clone(), self.signing.clone(), world.domain.clone()).unwrap()
    }
}

pub fn hedge(counter: u64) -> Hedge {
    Hedge { random: [0x11; 16], now: NOW, counter, boot: [0x22; 16] }
}

pub fn route_to(party: &Party) -> Route {
    let topic = party.principal.as_str().replace('/', ".");
    Route::new("bulla", &topic, None, Audience::Party(party.clone())).unwrap()
}

pub fn request_plaintext(args: &[u8]) -> MessageBuf {
    let body = RequestBody {
        namespace: None,
        method: "ping",
        version: "1.0",
        args,
        context: None,
        trace_parent: None,
        reply_to: Some("component.control.9f3a"),
    };
    let mut buf = MessageBuf::with_capacity(args.len() + 128);
    body.write(buf.sink());
    buf
}

pub fn spec(route: &Route) -> RequestSpec<'_> {
    RequestSpec {
        kind: MessageKind::Call,
        route,
        expires: NOW.secs() + 60,
        protection: Protection::Sealed,
    }
}

pub fn expected(route: &Route) -> Expected<'_> {
    Expected::new(route, NOW)
}

/// Opens a session of `component` to `agent` on both ends.
pub fn sessions(
    world: &mut World,
    component: &Component,
    agent: &Agent,
) -> (Session, Arc<Session>, bytes::Bytes) {
    let initiator = component.initiator(world);
    let (offer, ours) = initiator.offer(&agent.credential, NOW, 3600, &mut world.random).unwrap();
    let parsed = Offer::parse(&offer).unwrap();
    assert_eq!(parsed.audience(), agent.credential.kid);
    parsed.check(&agent.party, NOW, DEFAULT_SKEW).unwrap();
    let verified = parsed.verify(&world.trust, |_| None).unwrap();
    let theirs = verified.open(&world.domain, &agent.party, &agent.kem).unwrap();
    (ours, Arc::new(theirs), offer)
}

/// The session of a shared-key agent, for requests of the first to the second.
pub fn shared_session(requester: &Party, responder: &Party) -> Arc<Session> {
    let (agent, component) = if requester.principal.is_agent() {
        (requester, responder)
    } else {
        (responder, requester)
    };
    let key = shared::pair_key(&Secret::new([5; 32]), agent, &component.principal, 1);
    Arc::new(shared::session(Kid([7; 8]), &key, requester.clone(), responder.clone()))
}

/// A statement that revokes nothing.
pub fn empty_statement() -> Statement {
    Statement {
        epoch: 1,
        issued_at: NOW.secs(),
        not_after: NOW.secs() + 3600,
        revoked: vec![],
        lowest: vec![],
        groups: vec![],
    }
}

/// A statement with two of each.
pub fn full_statement() -> Statement {
    let lowest = |principal: &str, incarnation, credential_epoch, pair_epoch| Lowest {
        principal: principal.parse().unwrap(),
        incarnation,
        credential_epoch,
        pair_epoch,
    };
    let group = |name, epoch| (GroupName::new(name).unwrap(), epoch);
    Statement {
        epoch: 70_000,
        revoked: vec![
            Revoked { kid: Kid([0x11; 8]), until: NOW.secs() + 90_000 },
            Revoked { kid: Kid([0x22; 8]), until: NOW.secs() + 172_800 },
        ],
        lowest: vec![lowest("agent/db-1", 2, 3, 1), lowest("component/control", 1, 9, 4)],
        groups: vec![group("all", 7), group("rack-b", 300)],
        ..empty_statement()
    }
}

/// An exemption of one method of one agent for an hour.
pub fn exemption() -> Exemption {
    Exemption {
        id: Kid([0x33; 8]),
        peer: Party::new("agent/db-1".parse().unwrap(), 2),
        method: "guest.resize".into(),
        level: Level::Signed,
        not_before: NOW.secs(),
        until: NOW.secs() + 3600,
    }
}
