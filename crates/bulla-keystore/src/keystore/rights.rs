//! Database roles: see [`rights`](crate::rights).

use super::{Keystore, seconds, system_time};
use crate::address::StoreAddress;
use crate::db::{Db, Dialect, roles};
use crate::error::Result;
use crate::kek::KekRing;
use crate::rights::{DatabaseLogin, DatabaseRole, GrantsState, Plan, RolePassword, apply};

impl Keystore {
    /// What [`apply_grants`](Self::apply_grants) would do now, without doing it.
    ///
    /// # Errors
    /// [`KeystoreError::NoRoles`](crate::KeystoreError::NoRoles) for a file.
    pub async fn plan_grants(address: impl Into<StoreAddress>) -> Result<Plan> {
        apply::plan(&address.into(), seconds(system_time())).await
    }

    /// What [`revert_grants`](Self::revert_grants) would do now, without doing it.
    pub async fn plan_revert_grants(address: impl Into<StoreAddress>) -> Result<Plan> {
        apply::plan_revert(&address.into(), seconds(system_time())).await
    }

    /// Makes a database role for each component type and one for auditors, brings those that are
    /// there up to date, and copies the keys that component types read. `address` is that of the
    /// tables' owner, who has to be allowed to make roles. `password` is asked for each role's.
    pub async fn apply_grants(
        address: impl Into<StoreAddress>,
        keks: impl Into<KekRing>,
        mut password: impl FnMut(&DatabaseRole) -> Result<RolePassword>,
    ) -> Result<GrantsState> {
        let address = address.into();
        let keystore = Self::open(&address, keks).await?;
        let state = apply::apply(&address, seconds(system_time()), &mut password).await?;
        keystore.fill_component_keys().await?;
        keystore.close().await;
        Ok(state)
    }

    /// Takes all roles back, with their rights, and the copies of keys; gives the roles.
    pub async fn revert_grants(address: impl Into<StoreAddress>) -> Result<Vec<DatabaseRole>> {
        apply::revert(&address.into(), seconds(system_time())).await
    }

    /// The database roles that were made for the keystore at `address`; none in a file.
    pub async fn database_roles(address: impl Into<StoreAddress>) -> Result<Vec<DatabaseRole>> {
        let db = Db::open(&address.into()).await?;
        let mut conn = db.read().await?;
        let rows = match conn.has_table("database_roles").await? {
            true => roles::list(&mut conn).await?,
            false => Vec::new(),
        };
        drop(conn);
        db.close().await;
        Ok(rows.into_iter().map(|(name, component)| DatabaseRole { name, component }).collect())
    }

    /// As whom this keystore is open on its server; `None` for a file.
    pub async fn database_login(&self) -> Result<Option<DatabaseLogin>> {
        let mut conn = self.db.read().await?;
        if conn.dialect() == Dialect::Sqlite {
            return Ok(None);
        }
        let (user, superuser, owner) = roles::login(&mut conn).await?;
        Ok(Some(DatabaseLogin { user, superuser, owner }))
    }

    /// Component types without a database role, where the control plane has one.
    pub async fn components_without_role(&self) -> Result<Vec<String>> {
        let known = roles::list(&mut self.db.read().await?).await?;
        if !apply::are_used(&known) {
            return Ok(Vec::new());
        }
        let types = self.list_components().await?.into_iter();
        let names = types.map(|record| record.party.principal.name().to_owned());
        Ok(names
            .filter(|name| known.iter().all(|(_, of)| of.as_deref() != Some(name.as_str())))
            .collect())
    }
}
