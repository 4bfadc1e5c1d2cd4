//! A new keystore: root key, issuers, group `all`.

use bulla_seal::{
    IssuerCredential, IssuerRight, OsRandom, SigningKey, TrustDomain, TrustStore, UnixTime,
    Validity,
};

use super::issue::{ISSUER_LIFETIME, SKEW, issuer_row};
use super::schema::root_row;
use super::{KID_TRIES, Keystore, groups, random_kid, seconds, system_time, to_column};
use crate::address::StoreAddress;
use crate::db::trust::{self, DomainRow, IssuerRow};
use crate::db::{Conn, Db, Dialect, discard, mark, migrations};
use crate::error::{KeystoreError, Result};
use crate::kek::{Kek, KekRing};

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
    /// Makes a root key and a keystore at `address` that trusts it (the library side of
    /// `bulla init`).
    pub async fn init(
        address: impl Into<StoreAddress>,
        domain: &TrustDomain,
        keks: impl Into<KekRing>,
    ) -> Result<Initialized> {
        let root = SigningKey::generate(&mut OsRandom::default())?;
        let keystore = Self::create(address, domain, keks, &root).await?;
        Ok(Initialized { keystore, root })
    }

    /// Makes a keystore for `domain` at `address`, a file of mode 0600 or tables in a server's
    /// database: the four issuers, signed by `root`, and group `all`. If anything fails, no file is
    /// left, and of tables at the most empty ones (in MariaDB), which the next attempt takes.
    pub async fn create(
        address: impl Into<StoreAddress>,
        domain: &TrustDomain,
        keks: impl Into<KekRing>,
        root: &SigningKey,
    ) -> Result<Self> {
        let (address, keks) = (address.into(), keks.into());
        let kek = keks.first().ok_or_else(|| keks.none())?;
        let db = Db::create(&address).await?;
        match fill(&db, &address, domain, (&kek, &keks), root).await {
            Ok(trust) => Ok(Self::on(db, keks, trust)),
            Err(e) => {
                db.close().await;
                if let Some(path) = address.file() {
                    discard(path);
                }
                Err(e)
            }
        }
    }
}

async fn fill(
    db: &Db,
    address: &StoreAddress,
    domain: &TrustDomain,
    (kek, keks): (&Kek, &KekRing),
    root: &SigningKey,
) -> Result<TrustStore> {
    let now = system_time();
    let mut alter = db.alter().await?;
    if alter.dialect() == Dialect::Sqlite {
        mark(&mut alter).await?;
    } else if is_taken(&mut alter).await? {
        return Err(KeystoreError::Exists { place: address.to_string() });
    }
    migrations::prepare(&mut alter).await?;
    migrations::up(&mut alter, seconds(now)).await?;
    alter.rows().await?;
    insert_domain(&mut alter, domain, kek, root, now).await?;
    let mut trust = TrustStore::new(domain.clone(), root.verifying_key());
    for right in IssuerRight::ALL {
        insert_issuer(&mut alter, &mut trust, *right, kek, root, now).await?;
    }
    groups::create_every_agent(&mut alter, keks, seconds(now)).await?;
    alter.commit().await?;
    Ok(trust)
}

/// Whether a server's database holds a keystore, or tables of something else that has our names.
async fn is_taken(conn: &mut Conn) -> Result<bool> {
    if conn.has_table("trust_domain").await? {
        // Empty tables are what an interrupted attempt left.
        let ours = conn.has_table("schema_version").await?;
        return Ok(!ours || trust::domain(conn).await?.is_some());
    }
    for name in ["issuers", "principals", "credentials", "instance_keys", "pair_keys"] {
        if conn.has_table(name).await? {
            return Ok(true);
        }
    }
    // MariaDB's from such an attempt has a column that no other program's has.
    Ok(conn.dialect() != Dialect::MariaDb && conn.has_table("schema_version").await?)
}

async fn insert_domain(
    conn: &mut Conn,
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
    conn: &mut Conn,
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
