//! The schema's versions, up and down.
//!
//! SQLite and PostgreSQL take back what is not committed. MariaDB takes back no statement that
//! makes or drops a table: there every statement of a migration may be repeated, and the row of its
//! version says how far it came (`state`: `up` or `down` while it is under way, then `applied` or
//! gone). Nothing opens a keystore whose rows are not all `applied`.

use super::{Conn, Dialect, args};
use crate::error::{KeystoreError, Result};

/// One step between two versions of the schema.
pub(crate) struct Migration {
    pub(crate) version: u32,
    pub(crate) name: &'static str,
    up: Texts,
    down: Texts,
    /// What rows have to go through before the step up, and before the step down.
    before: (Option<DataStep>, Option<DataStep>),
}

/// What many rows go through between two versions of the schema, in batches that each last, so that
/// it goes on where it was cut off. Until it is done the schema is at a version that no program
/// works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataStep {
    /// Secrets of access keys that are in clear are encrypted.
    EncryptAccessKeys,
    /// And taken back, for an older program.
    DecryptAccessKeys,
}

impl DataStep {
    const ALL: &'static [Self] = &[Self::EncryptAccessKeys, Self::DecryptAccessKeys];

    /// Whether no row is left.
    pub(crate) async fn is_done(self, conn: &mut Conn) -> Result<bool> {
        let (column, other) = match self {
            Self::EncryptAccessKeys => ("secret_key", "encrypted_secret_key"),
            Self::DecryptAccessKeys => ("encrypted_secret_key", "secret_key"),
        };
        // One of them is gone if the step next to this one was cut off.
        if !conn.has_column("access_keys", column).await?
            || !conn.has_column("access_keys", other).await?
        {
            return Ok(true);
        }
        let sql = format!("SELECT count(*) FROM access_keys WHERE {column} IS NOT NULL");
        Ok(conn.one::<i64>(&sql, &[]).await? == 0)
    }
}

struct Texts {
    sqlite: &'static str,
    postgres: &'static str,
    mariadb: &'static str,
}

impl Texts {
    fn of(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Sqlite => self.sqlite,
            Dialect::Postgres => self.postgres,
            Dialect::MariaDb => self.mariadb,
        }
    }
}

impl Migration {
    /// What brings the version about.
    pub(crate) fn up(&self, dialect: Dialect) -> &'static str {
        self.up.of(dialect)
    }

    /// What takes it back.
    pub(crate) fn down(&self, dialect: Dialect) -> &'static str {
        self.down.of(dialect)
    }
}

macro_rules! texts {
    ($file:expr) => {
        Texts {
            sqlite: include_str!(concat!("../../migrations/sqlite/", $file)),
            postgres: include_str!(concat!("../../migrations/postgres/", $file)),
            mariadb: include_str!(concat!("../../migrations/mariadb/", $file)),
        }
    };
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: texts!(concat!($name, ".up.sql")),
            down: texts!(concat!($name, ".down.sql")),
            before: (None, None),
        }
    };
    ($version:literal, $name:literal, $up:expr, $down:expr) => {
        Migration { before: ($up, $down), ..migration!($version, $name) }
    };
}

/// In rising order.
pub(crate) const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_principals"),
    migration!(2, "0002_groups"),
    migration!(3, "0003_revocation"),
    migration!(4, "0004_enrolment"),
    migration!(7, "0007_access_keys"),
    migration!(8, "0008_access_keys_encrypted", None, Some(DataStep::DecryptAccessKeys)),
    migration!(9, "0009_access_keys_not_in_clear", Some(DataStep::EncryptAccessKeys), None),
    migration!(10, "0010_component_keys"),
    migration!(11, "0011_roots"),
    migration!(12, "0012_policies"),
    migration!(13, "0013_recalls"),
    migration!(14, "0014_legacy_keys"),
    migration!(15, "0015_service_keys"),
];

/// The schema version that this program works with.
pub(crate) const LATEST: u32 = match MIGRATIONS.last() {
    Some(last) => last.version,
    None => 0,
};

/// The schema version of the database.
pub(crate) async fn version(conn: &mut Conn) -> Result<u32> {
    let applied = match conn.dialect() {
        Dialect::MariaDb => "WHERE state = 'applied'",
        _ => "",
    };
    let sql = format!("SELECT coalesce(max(version), 0) FROM schema_version {applied}");
    conn.one(&sql, &[]).await
}

/// The versions on the way to or from which a change was interrupted, with its direction.
async fn pending(conn: &mut Conn) -> Result<Vec<(u32, String)>> {
    if conn.dialect() != Dialect::MariaDb {
        return Ok(Vec::new());
    }
    let sql = "SELECT version, state FROM schema_version WHERE state <> 'applied' ORDER BY version";
    conn.all(sql, &[]).await
}

/// What was applied and when: version, name, time.
pub(crate) async fn applied(conn: &mut Conn) -> Result<Vec<(u32, String, i64)>> {
    conn.all("SELECT version, name, applied FROM schema_version ORDER BY version", &[]).await
}

/// The lowest version on the way to or from which a change was interrupted.
pub(crate) async fn interrupted(conn: &mut Conn) -> Result<Option<u32>> {
    Ok(pending(conn).await?.first().map(|(version, _)| *version))
}

/// Makes the table of versions.
pub(crate) async fn prepare(conn: &mut Conn) -> Result<()> {
    conn.script(match conn.dialect() {
        Dialect::Sqlite => {
            "CREATE TABLE schema_version (
                version INTEGER PRIMARY KEY,
                name    TEXT    NOT NULL,
                applied INTEGER NOT NULL
            ) STRICT"
        }
        Dialect::Postgres => {
            "CREATE TABLE schema_version (
                version BIGINT PRIMARY KEY,
                name    TEXT   NOT NULL,
                applied BIGINT NOT NULL
            )"
        }
        // And the row that writers lock.
        Dialect::MariaDb => {
            "CREATE TABLE IF NOT EXISTS write_lock (
                one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
                n   BIGINT NOT NULL
            ) ENGINE = InnoDB;
            INSERT IGNORE INTO write_lock VALUES (1, 0);
            CREATE TABLE IF NOT EXISTS schema_version (
                version BIGINT       NOT NULL PRIMARY KEY,
                name    VARCHAR(128) NOT NULL,
                applied BIGINT       NOT NULL,
                state   VARCHAR(8)   NOT NULL
            ) ENGINE = InnoDB"
        }
    })
    .await
}

/// Refuses any version but this program's.
pub(crate) async fn check(conn: &mut Conn) -> Result<()> {
    if let Some(version) = interrupted(conn).await? {
        return Err(KeystoreError::SchemaUnfinished { version });
    }
    let (found, known) = (version(conn).await?, LATEST);
    match found {
        _ if found > known => Err(KeystoreError::SchemaNewer { found, known }),
        _ if found < known => Err(KeystoreError::SchemaOlder { found, known }),
        _ => Ok(()),
    }
}

async fn known_version(conn: &mut Conn) -> Result<u32> {
    let highest: u32 =
        conn.one("SELECT coalesce(max(version), 0) FROM schema_version", &[]).await?;
    if highest > LATEST {
        return Err(KeystoreError::SchemaNewer { found: highest, known: LATEST });
    }
    version(conn).await
}

/// What [`up`] does next to a database of version `found`.
pub(crate) fn above(found: u32) -> impl Iterator<Item = &'static Migration> {
    MIGRATIONS.iter().filter(move |m| m.version > found)
}

/// What [`down`] does next to a database of version `found`.
pub(crate) fn between(to: u32, found: u32) -> impl Iterator<Item = &'static Migration> {
    MIGRATIONS.iter().rev().filter(move |m| m.version > to && m.version <= found)
}

/// Goes up to [`LATEST`] where there are no rows yet; gives the version that the database had.
pub(crate) async fn up(conn: &mut Conn, now: i64) -> Result<u32> {
    let (found, step) = climb(conn, now, DataStep::ALL).await?;
    match step {
        None => Ok(found),
        Some(_) => Err(KeystoreError::SchemaUnfinished { version: version(conn).await? }),
    }
}

/// Goes up to [`LATEST`], or as far as to a step through the rows that is neither among the `done`
/// ones nor without rows; gives the version that the database had, and that step. Finishes what was
/// interrupted.
pub(crate) async fn climb(
    conn: &mut Conn,
    now: i64,
    done: &[DataStep],
) -> Result<(u32, Option<DataStep>)> {
    let found = known_version(conn).await?;
    for (version, state) in pending(conn).await?.into_iter().rev() {
        if state == "down" {
            undo(conn, version).await?;
        }
    }
    for migration in above(version(conn).await?) {
        if let Some(step) = left(conn, migration.before.0, done).await? {
            return Ok((found, Some(step)));
        }
        let row = args![migration.version, migration.name, now];
        if conn.dialect() == Dialect::MariaDb {
            let sql = "REPLACE INTO schema_version VALUES (?, ?, ?, 'up')";
            conn.execute(sql, row).await?;
            conn.script(migration.up(Dialect::MariaDb)).await?;
        } else {
            conn.script(migration.up(conn.dialect())).await?;
            conn.execute("INSERT INTO schema_version VALUES (?, ?, ?)", row).await?;
        }
    }
    Ok((found, None))
}

/// The step through the rows, if it has still to be made.
async fn left(
    conn: &mut Conn,
    step: Option<DataStep>,
    done: &[DataStep],
) -> Result<Option<DataStep>> {
    match step {
        Some(step) if !done.contains(&step) || !step.is_done(conn).await? => Ok(Some(step)),
        _ => Ok(None),
    }
}

/// Goes down to version `to` where there are no rows; gives the version that the database had.
#[cfg(test)]
pub(crate) async fn down(conn: &mut Conn, to: u32) -> Result<u32> {
    let (found, step) = descend(conn, to, DataStep::ALL).await?;
    assert_eq!(step, None);
    Ok(found)
}

/// Goes down to version `to`, or as far as to a step through the rows, as [`climb`] does. What was
/// interrupted is taken back first.
pub(crate) async fn descend(
    conn: &mut Conn,
    to: u32,
    done: &[DataStep],
) -> Result<(u32, Option<DataStep>)> {
    let found = known_version(conn).await?;
    for (version, _) in pending(conn).await?.into_iter().rev() {
        undo(conn, version).await?;
    }
    for migration in between(to, version(conn).await?) {
        if let Some(step) = left(conn, migration.before.1, done).await? {
            return Ok((found, Some(step)));
        }
        undo(conn, migration.version).await?;
    }
    Ok((found, None))
}

async fn undo(conn: &mut Conn, version: u32) -> Result<()> {
    if conn.dialect() == Dialect::MariaDb {
        let sql = "UPDATE schema_version SET state = 'down' WHERE version = ?";
        conn.execute(sql, args![version]).await?;
    }
    for migration in MIGRATIONS.iter().filter(|m| m.version == version) {
        conn.script(migration.down(conn.dialect())).await?;
    }
    conn.execute("DELETE FROM schema_version WHERE version = ?", args![version]).await?;
    Ok(())
}

/// In MariaDB: whatever is on its way up has arrived.
pub(crate) async fn finish(conn: &mut Conn) -> Result<()> {
    conn.execute("UPDATE schema_version SET state = 'applied'", &[]).await?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Db;
    use super::super::tests::empty_file;
    use super::*;

    /// Every table, column, index and constraint there is.
    pub(crate) async fn schema(conn: &mut Conn) -> Vec<(String, String)> {
        let sql = match conn.dialect() {
            Dialect::Sqlite => "SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name",
            Dialect::Postgres => {
                "SELECT (table_name || '.' || column_name)::text, (data_type || is_nullable)::text
                 FROM information_schema.columns WHERE table_schema = 'public'
                 UNION ALL SELECT indexname::text, indexdef FROM pg_indexes
                 WHERE schemaname = 'public'
                 UNION ALL SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint
                 WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
            }
            Dialect::MariaDb => {
                "SELECT concat(table_name, '.', column_name),
                     concat(column_type, is_nullable, coalesce(extra, ''))
                 FROM information_schema.columns WHERE table_schema = database()
                 UNION ALL SELECT concat(table_name, '.', index_name, '.', seq_in_index),
                     column_name
                 FROM information_schema.statistics WHERE table_schema = database()
                 UNION ALL SELECT concat(table_name, '.', constraint_name), constraint_type
                 FROM information_schema.table_constraints WHERE table_schema = database()
                 ORDER BY 1, 2"
            }
        };
        conn.all(sql, &[]).await.unwrap()
    }

    /// Up, and down and up again by each step.
    pub(crate) async fn there_and_back(db: &Db) {
        let conn = &mut *db.alter().await.unwrap();
        prepare(conn).await.unwrap();
        let empty = schema(conn).await;
        assert_eq!(up(conn, 0).await.unwrap(), 0);
        finish_in_mariadb(conn).await;
        let full = schema(conn).await;
        assert!(full.len() > empty.len() + 10);
        let below = [0].into_iter().chain(MIGRATIONS.iter().map(|m| m.version));
        for to in below.take(MIGRATIONS.len()).collect::<Vec<_>>().into_iter().rev() {
            down(conn, to).await.unwrap();
            assert_eq!(version(conn).await.unwrap(), to);
            up(conn, 0).await.unwrap();
            finish_in_mariadb(conn).await;
            assert_eq!(schema(conn).await, full);
            down(conn, to).await.unwrap();
        }
        assert_eq!(schema(conn).await, empty);
    }

    async fn finish_in_mariadb(conn: &mut Conn) {
        if conn.dialect() == Dialect::MariaDb {
            finish(conn).await.unwrap();
        }
    }

    #[test]
    fn versions_rise_as_their_names_say() {
        assert!(MIGRATIONS.is_sorted_by(|a, b| a.version < b.version));
        for Migration { version, name, .. } in MIGRATIONS {
            assert!(name.starts_with(&format!("{version:04}_")));
        }
    }

    #[tokio::test]
    async fn every_step_down_undoes_its_step_up() {
        let folder = tempfile::tempdir().unwrap();
        there_and_back(&empty_file(folder.path()).await).await;
    }
}
