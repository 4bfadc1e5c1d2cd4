//! What the databases say differently.

use std::borrow::Cow;

/// A database's way of saying things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "postgres", feature = "mariadb")),
    allow(dead_code, reason = "known, and not built in")
)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
    MariaDb,
}

/// Which unique key may be taken already when a row is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Any.
    Any,
    /// The table's primary key, which is `kid`.
    PrimaryKid,
    /// Another unique key of the name and column `kid`.
    Kid,
}

/// The same so many times, with commas between.
pub(crate) fn listed(what: &str, times: usize) -> String {
    vec![what; times].join(", ")
}

impl Dialect {
    /// The statement as this database takes it, and for each of its places which value goes there.
    /// `?` takes the value after the last one, `?2` the second.
    pub(crate) fn places(self, sql: &str, values: usize) -> (String, Vec<usize>) {
        if self == Self::Sqlite {
            return (sql.to_owned(), (0..values).collect());
        }
        let (mut text, mut order) = (String::with_capacity(sql.len() + 16), Vec::new());
        let mut parts = sql.split('?');
        text.push_str(parts.next().unwrap_or_default());
        let mut last: usize = 0;
        for part in parts {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
            let number = part.get(..part.len() - rest.len()).unwrap_or_default();
            last = number.parse().unwrap_or(last + 1);
            match self {
                Self::Postgres => text.push_str(&format!("${last}")),
                _ => text.push('?'),
            }
            order.push(last.saturating_sub(1));
            text.push_str(rest);
        }
        match self {
            Self::Postgres => (text, (0..values).collect()),
            _ => (text, order),
        }
    }

    /// How many tables there are of the name that it takes.
    pub(crate) fn has_table(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?",
            Self::Postgres => "SELECT count(*) FROM pg_class WHERE oid = to_regclass(?)",
            Self::MariaDb => {
                "SELECT count(*) FROM information_schema.tables
                 WHERE table_schema = database() AND table_name = ?"
            }
        }
    }

    /// How many columns there are of the table and the name that it takes.
    pub(crate) fn has_column(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?",
            Self::Postgres => {
                "SELECT count(*) FROM pg_attribute
                 WHERE attrelid = to_regclass(?) AND attname = ? AND NOT attisdropped"
            }
            Self::MariaDb => {
                "SELECT count(*) FROM information_schema.columns
                 WHERE table_schema = database() AND table_name = ? AND column_name = ?"
            }
        }
    }

    /// What writes a table anew. PostgreSQL's `VACUUM FULL` would copy what was overwritten as long as anybody's
    /// transaction may still look at it; a changed column's table is written without that.
    pub(crate) fn rebuild(self, table: &str) -> String {
        match self {
            Self::Sqlite => "VACUUM".to_owned(),
            Self::Postgres => {
                format!("ALTER TABLE {table} ALTER COLUMN created TYPE BIGINT USING created + 0")
            }
            Self::MariaDb => format!("ALTER TABLE {table} FORCE"),
        }
    }

    /// An `INSERT` that leaves a row alone whose key is taken. MariaDB can't say so without hiding
    /// other errors too (`INSERT IGNORE`): there the error is looked at.
    pub(crate) fn unless_taken(self, sql: &str, taken: Taken) -> Cow<'_, str> {
        match (self, taken) {
            (Self::MariaDb, _) => sql.into(),
            (_, Taken::Any) => format!("{sql} ON CONFLICT DO NOTHING").into(),
            (_, Taken::PrimaryKid | Taken::Kid) => {
                format!("{sql} ON CONFLICT (kid) DO NOTHING").into()
            }
        }
    }

    /// Whether `error` says that a key was taken. In MariaDB it undoes the one statement only.
    pub(crate) fn says_taken(self, error: &sqlx::Error, taken: Taken) -> bool {
        let Some(told) = error.as_database_error().filter(|_| self == Self::MariaDb) else {
            return false;
        };
        told.is_unique_violation()
            && match taken {
                Taken::Any => true,
                Taken::PrimaryKid => told.message().ends_with("for key 'PRIMARY'"),
                Taken::Kid => told.message().ends_with("for key 'kid'"),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_numbered_in_order_or_as_they_say() {
        let plain = "SELECT a FROM b WHERE c = ? AND d > ? LIMIT ?";
        let (text, order) = Dialect::Postgres.places(plain, 3);
        assert_eq!(text, "SELECT a FROM b WHERE c = $1 AND d > $2 LIMIT $3");
        assert_eq!(order, [0, 1, 2]);
        assert_eq!(Dialect::MariaDb.places(plain, 3), (plain.to_owned(), vec![0, 1, 2]));
        let numbered = "(?2, ?1, ?10, ?2)";
        let (text, order) = Dialect::Postgres.places(numbered, 10);
        assert_eq!((text.as_str(), order.len()), ("($2, $1, $10, $2)", 10));
        let (text, order) = Dialect::MariaDb.places(numbered, 10);
        assert_eq!((text.as_str(), order), ("(?, ?, ?, ?)", vec![1, 0, 9, 1]));
        let (text, order) = Dialect::Sqlite.places(numbered, 10);
        assert_eq!((text.as_str(), order.len()), (numbered, 10));
        assert_eq!(Dialect::MariaDb.places("SELECT 1", 0), ("SELECT 1".to_owned(), vec![]));
    }

    #[test]
    fn a_taken_key_is_left_alone_by_name() {
        let sql = "INSERT INTO t VALUES (1)";
        let text = Dialect::Postgres.unless_taken(sql, Taken::Kid);
        assert_eq!(text, "INSERT INTO t VALUES (1) ON CONFLICT (kid) DO NOTHING");
        let text = Dialect::Sqlite.unless_taken(sql, Taken::Any);
        assert_eq!(text, "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING");
        assert_eq!(Dialect::MariaDb.unless_taken(sql, Taken::Any), sql);
    }
}
