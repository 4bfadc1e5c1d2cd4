//! The root key is followed by another: the old and the new one announce it together, off this
//! machine, and the keystore takes over what they signed (protocol section 17).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bulla_seal::{
    IssuerCredential, OsRandom, Refusal, RootAnnouncement, SigningKey, TrustDomain, TrustStore,
    UnixTime, Validity, VerifyingKey,
};
use bytes::Bytes;
use parking_lot::RwLock;

use super::issue::ISSUER_LIFETIME;
use super::schema::{load_trust, root_row};
use super::{Keystore, current_kek, seconds, to_column};
use crate::db::trust::{self, RootRow};
use crate::db::{Conn, news};
use crate::error::{KeystoreError, Result};
use crate::kek::Row;

/// How long a former root counts unless the operator says otherwise: as long as agents' credentials
/// live, for whoever was off for longer has to join again anyway.
pub const ROOT_OVERLAP: Duration = super::AGENT_LIFETIME;
/// Most announcements that are handed out at once; whoever is further behind asks again.
pub const ROOTS_AT_ONCE: u32 = 16;

/// The place of a root public key that followed another.
pub(super) fn followed_row(domain: &str, sequence: u32) -> Row<'_> {
    Row { table: "roots", column: "encrypted_root", name: domain, incarnation: 0, epoch: sequence }
}

/// What the roots need to know to announce the next one; nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootState {
    /// The trust domain.
    pub domain: TrustDomain,
    /// The root that is trusted now.
    pub root: VerifyingKey,
    /// Its sequence.
    pub sequence: u32,
    /// The issuers' credentials, as it signed them.
    pub issuers: Vec<Bytes>,
}

/// What the old and the new root signed, for the keystore to [take over](Keystore::install_root);
/// nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootHandover {
    /// The announcement.
    pub announcement: Bytes,
    /// The same issuers' credentials, as the new root signed them.
    pub issuers: Vec<Bytes>,
}

/// A root that was trusted, or is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRecord {
    /// Counts from 1.
    pub sequence: u32,
    /// The public key; unknown of roots before the present one.
    pub key: VerifyingKey,
    /// When it came; `None` of the first one.
    pub since: Option<u64>,
    /// When it ends, in Unix seconds; `None` of the present one.
    pub until: Option<u64>,
}

impl RootState {
    /// Announces `new` as the root that follows `old`, whose overlap is `overlap` from `now`, and
    /// signs the issuers with it, for [five years](ISSUER_LIFETIME) from `now`. Needs no keystore:
    /// this is for the machine that the root keys are on.
    ///
    /// # Errors
    /// [`KeystoreError::RootKey`] if `old` is not the root that is trusted now;
    /// [`KeystoreError::Root`] if what is asked for is not well formed.
    pub fn hand_over(
        &self,
        old: &SigningKey,
        new: &SigningKey,
        overlap: Duration,
        now: UnixTime,
    ) -> Result<RootHandover> {
        if old.verifying_key() != self.root {
            return Err(KeystoreError::RootKey { sequence: self.sequence });
        }
        let mut trust = TrustStore::new(self.domain.clone(), self.root);
        let announcement = RootAnnouncement {
            domain: self.domain.clone(),
            sequence: self.sequence.saturating_add(1),
            old: self.root,
            new: new.verifying_key(),
            issued_at: now.secs(),
            until: now.secs().saturating_add(overlap.as_secs()),
        };
        let mut issuers = Vec::with_capacity(self.issuers.len());
        for bytes in &self.issuers {
            // Nothing is signed that the old root did not sign.
            let mut issuer: IssuerCredential =
                trust.add_issuer(bytes).map_err(KeystoreError::Root)?.clone();
            let end = &mut issuer.validity.not_after;
            *end = (*end).max(now.secs().saturating_add(ISSUER_LIFETIME.as_secs()));
            issuers.push(issuer.sign(new));
        }
        Ok(RootHandover {
            announcement: announcement.sign(old, new).map_err(KeystoreError::Root)?,
            issuers,
        })
    }
}

/// What the keystore trusts. All clones of a keystore share it.
#[derive(Clone)]
pub(super) struct Trust(Arc<RwLock<Arc<TrustStore>>>);

impl Trust {
    pub(super) fn new(store: TrustStore) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(store))))
    }

    pub(super) fn get(&self) -> Arc<TrustStore> {
        self.0.read().clone()
    }

    fn set(&self, store: TrustStore) {
        let mut held = self.0.write();
        // Whoever read before a new root came is late with what it read.
        if store.root_sequence() >= held.root_sequence() {
            *held = Arc::new(store);
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Keystore {
    /// What the roots need to know to announce the next one.
    pub async fn root_state(&self) -> Result<RootState> {
        self.refresh_roots().await?;
        let trust = self.trust();
        Ok(RootState {
            domain: trust.domain().clone(),
            root: *trust.root(),
            sequence: trust.root_sequence(),
            issuers: trust.issuers().map(|(_, bytes)| bytes.clone()).collect(),
        })
    }

    /// Takes over what the old and the new root signed: from now on the new root is what new agents
    /// trust, and who asks is told of it. Of several that follow one root, the first counts.
    ///
    /// # Errors
    /// [`KeystoreError::Root`] if the announcement does not follow the root that is trusted now;
    /// [`KeystoreError::RootIssuers`] if the issuers are not the same.
    pub async fn install_root(&self, handover: &RootHandover) -> Result<RootAnnouncement> {
        let now = self.now();
        let mut tx = self.db.write().await?;
        let mut present = load_trust(&mut tx, &self.keks).await?;
        let issuers: Vec<IssuerCredential> =
            present.issuers().map(|(issuer, _)| issuer.clone()).collect();
        let announced =
            present.take_root(&handover.announcement, now).map_err(KeystoreError::Root)?;
        let announced = announced.ok_or(KeystoreError::Root(Refusal::RootStale))?;
        let mut next = TrustStore::new(present.domain().clone(), announced.new)
            .with_roots(announced.sequence, None);
        for bytes in &handover.issuers {
            next.add_issuer(bytes).map_err(|_| KeystoreError::RootIssuers)?;
        }
        if next.issuers().count() != issuers.len() {
            return Err(KeystoreError::RootIssuers);
        }
        for former in &issuers {
            let same = |issuer: &IssuerCredential| {
                let end = issuer.validity.not_after;
                let as_long = Validity { not_after: end, ..former.validity };
                end >= former.validity.not_after
                    && *issuer == IssuerCredential { validity: as_long, ..former.clone() }
            };
            let signed = next.issuers().find(|(issuer, _)| same(issuer));
            let (issuer, bytes) = signed.ok_or(KeystoreError::RootIssuers)?;
            let end = to_column(former.validity.not_after);
            trust::set_issuer(&mut tx, issuer.kid.as_bytes(), bytes, end).await?;
        }
        self.insert_root(&mut tx, &announced, &handover.announcement, now).await?;
        news::tell(&mut tx).await?;
        tx.commit().await?;
        self.trust.set(next);
        Ok(announced)
    }

    async fn insert_root(
        &self,
        conn: &mut Conn,
        announced: &RootAnnouncement,
        bytes: &[u8],
        now: UnixTime,
    ) -> Result<()> {
        let kek = current_kek(conn, &self.keks).await?;
        let place = followed_row(announced.domain.as_str(), announced.sequence);
        let wrapped =
            kek.wrap_key().wrap(&mut OsRandom::default(), &place, announced.new.as_bytes())?;
        let row = RootRow {
            sequence: announced.sequence,
            encrypted_root: wrapped,
            announcement: bytes.to_vec(),
            former_until: to_column(announced.until),
        };
        trust::insert_root(conn, &row, seconds(now)).await
    }

    /// Takes over what other processes made of roots and issuers; whether there was anything.
    pub async fn refresh_roots(&self) -> Result<bool> {
        let mut conn = self.db.read().await?;
        let sequence = trust::newest_root(&mut conn).await?;
        let issuers = trust::issuer_credentials(&mut conn).await?;
        let known = self.trust();
        let same = known.root_sequence() == sequence
            && known.issuers().count() == issuers.len()
            && known
                .issuers()
                .all(|(_, bytes)| issuers.iter().any(|issuer| issuer[..] == bytes[..]));
        if same {
            return Ok(false);
        }
        let read = load_trust(&mut conn, &self.keks).await?;
        // Somebody who puts an old database in its place changes nothing here.
        if read.root_sequence() < known.root_sequence() {
            return Err(KeystoreError::Root(Refusal::RootStale));
        }
        self.trust.set(read);
        Ok(true)
    }

    /// The announcements of roots after `sequence`, in their order, at most
    /// [`ROOTS_AT_ONCE`].
    pub async fn root_announcements(&self, sequence: u32) -> Result<Vec<Bytes>> {
        let mut conn = self.db.read().await?;
        let rows = trust::announcements(&mut conn, sequence, ROOTS_AT_ONCE).await?;
        Ok(rows.into_iter().map(|(_, bytes)| bytes.into()).collect())
    }

    /// Every root that there was, newest first.
    pub async fn list_roots(&self) -> Result<Vec<RootRecord>> {
        self.refresh_roots().await?;
        let rows = trust::announcements(&mut self.db.read().await?, 0, u32::MAX).await?;
        let trust = self.trust();
        let present = RootRecord {
            sequence: trust.root_sequence(),
            key: *trust.root(),
            since: None,
            until: None,
        };
        let mut records = vec![present];
        for (_, bytes) in rows.iter().rev() {
            let claims = RootAnnouncement::claimed(bytes).map_err(KeystoreError::Root)?;
            if let Some(after) = records.last_mut() {
                after.since = Some(claims.issued_at);
            }
            let sequence = claims.sequence.saturating_sub(1);
            let (key, until) = (claims.old, Some(claims.until));
            records.push(RootRecord { sequence, key, since: None, until });
        }
        Ok(records)
    }
}

/// The root public key that is trusted now, with its sequence.
pub(super) async fn present_root(
    conn: &mut Conn,
    domain: &str,
    keks: &crate::kek::KekRing,
    first: &[u8],
) -> Result<(VerifyingKey, u32)> {
    let what = "root public key";
    let followed = match conn.has_table("roots").await? {
        true => trust::root(conn).await?,
        // A schema from before.
        false => None,
    };
    let (key, sequence) = match followed {
        Some((sequence, wrapped)) => {
            (keks.open_fixed::<32>(&followed_row(domain, sequence), &wrapped, what)?, sequence)
        }
        None => {
            (keks.open_fixed::<32>(&root_row(domain), first, what)?, bulla_seal::root::FIRST_ROOT)
        }
    };
    Ok((VerifyingKey(*key.expose()), sequence))
}
