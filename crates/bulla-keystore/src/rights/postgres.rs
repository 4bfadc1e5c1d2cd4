//! What PostgreSQL is told. All of it is one transaction.

use super::apply::Scene;
use super::names::{DatabaseRole, Kind};
use super::tables::{TABLES, TableRights, is_secret};

/// Makes or brings up to date the roles of `scene`.
pub(super) fn apply(scene: &Scene) -> Vec<String> {
    let mut sql = Vec::new();
    for rights in limited(scene) {
        sql.push(format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY", rights.table));
    }
    for role in &scene.wanted {
        sql.extend(role_itself(scene, role));
        sql.extend(scene.nothing_more(role));
        sql.extend(table_rights(scene, role));
        sql.extend(policies(scene, role));
    }
    for role in &scene.gone {
        sql.extend(drop(scene, role));
    }
    sql
}

/// Takes everything back.
pub(super) fn revert(scene: &Scene) -> Vec<String> {
    let mut sql: Vec<_> = scene.gone.iter().flat_map(|role| drop(scene, role)).collect();
    for rights in limited(scene) {
        sql.push(format!("ALTER TABLE {} DISABLE ROW LEVEL SECURITY", rights.table));
    }
    sql
}

/// A name, as PostgreSQL quotes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, as SQL quotes it.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn limited(scene: &Scene) -> impl Iterator<Item = &'static TableRights> {
    TABLES.iter().filter(|rights| rights.rows.is_some() && scene.has(rights.table))
}

fn role_itself(scene: &Scene, role: &DatabaseRole) -> Vec<String> {
    let (name, password) = (quoted(&role.name), text(&scene.password(role)));
    let (database, schema) = (quoted(&scene.database), quoted(&scene.schema));
    let made = if scene.is_there(role) { "ALTER" } else { "CREATE" };
    let mut sql = Vec::new();
    if !scene.is_known(role) {
        sql.push(scene.note(role));
    }
    sql.push(format!("{made} ROLE {name} LOGIN NOINHERIT PASSWORD {password}"));
    sql.push(format!("ALTER ROLE {name} SET search_path = {schema}"));
    if role.kind() != Kind::Control {
        sql.push(format!("ALTER ROLE {name} SET default_transaction_read_only = on"));
    }
    sql.push(format!("GRANT CONNECT ON DATABASE {database} TO {name}"));
    sql.push(format!("GRANT USAGE ON SCHEMA {schema} TO {name}"));
    sql
}

impl Scene {
    /// What an older version may have granted goes first; that is one transaction with what follows.
    fn nothing_more(&self, role: &DatabaseRole) -> Vec<String> {
        let (name, schema) = (quoted(&role.name), quoted(&self.schema));
        vec![format!("REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {name}")]
    }
}

fn table_rights(scene: &Scene, role: &DatabaseRole) -> Vec<String> {
    let name = quoted(&role.name);
    let grant = |table: &str, right: &str| format!("GRANT {right} ON {table} TO {name}");
    match role.kind() {
        Kind::Auditor => {
            let columns = |table| scene.columns(table).filter(|column| !is_secret(column));
            let tables = TABLES.iter().filter(|rights| scene.has(rights.table));
            tables
                .map(|rights| {
                    let columns: Vec<_> = columns(rights.table).map(quoted).collect();
                    grant(rights.table, &format!("SELECT ({})", columns.join(", ")))
                })
                .collect()
        }
        kind => {
            let mut sql = Vec::new();
            for rights in TABLES.iter().filter(|rights| scene.has(rights.table)) {
                let granted = if kind == Kind::Control { rights.control } else { rights.component };
                if !granted.is_empty() {
                    sql.push(grant(rights.table, &granted.join(", ")));
                }
            }
            sql
        }
    }
}

/// A policy has its role's name.
fn policies(scene: &Scene, role: &DatabaseRole) -> Vec<String> {
    let name = quoted(&role.name);
    let mut sql = Vec::new();
    for rights in limited(scene) {
        let table = rights.table;
        sql.push(format!("DROP POLICY IF EXISTS {name} ON {table}"));
        sql.push(match role.kind() {
            Kind::Control => {
                format!("CREATE POLICY {name} ON {table} TO {name} USING (true) WITH CHECK (true)")
            }
            Kind::Auditor => {
                format!("CREATE POLICY {name} ON {table} FOR SELECT TO {name} USING (true)")
            }
            Kind::Component(component) => {
                // A component type's name has no character that means anything in SQL.
                let rows = rights.rows.unwrap_or("false").replace("{component}", component);
                format!("CREATE POLICY {name} ON {table} FOR SELECT TO {name} USING ({rows})")
            }
        });
    }
    sql
}

fn drop(scene: &Scene, role: &DatabaseRole) -> Vec<String> {
    let name = quoted(&role.name);
    let (database, schema) = (quoted(&scene.database), quoted(&scene.schema));
    let mut sql: Vec<_> = limited(scene)
        .map(|rights| format!("DROP POLICY IF EXISTS {name} ON {}", rights.table))
        .collect();
    if scene.is_there(role) {
        sql.push(format!("REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {name}"));
        sql.push(format!("REVOKE ALL ON SCHEMA {schema} FROM {name}"));
        sql.push(format!("REVOKE ALL ON DATABASE {database} FROM {name}"));
        sql.push(format!("DROP ROLE {name}"));
    }
    sql.extend(scene.forget(role));
    sql
}
