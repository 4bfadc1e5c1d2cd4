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
        }
    };
}

/// In rising order; the version is the place in the list, from 1.
pub(crate) const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_principals"),
    migration!(2, "0002_groups"),
    migration!(3, "0003_revocation"),
    migration!(4, "0004_enrolment"),
];

/// The schema version that this program works with.
pub(crate) const LATEST: u32 = MIGRATIONS.len() as u32;

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

/// Goes up to [`LATEST`]; gives the version that the database had. Finishes what was interrupted.
pub(crate) async fn up(conn: &mut Conn, now: i64) -> Result<u32> {
    let found = known_version(conn).await?;
    for (version, state) in pending(conn).await?.into_iter().rev() {
        if state == "down" {
            undo(conn, version).await?;
        }
    }
    for migration in above(found) {
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
    Ok(found)
}

/// Goes down to version `to`; gives the version that the database had. What was interrupted is
/// taken back first.
pub(crate) async fn down(conn: &mut Conn, to: u32) -> Result<u32> {
    let found = known_version(conn).await?;
    for (version, _) in pending(conn).await?.into_iter().rev() {
        undo(conn, version).await?;
    }
    for migration in between(to, found) {
        undo(conn, migration.version).await?;
    }
    Ok(found)
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
        for to in (0..LATEST).rev() {
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
    fn versions_are_places_in_the_list() {
        for (place, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.version, place);
            assert!(migration.name.starts_with(&format!("{place:04}_")));
        }
    }

    #[tokio::test]
    async fn every_step_down_undoes_its_step_up() {
        let folder = tempfile::tempdir().unwrap();
        there_and_back(&empty_file(folder.path()).await).await;
    }
}
