//! The keystore as the hosts of one component type read it, with a database role and a KEK of the
//! type's own.

use std::fmt;

use bulla_seal::{
    GroupKey, GroupName, KemSecretKey, Kid, Party, Principal, SignedCredential, SignedStatement,
    TrustDomain, TrustStore, UnixTime, VerifyingKey,
};

use super::copies::{copy_row, group_name, pair_name, root_name};
use super::{Keystore, PairKey, PeerKeys, SKEW, kid_from, seconds};
use crate::address::StoreAddress;
use crate::db::component_keys::{self, receive_sql};
use crate::db::{Db, migrations, principals, revocation, rotation, trust};
use crate::error::{KeystoreError, Result};
use crate::kek::KekRing;

/// The keystore as the hosts of one component type read it: their own keys, peers' public
/// credentials, the newest statement of revocation. It writes nothing and issues nothing.
///
/// It needs a login that `bulla db grants` made, and the type's part of the KEK
/// ([`Kek::for_type`](crate::Kek::for_type)); with those nobody reads another type's keys.
#[derive(Clone)]
pub struct ComponentKeystore {
    inner: Keystore,
    component: Principal,
}

impl ComponentKeystore {
    /// Opens the keystore at `address` for hosts of `component`.
    ///
    /// # Errors
    /// [`KeystoreError::NotFilled`] until the control plane has put the type's keys there.
    pub async fn open(
        address: impl Into<StoreAddress>,
        keks: impl Into<KekRing>,
        component: &Principal,
    ) -> Result<Self> {
        if !component.is_component() {
            return Err(KeystoreError::NotAPair(component.clone()));
        }
        let (address, keks) = (address.into(), keks.into());
        let db = Db::open(&address).await?;
        let mut conn = db.read().await?;
        migrations::check(&mut conn).await?;
        let name = trust::domain_name(&mut conn).await?;
        let name =
            name.ok_or_else(|| KeystoreError::NotAKeystore { place: address.to_string() })?;
        let domain = TrustDomain::new(&name).map_err(|_| KeystoreError::damaged("trust domain"))?;
        let root = component_keys::find(&mut conn, &root_name(component.name()), None).await?;
        let Some((sequence, root)) = root else {
            return Err(KeystoreError::NotFilled(component.clone()));
        };
        let full = format!("component/{}", root_name(component.name()));
        let root =
            keks.open_for(component, &copy_row(&full, 0, sequence), &root, "root public key")?;
        let root: [u8; 32] =
            root.as_slice().try_into().map_err(|_| KeystoreError::damaged("root public key"))?;
        let mut store = TrustStore::new(domain, VerifyingKey(root)).with_roots(sequence, None);
        for credential in trust::issuer_credentials(&mut conn).await? {
            store
                .add_issuer(&credential)
                .map_err(|_| KeystoreError::damaged("issuer credential"))?;
        }
        drop(conn);
        Ok(Self { inner: Keystore::on(db, keks, store), component: component.clone() })
    }

    /// With another clock, for tests and for machines whose time comes from elsewhere.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        Self { inner: self.inner.with_clock(clock), ..self }
    }

    /// The root public key, the trust domain and the issuers.
    pub fn trust_store(&self) -> TrustStore {
        self.inner.trust_store()
    }

    /// The living holder of a name, with its incarnation.
    pub async fn party(&self, principal: &Principal) -> Result<Party> {
        self.inner.party(principal).await
    }

    /// A peer's current credential.
    pub async fn credential(&self, principal: &Principal) -> Result<SignedCredential> {
        self.inner.credential(principal).await
    }

    /// What this type seals to `peer` with.
    pub async fn peer(&self, peer: &Principal) -> Result<PeerKeys> {
        if peer.is_component() {
            return Ok(PeerKeys::Pair(self.credential(peer).await?));
        }
        let row = {
            let mut conn = self.inner.db.read().await?;
            principals::active(&mut conn, "agent", peer.name()).await?
        };
        let row = row.ok_or_else(|| KeystoreError::UnknownPrincipal(peer.clone()))?;
        match row.key_type.as_str() {
            "shared" => Ok(PeerKeys::Shared(self.pair_key(peer).await?)),
            _ => Ok(PeerKeys::Pair(self.credential(peer).await?)),
        }
    }

    /// This type's current pair key with a shared-key agent.
    ///
    /// # Errors
    /// [`KeystoreError::NotFilled`] where the control plane has made none yet.
    pub async fn pair_key(&self, agent: &Principal) -> Result<PairKey> {
        if !agent.is_agent() {
            return Err(KeystoreError::NotAPair(agent.clone()));
        }
        let name = pair_name(self.component.name(), agent.name());
        let found = {
            let mut conn = self.inner.db.read().await?;
            component_keys::pair(&mut conn, &name, agent.name(), self.component.name()).await?
        };
        let Some((incarnation, epoch, kid, wrapped)) = found else {
            return Err(self.missing(agent).await);
        };
        let agent = Party::new(agent.clone(), incarnation);
        self.open_pair(agent, (kid_from(&kid)?, epoch), &wrapped)
    }

    /// Why there is no pair key.
    async fn missing(&self, agent: &Principal) -> KeystoreError {
        let found = async {
            let mut conn = self.inner.db.read().await?;
            principals::active(&mut conn, "agent", agent.name()).await
        };
        match found.await {
            Err(error) => error,
            Ok(None) => KeystoreError::UnknownPrincipal(agent.clone()),
            Ok(Some(row)) if row.key_type != "shared" => KeystoreError::NotShared(agent.clone()),
            Ok(Some(_)) => KeystoreError::NotFilled(self.component.clone()),
        }
    }

    /// The pair key of this type that a message's header names, if the agent lives.
    pub async fn pair_by_kid(&self, kid: Kid) -> Result<Option<PairKey>> {
        let component = self.component.name();
        let found = {
            let mut conn = self.inner.db.read().await?;
            component_keys::by_kid(&mut conn, component, kid.as_bytes()).await?
        };
        let Some((name, incarnation, epoch, wrapped)) = found else { return Ok(None) };
        let agent = name.strip_prefix(&pair_name(component, "")).map(Principal::agent);
        let agent = agent.and_then(Result::ok);
        let agent = agent.ok_or_else(|| KeystoreError::damaged("name of a pair key"))?;
        match self.party(&agent).await {
            Ok(party) if party.incarnation == incarnation => {
                Ok(Some(self.open_pair(party, (kid, epoch), &wrapped)?))
            }
            Ok(_) | Err(KeystoreError::UnknownPrincipal(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_pair(&self, agent: Party, (kid, epoch): (Kid, u32), wrapped: &[u8]) -> Result<PairKey> {
        let component = self.component.clone();
        let full = format!("component/{}", pair_name(component.name(), agent.principal.name()));
        let what = format!("pair key of {component} with {}", agent.principal);
        let place = copy_row(&full, agent.incarnation, epoch);
        let key = self.inner.keks.open_fixed_for(&component, &place, wrapped, what)?;
        Ok(PairKey { kid, key, agent, component, epoch })
    }

    /// The key of a group that this type is in: of `epoch`, or the newest.
    pub async fn group_key(&self, group: &GroupName, epoch: Option<u32>) -> Result<GroupKey> {
        let name = group_name(self.component.name(), group.as_str());
        let found = {
            let mut conn = self.inner.db.read().await?;
            component_keys::find(&mut conn, &name, epoch).await?
        };
        let Some((epoch, wrapped)) = found else {
            return Err(KeystoreError::NotAMember {
                component: self.component.clone(),
                group: group.clone(),
            });
        };
        let full = format!("component/{name}");
        let what = format!("key of {group}");
        let place = copy_row(&full, 0, epoch);
        let key = self.inner.keks.open_fixed_for(&self.component, &place, &wrapped, what)?;
        Ok(GroupKey { group: group.clone(), epoch, key })
    }

    /// What every host of this type receives with, newest first; at least one.
    pub async fn receive_keys(&self) -> Result<Vec<(KemSecretKey, SignedCredential)>> {
        let now = self.inner.now();
        let rows = {
            let mut conn = self.inner.db.read().await?;
            let sql = receive_sql(conn.dialect());
            rotation::receive_by(&mut conn, &sql, self.component.name(), seconds(now)).await?
        };
        if rows.is_empty() {
            return Err(KeystoreError::NoCredential(self.component.clone()));
        }
        rows.iter().map(|row| self.inner.receive_key(&self.component, row, now)).collect()
    }

    /// The newest statement of revocation, while it is current.
    ///
    /// # Errors
    /// [`KeystoreError::NoStatement`] if the control plane has not issued one for too long.
    pub async fn statement(&self) -> Result<SignedStatement> {
        let bytes = revocation::statement(&mut self.inner.db.read().await?).await?;
        let bytes = bytes.ok_or(KeystoreError::NoStatement)?;
        let kept = self.inner.trust().verify_statement(&bytes);
        let kept = kept.map_err(|_| KeystoreError::damaged("statement of revocation"))?;
        let end = kept.not_after.saturating_add(SKEW.as_secs());
        if end <= self.inner.now().secs() {
            return Err(KeystoreError::NoStatement);
        }
        Ok(kept)
    }

    /// Closes the database.
    pub async fn close(self) {
        self.inner.close().await;
    }
}

impl fmt::Debug for ComponentKeystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentKeystore")
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}
