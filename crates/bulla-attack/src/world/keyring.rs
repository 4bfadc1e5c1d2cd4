//! Who is who in a world, and every secret of each: a part of them the intruder has stolen.

use std::sync::Arc;

use bulla_rpc::{Identity, PairKey, ReceiveKey};
use bulla_seal::{
    Credential, Issuer, IssuerCredential, IssuerRight, KemSecretKey, Kid, Level, OsRandom, Party,
    Principal, Random, Secret, SignedCredential, SigningKey, Suite, SuiteSet, TrustDomain,
    TrustStore, UnixTime, Validity, shared,
};

use crate::trouble::Trouble;

/// The root and the issuers of a trust domain.
#[derive(Debug)]
pub struct Authority {
    /// What everybody trusts.
    pub trust: TrustStore,
    /// The root's key.
    pub root: SigningKey,
    /// Signs statements of revocation.
    pub revocation: Issuer,
    /// Issues agents' credentials.
    pub agents: Issuer,
    /// The key of that issuer.
    pub agents_key: SigningKey,
    /// Issues components' credentials.
    pub components: Issuer,
}

/// A principal with its secrets.
#[derive(Debug, Clone)]
pub struct Keyring {
    /// Who it is.
    pub party: Party,
    /// The signing key with its credential.
    pub signing: Option<(SigningKey, Arc<SignedCredential>)>,
    /// The key to receive with.
    pub receive: Option<ReceiveKey>,
    /// The key of a shared-key agent.
    pub k: Option<Secret<32>>,
}

/// A random key id.
pub fn random_kid() -> Result<Kid, Trouble> {
    let mut kid = [0; 8];
    OsRandom::default().fill(&mut kid)?;
    Ok(Kid(kid))
}

/// From ten minutes ago until a day from `now`.
pub fn a_day(now: UnixTime) -> Validity {
    Validity { not_before: now.secs().saturating_sub(600), not_after: now.secs() + 86_400 }
}

/// A credential without keys.
pub fn blank(party: &Party, validity: Validity, suites: SuiteSet) -> Result<Credential, Trouble> {
    Ok(Credential {
        kid: random_kid()?,
        party: party.clone(),
        epoch: 1,
        signing: None,
        kem: None,
        suites,
        validity,
        accepts: Level::Sealed,
        sends: Level::Sealed,
        roles: vec![],
        instance: None,
    })
}

impl Authority {
    /// A new root with issuers that are good for ten days around `now`.
    pub fn new(now: UnixTime) -> Result<Self, Trouble> {
        let mut random = OsRandom::default();
        let domain = TrustDomain::new("attack.example")?;
        let root = SigningKey::generate(&mut random)?;
        let mut trust = TrustStore::new(domain.clone(), root.verifying_key());
        let mut issuer = |right| -> Result<(Issuer, SigningKey), Trouble> {
            let key = SigningKey::generate(&mut random)?;
            let validity = Validity {
                not_before: now.secs().saturating_sub(5 * 86_400),
                not_after: now.secs() + 5 * 86_400,
            };
            let credential = IssuerCredential {
                kid: random_kid()?,
                domain: domain.clone(),
                right,
                key: key.verifying_key(),
                validity,
            };
            trust.add_issuer(&credential.sign(&root))?;
            Ok((Issuer::new(key.clone(), credential)?, key))
        };
        let (agents, agents_key) = issuer(IssuerRight::Agents)?;
        let (components, _) = issuer(IssuerRight::Components)?;
        let (revocation, _) = issuer(IssuerRight::Revocation)?;
        Ok(Self { trust, root, revocation, agents, agents_key, components })
    }

    /// A key-pair agent.
    pub fn agent(&self, id: &str, valid: Validity, suite: Suite) -> Result<Keyring, Trouble> {
        self.agent_again(Party::new(Principal::agent(id)?, 1), valid, suite, SuiteSet::all())
    }

    /// A key-pair agent of some incarnation, taking only some suites.
    pub fn agent_again(
        &self,
        party: Party,
        valid: Validity,
        suite: Suite,
        suites: SuiteSet,
    ) -> Result<Keyring, Trouble> {
        let mut random = OsRandom::default();
        let key = SigningKey::generate(&mut random)?;
        let kem = KemSecretKey::generate(suite, &mut random)?;
        let credential = Credential {
            signing: Some(key.verifying_key()),
            kem: Some(kem.public().clone()),
            ..blank(&party, valid, suites)?
        };
        let credential = Arc::new(self.agents.issue(&credential)?);
        Ok(Keyring {
            party,
            receive: Some(ReceiveKey { credential: credential.clone(), key: kem }),
            signing: Some((key, credential)),
            k: None,
        })
    }

    /// A shared-key agent.
    pub fn shared_agent(id: &str) -> Result<Keyring, Trouble> {
        let party = Party::new(Principal::agent(id)?, 1);
        let k = Secret::generate(&mut OsRandom::default())?;
        Ok(Keyring { party, signing: None, receive: None, k: Some(k) })
    }

    /// A component type's first host.
    pub fn component(&self, name: &str, valid: Validity, suite: Suite) -> Result<Keyring, Trouble> {
        let party = Party::new(Principal::component(name)?, 1);
        let kem = KemSecretKey::generate(suite, &mut OsRandom::default())?;
        let audience = Credential {
            kem: Some(kem.public().clone()),
            ..blank(&party, valid, SuiteSet::all())?
        };
        let credential = Arc::new(self.components.issue(&audience)?);
        let receive = ReceiveKey { credential, key: kem };
        self.host(&receive, "h1", valid)
    }

    /// A host of the component type that receives with `receive`.
    pub fn host(
        &self,
        receive: &ReceiveKey,
        instance: &str,
        valid: Validity,
    ) -> Result<Keyring, Trouble> {
        let party = receive.credential.party.clone();
        let key = SigningKey::generate(&mut OsRandom::default())?;
        let signing = Credential {
            signing: Some(key.verifying_key()),
            instance: Some(instance.to_owned()),
            ..blank(&party, valid, SuiteSet::all())?
        };
        let signing = Arc::new(self.components.issue(&signing)?);
        Ok(Keyring {
            party,
            signing: Some((key, signing)),
            receive: Some(receive.clone()),
            k: None,
        })
    }
}

impl Keyring {
    /// As a process has it.
    pub fn identity(&self, trust: &TrustStore) -> Result<Identity, Trouble> {
        if let Some(k) = &self.k {
            return Ok(Identity::shared(trust.clone(), self.party.clone(), k.clone()));
        }
        let (key, credential) = self.signing()?;
        let receive = self.receive.iter().cloned().collect();
        Ok(Identity::pair(trust.clone(), key.clone(), credential.clone(), receive)?)
    }

    /// The signing key with its credential.
    pub fn signing(&self) -> Result<&(SigningKey, Arc<SignedCredential>), Trouble> {
        self.signing.as_ref().ok_or_else(|| Trouble::new("a shared-key agent signs nothing"))
    }

    /// The key to receive with.
    pub fn receive(&self) -> Result<&ReceiveKey, Trouble> {
        self.receive.as_ref().ok_or_else(|| Trouble::new("a shared-key agent has no KEM key"))
    }

    /// The principal's short form.
    pub fn name(&self) -> &str {
        self.party.principal.as_str()
    }

    /// A shared-key agent's pair key with `component`, as each end has it.
    pub fn pair_with(&self, component: &Party, kid: Kid) -> Option<(PairKey, PairKey)> {
        let k = self.k.as_ref()?;
        let key = shared::pair_key(k, &self.party, &component.principal, 1);
        let at_agent = PairKey { kid, epoch: 1, key: key.clone(), peer: component.clone() };
        Some((at_agent, PairKey { kid, epoch: 1, key, peer: self.party.clone() }))
    }
}
