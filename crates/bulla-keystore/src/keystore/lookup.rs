//! Who somebody is, and their current credential.

use bulla_seal::{Party, Principal, PrincipalKind, SignedCredential, UnixTime};

use super::{Keystore, seconds};
use crate::db::{credentials, principals};
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
