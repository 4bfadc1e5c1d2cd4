//! One private server a test program, one database a test.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bulla_services::{MariaDb, Postgres, require};

use super::{Database, Fixture, Raw};

static NUMBER: AtomicU32 = AtomicU32::new(0);
// Never dropped: the servers end with the process.
static POSTGRES: OnceLock<Option<Postgres>> = OnceLock::new();
static MARIADB: OnceLock<Option<MariaDb>> = OnceLock::new();

fn address(database: Database) -> Option<String> {
    match database {
        Database::Sqlite => None,
        Database::Postgres => {
            POSTGRES.get_or_init(|| require(Postgres::start())).as_ref().map(Postgres::url)
        }
        Database::MariaDb => {
            MARIADB.get_or_init(|| require(MariaDb::start())).as_ref().map(MariaDb::url)
        }
    }
}

/// The address of a new database.
pub(super) async fn fresh(database: Database) -> Option<String> {
    let url = tokio::task::spawn_blocking(move || address(database)).await.unwrap()?;
    let name = format!("keys{}", NUMBER.fetch_add(1, Relaxed));
    let mut raw = Raw::connect(database, &url).await;
    raw.run(&format!("CREATE DATABASE {name}")).await;
    raw.close().await;
    let (server, _) = url.rsplit_once('/').unwrap();
    Some(format!("{server}/{name}"))
}

/// The database's own tool, with its login.
fn tool(fixture: &Fixture, postgres: &str, mariadb: &str, options: &[&str]) -> Command {
    let (_, rest) = fixture.url.split_once("://").unwrap();
    let (login, place) = rest.split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let (server, name) = place.split_once('/').unwrap();
    let (host, port) = server.split_once(':').unwrap();
    match fixture.database {
        Database::Postgres => {
            let mut command = Command::new(postgres);
            command.env("PGPASSWORD", password).args(["-h", host, "-p", port, "-U", user, name]);
            command
        }
        _ => {
            let mut command = Command::new(mariadb);
            command.env("MYSQL_PWD", password).arg("--no-defaults").args(options);
            command.args(["-h", host, "-P", port, "-u", user, name]);
            command
        }
    }
}

pub(super) fn dump(fixture: &Fixture) -> Vec<u8> {
    if fixture.database == Database::Sqlite {
        return std::fs::read(fixture.path()).unwrap();
    }
    let output = tool(fixture, "pg_dump", "mariadb-dump", &["--hex-blob"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(super) async fn backup(fixture: &Fixture) -> Vec<u8> {
    if fixture.database != Database::Sqlite {
        return dump(fixture);
    }
    let copy = fixture.folder.path().join("backup.db");
    let _ = std::fs::remove_file(&copy);
    fixture.raw().await.run(&format!("VACUUM INTO '{}'", copy.display())).await;
    std::fs::read(copy).unwrap()
}

pub(super) async fn restore(fixture: &Fixture, backup: &[u8]) {
    if fixture.database == Database::Sqlite {
        for end in ["db-wal", "db-shm"] {
            let _ = std::fs::remove_file(fixture.path().with_extension(end));
        }
        return std::fs::write(fixture.path(), backup).unwrap();
    }
    if fixture.database == Database::Postgres {
        fixture.raw().await.script("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    }
    let mut command = tool(fixture, "psql", "mariadb", &[]);
    if fixture.database == Database::Postgres {
        command.args(["-q", "-v", "ON_ERROR_STOP=1"]);
    }
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    running.stdin.take().unwrap().write_all(backup).unwrap();
    assert!(running.wait().unwrap().success(), "the backup was not taken back");
}

pub(super) async fn table_file(fixture: &Fixture, table: &str) -> Vec<u8> {
    let mut raw = fixture.raw().await;
    let path = match fixture.database {
        Database::Sqlite => {
            let mut bytes = std::fs::read(fixture.path()).unwrap();
            bytes
                .extend(std::fs::read(fixture.path().with_extension("db-wal")).unwrap_or_default());
            return bytes;
        }
        Database::Postgres => {
            raw.run("CHECKPOINT").await;
            let path = raw.text(&format!("SELECT pg_relation_filepath('{table}')")).await;
            POSTGRES.get().unwrap().as_ref().unwrap().directory().join("data").join(path)
        }
        Database::MariaDb => {
            raw.run("SET GLOBAL innodb_max_dirty_pages_pct = 0").await;
            let (_, database) = fixture.url.rsplit_once('/').unwrap();
            let data = MARIADB.get().unwrap().as_ref().unwrap().directory().join("data");
            data.join(database).join(format!("{table}.ibd"))
        }
    };
    if fixture.database == Database::MariaDb {
        raw.script(&format!("FLUSH TABLES {table} FOR EXPORT")).await;
    }
    let bytes = std::fs::read(path).unwrap();
    if fixture.database == Database::MariaDb {
        raw.script("UNLOCK TABLES").await;
    }
    bytes
}
