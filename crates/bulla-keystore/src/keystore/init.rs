//! A new keystore: root key, issuers, group `all`.

use std::path::Path;
use std::sync::Arc;

use bulla_seal::{
    IssuerCredential, IssuerRight, OsRandom, SigningKey, TrustDomain, TrustStore, UnixTime,
    Validity,
};
use sqlx::sqlite::SqliteConnection;

use super::issue::{ISSUER_LIFETIME, SKEW, issuer_row};
use super::schema::root_row;
use super::{KID_TRIES, Keystore, Sources, groups, random_kid, seconds, system_time, to_column};
use crate::error::{KeystoreError, Result};
use crate::kek::Kek;
use crate::sqlite::trust::{self, DomainRow, IssuerRow};
use crate::sqlite::{Db, discard, mark, migrations};

/// A new keystore with the root key that it trusts.
#[derive(Debug)]
pub struct Initialized {
    /// The keystore.
    pub keystore: Keystore,
    /// The root key, which is stored nowhere: write it with
    /// [`root_key::create_file`](crate::root_key::create_file) and take it off the machine.
    pub root: SigningKey,
}

impl Keystore {
    /// Makes a root key and a keystore that trusts it (the library side of `bulla init`).
    pub async fn init(
        path: impl AsRef<Path>,
        domain: &TrustDomain,
        kek: Kek,
    ) -> Result<Initialized> {
        let root = SigningKey::generate(&mut OsRandom::default())?;
        let keystore = Self::create(path, domain, kek, &root).await?;
        Ok(Initialized { keystore, root })
    }

    /// Makes a keystore file `path` of mode 0600 for `domain`: the four issuers, signed by
    /// `root`, and group `all`. If anything fails, no file is left.
    pub async fn create(
        path: impl AsRef<Path>,
        domain: &TrustDomain,
        kek: Kek,
        root: &SigningKey,
    ) -> Result<Self> {
        let path = path.as_ref();
        let db = Db::create(path).await?;
        match fill(&db, domain, &kek, root, system_time()).await {
            Ok(trust) => Ok(Self { db, kek, trust: Arc::new(trust), sources: Sources::default() }),
            Err(e) => {
                db.close().await;
                discard(path);
                Err(e)
            }
        }
    }
}

async fn fill(
    db: &Db,
    domain: &TrustDomain,
    kek: &Kek,
    root: &SigningKey,
    now: UnixTime,
) -> Result<TrustStore> {
    let mut tx = db.write().await?;
    mark(&mut tx).await?;
    migrations::prepare(&mut tx).await?;
    migrations::up(&mut tx, seconds(now)).await?;
    insert_domain(&mut tx, domain, kek, root, now).await?;
    let mut trust = TrustStore::new(domain.clone(), root.verifying_key());
    for right in IssuerRight::ALL {
        insert_issuer(&mut tx, &mut trust, *right, kek, root, now).await?;
    }
    groups::create_every_agent(&mut tx, kek, seconds(now)).await?;
    tx.commit().await?;
    Ok(trust)
}

async fn insert_domain(
    conn: &mut SqliteConnection,
    domain: &TrustDomain,
    kek: &Kek,
    root: &SigningKey,
    now: UnixTime,
) -> Result<()> {
    let name = domain.as_str();
    let public = root.verifying_key();
    let encrypted_root =
        kek.wrap_key().wrap(&mut OsRandom::default(), &root_row(name), public.as_bytes())?;
    let row = DomainRow { name: name.to_owned(), encrypted_root, kek_id: kek.id().to_vec() };
    trust::insert_domain(conn, &row, seconds(now)).await
}

async fn insert_issuer(
    conn: &mut SqliteConnection,
    trust: &mut TrustStore,
    right: IssuerRight,
    kek: &Kek,
    root: &SigningKey,
    now: UnixTime,
) -> Result<()> {
    let epoch = 1;
    let key = SigningKey::generate(&mut OsRandom::default())?;
    let place = issuer_row(right, epoch);
    let encrypted_seed =
        kek.wrap_key().wrap(&mut OsRandom::default(), &place, key.seed().expose())?;
    let validity = Validity {
        not_before: now.secs().saturating_sub(SKEW.as_secs()),
        not_after: now.secs().saturating_add(ISSUER_LIFETIME.as_secs()),
    };
    let mut row = IssuerRow {
        right: right.as_str().to_owned(),
        epoch,
        credential: Vec::new(),
        encrypted_seed,
        not_after: to_column(validity.not_after),
    };
    for _ in 0..KID_TRIES {
        let kid = random_kid()?;
        let domain = trust.domain().clone();
        let credential =
            IssuerCredential { kid, domain, right, key: key.verifying_key(), validity }.sign(root);
        row.credential = credential.to_vec();
        if trust::insert_issuer(conn, kid.as_bytes(), &row, seconds(now)).await? {
            trust.add_issuer(&credential)?;
            return Ok(());
        }
    }
    Err(KeystoreError::NoFreeKid(KID_TRIES))
}
