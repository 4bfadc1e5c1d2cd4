//! Who needs what of each table.

/// Rights in one table, as `GRANT` takes them.
pub(super) struct TableRights {
    pub(super) table: &'static str,
    /// The control plane's.
    pub(super) control: &'static [&'static str],
    /// Every other component type's.
    pub(super) component: &'static [&'static str],
    /// In PostgreSQL: which rows other component types see, where not all. `{component}` is the
    /// type's name.
    pub(super) rows: Option<&'static str>,
}

const fn control(table: &'static str, control: &'static [&'static str]) -> TableRights {
    TableRights { table, control, component: &[], rows: None }
}

/// The columns that decide whether a principal lives; no secret is among them.
const PRINCIPAL: &str =
    "SELECT (id, kind, name, incarnation, key_type, suite, pair_epoch, state, created, updated)";

/// Every table of the keystore. What is not here is for the owner alone; a test fails for a table
/// that is forgotten.
pub(super) const TABLES: &[TableRights] = &[
    TableRights { component: &["SELECT"], ..control("schema_version", &["SELECT"]) },
    TableRights {
        component: &["SELECT (id, name)"],
        ..control("trust_domain", &["SELECT", "UPDATE (encrypted_root, kek_id)"])
    },
    // Who owns the tables takes over a new root.
    control("roots", &["SELECT", "UPDATE (encrypted_root)"]),
    TableRights {
        component: &["SELECT (issuer_right, epoch, credential)"],
        ..control("issuers", &["SELECT", "UPDATE (encrypted_seed)"])
    },
    TableRights {
        component: &[PRINCIPAL],
        rows: Some("state = 'active'"),
        ..control(
            "principals",
            &[
                "SELECT",
                "INSERT",
                "UPDATE (key_type, suite, pair_epoch, state, updated, deleted_at)",
            ],
        )
    },
    TableRights {
        component: &["SELECT (kid, principal_id, purpose, epoch, bytes, not_before, not_after)"],
        rows: Some("purpose <> 'signing'"),
        ..control("credentials", &["SELECT", "INSERT", "UPDATE (not_before)"])
    },
    control(
        "instance_keys",
        &["SELECT", "INSERT", "UPDATE (encrypted_key, updated, deleted, deleted_at)", "DELETE"],
    ),
    TableRights {
        component: &["SELECT"],
        rows: Some(
            "principal_id IN (SELECT id FROM principals
                 WHERE kind = 'component' AND name = '{component}')",
        ),
        ..control("audience_keys", &["SELECT", "INSERT", "UPDATE (encrypted_key)"])
    },
    control("pair_keys", &["SELECT", "INSERT"]),
    control("member_groups", &["SELECT", "INSERT", "UPDATE (epoch, updated)"]),
    control("group_members", &["SELECT", "INSERT", "DELETE"]),
    control("group_keys", &["SELECT", "INSERT", "UPDATE (encrypted_key)"]),
    TableRights {
        component: &["SELECT (kid, until)"],
        ..control("revoked_kids", &["SELECT", "INSERT", "UPDATE (until)"])
    },
    control("lowest_epochs", &["SELECT", "INSERT", "DELETE"]),
    TableRights { component: &["SELECT"], ..control("statement", &["SELECT", "INSERT", "DELETE"]) },
    control("recalls", &["SELECT", "INSERT"]),
    control("peer_floors", &["SELECT", "INSERT", "DELETE"]),
    control("exemptions", &["SELECT", "INSERT", "DELETE"]),
    control("peer_census", &["SELECT", "INSERT", "UPDATE (count, last, below, last_below)"]),
    control("floor_generation", &["SELECT", "UPDATE (n)"]),
    control("policies", &["SELECT", "INSERT"]),
    control("policy_document", &["SELECT", "INSERT", "DELETE"]),
    control("policy_differences", &["SELECT", "INSERT", "UPDATE (count, last)", "DELETE"]),
    control(
        "join_tokens",
        &[
            "SELECT",
            "INSERT",
            "UPDATE (encrypted_secret, encrypted_verifier, request, encrypted_answer, state, \
                 alarms, updated)",
            "DELETE",
        ],
    ),
    control("join_states", &["SELECT", "INSERT", "UPDATE (alarms)"]),
    control(
        "access_keys",
        &["SELECT", "INSERT", "UPDATE (encrypted_secret_key, last_used, disabled, removed)"],
    ),
    control("legacy_keys", &["SELECT", "INSERT", "UPDATE (epoch, encrypted_key, updated)"]),
    control("service_keys", &["SELECT", "INSERT", "UPDATE (encrypted_key)"]),
    control("database_roles", &["SELECT"]),
    TableRights {
        component: &["SELECT"],
        rows: Some("component = '{component}'"),
        ..control("component_keys", &["SELECT", "INSERT", "UPDATE (encrypted_key)", "DELETE"])
    },
    // MariaDB: the row that writers lock.
    control("write_lock", &["SELECT", "UPDATE (n)"]),
    // Claims of the control plane, where they are in this database too.
    control("claim_schema", &["SELECT"]),
    control("claim", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    control("claim_sender", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    control("claim_ledger", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
];

/// Whether a column is nobody's business who only looks.
pub(super) fn is_secret(column: &str) -> bool {
    column.starts_with("encrypted_")
        || column == "secret_key"
        || column == "envelope"
        || column == "reply"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::tests::empty_file;
    use crate::db::{migrations, roles};

    /// Whoever adds a table says who may have it, or this fails; and of each column that is named
    /// there is one.
    #[tokio::test]
    async fn every_table_and_column_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let db = empty_file(folder.path()).await;
        let mut conn = db.alter().await.unwrap();
        migrations::prepare(&mut conn).await.unwrap();
        migrations::up(&mut conn, 0).await.unwrap();
        let columns = roles::columns(&mut conn).await.unwrap();
        for (table, _) in &columns {
            assert!(TABLES.iter().any(|rights| rights.table == table), "who may use {table}?");
        }
        for rights in TABLES.iter().filter(|r| columns.iter().any(|(table, _)| table == r.table)) {
            for right in rights.control.iter().chain(rights.component) {
                let Some((_, named)) = right.split_once('(') else { continue };
                for column in named.trim_end_matches(')').split(',').map(str::trim) {
                    let there = (rights.table.to_owned(), column.to_owned());
                    assert!(columns.contains(&there), "{there:?}");
                }
            }
        }
    }

    /// Other component types read no wrapped value but those that are theirs alone.
    #[test]
    fn components_get_no_wrapped_value_of_others() {
        for rights in TABLES {
            let all = rights.component.iter().any(|right| !right.contains('('));
            let wrapped = rights.component.iter().any(|right| right.contains("encrypted"));
            let open = matches!(rights.table, "schema_version" | "statement");
            let own = matches!(rights.table, "audience_keys" | "component_keys");
            assert!(!wrapped && (!all || open || own), "{}", rights.table);
            assert!(!own || rights.rows.is_some_and(|rows| rows.contains("{component}")));
            assert!(rights.component.iter().all(|right| right.starts_with("SELECT")));
        }
    }
}
