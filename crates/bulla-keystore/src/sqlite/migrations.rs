//! The schema's versions, up and down.

use sqlx::raw_sql;
use sqlx::sqlite::SqliteConnection;

use crate::error::{KeystoreError, Result};

struct Migration {
    version: u32,
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../../migrations/sqlite/", $name, ".up.sql")),
            down: include_str!(concat!("../../migrations/sqlite/", $name, ".down.sql")),
        }
    };
}

/// In rising order; the version is the place in the list, from 1.
const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_principals"),
    migration!(2, "0002_groups"),
    migration!(3, "0003_revocation"),
];

/// The schema version that this program works with.
pub(crate) const LATEST: u32 = MIGRATIONS.len() as u32;
/// From this version on there are groups.
pub(crate) const GROUPS: u32 = 2;

/// The schema version of the database.
pub(crate) async fn version(conn: &mut SqliteConnection) -> Result<u32> {
    Ok(sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM schema_version")
        .fetch_one(conn)
        .await?)
}

/// Makes the table of versions.
pub(crate) async fn prepare(conn: &mut SqliteConnection) -> Result<()> {
    let table = "CREATE TABLE schema_version (
        version INTEGER PRIMARY KEY,
        name    TEXT    NOT NULL,
        applied INTEGER NOT NULL
    ) STRICT";
    sqlx::query(table).execute(conn).await?;
    Ok(())
}

/// Refuses any version but this program's.
pub(crate) async fn check(conn: &mut SqliteConnection) -> Result<()> {
    let (found, known) = (version(conn).await?, LATEST);
    match found {
        _ if found > known => Err(KeystoreError::SchemaNewer { found, known }),
        _ if found < known => Err(KeystoreError::SchemaOlder { found, known }),
        _ => Ok(()),
    }
}

/// Goes up to [`LATEST`]; gives the version that the database had.
pub(crate) async fn up(conn: &mut SqliteConnection, now: i64) -> Result<u32> {
    let found = version(conn).await?;
    if found > LATEST {
        return Err(KeystoreError::SchemaNewer { found, known: LATEST });
    }
    for migration in MIGRATIONS.iter().filter(|m| m.version > found) {
        raw_sql(migration.up).execute(&mut *conn).await?;
        sqlx::query("INSERT INTO schema_version (version, name, applied) VALUES (?, ?, ?)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(now)
            .execute(&mut *conn)
            .await?;
    }
    Ok(found)
}

/// Goes down to version `to`; gives the version that the database had.
pub(crate) async fn down(conn: &mut SqliteConnection, to: u32) -> Result<u32> {
    let found = version(conn).await?;
    if found > LATEST {
        return Err(KeystoreError::SchemaNewer { found, known: LATEST });
    }
    let undone = MIGRATIONS.iter().rev().filter(|m| m.version > to && m.version <= found);
    for migration in undone {
        raw_sql(migration.down).execute(&mut *conn).await?;
        sqlx::query("DELETE FROM schema_version WHERE version = ?")
            .bind(migration.version)
            .execute(&mut *conn)
            .await?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

    async fn schema(conn: &mut SqliteConnection) -> Vec<(String, String)> {
        let sql = "SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name";
        sqlx::query_as(sql).fetch_all(conn).await.unwrap()
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
        let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
        let mut conn = options.connect().await.unwrap();
        prepare(&mut conn).await.unwrap();
        let empty = schema(&mut conn).await;
        assert_eq!(up(&mut conn, 0).await.unwrap(), 0);
        let full = schema(&mut conn).await;
        assert!(full.len() > empty.len());
        for to in (0..LATEST).rev() {
            down(&mut conn, to).await.unwrap();
            assert_eq!(version(&mut conn).await.unwrap(), to);
            up(&mut conn, 0).await.unwrap();
            assert_eq!(schema(&mut conn).await, full);
            down(&mut conn, to).await.unwrap();
        }
        assert_eq!(schema(&mut conn).await, empty);
    }
}
