//! Keys of peers that do not seal yet, out of Trove's database.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bulla_seal::{OsRandom, Principal};
use zeroize::Zeroizing;

use super::{Keystore, current_kek, seconds};
use crate::db::{Tx, legacy};
use crate::error::{KeystoreError, Result};
use crate::kek::Row;

/// Keys that one transaction stores.
const AT_ONCE: usize = 250;

/// What an import did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Instances whose key was not there.
    pub new: u64,
    /// Instances that had another key.
    pub changed: u64,
    /// Instances whose key was there already.
    pub unchanged: u64,
}

/// The place of an instance's key.
fn place(name: &str, epoch: u32) -> Row<'_> {
    Row { table: "legacy_keys", column: "encrypted_key", name, incarnation: 0, epoch }
}

impl Keystore {
    /// Stores keys of instances, by the agent that each is or will be; what is there already stays. With
    /// `dry_run` it only says what it would do.
    ///
    /// # Errors
    /// The database can't be used. What was stored before it failed stays, and can be stored again.
    pub async fn import_legacy_keys(
        &self,
        keys: &[(Principal, Zeroizing<String>)],
        dry_run: bool,
    ) -> Result<Imported> {
        let mut done = Imported::default();
        for some in keys.chunks(AT_ONCE) {
            let mut tx = self.db.write().await?;
            for (agent, key) in some {
                self.import_one(&mut tx, (agent.name(), key), dry_run, &mut done).await?;
            }
            if !dry_run {
                tx.commit().await?;
            }
        }
        Ok(done)
    }

    async fn import_one(
        &self,
        tx: &mut Tx,
        (name, key): (&str, &str),
        dry_run: bool,
        done: &mut Imported,
    ) -> Result<()> {
        let there = legacy::find(tx, name).await?;
        let epoch = match &there {
            Some((epoch, wrapped)) => {
                let held = self.open_legacy(name, *epoch, wrapped)?;
                if verify_slices_are_equal(held.as_bytes(), key.as_bytes()).is_ok() {
                    done.unchanged += 1;
                    return Ok(());
                }
                done.changed += 1;
                epoch.saturating_add(1)
            }
            None => {
                done.new += 1;
                1
            }
        };
        if dry_run {
            return Ok(());
        }
        let kek = current_kek(tx, &self.keks).await?;
        let full = format!("agent/{name}");
        let random = &mut OsRandom::default();
        let wrapped = kek.wrap_key().wrap(random, &place(&full, epoch), key.as_bytes())?;
        let now = seconds(self.now());
        match there {
            Some(_) => legacy::set(tx, name, (epoch, &wrapped), now).await,
            None => legacy::insert(tx, name, &wrapped, now).await,
        }
    }

    fn open_legacy(&self, name: &str, epoch: u32, wrapped: &[u8]) -> Result<Zeroizing<String>> {
        let what = || format!("legacy key of agent/{name}");
        let opened = self.keks.open(&place(&format!("agent/{name}"), epoch), wrapped, what())?;
        let text = std::str::from_utf8(&opened).map_err(|_| KeystoreError::damaged(what()))?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// The keys of living agents that were imported. A revoked agent's is not among them.
    pub async fn legacy_keys(&self) -> Result<Vec<(Principal, Zeroizing<String>)>> {
        let rows = legacy::of_the_living(&mut self.db.read().await?).await?;
        let mut keys = Vec::with_capacity(rows.len());
        for (name, epoch, wrapped) in rows {
            let key = self.open_legacy(&name, epoch, &wrapped)?;
            let agent = Principal::agent(&name);
            keys.push((agent.map_err(|_| KeystoreError::damaged("agent's name"))?, key));
        }
        Ok(keys)
    }

    /// How many imported keys are of instances that are no living agent.
    pub async fn legacy_keys_without_agent(&self) -> Result<u64> {
        Ok(legacy::without_agent(&mut self.db.read().await?).await?.unsigned_abs())
    }
}
