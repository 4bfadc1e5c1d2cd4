//! Everything that the keystore knows about one agent.

use bulla_api::{
    AgentCredential, AgentDetails, AgentFloor, AgentPair, CredentialUse, JoinWord, LastSeen,
    SharedKey,
};
use bulla_guard::floor::{FloorStore, PeerRecord};
use bulla_keystore::{CredentialRecord, JoinState, Keystore, KeystoreError, Sighting};
use bulla_rpc::{Clock, SystemClock};
use bulla_seal::{DEFAULT_SKEW, TrustDomain};

use super::plane::{agent_details, millis};

/// What there is to show of an agent.
pub(crate) struct AgentState {
    pub(crate) details: bulla_keystore::AgentDetails,
    pub(crate) joining: Option<JoinState>,
    pub(crate) floor: Option<PeerRecord>,
    pub(crate) seen: Option<Sighting>,
    pub(crate) domain: TrustDomain,
    pub(crate) now: u64,
}

/// What a credential is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Revoked,
    /// Issued; the agent has not said yet that it has it.
    Announced,
    Present,
    /// Followed by another; what was sealed to it is still opened.
    Former,
}

impl Use {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Announced => "announced",
            Self::Present => "in-use",
            Self::Former => "former",
        }
    }
}

impl From<Use> for CredentialUse {
    fn from(used: Use) -> Self {
        match used {
            Use::Revoked => Self::Revoked,
            Use::Announced => Self::Announced,
            Use::Present => Self::InUse,
            Use::Former => Self::Former,
        }
    }
}

impl AgentState {
    pub(crate) async fn read(keystore: &Keystore, id: &str) -> Result<Self, KeystoreError> {
        let details = keystore.show_agent(id).await?;
        let party = &details.record.party;
        Ok(Self {
            joining: keystore.join_state(id).await?,
            floor: keystore
                .floors()
                .record(party)
                .await
                .map_err(|error| KeystoreError::Database(Box::new(error)))?,
            seen: keystore.last_seen(party).await?,
            domain: keystore.trust_store().domain().clone(),
            now: SystemClock.now().secs(),
            details,
        })
    }

    pub(crate) fn use_of(&self, record: &CredentialRecord) -> Use {
        let in_use = self.details.credential.as_ref().map(|own| own.kid);
        match record {
            CredentialRecord { revoked: true, .. } => Use::Revoked,
            CredentialRecord { handed_out: false, .. } => Use::Announced,
            CredentialRecord { credential, .. } if in_use == Some(credential.kid) => Use::Present,
            _ => Use::Former,
        }
    }

    /// When the agent renews next.
    pub(crate) fn due(&self) -> Option<u64> {
        let cut_off = matches!(self.joining, Some(JoinState::Quarantined { .. }));
        let newest = self.details.credentials.first().filter(|own| !own.revoked && !cut_off);
        newest.map(|own| own.credential.renew_at())
    }

    /// As the API shows it.
    pub(crate) fn to_api(&self) -> AgentDetails {
        let details = &self.details;
        let credential = |own: &CredentialRecord| AgentCredential {
            kid: own.credential.kid.to_string(),
            epoch: own.credential.epoch.into(),
            used: self.use_of(own).into(),
            issued_ms: millis(own.issued.secs()),
            expires_ms: millis(own.credential.validity.not_after),
            destroyed_ms: millis(own.credential.retire_at(DEFAULT_SKEW)),
        };
        let pair = |pair: &bulla_keystore::PairKeyId| AgentPair {
            component: pair.component.to_string(),
            kid: pair.kid.to_string(),
            epoch: pair.epoch.into(),
        };
        AgentDetails {
            agent: agent_details(details, &self.domain),
            suite: details.record.suite.as_str().to_owned(),
            join: self.joining.map(|state| match state {
                JoinState::Invited { .. } => JoinWord::Invited,
                JoinState::Expired => JoinWord::Expired,
                JoinState::Joined => JoinWord::Joined,
                JoinState::Quarantined { .. } => JoinWord::Quarantined,
            }),
            alarms: match self.joining {
                Some(JoinState::Quarantined { alarms }) => alarms,
                _ => 0,
            },
            credentials: details.credentials.iter().map(credential).collect(),
            renewals: details.counter,
            renewed_ms: details.renewed.map(|at| millis(at.secs())),
            next_renewal_ms: self.due().map(millis),
            shared_key: details.shared.map(|(epoch, since)| SharedKey {
                epoch: epoch.into(),
                since_ms: millis(since.secs()),
            }),
            pairs: details.pairs.iter().map(pair).collect(),
            floor: self.floor.map(|floor| AgentFloor {
                accepts: floor.accepts.to_string(),
                sends: floor.sends.to_string(),
                target: floor.target.map(|target| target.to_string()),
            }),
            last_seen: self.seen.as_ref().map(|seen| LastSeen {
                at_ms: millis(seen.at),
                method: seen.method.clone(),
                level: seen.level.to_string(),
            }),
        }
    }
}

pub(crate) fn join_word(state: JoinState) -> &'static str {
    match state {
        JoinState::Invited { .. } => "invited",
        JoinState::Expired => "expired",
        JoinState::Joined => "joined",
        JoinState::Quarantined { .. } => "quarantined",
    }
}
