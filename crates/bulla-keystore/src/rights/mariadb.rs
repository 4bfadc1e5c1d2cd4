//! What MariaDB is told. It takes back none of it by itself, so each statement may be repeated, and
//! what is granted already is never taken away in between: the control plane may be running.

use super::apply::Scene;
use super::names::{DatabaseRole, Kind};
use super::tables::{TABLES, TableRights, is_secret};

/// Makes or brings up to date the users of `scene`.
pub(super) fn apply(scene: &Scene) -> Vec<String> {
    let mut sql: Vec<String> = limited(scene).map(|rights| own_view(scene, rights.table)).collect();
    for role in &scene.wanted {
        let (user, password) = (user(role), scene.password(role));
        let checked = format!("IDENTIFIED VIA mysql_native_password USING '{password}'");
        if scene.is_known(role) {
            // Not every owner sees whether it is still there.
            sql.push(format!("CREATE USER IF NOT EXISTS {user}"));
            sql.push(format!("ALTER USER {user} {checked}"));
        } else {
            // Fails if somebody else has the name; then it is not written down as ours.
            sql.push(format!("CREATE USER {user} {checked}"));
            sql.push(scene.note(role));
        }
        let rights = rights_of(scene, role);
        sql.extend(superfluous(scene, role, &rights));
        sql.extend(
            rights.iter().map(|(table, right)| format!("GRANT {right} ON {table} TO {user}")),
        );
    }
    sql.extend(scene.gone.iter().flat_map(|role| drop(scene, role)));
    sql
}

/// Takes everything back.
pub(super) fn revert(scene: &Scene) -> Vec<String> {
    let mut sql: Vec<String> = scene.gone.iter().flat_map(|role| drop(scene, role)).collect();
    sql.extend(limited(scene).map(|rights| format!("DROP VIEW IF EXISTS own_{}", rights.table)));
    sql
}

/// A role's name has no character that means anything in SQL.
fn user(role: &DatabaseRole) -> String {
    format!("'{}'@'%'", role.name)
}

fn drop(scene: &Scene, role: &DatabaseRole) -> Vec<String> {
    let user = format!("DROP USER IF EXISTS {}", user(role));
    [user].into_iter().chain(scene.forget(role)).collect()
}

/// Tables of which other component types see their own rows alone. (Of others that PostgreSQL
/// limits, all rows are public.)
fn limited(scene: &Scene) -> impl Iterator<Item = &'static TableRights> {
    TABLES.iter().filter(|rights| is_limited(rights) && scene.has(rights.table))
}

fn is_limited(rights: &TableRights) -> bool {
    rights.rows.is_some_and(|rows| rows.contains("{component}"))
}

/// The rows of the component type that has logged in. `USER()` is who logged in, whatever
/// `SET ROLE` said since; a name that has no role here sees nothing.
fn own_view(scene: &Scene, table: &str) -> String {
    let columns: Vec<_> = scene.columns(table).map(|column| format!("t.{column}")).collect();
    let columns = columns.join(", ");
    let of_type = match table {
        "component_keys" => "t.component = r.component",
        _ => {
            "t.principal_id IN (SELECT p.id FROM principals p
                 WHERE p.kind = 'component' AND p.name = r.component)"
        }
    };
    format!(
        "CREATE OR REPLACE SQL SECURITY DEFINER VIEW own_{table} AS SELECT {columns} FROM {table} t
         JOIN database_roles r ON {of_type}
         WHERE r.kind = 'component' AND r.role = SUBSTRING_INDEX(USER(), '@', 1)"
    )
}

/// Table or view, and right.
fn rights_of(scene: &Scene, role: &DatabaseRole) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for rights in TABLES.iter().filter(|rights| scene.has(rights.table)) {
        let table = rights.table;
        match role.kind() {
            Kind::Control => {
                all.extend(rights.control.iter().map(|right| (table.into(), (*right).into())));
            }
            Kind::Auditor => {
                let columns = scene.columns(table).filter(|column| !is_secret(column));
                let columns = columns.collect::<Vec<_>>().join(", ");
                all.push((table.into(), format!("SELECT ({columns})")));
            }
            Kind::Component(_) => {
                let seen = if is_limited(rights) { format!("own_{table}") } else { table.into() };
                let rights = rights.component.iter();
                all.extend(rights.map(|right| (seen.clone(), (*right).to_owned())));
            }
        }
    }
    all
}

/// What an older version granted and this one does not.
fn superfluous(scene: &Scene, role: &DatabaseRole, wanted: &[(String, String)]) -> Vec<String> {
    let is_wanted = |table: &str, right: &str, column: &str| {
        wanted.iter().filter(|(of, _)| of == table).any(|(_, wanted)| {
            match wanted.split_once('(') {
                None => wanted == right && column.is_empty(),
                Some((of, columns)) => {
                    of.trim() == right
                        && columns
                            .trim_end_matches(')')
                            .split(',')
                            .any(|wanted| wanted.trim() == column)
                }
            }
        })
    };
    let mut held: Vec<_> = scene.held.iter().filter(|held| held.role == role.name).collect();
    // What is taken from a whole table is taken from its columns too.
    held.sort_by_key(|held| held.column.is_empty());
    let held = held.into_iter();
    held.filter(|held| !is_wanted(&held.table, &held.right, &held.column))
        .map(|held| {
            let column = match held.column.as_str() {
                "" => String::new(),
                column => format!(" ({column})"),
            };
            format!("REVOKE {}{column} ON {} FROM {}", held.right, held.table, user(role))
        })
        .collect()
}
