//! New keys for a component type: on demand, and when one of its hosts is revoked (protocol
//! section 10).

use bulla_seal::{
    Credential, GroupName, IssuerRight, KemSecretKey, Kid, OsRandom, Principal, SignedCredential,
};

use super::issue::{HAND_OUT_AFTER, Place};
use super::revocation::listed_until;
use super::{Keystore, from_column, kid_from, seconds, to_column};
use crate::db::Conn;
use crate::db::principals::{self, PrincipalRow};
use crate::db::revocation::LowestRow;
use crate::db::{component_keys, credentials, groups, news, recalls, revocation, rotation};
use crate::error::{KeystoreError, Result};

/// What a host of a component type could get at beside its own keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Pair keys of its type, and keys of groups that the type is in or may hand out.
    Type,
    /// Those of every group, and the keystore: a host of the control plane itself. Agents know the
    /// control plane's own keys from their key files, so that former audience keys stay good until
    /// their end, and pair keys stay.
    Everything,
}

/// What followed from the revocation of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedHost {
    /// The host's signing credentials, which count for nothing from now on.
    pub signing: Vec<Kid>,
    /// The epoch of the type's new audience key.
    pub epoch: u32,
    /// The type's new pair epoch; `None` if it stays.
    pub pair_epoch: Option<u32>,
    /// Groups whose keys the type could have, each with its new epoch.
    pub groups: Vec<(GroupName, u32)>,
}

impl Keystore {
    /// Makes the next audience key of a component type. Hosts of the type receive under it at once,
    /// and under those before it until those end; peers are told of it
    /// [a minute later](HAND_OUT_AFTER), when every host has it.
    pub async fn rotate_component(&self, name: &str) -> Result<SignedCredential> {
        let mut tx = self.db.write().await?;
        let row = self.living_component(&mut tx, name).await?;
        let told = self.now().secs().saturating_add(HAND_OUT_AFTER.as_secs());
        let audience = self.next_audience(&mut tx, &row, name, Some(told)).await?;
        tx.commit().await?;
        Ok(audience)
    }

    /// Revokes one host of a component type, and makes everything new that it held with the others
    /// of its type, as far as `reach` says: the audience key, whose former ones count for nothing
    /// any more, the keys of groups, and pair keys.
    pub async fn revoke_host(
        &self,
        name: &str,
        instance: &str,
        reach: Reach,
    ) -> Result<RevokedHost> {
        let now = self.now();
        let mut tx = self.db.write().await?;
        let row = self.living_component(&mut tx, name).await?;
        let signing = rotation::signing_of(&mut tx, row.id, instance).await?;
        let living =
            |(_, end): &&(Vec<u8>, i64)| listed_until(from_column(*end).secs()) > now.secs();
        let mut kids = Vec::new();
        for (kid, _) in signing.iter().filter(living) {
            kids.push(kid_from(kid)?);
        }
        if kids.is_empty() {
            let (component, instance) = (Principal::component(name)?, instance.to_owned());
            return Err(KeystoreError::UnknownInstance { component, instance });
        }
        let former = match reach {
            Reach::Type => rotation::audiences_of(&mut tx, row.id).await?,
            Reach::Everything => Vec::new(),
        };
        for (kid, end) in signing.iter().chain(&former).filter(living) {
            let until = to_column(listed_until(from_column(*end).secs()));
            revocation::insert_kid(&mut tx, kid, until, seconds(now)).await?;
        }
        let audience = self.next_audience(&mut tx, &row, name, None).await?;
        let pair_epoch = match reach {
            Reach::Everything => None,
            Reach::Type => Some(self.next_pairs(&mut tx, &row, &audience).await?),
        };
        let held = match reach {
            Reach::Everything => every_group(&mut tx).await?,
            Reach::Type => groups_held(&mut tx, name, &audience).await?,
        };
        let groups = self.rekey(&mut tx, held).await?;
        self.check_room(&mut tx).await?;
        tx.commit().await?;
        Ok(RevokedHost { signing: kids, epoch: audience.epoch, pair_epoch, groups })
    }

    pub(super) async fn living_component(
        &self,
        conn: &mut Conn,
        name: &str,
    ) -> Result<PrincipalRow> {
        let principal = Principal::component(name)?;
        let row = principals::active(conn, "component", name).await?;
        row.ok_or(KeystoreError::UnknownPrincipal(principal))
    }

    /// The next audience key, with roles and suites of the one before.
    pub(super) async fn next_audience(
        &self,
        conn: &mut Conn,
        row: &PrincipalRow,
        name: &str,
        held_until: Option<u64>,
    ) -> Result<SignedCredential> {
        let (now, principal) = (self.now(), Principal::component(name)?);
        // The newest, even if nobody was told of it yet: epochs only rise.
        let newest = credentials::newest(conn, row.id, "audience").await?;
        let newest = newest.ok_or(KeystoreError::NoCredential(principal))?;
        // It may be over: nobody was there to make the next one.
        let former = self.ended(row, &newest.bytes, now)?;
        let suite = former.kem.as_ref().map(bulla_seal::KemPublicKey::suite);
        let suite = suite.ok_or_else(|| KeystoreError::damaged("audience credential"))?;
        let issuer = self.issuer(conn, IssuerRight::Components).await?;
        let kem = KemSecretKey::generate(suite, &mut OsRandom::default())?;
        let credential = Credential {
            epoch: former.epoch.max(recalls::base(conn).await?).saturating_add(1),
            kem: Some(kem.public().clone()),
            validity: self.validity(&issuer, self.key_life(name)),
            ..Credential::clone(&former)
        };
        let place = Place { principal_id: row.id, purpose: "audience", held_until };
        let audience = self.issue(conn, &issuer, place, credential, now).await?;
        self.store_audience_key(conn, row.id, &kem, &audience, now).await?;
        news::tell(conn).await?;
        Ok(audience)
    }

    async fn next_pairs(
        &self,
        conn: &mut Conn,
        row: &PrincipalRow,
        audience: &SignedCredential,
    ) -> Result<u32> {
        let epoch = rotation::next_pair_epoch(conn, row.id, seconds(self.now())).await?;
        let lowest = LowestRow {
            principal: audience.party.principal.to_string(),
            incarnation: row.incarnation,
            credential_epoch: 0,
            pair_epoch: epoch,
            until: to_column(super::revocation::NO_END),
        };
        self.raise_lowest(conn, lowest).await?;
        component_keys::delete_pairs(conn, audience.party.principal.name()).await?;
        Ok(epoch)
    }

    pub(super) async fn rekey(
        &self,
        conn: &mut Conn,
        held: Vec<HeldGroup>,
    ) -> Result<Vec<(GroupName, u32)>> {
        let mut rekeyed = Vec::with_capacity(held.len());
        for (id, group, epoch) in held {
            let now = seconds(self.now());
            let epoch = super::groups::new_epoch(conn, &self.keks, id, &group, epoch, now).await?;
            let name = GroupName::new(&group).map_err(|_| KeystoreError::damaged("group name"))?;
            rekeyed.push((name, epoch));
        }
        Ok(rekeyed)
    }
}

/// Row id, name and current epoch.
type HeldGroup = (i64, String, u32);

/// The groups that a type is a member of or may hand out.
async fn groups_held(
    conn: &mut Conn,
    name: &str,
    audience: &SignedCredential,
) -> Result<Vec<HeldGroup>> {
    if audience.has_role(bulla_seal::KEYS_EVERY_GROUP) {
        return every_group(conn).await;
    }
    let mut held = groups::of(conn, "component", name).await?;
    for role in &audience.roles {
        let Some(group) = role.strip_prefix("group:") else { continue };
        if let Some((id, epoch)) = groups::find(conn, group).await?
            && held.iter().all(|(known, ..)| *known != id)
        {
            held.push((id, group.to_owned(), epoch));
        }
    }
    Ok(held)
}

pub(super) async fn every_group(conn: &mut Conn) -> Result<Vec<HeldGroup>> {
    let mut held = Vec::new();
    for (name, ..) in groups::list(conn).await? {
        if let Some((id, epoch)) = groups::find(conn, &name).await? {
            held.push((id, name, epoch));
        }
    }
    Ok(held)
}
