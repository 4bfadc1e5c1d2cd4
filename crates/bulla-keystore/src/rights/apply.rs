//! Finding out what is there, and doing or printing what is missing.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;

use super::names::DatabaseRole;
use super::password::RolePassword;
use super::{CONTROL, mariadb, postgres};
use crate::address::StoreAddress;
use crate::db::{Conn, Db, Dialect, migrations, principals, roles};
use crate::error::{KeystoreError, Result};

/// What stands for a password in printed SQL.
const PLACEHOLDER: &str = "<password>";

/// A role as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedRole {
    /// The role.
    pub role: DatabaseRole,
    /// Whether it was made just now.
    pub new: bool,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantsState {
    /// The roles that there are.
    pub roles: Vec<GrantedRole>,
    /// Those that were taken back.
    pub dropped: Vec<DatabaseRole>,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The roles that there will be.
    pub roles: Vec<DatabaseRole>,
    /// The statements, with `<password>` for what a password is checked with.
    pub sql: Vec<String>,
}

/// A right that a user of MariaDB has.
pub(super) struct Held {
    pub(super) role: String,
    pub(super) table: String,
    pub(super) right: String,
    pub(super) column: String,
}

/// Everything that the statements depend on.
pub(super) struct Scene {
    dialect: Dialect,
    pub(super) database: String,
    pub(super) schema: String,
    columns: BTreeMap<String, Vec<String>>,
    /// Roles that are to be there.
    pub(super) wanted: Vec<DatabaseRole>,
    /// Roles that are not to be there any more.
    pub(super) gone: Vec<DatabaseRole>,
    /// What `database_roles` has.
    known: Vec<DatabaseRole>,
    /// Which of all these the server has.
    there: Vec<String>,
    pub(super) held: Vec<Held>,
    /// What passwords are checked with, by role.
    verifiers: BTreeMap<String, String>,
    now: i64,
}

impl Scene {
    async fn look(conn: &mut Conn, now: i64, reverting: bool) -> Result<Self> {
        let (database, schema) = roles::place(conn).await?;
        let mut columns: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (table, column) in roles::columns(conn).await? {
            columns.entry(table).or_default().push(column);
        }
        let known = roles::list(conn).await?.into_iter();
        let known: Vec<_> =
            known.map(|(name, component)| DatabaseRole { name, component }).collect();
        let wanted = if reverting { Vec::new() } else { wanted(conn, &database).await? };
        let gone = known.iter().filter(|role| !wanted.contains(role)).cloned().collect();
        let (mut there, mut held) = (Vec::new(), Vec::new());
        for role in wanted.iter().chain(&known) {
            if there.contains(&role.name) || !roles::exists(conn, &role.name).await? {
                continue;
            }
            there.push(role.name.clone());
            if conn.dialect() == Dialect::MariaDb {
                for (table, right, column) in roles::rights(conn, &role.name).await? {
                    held.push(Held { role: role.name.clone(), table, right, column });
                }
            }
        }
        let dialect = conn.dialect();
        let verifiers = BTreeMap::new();
        let scene = Self {
            dialect,
            database,
            schema,
            columns,
            wanted,
            gone,
            known,
            there,
            held,
            verifiers,
            now,
        };
        Ok(scene)
    }

    fn sql(&self, reverting: bool) -> Vec<String> {
        match (self.dialect, reverting) {
            (Dialect::Postgres, false) => postgres::apply(self),
            (Dialect::Postgres, true) => postgres::revert(self),
            (_, false) => mariadb::apply(self),
            (_, true) => mariadb::revert(self),
        }
    }

    /// Roles of others that have our names are left alone.
    async fn check(&self, conn: &mut Conn) -> Result<()> {
        for role in &self.wanted {
            if !self.is_there(role) {
                continue;
            }
            if !self.is_known(role) {
                return Err(KeystoreError::RoleTaken { role: role.name.clone() });
            }
            if roles::is_strong(conn, &role.name).await? {
                return Err(KeystoreError::RoleTooStrong { role: role.name.clone() });
            }
        }
        Ok(())
    }

    /// A user that the owner may not see shows when it can't be made.
    fn explain(&self, statement: &str, error: KeystoreError) -> KeystoreError {
        let made = |role: &&DatabaseRole| {
            !self.is_known(role) && statement.starts_with(&format!("CREATE USER '{}'@", role.name))
        };
        let failed = |error: &KeystoreError| error.to_string().contains("CREATE USER failed");
        match self.wanted.iter().find(made) {
            Some(role) if failed(&error) => KeystoreError::RoleTaken { role: role.name.clone() },
            _ => error,
        }
    }

    pub(super) fn has(&self, table: &str) -> bool {
        self.columns.contains_key(table)
    }

    pub(super) fn columns(&self, table: &str) -> impl Iterator<Item = &str> {
        self.columns.get(table).into_iter().flatten().map(String::as_str)
    }

    pub(super) fn is_known(&self, role: &DatabaseRole) -> bool {
        self.known.contains(role)
    }

    pub(super) fn is_there(&self, role: &DatabaseRole) -> bool {
        self.there.contains(&role.name)
    }

    pub(super) fn password(&self, role: &DatabaseRole) -> String {
        self.verifiers.get(&role.name).map_or_else(|| PLACEHOLDER.to_owned(), Clone::clone)
    }

    /// Writes down that a role is ours, before it is made.
    pub(super) fn note(&self, role: &DatabaseRole) -> String {
        let (name, now) = (&role.name, self.now);
        match &role.component {
            Some(component) => format!(
                "INSERT INTO database_roles VALUES ('{name}', 'component', '{component}', {now})"
            ),
            None => {
                format!("INSERT INTO database_roles VALUES ('{name}', 'auditor', NULL, {now})")
            }
        }
    }

    /// And that it is no more, with what was put there for it.
    pub(super) fn forget(&self, role: &DatabaseRole) -> Vec<String> {
        let mut sql = Vec::new();
        if let Some(component) = &role.component {
            sql.push(format!("DELETE FROM component_keys WHERE component = '{component}'"));
        }
        sql.push(format!("DELETE FROM database_roles WHERE role = '{}'", role.name));
        sql
    }
}

/// A role for each living component type, and the auditors'.
async fn wanted(conn: &mut Conn, database: &str) -> Result<Vec<DatabaseRole>> {
    let types = principals::page(conn, "component", "", u32::MAX).await?;
    let mut wanted = vec![DatabaseRole::of_auditors(database)];
    wanted.extend(types.iter().map(|row| DatabaseRole::of_component(database, &row.name)));
    Ok(wanted)
}

async fn open(address: &StoreAddress) -> Result<Db> {
    if address.file().is_some() {
        return Err(KeystoreError::NoRoles { place: address.to_string() });
    }
    Db::open(address).await
}

/// What [`apply`] would do now.
pub(crate) async fn plan(address: &StoreAddress, now: i64) -> Result<Plan> {
    planned(address, now, false).await
}

/// What [`revert`] would do now.
pub(crate) async fn plan_revert(address: &StoreAddress, now: i64) -> Result<Plan> {
    planned(address, now, true).await
}

async fn planned(address: &StoreAddress, now: i64, reverting: bool) -> Result<Plan> {
    let db = open(address).await?;
    let mut conn = db.read().await?;
    migrations::check(&mut conn).await?;
    let scene = Scene::look(&mut conn, now, reverting).await?;
    scene.check(&mut conn).await?;
    drop(conn);
    db.close().await;
    let sql = scene.sql(reverting);
    Ok(Plan { roles: scene.wanted, sql })
}

/// Makes the roles, or brings them up to date.
pub(crate) async fn apply(
    address: &StoreAddress,
    now: i64,
    password: &mut dyn FnMut(&DatabaseRole) -> Result<RolePassword>,
) -> Result<GrantsState> {
    let db = open(address).await?;
    let mut alter = db.alter().await?;
    migrations::check(&mut alter).await?;
    let mut scene = Scene::look(&mut alter, now, false).await?;
    scene.check(&mut alter).await?;
    for role in &scene.wanted {
        let password = password(role)?;
        let verifier = match scene.dialect {
            Dialect::Postgres => password.scram()?,
            _ => password.native(),
        };
        scene.verifiers.insert(role.name.clone(), verifier);
    }
    for statement in scene.sql(false) {
        let done = alter.script(AssertSqlSafe(statement.clone())).await;
        done.map_err(|error| scene.explain(&statement, error))?;
    }
    alter.commit().await?;
    db.close().await;
    let new = |role: &DatabaseRole| !scene.is_known(role);
    let roles = scene.wanted.iter().map(|role| GrantedRole { role: role.clone(), new: new(role) });
    Ok(GrantsState { roles: roles.collect(), dropped: scene.gone.clone() })
}

/// Takes all roles back.
pub(crate) async fn revert(address: &StoreAddress, now: i64) -> Result<Vec<DatabaseRole>> {
    let db = open(address).await?;
    let mut alter = db.alter().await?;
    migrations::check(&mut alter).await?;
    let scene = Scene::look(&mut alter, now, true).await?;
    for statement in scene.sql(true) {
        alter.script(AssertSqlSafe(statement)).await?;
    }
    alter.commit().await?;
    db.close().await;
    Ok(scene.gone)
}

/// Whether the control plane has a role, so that component types are to have one too.
pub(crate) fn are_used(known: &[(String, Option<String>)]) -> bool {
    known.iter().any(|(_, component)| component.as_deref() == Some(CONTROL))
}
