//! Opening, and moving between schema versions.

use std::path::Path;
use std::sync::Arc;

use bulla_seal::{TrustDomain, TrustStore, VerifyingKey};
use sqlx::sqlite::SqliteConnection;

use super::{Keystore, Sources, groups, seconds, system_time};
use crate::error::{KeystoreError, Result};
use crate::kek::{Kek, Row};
use crate::sqlite::{Db, migrations, trust};

/// The place of the root public key.
pub(super) fn root_row(domain: &str) -> Row<'_> {
    Row { table: "trust_domain", column: "encrypted_root", name: domain, incarnation: 0, epoch: 1 }
}

impl Keystore {
    /// Opens the keystore file `path`. Refuses a file that is not one, one of another schema
    /// version and a key-encryption key that is not its own.
    pub async fn open(path: impl AsRef<Path>, kek: Kek) -> Result<Self> {
        let path = path.as_ref();
        let db = Db::open(path).await?;
        let trust = {
            let mut conn = db.read().await?;
            migrations::check(&mut conn).await?;
            load_trust(&mut conn, path, &kek).await?
        };
        Ok(Self { db, kek, trust: Arc::new(trust), sources: Sources::default() })
    }

    /// Brings the schema of the keystore file `path` up to this program's version; gives the
    /// version that it had. Does nothing if it is there already.
    pub async fn migrate(path: impl AsRef<Path>, kek: &Kek) -> Result<u32> {
        let path = path.as_ref();
        let db = Db::open(path).await?;
        let mut tx = db.write().await?;
        load_trust(&mut tx, path, kek).await?;
        let now = seconds(system_time());
        let found = migrations::up(&mut tx, now).await?;
        if found < migrations::GROUPS {
            groups::create_every_agent(&mut tx, kek, now).await?;
        }
        tx.commit().await?;
        db.close().await;
        Ok(found)
    }

    /// Takes the schema of the keystore file `path` back to version `to`, for an older program;
    /// gives the version that it had. What that version has no place for is lost: versions 1 and 2
    /// know nothing of revocation, floors and exemptions, version 1 has no groups. Below version 1 nothing would be left, so it is refused.
    pub async fn revert(path: impl AsRef<Path>, kek: &Kek, to: u32) -> Result<u32> {
        if to == 0 {
            return Err(KeystoreError::RevertTooFar);
        }
        let path = path.as_ref();
        let db = Db::open(path).await?;
        let mut tx = db.write().await?;
        load_trust(&mut tx, path, kek).await?;
        let found = migrations::down(&mut tx, to).await?;
        tx.commit().await?;
        db.close().await;
        Ok(found)
    }

    /// The newest schema version that this program knows.
    pub const fn schema_version() -> u32 {
        migrations::LATEST
    }
}

/// The root key and the issuers, as far as the key-encryption key vouches for the one and the
/// root for the others.
async fn load_trust(conn: &mut SqliteConnection, path: &Path, kek: &Kek) -> Result<TrustStore> {
    let row = trust::domain(conn).await?;
    let row = row.ok_or_else(|| KeystoreError::NotAKeystore { path: path.into() })?;
    if row.kek_id != kek.id() {
        return Err(KeystoreError::WrongKek);
    }
    let domain = TrustDomain::new(&row.name).map_err(|_| KeystoreError::damaged("trust domain"))?;
    let root = kek
        .wrap_key()
        .unwrap_fixed::<32>(&root_row(&row.name), &row.encrypted_root)
        .map_err(|e| KeystoreError::unwrap_failed(e, "root public key"))?;
    let mut store = TrustStore::new(domain, VerifyingKey(*root.expose()));
    for credential in trust::issuer_credentials(conn).await? {
        store.add_issuer(&credential).map_err(|_| KeystoreError::damaged("issuer credential"))?;
    }
    Ok(store)
}
