//! Opening, and moving between schema versions.

use std::sync::Arc;

use bulla_seal::{TrustDomain, TrustStore, UnixTime};

use super::convert::{self, Converted};
use super::issue::{AGENT_LIFETIME, CREDENTIAL_LIFETIME};
use super::roots::{Trust, present_root};
use super::{Keystore, REWRAP_BATCH, Sources, from_column, groups, seconds, system_time};
use crate::address::StoreAddress;
use crate::db::{Conn, Db, migrations, roles, trust};
use crate::error::{KeystoreError, Result};
use crate::kek::{KekRing, Row};

/// The place of the root public key.
pub(super) fn root_row(domain: &str) -> Row<'_> {
    Row { table: "trust_domain", column: "encrypted_root", name: domain, incarnation: 0, epoch: 1 }
}

/// The first version with roots that followed another.
const ROOTS_SINCE: u32 = 11;

/// One step between two versions of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStep {
    /// The version that it brings about or takes back.
    pub version: u32,
    /// What it is called, such as `0002_groups`.
    pub name: &'static str,
    /// What it does, in the database's own words.
    pub sql: &'static str,
}

/// Which version the schema of a keystore has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaStatus {
    /// Its version.
    pub found: u32,
    /// The newest that this program knows, and the only one that it works with.
    pub known: u32,
    /// The version at which a change was interrupted (MariaDB only; elsewhere it is undone).
    pub interrupted: Option<u32>,
    /// What brought it there: version, name, when.
    pub applied: Vec<(u32, String, UnixTime)>,
}

impl Keystore {
    /// Opens the keystore at `address`: a path, or a [`StoreAddress`]. Refuses what is not one,
    /// one of another schema version and a key-encryption key that is not its own.
    pub async fn open(address: impl Into<StoreAddress>, keks: impl Into<KekRing>) -> Result<Self> {
        let (address, keks) = (address.into(), keks.into());
        let db = Db::open(&address).await?;
        let trust = {
            let mut conn = db.read().await?;
            migrations::check(&mut conn).await?;
            load_trust_at(&mut conn, &address, &keks).await?
        };
        Ok(Self::on(db, keks, trust))
    }

    /// With the clock of the machine, and lifetimes as they are unless somebody says otherwise.
    pub(super) fn on(db: Db, keks: KekRing, trust: TrustStore) -> Self {
        Self {
            db,
            keks,
            trust: Trust::new(trust),
            sources: Sources::default(),
            agent_life: AGENT_LIFETIME,
            key_life: CREDENTIAL_LIFETIME,
            issued: Arc::default(),
        }
    }

    /// Brings the schema of the keystore at `address` up to this program's version; gives the
    /// version that it had. Does nothing if it is there already, and finishes what was interrupted.
    pub async fn migrate(
        address: impl Into<StoreAddress>,
        keks: impl Into<KekRing>,
    ) -> Result<u32> {
        Self::migrate_in_batches(address, keks, REWRAP_BATCH, |_| {}).await
    }

    /// [`migrate`](Self::migrate), where rows have to be changed in batches of `batch`; `progress`
    /// is told after each. Whoever is cut off goes on where the last batch ended.
    pub async fn migrate_in_batches(
        address: impl Into<StoreAddress>,
        keks: impl Into<KekRing>,
        batch: u32,
        mut progress: impl FnMut(Converted),
    ) -> Result<u32> {
        let (address, keks) = (address.into(), keks.into());
        let db = Db::open(&address).await?;
        let (mut first, mut done) = (None, Vec::new());
        loop {
            let mut alter = db.alter().await?;
            load_trust_at(&mut alter, &address, &keks).await?;
            let now = seconds(system_time());
            let (found, step) = migrations::climb(&mut alter, now, &done).await?;
            alter.rows().await?;
            if step.is_none() {
                groups::ensure_every_agent(&mut alter, &keks, now).await?;
            }
            alter.commit().await?;
            let found = *first.get_or_insert(found);
            let Some(step) = step else {
                db.close().await;
                return Ok(found);
            };
            convert::run(step, &db, &keks, batch, &mut progress).await?;
            done.push(step);
        }
    }

    /// Takes the schema of the keystore at `address` back to version `to`, for an older program;
    /// gives the version that it had. What that version has no place for is lost: versions 1 to 3
    /// know nothing of join tokens and renewals, versions 1 and 2
    /// know nothing of revocation, floors and exemptions, version 1 has no groups. In versions 7 and
    /// 8 the secrets of access keys are in clear. Below version 1 nothing would be left, so it is
    /// refused.
    pub async fn revert(
        address: impl Into<StoreAddress>,
        keks: impl Into<KekRing>,
        to: u32,
    ) -> Result<u32> {
        Self::revert_in_batches(address, keks, to, REWRAP_BATCH, |_| {}).await
    }

    /// [`revert`](Self::revert), as [`migrate_in_batches`](Self::migrate_in_batches).
    pub async fn revert_in_batches(
        address: impl Into<StoreAddress>,
        keks: impl Into<KekRing>,
        to: u32,
        batch: u32,
        mut progress: impl FnMut(Converted),
    ) -> Result<u32> {
        if to == 0 {
            return Err(KeystoreError::RevertTooFar);
        }
        let (address, keks) = (address.into(), keks.into());
        let db = Db::open(&address).await?;
        let (mut first, mut done) = (None, Vec::new());
        loop {
            let mut alter = db.alter().await?;
            load_trust_at(&mut alter, &address, &keks).await?;
            no_roles(&mut alter).await?;
            if to < ROOTS_SINCE {
                no_roots(&mut alter).await?;
            }
            let (found, step) = migrations::descend(&mut alter, to, &done).await?;
            alter.commit().await?;
            let found = *first.get_or_insert(found);
            let Some(step) = step else {
                db.close().await;
                return Ok(found);
            };
            convert::run(step, &db, &keks, batch, &mut progress).await?;
            done.push(step);
        }
    }

    /// What [`migrate`](Self::migrate) would do now, step by step, without doing it.
    pub async fn plan_migrate(address: impl Into<StoreAddress>) -> Result<Vec<MigrationStep>> {
        let db = Db::open(&address.into()).await?;
        let mut conn = db.read().await?;
        let (found, dialect) = (migrations::version(&mut conn).await?, conn.dialect());
        drop(conn);
        db.close().await;
        let steps = migrations::above(found);
        Ok(steps.map(|step| (step.version, step.name, step.up(dialect)).into()).collect())
    }

    /// What [`revert`](Self::revert) would do now, step by step, without doing it.
    pub async fn plan_revert(
        address: impl Into<StoreAddress>,
        to: u32,
    ) -> Result<Vec<MigrationStep>> {
        if to == 0 {
            return Err(KeystoreError::RevertTooFar);
        }
        let db = Db::open(&address.into()).await?;
        let mut conn = db.read().await?;
        let (found, dialect) = (migrations::version(&mut conn).await?, conn.dialect());
        drop(conn);
        db.close().await;
        let steps = migrations::between(to, found);
        Ok(steps.map(|step| (step.version, step.name, step.down(dialect)).into()).collect())
    }

    /// Which version the schema of the keystore at `address` has.
    pub async fn schema_status(address: impl Into<StoreAddress>) -> Result<SchemaStatus> {
        let db = Db::open(&address.into()).await?;
        let mut conn = db.read().await?;
        let applied = migrations::applied(&mut conn).await?.into_iter();
        let status = SchemaStatus {
            found: migrations::version(&mut conn).await?,
            known: migrations::LATEST,
            interrupted: migrations::interrupted(&mut conn).await?,
            applied: applied.map(|(version, name, at)| (version, name, from_column(at))).collect(),
        };
        drop(conn);
        db.close().await;
        Ok(status)
    }

    /// The newest schema version that this program knows.
    pub const fn schema_version() -> u32 {
        migrations::LATEST
    }
}

/// Policies and views hang on tables and columns that are to go.
async fn no_roles(conn: &mut Conn) -> Result<()> {
    if !conn.has_table("database_roles").await? {
        return Ok(());
    }
    match roles::list(conn).await?.len() {
        0 => Ok(()),
        count => Err(KeystoreError::RolesInTheWay { count }),
    }
}

impl From<(u32, &'static str, &'static str)> for MigrationStep {
    fn from((version, name, sql): (u32, &'static str, &'static str)) -> Self {
        Self { version, name, sql }
    }
}

/// An older program would trust the first root, which signs no issuer any more.
async fn no_roots(conn: &mut Conn) -> Result<()> {
    if conn.has_table("roots").await? && trust::root(conn).await?.is_some() {
        return Err(KeystoreError::RootsInTheWay);
    }
    Ok(())
}

/// The same of a keystore of which it is not sure yet that it is one.
async fn load_trust_at(
    conn: &mut Conn,
    address: &StoreAddress,
    keks: &KekRing,
) -> Result<TrustStore> {
    if trust::domain(conn).await?.is_none() {
        return Err(KeystoreError::NotAKeystore { place: address.to_string() });
    }
    load_trust(conn, keks).await
}

/// The root key and the issuers, as far as the key-encryption key vouches for the one and the
/// root for the others.
pub(super) async fn load_trust(conn: &mut Conn, keks: &KekRing) -> Result<TrustStore> {
    let row = trust::domain(conn).await?;
    let row = row.ok_or_else(|| KeystoreError::damaged("trust domain"))?;
    // What new values are to be wrapped under; during a rotation the root key may be under the
    // other one still.
    keks.get(&row.kek_id)?;
    let domain = TrustDomain::new(&row.name).map_err(|_| KeystoreError::damaged("trust domain"))?;
    let (root, sequence) = present_root(conn, &row.name, keks, &row.encrypted_root).await?;
    let mut store = TrustStore::new(domain, root).with_roots(sequence, None);
    for credential in trust::issuer_credentials(conn).await? {
        store.add_issuer(&credential).map_err(|_| KeystoreError::damaged("issuer credential"))?;
    }
    Ok(store)
}
