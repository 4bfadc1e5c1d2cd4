//! Component types: added, listed, and the keys of their hosts.

use std::time::Duration;

use bulla_seal::credential::{MAX_ROLE, MAX_ROLES};
use bulla_seal::{
    Credential, IssuerRight, KemSecretKey, Kid, Level, OsRandom, Party, Principal,
    SignedCredential, SigningKey, Suite, SuiteSet, UnixTime, VerifyingKey,
};

use super::issue::{HOST_LIFETIME, MAX_SIGNING_LIFETIME, Place};
use super::{Keystore, current_kek, from_column, seconds, stored_component};
use crate::db::Conn;
use crate::db::credentials::{self, AudienceRow};
use crate::db::principals::PrincipalRow;
use crate::db::{principals, revocation, rotation};
use crate::error::{KeystoreError, Result};
use crate::kek::Row;

/// A component type as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentRecord {
    /// Its name and incarnation.
    pub party: Party,
    /// What its credentials say that it may do, such as `group:all`.
    pub roles: Vec<String>,
    /// The suites that it accepts.
    pub suites: SuiteSet,
    /// The suite of its audience key.
    pub suite: Suite,
    /// The epoch of its audience key.
    pub epoch: u32,
    /// Its audience credential.
    pub audience: SignedCredential,
    /// When it was added.
    pub created: UnixTime,
    /// When its record last changed.
    pub updated: UnixTime,
}

/// The place of a component type's KEM key.
fn audience_row(component: &str, incarnation: u32, epoch: u32) -> Row<'_> {
    Row { table: "audience_keys", column: "encrypted_key", name: component, incarnation, epoch }
}

impl Keystore {
    /// Adds a component type and makes its audience key, of the strongest suite in `suites`.
    /// `roles` go into all its credentials; `group:<name>` lets it hand out a group's keys, `group:*` those of all.
    pub async fn add_component(
        &self,
        name: &str,
        roles: &[String],
        suites: SuiteSet,
    ) -> Result<ComponentRecord> {
        let principal = Principal::component(name)?;
        check_roles(roles)?;
        let suite = suites.best_common(SuiteSet::all()).ok_or(KeystoreError::NoKemSuite)?;
        let now = self.now();
        let mut tx = self.db.write().await?;
        let (row_id, party) = self.insert_principal(&mut tx, principal, "pair", suite, now).await?;
        let issuer = self.issuer(&mut tx, IssuerRight::Components).await?;
        let kem = KemSecretKey::generate(suite, &mut OsRandom::default())?;
        let credential = Credential {
            kid: Kid([0; Kid::LEN]),
            party: party.clone(),
            epoch: 1,
            signing: None,
            kem: Some(kem.public().clone()),
            suites,
            validity: self.validity(&issuer, self.key_life(name)),
            accepts: Level::Sealed,
            sends: Level::Sealed,
            roles: roles.to_vec(),
            instance: None,
        };
        let place = Place::of(row_id, "audience");
        let audience = self.issue(&mut tx, &issuer, place, credential, now).await?;
        self.store_audience_key(&mut tx, row_id, &kem, &audience, now).await?;
        tx.commit().await?;
        Ok(record(audience, suite, seconds(now), seconds(now)))
    }

    /// Every component type, ordered by name.
    pub async fn list_components(&self) -> Result<Vec<ComponentRecord>> {
        let rows = {
            let mut conn = self.db.read().await?;
            principals::page(&mut conn, "component", "", u32::MAX).await?
        };
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let suite = Suite::from_wire(row.suite.into());
            let suite = suite.ok_or_else(|| KeystoreError::damaged("suite"))?;
            let audience = self.credential(&stored_component(&row.name)?).await?;
            records.push(record(audience, suite, row.created, row.updated));
        }
        Ok(records)
    }

    /// The current KEM key of a component type with its audience credential.
    pub async fn component_keys(&self, name: &str) -> Result<(KemSecretKey, SignedCredential)> {
        let mut keys = self.receive_keys(name).await?;
        Ok(keys.swap_remove(0))
    }

    /// What every host of a component type receives with: each KEM key that peers may seal to
    /// now or soon, with its audience credential, newest first. There is at least one.
    pub async fn receive_keys(&self, name: &str) -> Result<Vec<(KemSecretKey, SignedCredential)>> {
        let principal = Principal::component(name)?;
        let now = self.now();
        let rows = rotation::receive(&mut self.db.read().await?, name, seconds(now)).await?;
        if rows.is_empty() {
            self.party(&principal).await?;
            return Err(KeystoreError::NoCredential(principal));
        }
        rows.iter().map(|row| self.receive_key(&principal, row, now)).collect()
    }

    pub(super) fn receive_key(
        &self,
        principal: &Principal,
        row: &AudienceRow,
        now: UnixTime,
    ) -> Result<(KemSecretKey, SignedCredential)> {
        let what = || format!("audience key of {principal}");
        let place = audience_row(principal.as_str(), row.incarnation, row.epoch);
        let bytes = self.keks.open_for(principal, &place, &row.encrypted_key, what())?;
        let credential = self.verified(principal, row.incarnation, &row.credential, now)?;
        let key = Suite::from_wire(row.suite.into())
            .and_then(|suite| KemSecretKey::from_bytes(suite, &bytes).ok())
            .filter(|key| credential.kem.as_ref() == Some(key.public()))
            .ok_or_else(|| KeystoreError::damaged(what()))?;
        Ok((key, credential))
    }

    /// Makes a signing key for the host `instance` of a component type, with its credential. The
    /// key is not kept.
    pub async fn issue_signing(
        &self,
        component: &str,
        instance: &str,
        lifetime: Duration,
    ) -> Result<(SigningKey, SignedCredential)> {
        let key = SigningKey::generate(&mut OsRandom::default())?;
        let public = key.verifying_key();
        let credential = self.issue_signing_for(component, instance, public, lifetime).await?;
        Ok((key, credential))
    }

    /// A signing credential for a key that the host made itself. Its epoch is that of the type's
    /// audience key, so that the hosts of a type don't outdate one another; roles and suites are
    /// the audience credential's.
    pub async fn issue_signing_for(
        &self,
        component: &str,
        instance: &str,
        key: VerifyingKey,
        lifetime: Duration,
    ) -> Result<SignedCredential> {
        let (asked, max) = (lifetime.as_secs(), MAX_SIGNING_LIFETIME.as_secs());
        if asked == 0 || asked > max {
            return Err(KeystoreError::Lifetime { asked, max });
        }
        let principal = Principal::component(component)?;
        let mut tx = self.db.write().await?;
        let row = principals::active(&mut tx, "component", component).await?;
        let row = row.ok_or(KeystoreError::UnknownPrincipal(principal))?;
        let signed = self.signing_for(&mut tx, &row, instance, key, lifetime).await?;
        tx.commit().await?;
        Ok(signed)
    }

    async fn signing_for(
        &self,
        tx: &mut Conn,
        row: &PrincipalRow,
        instance: &str,
        key: VerifyingKey,
        lifetime: Duration,
    ) -> Result<SignedCredential> {
        bulla_seal::principal::check_name("instance name", instance)?;
        let (now, principal) = (self.now(), Principal::component(&row.name)?);
        let current =
            credentials::current(tx, "component", &row.name, "audience", seconds(now)).await?;
        let (incarnation, bytes) =
            current.ok_or_else(|| KeystoreError::NoCredential(principal.clone()))?;
        let audience = self.verified(&principal, incarnation, &bytes, now)?;
        let issuer = self.issuer(tx, IssuerRight::Components).await?;
        let credential = Credential {
            kem: None,
            signing: Some(key),
            validity: self.validity(&issuer, lifetime),
            instance: Some(instance.to_owned()),
            ..Credential::clone(&audience)
        };
        let place = Place::of(row.id, "signing");
        self.issue(tx, &issuer, place, credential, now).await
    }

    /// The next signing credential of a host with a key file, for a key that it made itself and asked
    /// for under the credential `present`; `None` if that was revoked.
    pub async fn renew_host(
        &self,
        component: &str,
        instance: &str,
        key: VerifyingKey,
        present: Kid,
    ) -> Result<Option<SignedCredential>> {
        let principal = Principal::component(component)?;
        let mut tx = self.db.write().await?;
        let row = principals::active(&mut tx, "component", component).await?;
        let row = row.ok_or(KeystoreError::UnknownPrincipal(principal))?;
        // Under the lock: a revocation comes before it or after, and lists what was issued.
        if revocation::is_listed(&mut tx, present.as_bytes()).await? {
            return Ok(None);
        }
        let signed = self.signing_for(&mut tx, &row, instance, key, HOST_LIFETIME).await?;
        tx.commit().await?;
        Ok(Some(signed))
    }

    /// [`receive_keys`](Self::receive_keys) for a host that asks under the signing credential
    /// `present`; `None` if that was revoked.
    pub async fn host_keys(
        &self,
        component: &str,
        present: Kid,
    ) -> Result<Option<Vec<(KemSecretKey, SignedCredential)>>> {
        let keys = self.receive_keys(component).await?;
        // Looked at last: a key that was made because the host was revoked is not for it.
        let revoked = revocation::is_listed(&mut self.db.read().await?, present.as_bytes()).await?;
        Ok((!revoked).then_some(keys))
    }

    pub(super) async fn store_audience_key(
        &self,
        conn: &mut Conn,
        principal_id: i64,
        kem: &KemSecretKey,
        audience: &SignedCredential,
        now: UnixTime,
    ) -> Result<()> {
        let Party { principal, incarnation } = &audience.party;
        let (incarnation, epoch) = (*incarnation, audience.epoch);
        let place = audience_row(principal.as_str(), incarnation, epoch);
        let kek = current_kek(conn, &self.keks).await?;
        let encrypted_key =
            kek.for_component(principal).wrap(&mut OsRandom::default(), &place, kem.expose())?;
        let suite = kem.suite().to_wire().into();
        let row = AudienceRow { incarnation, epoch, suite, encrypted_key, credential: Vec::new() };
        let kid = audience.kid;
        credentials::insert_audience_key(conn, kid.as_bytes(), principal_id, &row, seconds(now))
            .await
    }
}

fn record(audience: SignedCredential, suite: Suite, created: i64, updated: i64) -> ComponentRecord {
    ComponentRecord {
        party: audience.party.clone(),
        roles: audience.roles.clone(),
        suites: audience.suites,
        suite,
        epoch: audience.epoch,
        audience,
        created: from_column(created),
        updated: from_column(updated),
    }
}

fn check_roles(roles: &[String]) -> Result<()> {
    let (max, longest) = (MAX_ROLES, MAX_ROLE);
    let misfit =
        |(place, role): &(usize, &String)| *place >= max || role.is_empty() || role.len() > longest;
    match roles.iter().enumerate().find(misfit) {
        Some((_, role)) => {
            Err(KeystoreError::Role { role: role.chars().take(longest).collect(), max, longest })
        }
        None => Ok(()),
    }
}
