//! Keys to receive with of component types follow one another by the clock (protocol section 16).

use std::time::Duration;

use bulla_seal::{Credential, SignedCredential, UnixTime};

use super::issue::{CREDENTIAL_LIFETIME, HAND_OUT_AFTER, SKEW};
use super::{Keystore, stored_component};
use crate::db::principals::{self, PrincipalRow};
use crate::db::{Conn, credentials};
use crate::error::{KeystoreError, Result};
use crate::rights::CONTROL;

/// Least and most that the operator may say of how long a component type's key lives.
pub const KEY_LIFETIMES: (Duration, Duration) = (Duration::from_secs(3_600), CREDENTIAL_LIFETIME);
/// The control plane's own lives at least as many times as long as agents' credentials: an agent that
/// was off finds it by the one that it knew.
const OF_CONTROL: u32 = 3;

impl Keystore {
    /// This keystore with another life of component types' keys to receive with.
    ///
    /// # Errors
    /// It is not [one hour to a year](KEY_LIFETIMES).
    pub fn with_key_life(mut self, life: Duration) -> Result<Self> {
        let (least, most) = KEY_LIFETIMES;
        if !(least..=most).contains(&life) {
            return Err(KeystoreError::KeyLifetime { asked: life.as_secs() });
        }
        self.key_life = life;
        Ok(self)
    }

    /// How long the next key of this type lives.
    pub(super) fn key_life(&self, component: &str) -> Duration {
        if component != CONTROL {
            return self.key_life;
        }
        let least = self.agent_life.saturating_mul(OF_CONTROL);
        self.key_life.max(least).min(CREDENTIAL_LIFETIME)
    }

    /// Makes the next key of every component type whose present one is at the half of its life, a
    /// tenth earlier or later, as [`rotate_component`](Self::rotate_component) does. Of several
    /// processes that do it at the same time, one makes the key.
    pub async fn rotate_due_components(&self) -> Result<Vec<SignedCredential>> {
        let rows = {
            let mut conn = self.db.read().await?;
            principals::page(&mut conn, "component", "", u32::MAX).await?
        };
        let mut rotated = Vec::new();
        for row in rows {
            let due = self.is_due(&mut self.db.read().await?, &row).await?;
            if due && let Some(audience) = self.rotate_if_due(&row.name).await? {
                rotated.push(audience);
            }
        }
        Ok(rotated)
    }

    async fn rotate_if_due(&self, name: &str) -> Result<Option<SignedCredential>> {
        let mut tx = self.db.write().await?;
        let row = principals::active(&mut tx, "component", name).await?;
        // Looked at again under the lock.
        let Some(row) = row else { return Ok(None) };
        if !self.is_due(&mut tx, &row).await? {
            return Ok(None);
        }
        let told = self.now().secs().saturating_add(HAND_OUT_AFTER.as_secs());
        let audience = self.next_audience(&mut tx, &row, name, Some(told)).await?;
        tx.commit().await?;
        Ok(Some(audience))
    }

    async fn is_due(&self, conn: &mut Conn, row: &PrincipalRow) -> Result<bool> {
        let now = self.now();
        let newest = credentials::newest(conn, row.id, "audience").await?;
        let Some(newest) = newest else { return Ok(false) };
        let present = self.ended(row, &newest.bytes, now)?;
        let mut present: Credential = (*present).clone();
        // One that was made for longer is as old as one of today would be.
        let life = self.key_life(&row.name).saturating_add(SKEW).as_secs();
        let end = present.validity.not_before.saturating_add(life);
        present.validity.not_after = present.validity.not_after.min(end);
        Ok(present.renew_at() <= now.secs())
    }

    /// A type's credential, which may be over.
    pub(super) fn ended(
        &self,
        row: &PrincipalRow,
        bytes: &[u8],
        now: UnixTime,
    ) -> Result<SignedCredential> {
        let principal = stored_component(&row.name)?;
        let credential = self.trust().verify_ended(bytes, now)?;
        let party = &credential.party;
        if party.principal != principal || party.incarnation != row.incarnation {
            return Err(KeystoreError::damaged(format!("credential of {principal}")));
        }
        Ok(credential)
    }
}
