//! Groups: who is in them, and their keys by epoch (protocol section 6).

use bulla_seal::{GroupKey, GroupName, OsRandom, Principal, PrincipalKind, Secret, UnixTime};

use super::{Keystore, copies, current_kek, from_column, seconds};
use crate::db::Conn;
use crate::db::{groups, principals, recalls};
use crate::error::{KeystoreError, Result};
use crate::kek::{KekRing, Row};

/// The bare name of the group that every agent is in.
pub const EVERY_AGENT: &str = "all";

/// A group as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its name.
    pub name: GroupName,
    /// Its current epoch.
    pub epoch: u32,
    /// How many members it has.
    pub members: u64,
    /// When it was added.
    pub created: UnixTime,
}

/// The place of a group key.
fn group_key_row(name: &str, epoch: u32) -> Row<'_> {
    Row { table: "group_keys", column: "encrypted_key", name, incarnation: 0, epoch }
}

impl Keystore {
    /// Adds an empty group in its first epoch.
    pub async fn add_group(&self, name: &GroupName) -> Result<()> {
        let now = seconds(self.now());
        let mut tx = self.db.write().await?;
        if groups::find(&mut tx, name.as_str()).await?.is_some() {
            return Err(KeystoreError::GroupTaken(name.clone()));
        }
        create(&mut tx, &self.keks, name.as_str(), now).await?;
        tx.commit().await
    }

    /// Adds a member; `false` if it was one already. The epoch stays: a new member may read what
    /// is still under way.
    pub async fn add_member(&self, group: &GroupName, principal: &Principal) -> Result<bool> {
        let now = seconds(self.now());
        let mut tx = self.db.write().await?;
        let (id, _) = find(&mut tx, group).await?;
        let member = find_principal(&mut tx, principal).await?;
        let added = groups::add(&mut tx, id, member, now).await?;
        if added && principal.is_component() {
            let name = group.as_str();
            if let Some((epoch, key)) = open_key(&mut tx, &self.keks, name, None).await? {
                copies::copy_group(&mut tx, &self.keks, (id, name, epoch), &key, now).await?;
            }
        }
        tx.commit().await?;
        Ok(added)
    }

    /// Removes a member and starts a new epoch with a new key; `false`, and no new epoch, if it
    /// was no member. No agent can leave group `all`.
    pub async fn remove_member(&self, group: &GroupName, principal: &Principal) -> Result<bool> {
        if group.as_str() == EVERY_AGENT && principal.is_agent() {
            return Err(KeystoreError::GroupBuiltIn(group.clone()));
        }
        let now = seconds(self.now());
        let mut tx = self.db.write().await?;
        let (id, epoch) = find(&mut tx, group).await?;
        let member = find_principal(&mut tx, principal).await?;
        let removed = groups::remove(&mut tx, id, member).await?;
        if removed {
            if principal.is_component() {
                copies::forget_group(&mut tx, principal.name(), group.as_str()).await?;
            }
            new_epoch(&mut tx, &self.keks, id, group.as_str(), epoch, now).await?;
        }
        tx.commit().await?;
        Ok(removed)
    }

    /// A group's key of `epoch`, or its current one.
    pub async fn group_key(&self, group: &GroupName, epoch: Option<u32>) -> Result<GroupKey> {
        let mut conn = self.db.read().await?;
        let found = open_key(&mut conn, &self.keks, group.as_str(), epoch).await?;
        let Some((found, key)) = found else {
            let (_, current) = find(&mut conn, group).await?;
            let epoch = epoch.unwrap_or(current);
            return Err(KeystoreError::UnknownGroupEpoch { group: group.clone(), epoch });
        };
        Ok(GroupKey { group: group.clone(), epoch: found, key })
    }

    /// The groups that a principal is in, ordered by name.
    pub async fn groups_of(&self, principal: &Principal) -> Result<Vec<GroupName>> {
        let (kind, name) = (principal.kind().as_str(), principal.name());
        let rows = groups::of(&mut self.db.read().await?, kind, name).await?;
        if rows.is_empty() {
            self.party(principal).await?;
        }
        rows.iter().map(|(_, name, _)| stored_group(name)).collect()
    }

    /// The members of a group, agents first, ordered by name.
    pub async fn members_of(&self, group: &GroupName) -> Result<Vec<Principal>> {
        let mut conn = self.db.read().await?;
        let (id, _) = find(&mut conn, group).await?;
        let members = groups::members(&mut conn, id).await?;
        members.iter().map(|(kind, name)| stored_principal(kind, name)).collect()
    }

    /// Every group, ordered by name.
    pub async fn list_groups(&self) -> Result<Vec<GroupRecord>> {
        let rows = groups::list(&mut self.db.read().await?).await?;
        let record = |(name, epoch, members, created): (String, u32, i64, i64)| {
            Ok(GroupRecord {
                name: stored_group(&name)?,
                epoch,
                members: members.unsigned_abs(),
                created: from_column(created),
            })
        };
        rows.into_iter().map(record).collect()
    }
}

/// Makes group `all` with every agent in it.
pub(super) async fn create_every_agent(conn: &mut Conn, keks: &KekRing, now: i64) -> Result<()> {
    let id = create(conn, keks, EVERY_AGENT, now).await?;
    groups::add_every_agent(conn, id, now).await
}

/// Makes group `all` unless it is there.
pub(super) async fn ensure_every_agent(conn: &mut Conn, keks: &KekRing, now: i64) -> Result<()> {
    match groups::find(conn, EVERY_AGENT).await? {
        Some(_) => Ok(()),
        None => create_every_agent(conn, keks, now).await,
    }
}

/// The next epoch of a group, with a fresh key; gives the epoch.
pub(super) async fn new_epoch(
    conn: &mut Conn,
    keks: &KekRing,
    id: i64,
    name: &str,
    epoch: u32,
    now: i64,
) -> Result<u32> {
    let epoch = epoch.max(recalls::base(conn).await?).saturating_add(1);
    groups::set_epoch(conn, id, epoch, now).await?;
    insert_key(conn, keks, id, name, epoch, now).await?;
    Ok(epoch)
}

async fn create(conn: &mut Conn, keks: &KekRing, name: &str, now: i64) -> Result<i64> {
    // A name that was lost with a database may have had epochs.
    let epoch = recalls::base(conn).await?.saturating_add(1);
    let id = groups::insert(conn, name, epoch, now).await?;
    insert_key(conn, keks, id, name, epoch, now).await?;
    Ok(id)
}

async fn insert_key(
    conn: &mut Conn,
    keks: &KekRing,
    id: i64,
    name: &str,
    epoch: u32,
    now: i64,
) -> Result<()> {
    let random = &mut OsRandom::default();
    let key = Secret::<32>::generate(random)?;
    let kek = current_kek(conn, keks).await?;
    let wrapped = kek.wrap_key().wrap(random, &group_key_row(name, epoch), key.expose())?;
    groups::insert_key(conn, id, epoch, &wrapped, now).await?;
    copies::copy_group(conn, keks, (id, name, epoch), &key, now).await
}

/// A group's key of `epoch`, or its current one, with its epoch.
pub(super) async fn open_key(
    conn: &mut Conn,
    keks: &KekRing,
    name: &str,
    epoch: Option<u32>,
) -> Result<Option<(u32, Secret<32>)>> {
    let Some((found, wrapped)) = groups::key(conn, name, epoch).await? else { return Ok(None) };
    let place = group_key_row(name, found);
    let key = keks.open_fixed(&place, &wrapped, format!("key of group/{name}"))?;
    Ok(Some((found, key)))
}

async fn find(conn: &mut Conn, group: &GroupName) -> Result<groups::GroupRow> {
    let found = groups::find(conn, group.as_str()).await?;
    found.ok_or_else(|| KeystoreError::UnknownGroup(group.clone()))
}

async fn find_principal(conn: &mut Conn, principal: &Principal) -> Result<i64> {
    let row = principals::active(conn, principal.kind().as_str(), principal.name()).await?;
    Ok(row.ok_or_else(|| KeystoreError::UnknownPrincipal(principal.clone()))?.id)
}

fn stored_group(name: &str) -> Result<GroupName> {
    GroupName::new(name).map_err(|_| KeystoreError::damaged("group name"))
}

fn stored_principal(kind: &str, name: &str) -> Result<Principal> {
    let kind = match kind {
        "agent" => PrincipalKind::Agent,
        _ => PrincipalKind::Component,
    };
    Principal::new(kind, name).map_err(|_| KeystoreError::damaged("principal's name"))
}
