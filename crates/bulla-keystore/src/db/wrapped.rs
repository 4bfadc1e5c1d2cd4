//! Every wrapped value that is stored, whatever it is: what a rotation of the key-encryption key
//! goes through.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Arg, Conn, args};
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
    /// Name, incarnation, epoch and value of the rows after a name, incarnation and epoch, in
    /// their order, up to a limit. Not every database sees from the row of three that it can begin
    /// in the middle of its index, so the name is said once more.
    page: &'static str,
    /// Sets a value where it is still the old one: new, old, name, incarnation, epoch.
    set: &'static str,
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
            page: concat!(
                "SELECT p.name, p.incarnation, t.epoch, t.",
                $column,
                " FROM principals p JOIN join_tokens t ON t.principal_id = p.id AND t.",
                $column,
                " IS NOT NULL
                 WHERE p.kind = 'agent' AND p.name >= ?1
                     AND (p.name, p.incarnation, t.epoch) > (?1, ?2, ?3)
                 ORDER BY p.name, p.incarnation, t.epoch LIMIT ?4"
            ),
            set: concat!(
                "UPDATE join_tokens SET ",
                $column,
                " = ? WHERE ",
                $column,
                " = ? AND principal_id = (SELECT id FROM principals
                  WHERE kind = 'agent' AND name = ? AND incarnation = ?) AND epoch = ?"
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
        // Its id and its epoch are 1.
        page: "SELECT name, id, id, encrypted_root FROM trust_domain
               WHERE (name, id, id) > (?, ?, ?) ORDER BY name LIMIT ?",
        set: "UPDATE trust_domain SET encrypted_root = ?
              WHERE encrypted_root = ? AND name = ? AND id = ? AND id = ?",
    },
    WrappedColumn {
        table: "issuers",
        column: "encrypted_seed",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        page: "SELECT issuer_right, epoch, epoch, encrypted_seed FROM issuers
               WHERE (issuer_right, epoch, epoch) > (?, ?, ?) ORDER BY issuer_right, epoch LIMIT ?",
        set: "UPDATE issuers SET encrypted_seed = ?
              WHERE encrypted_seed = ? AND issuer_right = ? AND epoch = ? AND epoch = ?",
    },
    WrappedColumn {
        table: "roots",
        column: "encrypted_root",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        page: "SELECT d.name, r.sequence, r.sequence, r.encrypted_root
               FROM trust_domain d JOIN roots r ON d.id = 1
               WHERE (d.name, r.sequence, r.sequence) > (?, ?, ?) ORDER BY r.sequence LIMIT ?",
        set: "UPDATE roots SET encrypted_root = ?
              WHERE encrypted_root = ? AND (SELECT name FROM trust_domain WHERE id = 1) = ?
                  AND sequence = ? AND sequence = ?",
    },
    WrappedColumn {
        table: "instance_keys",
        column: "encrypted_key",
        prefix: "agent/",
        by_type: false,
        text: true,
        incarnation: true,
        // One a principal, so that its name and incarnation are their order.
        page: "SELECT p.name, p.incarnation, k.epoch, k.encrypted_key
               FROM principals p JOIN instance_keys k ON k.principal_id = p.id AND k.deleted = 0
               WHERE p.kind = 'agent' AND p.name >= ?1
                   AND (p.name, p.incarnation, k.epoch) > (?1, ?2, ?3)
               ORDER BY p.name, p.incarnation LIMIT ?4",
        set: "UPDATE instance_keys SET encrypted_key = ?
              WHERE encrypted_key = ? AND principal_id = (SELECT id FROM principals
                  WHERE kind = 'agent' AND name = ? AND incarnation = ?) AND epoch = ?",
    },
    WrappedColumn {
        table: "audience_keys",
        column: "encrypted_key",
        prefix: "component/",
        by_type: true,
        text: false,
        incarnation: true,
        page: "SELECT p.name, p.incarnation, k.epoch, k.encrypted_key
               FROM principals p JOIN audience_keys k ON k.principal_id = p.id
               WHERE p.kind = 'component' AND p.name >= ?1
                   AND (p.name, p.incarnation, k.epoch) > (?1, ?2, ?3)
               ORDER BY p.name, p.incarnation, k.epoch LIMIT ?4",
        set: "UPDATE audience_keys SET encrypted_key = ?
              WHERE encrypted_key = ? AND principal_id = (SELECT id FROM principals
                  WHERE kind = 'component' AND name = ? AND incarnation = ?) AND epoch = ?",
    },
    WrappedColumn {
        table: "group_keys",
        column: "encrypted_key",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        page: "SELECT g.name, k.epoch, k.epoch, k.encrypted_key
               FROM member_groups g JOIN group_keys k ON k.group_id = g.id
               WHERE g.name >= ?1 AND (g.name, k.epoch, k.epoch) > (?1, ?2, ?3)
               ORDER BY g.name, k.epoch LIMIT ?4",
        set: "UPDATE group_keys SET encrypted_key = ?
              WHERE encrypted_key = ? AND group_id = (SELECT id FROM member_groups
                  WHERE name = ?) AND epoch = ? AND epoch = ?",
    },
    WrappedColumn {
        table: "access_keys",
        column: "encrypted_secret_key",
        prefix: "",
        by_type: false,
        text: false,
        incarnation: false,
        page: "SELECT api_user, epoch, epoch, encrypted_secret_key FROM access_keys
               WHERE api_user >= ?1 AND (api_user, epoch, epoch) > (?1, ?2, ?3)
                   AND encrypted_secret_key IS NOT NULL
               ORDER BY api_user, epoch LIMIT ?4",
        set: "UPDATE access_keys SET encrypted_secret_key = ?
              WHERE encrypted_secret_key = ? AND api_user = ? AND epoch = ? AND epoch = ?",
    },
    WrappedColumn {
        table: "component_keys",
        column: "encrypted_key",
        prefix: "component/",
        by_type: true,
        text: false,
        incarnation: true,
        page: "SELECT name, incarnation, epoch, encrypted_key FROM component_keys
               WHERE name >= ?1 AND (name, incarnation, epoch) > (?1, ?2, ?3)
               ORDER BY name, incarnation, epoch LIMIT ?4",
        set: "UPDATE component_keys SET encrypted_key = ?
              WHERE encrypted_key = ? AND name = ? AND incarnation = ? AND epoch = ?",
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
        let (name, incarnation, epoch) =
            after.map_or(("", 0, 0), |v| (v.name.as_str(), v.incarnation, v.epoch));
        let values = args![name, incarnation, epoch, limit];
        if self.text {
            let rows: Vec<(String, u32, u32, String)> = conn.all(self.page, values).await?;
            let decoded = |(name, incarnation, epoch, text): (_, _, _, String)| WrappedValue {
                name,
                incarnation,
                epoch,
                bytes: STANDARD.decode(text).unwrap_or_default(),
            };
            return Ok(rows.into_iter().map(decoded).collect());
        }
        let rows: Vec<(String, u32, u32, Vec<u8>)> = conn.all(self.page, values).await?;
        let value =
            |(name, incarnation, epoch, bytes)| WrappedValue { name, incarnation, epoch, bytes };
        Ok(rows.into_iter().map(value).collect())
    }

    /// Puts `new` in the place of the value, unless somebody else changed it meanwhile.
    pub(crate) async fn set(
        &self,
        conn: &mut Conn,
        value: &WrappedValue,
        new: &[u8],
    ) -> Result<bool> {
        let (new_text, old_text);
        let (new, old) = if self.text {
            (new_text, old_text) = (STANDARD.encode(new), STANDARD.encode(&value.bytes));
            (Arg::from(&new_text), Arg::from(&old_text))
        } else {
            (Arg::from(new), Arg::from(&value.bytes))
        };
        let values =
            &[new, old, (&value.name).into(), value.incarnation.into(), value.epoch.into()];
        Ok(conn.execute(self.set, values).await? == 1)
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
                WrappedValue { name: "x".into(), incarnation: 0, epoch: 1, bytes: vec![1] };
            assert!(!column.set(&mut conn, &nothing, b"new").await.unwrap());
        }
    }
}
