//! Keys of services that keep what is not the keystore's: each derives from its own what it seals its
//! store with, so that the store opens as long as the keystore does, through every rotation of the
//! key-encryption key.

use bulla_seal::{OsRandom, Secret};

use super::{Keystore, current_kek, seconds};
use crate::db::{Conn, services};
use crate::error::Result;
use crate::kek::Row;

/// The epoch of a service's first key.
const FIRST: u32 = 1;

/// The place of a service's key.
fn place(name: &str, epoch: u32) -> Row<'_> {
    Row { table: "service_keys", column: "encrypted_key", name, incarnation: 0, epoch }
}

impl Keystore {
    /// The key of a service; made, and kept for good, when it is asked for first.
    ///
    /// # Errors
    /// The database can't be used, or the key does not open: then there is no other in its place.
    pub async fn service_key(&self, name: &str) -> Result<Secret<32>> {
        if let Some(key) = self.find_service_key(&mut self.db.read().await?, name).await? {
            return Ok(key);
        }
        let mut tx = self.db.write().await?;
        // Another process may have been quicker.
        if let Some(key) = self.find_service_key(&mut tx, name).await? {
            return Ok(key);
        }
        let kek = current_kek(&mut tx, &self.keks).await?;
        let random = &mut OsRandom::default();
        let key = Secret::generate(random)?;
        let wrapped = kek.wrap_key().wrap(random, &place(name, FIRST), key.expose())?;
        services::insert(&mut tx, name, (FIRST, &wrapped), seconds(self.now())).await?;
        tx.commit().await?;
        Ok(key)
    }

    async fn find_service_key(&self, conn: &mut Conn, name: &str) -> Result<Option<Secret<32>>> {
        let Some((epoch, wrapped)) = services::find(conn, name).await? else { return Ok(None) };
        let what = format!("key of the service {name}");
        self.keks.open_fixed(&place(name, epoch), &wrapped, what).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use bulla_seal::TrustDomain;

    use super::*;
    use crate::kek::Kek;
    use crate::{KeystoreError, REWRAP_BATCH};

    #[tokio::test]
    async fn a_services_key_is_made_once_and_lives_through_rotations() {
        let folder = tempfile::tempdir().unwrap();
        let kek = Kek::create_file(folder.path().join("kek")).unwrap();
        let domain = TrustDomain::new("cloud.example").unwrap();
        let path = folder.path().join("keystore.db");
        let keystore = Keystore::init(&path, &domain, &kek).await.unwrap().keystore;
        let (one, other) =
            tokio::join!(keystore.service_key("queue"), keystore.service_key("queue"));
        let key = one.unwrap();
        assert!(key.ct_eq(&other.unwrap()));
        assert!(!key.ct_eq(&keystore.service_key("other").await.unwrap()));
        let next = Kek::create_file(folder.path().join("next")).unwrap();
        keystore.rotate_kek(&next, REWRAP_BATCH, |_| ()).await.unwrap();
        keystore.close().await;
        // The former one is not needed any more; without the new one nothing else is made up.
        let keystore = Keystore::open(&path, &next).await.unwrap();
        assert!(key.ct_eq(&keystore.service_key("queue").await.unwrap()));
        let mut tx = keystore.db.write().await.unwrap();
        let swap = "UPDATE service_keys SET encrypted_key =
            (SELECT encrypted_key FROM service_keys WHERE name = 'other') WHERE name = 'queue'";
        tx.execute(swap, &[]).await.unwrap();
        tx.commit().await.unwrap();
        let error = keystore.service_key("queue").await.unwrap_err();
        assert!(matches!(error, KeystoreError::Damaged { .. }), "{error}");
    }
}
