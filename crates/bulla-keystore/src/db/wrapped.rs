//! Every wrapped value that is stored, whatever it is: what a rotation of the key-encryption key
//! goes through.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Arg, Conn, ROWS_AT_ONCE, args, listed};
use crate::error::{KeystoreError, Result};
use crate::kek::Row;

/// A column of wrapped values.
pub(crate) struct WrappedColumn {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
    /// What stands before the stored name in the name that a value is tied to.
    pub(crate) prefix: &'static str,
    /// Whether it is under the component type's own key.
    pub(crate) by_type: bool,
    /// Whether it is stored as base64 text.
    text: bool,
    /// Whether the value is tied to an incarnation. Where it is not, the second column below is the
    /// epoch again.
    incarnation: bool,
    /// What its rows are found by.
    key: Key,
    /// Name, incarnation, epoch, id and value of the rows after an id and epoch, in their order, up
    /// to a limit; after a name, incarnation and epoch where rows are found by something else than
    /// an id. It is the order of an index of the table itself, so that every database goes along
    /// that and looks up the names. Not every one sees from the row of two that it can begin in the
    /// middle of the index, so the first of them is said once more.
    page: &'static str,
}

/// An indexed column that tells a value's row, but for a few that share it.
enum Key {
    /// It holds the value's name.
    Name(&'static str),
    /// It holds the value's epoch.
    Epoch(&'static str),
    /// It holds the id that the page gives.
    Id(&'static str),
}

impl Key {
    fn of<'a>(&self, value: &'a WrappedValue) -> Arg<'a> {
        match self {
            Self::Name(_) => Arg::from(&value.name),
            Self::Epoch(_) => Arg::from(value.epoch),
            Self::Id(_) => Arg::from(value.id),
        }
    }
}

/// A column of `join_tokens`: one value, or none, a token.
macro_rules! of_token {
    ($column:literal) => {
        WrappedColumn {
            table: "join_tokens",
            column: $column,
            prefix: "agent/",
            by_type: false,
            text: false,
            incarnation: true,
            key: Key::Id("principal_id"),
            page: concat!(
                "SELECT p.name, p.incarnation, t.epoch, p.id, t.",
                $column,
                " FROM join_tokens t JOIN principals p ON p.id = t.principal_id
                 WHERE t.principal_id >= ?1 AND (t.principal_id, t.epoch) > (?1, ?2) AND t.",
                $column,
                " IS NOT NULL ORDER BY t.principal_id, t.epoch LIMIT ?3"
            ),
        }
    };
}

/// All columns named `encrypted_*`. A migration that adds one adds it here; a test fails if not.
pub(crate) const WRAPPED: &[WrappedColumn] = &[
    WrappedColumn {
        table: "trust_domain",
        column: "encrypted_root",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        key: Key::Name("name"),
        // Its id and its epoch are 1.
        page: "SELECT name, id, id, id, encrypted_root FROM trust_domain
               WHERE (name, id, id) > (?, ?, ?) ORDER BY name LIMIT ?",
    },
    WrappedColumn {
        table: "issuers",
        column: "encrypted_seed",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        key: Key::Name("issuer_right"),
        page: "SELECT issuer_right, epoch, epoch, epoch, encrypted_seed FROM issuers
               WHERE (issuer_right, epoch, epoch) > (?, ?, ?) ORDER BY issuer_right, epoch LIMIT ?",
    },
    WrappedColumn {
        table: "roots",
        column: "encrypted_root",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        key: Key::Epoch("sequence"),
        page: "SELECT d.name, r.sequence, r.sequence, r.sequence, r.encrypted_root
               FROM trust_domain d JOIN roots r ON d.id = 1
               WHERE (d.name, r.sequence, r.sequence) > (?, ?, ?) ORDER BY r.sequence LIMIT ?",
    },
    WrappedColumn {
        table: "instance_keys",
        column: "encrypted_key",
        prefix: "agent/",
        by_type: false,
        text: true,
        incarnation: true,
        key: Key::Id("principal_id"),
        // One a principal.
        page: "SELECT p.name, p.incarnation, k.epoch, p.id, k.encrypted_key
               FROM instance_keys k JOIN principals p ON p.id = k.principal_id
               WHERE k.principal_id >= ?1 AND (k.principal_id, k.epoch) > (?1, ?2)
                   AND k.deleted = 0
               ORDER BY k.principal_id LIMIT ?3",
    },
    WrappedColumn {
        table: "audience_keys",
        column: "encrypted_key",
        prefix: "component/",
        by_type: true,
        text: false,
        incarnation: true,
        key: Key::Id("principal_id"),
        page: "SELECT p.name, p.incarnation, k.epoch, p.id, k.encrypted_key
               FROM audience_keys k JOIN principals p ON p.id = k.principal_id
               WHERE k.principal_id >= ?1 AND (k.principal_id, k.epoch) > (?1, ?2)
               ORDER BY k.principal_id, k.epoch LIMIT ?3",
    },
    WrappedColumn {
        table: "group_keys",
        column: "encrypted_key",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        key: Key::Id("group_id"),
        page: "SELECT g.name, k.epoch, k.epoch, g.id, k.encrypted_key
               FROM group_keys k JOIN member_groups g ON g.id = k.group_id
               WHERE k.group_id >= ?1 AND (k.group_id, k.epoch) > (?1, ?2)
               ORDER BY k.group_id, k.epoch LIMIT ?3",
    },
    WrappedColumn {
        table: "access_keys",
        column: "encrypted_secret_key",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        key: Key::Name("api_user"),
        page: "SELECT api_user, epoch, epoch, epoch, encrypted_secret_key FROM access_keys
               WHERE api_user >= ?1 AND (api_user, epoch, epoch) > (?1, ?2, ?3)
                   AND encrypted_secret_key IS NOT NULL
               ORDER BY api_user, epoch LIMIT ?4",
    },
    WrappedColumn {
        table: "component_keys",
        column: "encrypted_key",
        prefix: "component/",
        by_type: true,
        text: false,
        incarnation: true,
        key: Key::Name("name"),
        page: "SELECT name, incarnation, epoch, epoch, encrypted_key FROM component_keys
               WHERE name >= ?1 AND (name, incarnation, epoch) > (?1, ?2, ?3)
               ORDER BY name, incarnation, epoch LIMIT ?4",
    },
    WrappedColumn {
        table: "legacy_keys",
        column: "encrypted_key",
        prefix: "agent/",
        by_type: false,
        text: false,
        incarnation: false,
        key: Key::Name("name"),
        // One an instance.
        page: "SELECT name, epoch, epoch, epoch, encrypted_key FROM legacy_keys
               WHERE name >= ?1 AND (name, epoch, epoch) > (?1, ?2, ?3) ORDER BY name LIMIT ?4",
    },
    WrappedColumn {
        table: "service_keys",
        column: "encrypted_key",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        key: Key::Name("name"),
        // One a service.
        page: "SELECT name, epoch, epoch, epoch, encrypted_key FROM service_keys
               WHERE name >= ?1 AND (name, epoch, epoch) > (?1, ?2, ?3) ORDER BY name LIMIT ?4",
    },
    of_token!("encrypted_secret"),
    of_token!("encrypted_verifier"),
    of_token!("encrypted_answer"),
];

/// A stored value and where it is.
#[derive(Debug, Clone)]
pub(crate) struct WrappedValue {
    /// As it is stored.
    pub(crate) name: String,
    pub(crate) incarnation: u32,
    pub(crate) epoch: u32,
    /// Of the row that it hangs on, where the column is found by that.
    id: i64,
    /// As it was wrapped; empty if what is stored is no base64.
    pub(crate) bytes: Vec<u8>,
}

impl WrappedColumn {
    /// The name that the value is tied to.
    pub(crate) fn full_name(&self, value: &WrappedValue) -> String {
        format!("{}{}", self.prefix, value.name)
    }

    /// The place that the value is tied to.
    pub(crate) fn place<'a>(&'a self, name: &'a str, value: &WrappedValue) -> Row<'a> {
        let WrappedValue { incarnation, epoch, .. } = *value;
        let incarnation = if self.incarnation { incarnation } else { 0 };
        Row { table: self.table, column: self.column, name, incarnation, epoch }
    }

    /// Up to `limit` values after `after`; from the first on if it is `None`.
    pub(crate) async fn page(
        &self,
        conn: &mut Conn,
        after: Option<&WrappedValue>,
        limit: u32,
    ) -> Result<Vec<WrappedValue>> {
        let (name, incarnation, epoch, id) =
            after.map_or(("", 0, 0, 0), |v| (v.name.as_str(), v.incarnation, v.epoch, v.id));
        let (by_id, by_name) = (args![id, epoch, limit], args![name, incarnation, epoch, limit]);
        let values: &[Arg<'_>] = if matches!(self.key, Key::Id(_)) { by_id } else { by_name };
        if self.text {
            let rows: Vec<(String, u32, u32, i64, String)> = conn.all(self.page, values).await?;
            let decoded = |(name, incarnation, epoch, id, text): (_, _, _, _, String)| {
                let bytes = STANDARD.decode(text).unwrap_or_default();
                WrappedValue { name, incarnation, epoch, id, bytes }
            };
            return Ok(rows.into_iter().map(decoded).collect());
        }
        let rows: Vec<(String, u32, u32, i64, Vec<u8>)> = conn.all(self.page, values).await?;
        let value = |(name, incarnation, epoch, id, bytes)| WrappedValue {
            name,
            incarnation,
            epoch,
            id,
            bytes,
        };
        Ok(rows.into_iter().map(value).collect())
    }

    /// Puts new values in the place of old ones, unless somebody else changed one meanwhile; gives
    /// how many went in. One statement for [`ROWS_AT_ONCE`]: no two values are alike, whatever
    /// they hold, so that the old value says which new one is meant.
    pub(crate) async fn set(
        &self,
        conn: &mut Conn,
        changes: &[(WrappedValue, Vec<u8>)],
    ) -> Result<u64> {
        let mut set = 0;
        for some in changes.chunks(ROWS_AT_ONCE) {
            set += self.set_at_once(conn, some).await?;
        }
        Ok(set)
    }

    async fn set_at_once(
        &self,
        conn: &mut Conn,
        changes: &[(WrappedValue, Vec<u8>)],
    ) -> Result<u64> {
        let texts: Vec<(String, String)> = if self.text {
            changes
                .iter()
                .map(|(old, new)| (STANDARD.encode(&old.bytes), STANDARD.encode(new)))
                .collect()
        } else {
            Vec::new()
        };
        let stored: Vec<(Arg<'_>, Arg<'_>)> = if self.text {
            texts.iter().map(|(old, new)| (Arg::from(old), Arg::from(new))).collect()
        } else {
            changes.iter().map(|(old, new)| (Arg::from(&old.bytes), Arg::from(new))).collect()
        };
        let (Key::Name(by) | Key::Epoch(by) | Key::Id(by)) = self.key;
        let WrappedColumn { table, column, .. } = self;
        let (cases, list) = ("WHEN ? THEN ? ".repeat(changes.len()), listed("?", changes.len()));
        let sql = format!(
            "UPDATE {table} SET {column} = CASE {column} {cases}ELSE {column} END
             WHERE {by} IN ({list}) AND {column} IN ({list})"
        );
        let mut values: Vec<Arg<'_>> = Vec::with_capacity(changes.len() * 4);
        values.extend(stored.iter().flat_map(|(old, new)| [*old, *new]));
        values.extend(changes.iter().map(|(value, _)| self.key.of(value)));
        values.extend(stored.iter().map(|(old, _)| *old));
        conn.execute(&sql, &values).await
    }
}

/// How many values the column holds.
pub(crate) async fn count(conn: &mut Conn, column: &WrappedColumn) -> Result<u64> {
    // A removed agent's tombstone holds an empty text.
    let WrappedColumn { table, column, .. } = column;
    let sql = format!("SELECT count(*) FROM {table} WHERE {column} IS NOT NULL AND {column} <> ''");
    let count: i64 = conn.one(&sql, &[]).await?;
    Ok(count.unsigned_abs())
}

/// The id of the key that new values are wrapped under.
pub(crate) async fn kek_id(conn: &mut Conn) -> Result<Vec<u8>> {
    let sql = "SELECT kek_id FROM trust_domain WHERE id = 1";
    let id = conn.optional(sql, &[]).await?;
    id.ok_or_else(|| KeystoreError::damaged("trust domain"))
}

/// Has new values wrapped under another key from this transaction on.
pub(crate) async fn set_kek_id(conn: &mut Conn, id: &[u8]) -> Result<()> {
    conn.execute("UPDATE trust_domain SET kek_id = ? WHERE id = 1", args![id]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::migrations;
    use super::super::tests::empty_file;
    use super::*;

    /// Whoever adds a column of wrapped values has it rewrapped, or this fails.
    #[tokio::test]
    async fn every_wrapped_column_of_the_schema_is_in_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let db = empty_file(folder.path()).await;
        let mut conn = db.alter().await.unwrap();
        migrations::prepare(&mut conn).await.unwrap();
        migrations::up(&mut conn, 0).await.unwrap();
        let sql = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c
                   WHERE t.type = 'table' AND c.name LIKE 'encrypted%' ORDER BY 1, 2";
        let stored: Vec<(String, String)> = conn.all(sql, &[]).await.unwrap();
        let mut listed: Vec<(String, String)> =
            WRAPPED.iter().map(|c| (c.table.to_owned(), c.column.to_owned())).collect();
        listed.sort();
        assert_eq!(stored, listed);
        // And each can be read and written.
        for column in WRAPPED {
            assert!(column.page(&mut conn, None, 1).await.unwrap().is_empty());
            assert_eq!(count(&mut conn, column).await.unwrap(), 0);
            let nothing =
                WrappedValue { name: "x".into(), incarnation: 0, epoch: 1, id: 1, bytes: vec![1] };
            assert_eq!(column.set(&mut conn, &[(nothing, b"new".to_vec())]).await.unwrap(), 0);
        }
    }
}
