//! Who this process is: its principal and the keys it speaks and listens with.

mod http_key;
pub(crate) mod join_file;
pub(crate) mod key_file;

use std::sync::Arc;

use bulla_seal::{
    FanoutSigner, Initiator, KemSecretKey, Kid, OfferError, Party, Principal, Refusal, Secret,
    SignedCredential, SigningKey, Suite, SuiteSet, TrustDomain, TrustStore, shared,
};
use parking_lot::RwLock;

use crate::directory::PairKey;

pub use http_key::HttpKey;
pub use join_file::{
    Injected, JoinFile, JoinTerms, PendingFile, TokenEntry, burn, burn_file, is_fragment, replace,
};
pub use key_file::{AudienceEntry, BusEntry, FormerRootEntry, KeyFile, KeyFileError, PairEntry};

/// This process's principal with its keys.
#[derive(Debug)]
pub struct Identity {
    party: Party,
    instance: Option<String>,
    trust: RwLock<Arc<TrustStore>>,
    keys: Keys,
    requires_statement: bool,
}

#[derive(Debug)]
enum Keys {
    Pair { initiator: RwLock<Arc<Initiator>>, receive: RwLock<Vec<ReceiveKey>> },
    Shared { k: Secret<32> },
}

/// A key to receive with, and the credential that names it.
#[derive(Debug, Clone)]
pub struct ReceiveKey {
    /// The credential whose kid offers name.
    pub credential: Arc<SignedCredential>,
    /// The secret half.
    pub key: KemSecretKey,
}

impl Identity {
    /// A key-pair principal. An agent signs and receives under one credential; a component signs
    /// under its host's and receives under its type's.
    pub fn pair(
        trust: TrustStore,
        key: SigningKey,
        signing: Arc<SignedCredential>,
        receive: Vec<ReceiveKey>,
    ) -> Result<Self, OfferError> {
        let instance = signing.instance.clone();
        let party = signing.party.clone();
        let initiator = Initiator::new(key, signing, trust.domain().clone())?;
        Ok(Self {
            party,
            instance,
            trust: RwLock::new(Arc::new(trust)),
            keys: Keys::Pair {
                initiator: RwLock::new(Arc::new(initiator)),
                receive: RwLock::new(receive),
            },
            requires_statement: false,
        })
    }

    /// A shared-key agent.
    pub fn shared(trust: TrustStore, party: Party, k: Secret<32>) -> Self {
        let trust = RwLock::new(Arc::new(trust));
        let keys = Keys::Shared { k };
        Self { party, instance: None, trust, keys, requires_statement: false }
    }

    /// Acts on components' messages only while a current statement of revocation is held: for
    /// agents of a deployment that issues them (protocol section 10).
    #[must_use]
    pub fn requiring_statement(mut self) -> Self {
        self.requires_statement = self.party.principal.is_agent();
        self
    }

    /// Whether it acts on components' messages only while it holds a current statement.
    pub fn requires_statement(&self) -> bool {
        self.requires_statement
    }

    /// Whose it is.
    pub fn party(&self) -> &Party {
        &self.party
    }

    /// The principal.
    pub fn principal(&self) -> &Principal {
        &self.party.principal
    }

    /// Which host of a component type.
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// What it trusts.
    pub fn trust(&self) -> Arc<TrustStore> {
        self.trust.read().clone()
    }

    /// Trusts this from now on.
    pub(crate) fn set_trust(&self, trust: TrustStore) {
        *self.trust.write() = Arc::new(trust);
    }

    /// The trust domain.
    pub fn domain(&self) -> TrustDomain {
        self.trust.read().domain().clone()
    }

    /// What it opens sessions with; `None` for a shared-key agent.
    pub fn initiator(&self) -> Option<Arc<Initiator>> {
        match &self.keys {
            Keys::Pair { initiator, .. } => Some(initiator.read().clone()),
            Keys::Shared { .. } => None,
        }
    }

    /// Who signs its fanouts; `None` for a shared-key agent.
    pub fn fanout_signer(&self) -> Option<Result<FanoutSigner, Refusal>> {
        let initiator = self.initiator()?;
        Some(FanoutSigner::new(initiator.key().clone(), initiator.credential().clone()))
    }

    /// Renews the signing credential (same principal, new key or new end).
    pub fn renew(&self, key: SigningKey, signing: Arc<SignedCredential>) -> Result<(), OfferError> {
        match &self.keys {
            Keys::Pair { initiator, .. } => {
                let renewed = Initiator::new(key, signing, self.domain())?;
                *initiator.write() = Arc::new(renewed);
                Ok(())
            }
            Keys::Shared { .. } => Err(OfferError::KeyMismatch),
        }
    }

    /// Receives with `keys` from now on, newest first: after the component type's audience key was
    /// rotated. Sessions that were opened before go on. A shared-key agent has none: it is left as
    /// it is.
    pub fn receive_with(&self, keys: Vec<ReceiveKey>) {
        if let Keys::Pair { receive, .. } = &self.keys {
            *receive.write() = keys;
        }
    }

    /// What it receives with, newest first; nothing for a shared-key agent.
    pub fn receive_keys(&self) -> Vec<ReceiveKey> {
        match &self.keys {
            Keys::Pair { receive, .. } => receive.read().clone(),
            Keys::Shared { .. } => Vec::new(),
        }
    }

    /// The kids of the credentials that it receives under, newest first.
    pub fn receive_kids(&self) -> Vec<Kid> {
        match &self.keys {
            Keys::Pair { receive, .. } => {
                receive.read().iter().map(|key| key.credential.kid).collect()
            }
            Keys::Shared { .. } => Vec::new(),
        }
    }

    /// How many keys to receive with have nothing on its way to them any more at `now`, in Unix
    /// seconds.
    pub(crate) fn retired(&self, now: u64, skew: u64) -> usize {
        let Keys::Pair { receive, .. } = &self.keys else { return 0 };
        let retired = |key: &&ReceiveKey| key.credential.retire_at(skew) <= now;
        receive.read().iter().filter(retired).count()
    }

    /// The key to receive with that `kid` names.
    pub fn receive_key(&self, kid: Kid) -> Option<ReceiveKey> {
        match &self.keys {
            Keys::Pair { receive, .. } => {
                receive.read().iter().find(|key| key.credential.kid == kid).cloned()
            }
            Keys::Shared { .. } => None,
        }
    }

    /// Some key to receive with, where an offer's choice of key is not looked at.
    #[cfg(bulla_mutants)]
    pub(crate) fn any_receive_key(&self) -> Option<ReceiveKey> {
        let Keys::Pair { receive, .. } = &self.keys else { return None };
        let any = receive.read().first().cloned();
        any.filter(|_| bulla_seal::mutants::off(bulla_seal::mutants::Check::OfferAudience))
    }

    /// The suites that it takes: what its credentials say, and pair keys.
    pub fn accepted_suites(&self) -> SuiteSet {
        match &self.keys {
            Keys::Pair { receive, .. } => receive
                .read()
                .iter()
                .flat_map(|key| {
                    let suites = key.credential.suites;
                    Suite::ALL.iter().copied().filter(move |suite| suites.contains(*suite))
                })
                .fold(SuiteSet::only(Suite::Shared), SuiteSet::with),
            Keys::Shared { .. } => SuiteSet::only(Suite::Shared),
        }
    }

    /// A shared-key agent's key with a component type, by its name and pair epoch.
    pub fn derive_pair(&self, kid: Kid, component: &Principal, epoch: u32) -> Option<PairKey> {
        match &self.keys {
            Keys::Shared { k } => Some(PairKey {
                kid,
                key: shared::pair_key(k, &self.party, component, epoch),
                // A component type has one incarnation: its name is not given out again.
                peer: Party::new(component.clone(), 1),
                epoch,
            }),
            Keys::Pair { .. } => None,
        }
    }

    /// Whether this is a shared-key agent.
    pub fn is_shared(&self) -> bool {
        matches!(self.keys, Keys::Shared { .. })
    }
}
