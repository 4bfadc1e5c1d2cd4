//! Copies of keys for component types whose hosts read the database themselves, with a role of their
//! own (`bulla db grants`): pair keys, the keys of groups that the type is in, the root public key.
//! Each is wrapped under the type's own KEK, so that such a host has neither an agent's key K nor
//! the KEK.
//!
//! A copy is made in the transaction that makes the key; [`Keystore::fill_component_keys`] makes
//! those of a type that gets its role later.

use bulla_seal::{OsRandom, Party, Principal, Secret, shared};

use super::{Keystore, current_kek, kid_from, seconds, stored_agent};
use crate::db::Conn;
use crate::db::component_keys::{self, CopyRow};
use crate::db::{groups, revocation};
use crate::error::Result;
use crate::kek::{KekRing, Row};

/// How many pair keys are copied in one transaction.
const BATCH: u32 = 500;

/// The place of a copy; `full` is its name with `component/` before it.
pub(super) fn copy_row(full: &str, incarnation: u32, epoch: u32) -> Row<'_> {
    Row { table: "component_keys", column: "encrypted_key", name: full, incarnation, epoch }
}

/// The stored name of a type's copy of a pair key, a group's key, or the root public key.
pub(super) fn pair_name(component: &str, agent: &str) -> String {
    format!("{component}/agent/{agent}")
}

/// The same of a group's.
pub(super) fn group_name(component: &str, group: &str) -> String {
    format!("{component}/group/{group}")
}

/// The same of the root public key.
pub(super) fn root_name(component: &str) -> String {
    format!("{component}/root")
}

/// What is copied.
struct Copied<'a> {
    component: &'a Principal,
    name: String,
    incarnation: u32,
    epoch: u32,
    kid: Option<&'a [u8]>,
}

async fn put(
    conn: &mut Conn,
    keks: &KekRing,
    copied: Copied<'_>,
    key: &[u8],
    now: i64,
) -> Result<()> {
    let Copied { component, name, incarnation, epoch, kid } = copied;
    let full = format!("component/{name}");
    let place = copy_row(&full, incarnation, epoch);
    let kek = current_kek(conn, keks).await?.for_component(component);
    let encrypted_key = &kek.wrap(&mut OsRandom::default(), &place, key)?;
    let component = component.name();
    let row = CopyRow { component, name: &name, incarnation, epoch, kid, encrypted_key };
    component_keys::put(conn, &row, now).await
}

/// Copies a new key of a group for the types that are in it.
pub(super) async fn copy_group(
    conn: &mut Conn,
    keks: &KekRing,
    (id, group, epoch): (i64, &str, u32),
    key: &Secret<32>,
    now: i64,
) -> Result<()> {
    let types = component_keys::components(conn).await?;
    if types.is_empty() {
        return Ok(());
    }
    let members = groups::members(conn, id).await?;
    for (kind, name) in members {
        if kind == "component" && types.contains(&name) {
            let component = &Principal::component(&name)?;
            let name = group_name(&name, group);
            let copied = Copied { component, name, incarnation: 0, epoch, kid: None };
            put(conn, keks, copied, key.expose(), now).await?;
        }
    }
    Ok(())
}

/// A type that leaves a group reads none of its keys any more.
pub(super) async fn forget_group(conn: &mut Conn, component: &str, group: &str) -> Result<()> {
    component_keys::delete(conn, &group_name(component, group)).await
}

/// A removed agent's pair keys.
pub(super) async fn forget_agent(conn: &mut Conn, agent: &str) -> Result<()> {
    for component in component_keys::components(conn).await? {
        component_keys::delete(conn, &pair_name(&component, agent)).await?;
    }
    Ok(())
}

impl Keystore {
    /// Copies a pair key that was named, for a type that has a role.
    pub(super) async fn copy_pair(
        &self,
        conn: &mut Conn,
        agent: &Party,
        component: &str,
        (kid, pair_epoch): (&[u8], u32),
        k: &Secret<32>,
    ) -> Result<()> {
        let principal = Principal::component(component)?;
        let key = shared::pair_key(k, agent, &principal, pair_epoch);
        let copied = Copied {
            component: &principal,
            name: pair_name(component, agent.principal.name()),
            incarnation: agent.incarnation,
            epoch: pair_epoch,
            kid: Some(kid),
        };
        put(conn, &self.keks, copied, key.expose(), seconds(self.now())).await
    }

    /// Copies what component types with a database role need and do not have yet: after a type got
    /// its role, and after its pair keys were made anew. Gives how many copies were made.
    pub async fn fill_component_keys(&self) -> Result<u64> {
        let types = component_keys::components(&mut self.db.read().await?).await?;
        let mut made = 0;
        for component in &types {
            made += self.fill_common(component).await?;
            let mut after = String::new();
            loop {
                let (copied, last) = self.fill_pairs(component, &after).await?;
                made += copied;
                let Some(last) = last else { break };
                after = last;
            }
        }
        Ok(made)
    }

    /// The root public key, and keys of groups.
    async fn fill_common(&self, component: &str) -> Result<u64> {
        let principal = Principal::component(component)?;
        let now = seconds(self.now());
        let mut tx = self.db.write().await?;
        let mut made = 0;
        let name = root_name(component);
        let trust = self.trust();
        let epoch = trust.root_sequence();
        if !component_keys::is_there(&mut tx, &name, epoch).await? {
            let copied = Copied { component: &principal, name, incarnation: 0, epoch, kid: None };
            put(&mut tx, &self.keks, copied, trust.root().as_bytes(), now).await?;
            made += 1;
        }
        for (_, group, epoch) in groups::of(&mut tx, "component", component).await? {
            let name = group_name(component, &group);
            if component_keys::is_there(&mut tx, &name, epoch).await? {
                continue;
            }
            let key = super::groups::open_key(&mut tx, &self.keks, &group, Some(epoch)).await?;
            let Some((_, key)) = key else { continue };
            let copied = Copied { component: &principal, name, incarnation: 0, epoch, kid: None };
            put(&mut tx, &self.keks, copied, key.expose(), now).await?;
            made += 1;
        }
        tx.commit().await?;
        Ok(made)
    }

    /// One batch; gives how many it copied, and the last agent that it looked at.
    async fn fill_pairs(&self, component: &str, after: &str) -> Result<(u64, Option<String>)> {
        let now = self.now();
        let mut tx = self.db.write().await?;
        let rows = component_keys::pairs_without(&mut tx, component, after, BATCH).await?;
        let last = rows.last().map(|row| row.agent.clone());
        let mut made = 0;
        for row in rows {
            let kid = match &row.kid {
                Some(kid) => kid_from(kid)?,
                None => {
                    let (agent, component) = (row.agent_id, row.component_id);
                    self.name_pair(&mut tx, agent, component, row.pair_epoch, now).await?
                }
            };
            // What was revoked is not handed out anew.
            if revocation::is_listed(&mut tx, kid.as_bytes()).await? {
                continue;
            }
            let agent = Party::new(stored_agent(&row.agent)?, row.incarnation);
            let epoch = row.pair_epoch;
            let k = self.open_shared(&row)?;
            self.copy_pair(&mut tx, &agent, component, (kid.as_bytes(), epoch), &k).await?;
            made += 1;
        }
        tx.commit().await?;
        Ok((made, last))
    }
}
