//! Pair keys: named in the keystore, derived from the agent's key whenever they are asked for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulla_seal::{Kid, Party, Principal, Secret, SignedCredential, UnixTime, shared};

use super::agents::instance_key_row;
use super::{KID_TRIES, Keystore, kid_from, seconds, stored_agent, stored_component};
use crate::db::Conn;
use crate::db::component_keys;
use crate::db::pairs::{self, PairRow};
use crate::error::{KeystoreError, Result};

/// The name of a pair key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PairKeyId {
    /// What a message's header carries.
    pub kid: Kid,
    /// The component type at the other end.
    pub component: Principal,
    /// The pair epoch.
    pub epoch: u32,
}

/// The key that a shared-key agent and a component type share.
#[derive(Debug, Clone)]
pub struct PairKey {
    /// Its name.
    pub kid: Kid,
    /// The key.
    pub key: Secret<32>,
    /// The agent.
    pub agent: Party,
    /// The component type.
    pub component: Principal,
    /// The pair epoch.
    pub epoch: u32,
}

/// How a component seals to a peer.
#[derive(Debug, Clone)]
pub enum PeerKeys {
    /// With a session under this credential.
    Pair(SignedCredential),
    /// With the pair key.
    Shared(PairKey),
}

impl Keystore {
    /// What `component` seals to `peer` with: the credential of a key-pair agent or of another
    /// component type, the pair key of a shared-key agent.
    pub async fn peer(&self, peer: &Principal, component: &Principal) -> Result<PeerKeys> {
        if !component.is_component() {
            return Err(KeystoreError::NotAPair(component.clone()));
        }
        if peer.is_component() {
            return Ok(PeerKeys::Pair(self.credential(peer).await?));
        }
        let now = self.now();
        let found = {
            let mut conn = self.db.read().await?;
            pairs::peer(&mut conn, peer.name(), component.name(), seconds(now)).await?
        };
        match found {
            None => Err(self.missing(peer, component).await),
            Some((row, Some(bytes))) => {
                Ok(PeerKeys::Pair(self.verified(peer, row.incarnation, &bytes, now)?))
            }
            Some((row, None)) if row.encrypted_key.is_none() => {
                Err(KeystoreError::NoCredential(peer.clone()))
            }
            Some((row, None)) => Ok(PeerKeys::Shared(self.pair_from(row, peer, component).await?)),
        }
    }

    /// The current pair key of an agent and a component type. Named on first use, by whichever
    /// process is first.
    pub async fn pair_key(&self, agent: &Principal, component: &Principal) -> Result<PairKey> {
        if !agent.is_agent() {
            return Err(KeystoreError::NotAPair(agent.clone()));
        }
        if !component.is_component() {
            return Err(KeystoreError::NotAPair(component.clone()));
        }
        let found = {
            let mut conn = self.db.read().await?;
            pairs::current(&mut conn, agent.name(), component.name()).await?
        };
        match found {
            None => Err(self.missing(agent, component).await),
            Some(row) => self.pair_from(row, agent, component).await,
        }
    }

    /// Which of the two does not exist.
    async fn missing(&self, agent: &Principal, component: &Principal) -> KeystoreError {
        match self.party(agent).await {
            Ok(_) => KeystoreError::UnknownPrincipal(component.clone()),
            Err(e) => e,
        }
    }

    async fn pair_from(
        &self,
        row: PairRow,
        agent: &Principal,
        component: &Principal,
    ) -> Result<PairKey> {
        match &row.kid {
            Some(kid) => {
                let kid = kid_from(kid)?;
                self.derive(row, kid)
            }
            None if row.encrypted_key.is_none() => Err(KeystoreError::NotShared(agent.clone())),
            None => {
                // Row and name from one transaction: the agent may have been removed since.
                let (row, kid) = self.name_current(agent, component).await?;
                self.derive(row, kid)
            }
        }
    }

    /// The pair key that a message's header names, if there is one and both its ends live.
    pub async fn pair_by_kid(&self, kid: Kid) -> Result<Option<PairKey>> {
        let row = pairs::by_kid(&mut self.db.read().await?, kid.as_bytes()).await?;
        row.map(|row| self.derive(row, kid)).transpose()
    }

    /// Names the current pair, looking again under the write lock: the agent may have been
    /// removed or the epoch may have risen since.
    async fn name_current(
        &self,
        agent: &Principal,
        component: &Principal,
    ) -> Result<(PairRow, Kid)> {
        let mut tx = self.db.write().await?;
        let row = pairs::current(&mut tx, agent.name(), component.name()).await?;
        let row = row.ok_or_else(|| KeystoreError::UnknownPrincipal(agent.clone()))?;
        if row.encrypted_key.is_none() {
            return Err(KeystoreError::NotShared(agent.clone()));
        }
        let epoch = row.pair_epoch;
        let kid =
            self.name_pair(&mut tx, row.agent_id, row.component_id, epoch, self.now()).await?;
        let party = Party::new(stored_agent(&row.agent)?, row.incarnation);
        if component_keys::components(&mut tx).await?.contains(&row.component) {
            let k = self.open_shared(&row)?;
            self.copy_pair(&mut tx, &party, &row.component, (kid.as_bytes(), epoch), &k).await?;
        }
        tx.commit().await?;
        Ok((row, kid))
    }

    /// The name of a pair, new if it had none.
    pub(super) async fn name_pair(
        &self,
        conn: &mut Conn,
        agent_id: i64,
        component_id: i64,
        epoch: u32,
        now: UnixTime,
    ) -> Result<Kid> {
        for _ in 0..KID_TRIES {
            let kid = self.kid()?;
            let now = seconds(now);
            pairs::insert(conn, kid.as_bytes(), agent_id, component_id, epoch, now).await?;
            if let Some(kid) = pairs::kid(conn, agent_id, component_id, epoch).await? {
                return kid_from(&kid);
            }
        }
        Err(KeystoreError::NoFreeKid(KID_TRIES))
    }

    /// The agent's own key.
    pub(super) fn open_shared(&self, row: &PairRow) -> Result<Secret<32>> {
        let agent = stored_agent(&row.agent)?;
        let what = || format!("shared key of {agent}");
        let (Some(wrapped), Some(epoch)) = (&row.encrypted_key, row.key_epoch) else {
            return Err(KeystoreError::NotShared(agent));
        };
        let wrapped = STANDARD.decode(wrapped).map_err(|_| KeystoreError::damaged(what()))?;
        let place = instance_key_row(agent.as_str(), row.incarnation, epoch);
        self.keks.open_fixed::<32>(&place, &wrapped, what())
    }

    fn derive(&self, row: PairRow, kid: Kid) -> Result<PairKey> {
        let agent = Party::new(stored_agent(&row.agent)?, row.incarnation);
        let component = stored_component(&row.component)?;
        let k = self.open_shared(&row)?;
        let key = shared::pair_key(&k, &agent, &component, row.pair_epoch);
        Ok(PairKey { kid, key, agent, component, epoch: row.pair_epoch })
    }
}
