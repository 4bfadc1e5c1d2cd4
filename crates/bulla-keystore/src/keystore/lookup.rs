//! Who somebody is, and their current credential.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulla_seal::{
    Kid, Party, Principal, PrincipalKind, Secret, SignedCredential, UnixTime, VerifyingKey, shared,
};

use super::agents::instance_key_row;
use super::{Keystore, seconds};
use crate::db::principals::PrincipalRow;
use crate::db::{credentials, keys, principals, revocation};
use crate::error::{KeystoreError, Result};

impl Keystore {
    /// The living holder of a name, with its incarnation.
    pub async fn party(&self, principal: &Principal) -> Result<Party> {
        let (kind, name) = (principal.kind().as_str(), principal.name());
        let row = principals::active(&mut self.db.read().await?, kind, name).await?;
        let row = row.ok_or_else(|| KeystoreError::UnknownPrincipal(principal.clone()))?;
        Ok(Party::new(principal.clone(), row.incarnation))
    }

    /// The credential of the highest epoch that is valid now: an agent's own, or a component
    /// type's audience credential. Shared-key agents have none.
    pub async fn credential(&self, principal: &Principal) -> Result<SignedCredential> {
        let (kind, name) = (principal.kind(), principal.name());
        let purpose = match kind {
            PrincipalKind::Agent => "agent",
            PrincipalKind::Component => "audience",
        };
        let now = self.now();
        let found = {
            let mut conn = self.db.read().await?;
            credentials::current(&mut conn, kind.as_str(), name, purpose, seconds(now)).await?
        };
        match found {
            Some((incarnation, bytes)) => self.verified(principal, incarnation, &bytes, now),
            None => {
                self.party(principal).await?;
                Err(KeystoreError::NoCredential(principal.clone()))
            }
        }
    }

    /// The key that an agent signs with under one of its credentials, if that is good now. It need not
    /// be handed out: whoever has the newest one uses it.
    pub async fn agent_key(&self, agent: &Principal, kid: Kid) -> Result<Option<VerifyingKey>> {
        let now = self.now();
        let mut conn = self.db.read().await?;
        let row = principals::active(&mut conn, agent.kind().as_str(), agent.name()).await?;
        let Some(row) = row.filter(|_| agent.kind() == PrincipalKind::Agent) else {
            return Ok(None);
        };
        let living = credentials::living(&mut conn, row.id, seconds(now)).await?;
        let Some(found) = living.into_iter().find(|row| row.kid == kid.as_bytes()) else {
            return Ok(None);
        };
        if revocation::is_listed(&mut conn, kid.as_bytes()).await? {
            return Ok(None);
        }
        drop(conn);
        let credential = self.verified(agent, row.incarnation, &found.bytes, now)?;
        Ok(credential.signing)
    }

    /// What the requests over HTTP of a shared-key agent carry a MAC under; `None` unless that
    /// incarnation of it lives and has a shared key.
    pub async fn agent_http_key(
        &self,
        agent: &Principal,
        incarnation: u32,
    ) -> Result<Option<Secret<32>>> {
        let mut conn = self.db.read().await?;
        let row = principals::active(&mut conn, agent.kind().as_str(), agent.name()).await?;
        let of_agent = |row: &PrincipalRow| {
            agent.kind() == PrincipalKind::Agent && row.incarnation == incarnation
        };
        let Some(row) = row.filter(of_agent) else { return Ok(None) };
        let Some((wrapped, epoch)) = keys::wrapped(&mut conn, row.id).await? else {
            return Ok(None);
        };
        drop(conn);
        let what = || format!("shared key of {agent}");
        let wrapped = STANDARD.decode(wrapped).map_err(|_| KeystoreError::damaged(what()))?;
        let place = instance_key_row(agent.as_str(), incarnation, epoch);
        let k = self.keks.open_fixed::<32>(&place, &wrapped, what())?;
        Ok(Some(shared::http_key(&k, &Party::new(agent.clone(), incarnation))))
    }

    /// A stored credential is believed no more than one from the wire, and must be this party's.
    pub(super) fn verified(
        &self,
        principal: &Principal,
        incarnation: u32,
        bytes: &[u8],
        now: UnixTime,
    ) -> Result<SignedCredential> {
        let credential = self.trust().verify(bytes, now)?;
        if credential.party.principal == *principal && credential.party.incarnation == incarnation {
            Ok(credential)
        } else {
            Err(KeystoreError::damaged(format!("credential of {principal}")))
        }
    }
}
