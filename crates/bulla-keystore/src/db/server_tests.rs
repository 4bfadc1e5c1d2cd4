//! What only servers do.

use bulla_services::require;

use super::migrations::tests::there_and_back;
use super::*;

async fn empty(url: &str) -> (StoreAddress, Db) {
    let address: StoreAddress = url.parse().unwrap();
    let db = Db::create(&address).await.unwrap();
    (address, db)
}

/// What a transaction reads that began while another wrote is what the other left.
async fn writers_wait_for_one_another(url: &str) {
    let (address, here) = empty(url).await;
    let mut alter = here.alter().await.unwrap();
    migrations::prepare(&mut alter).await.unwrap();
    migrations::up(&mut alter, 0).await.unwrap();
    alter.commit().await.unwrap();
    let there = Db::open(&address).await.unwrap();
    let mut first = here.write().await.unwrap();
    let second = tokio::spawn(async move {
        let mut tx = there.write().await.unwrap();
        let kids = revocation::kids(&mut tx, 0).await.unwrap();
        tx.commit().await.unwrap();
        kids
    });
    // Time to do it wrong in.
    tokio::time::sleep(Duration::from_millis(500)).await;
    revocation::insert_kid(&mut first, b"12345678", 1, 0).await.unwrap();
    assert!(revocation::kids(&mut here.read().await.unwrap(), 0).await.unwrap().is_empty());
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), [(b"12345678".to_vec(), 1)]);
}

#[cfg(feature = "postgres")]
mod postgres {
    use bulla_services::Postgres;

    use super::super::tests::LOOK_UPS;
    use super::*;

    #[tokio::test]
    async fn every_step_down_undoes_its_step_up() {
        let Some(server) = require(Postgres::start()) else { return };
        let (_, db) = empty(&server.url()).await;
        there_and_back(&db).await;
    }

    #[tokio::test]
    async fn writers_wait() {
        let Some(server) = require(Postgres::start()) else { return };
        writers_wait_for_one_another(&server.url()).await;
    }

    /// With every other way forbidden as far as the planner can, a table is only read as a whole
    /// if no index leads to its rows.
    #[tokio::test]
    async fn look_ups_never_scan_a_table() {
        let Some(server) = require(Postgres::start()) else { return };
        let (_, db) = empty(&server.url()).await;
        let mut alter = db.alter().await.unwrap();
        migrations::prepare(&mut alter).await.unwrap();
        migrations::up(&mut alter, 0).await.unwrap();
        alter.script("SET LOCAL enable_seqscan = off").await.unwrap();
        for sql in LOOK_UPS {
            let text = [Arg::Text(Some("x")), Arg::Text(Some("x")), Arg::Text(Some("x"))];
            let values = match *sql {
                rotation::RECEIVE => vec![text[0], Arg::Int(Some(1))],
                credentials::CURRENT => [&text[..], &[Arg::Int(Some(1))]].concat(),
                groups::KEY => vec![text[0], Arg::Int(None)],
                pairs::BY_KID => vec![Arg::Bytes(Some(b"12345678"))],
                pairs::OF_AGENT => vec![Arg::Int(Some(1))],
                pairs::PEER | principals::PAGE => vec![text[0], text[1], Arg::Int(Some(1))],
                _ => text[..2].to_vec(),
            };
            let plan: Vec<String> = alter.all(&format!("EXPLAIN {sql}"), &values).await.unwrap();
            assert!(plan.iter().any(|step| step.contains("Index")), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("Seq Scan")), "{sql}: {plan:#?}");
        }
    }
}

#[cfg(feature = "mariadb")]
mod mariadb {
    use bulla_seal::TrustDomain;
    use bulla_services::MariaDb;
    use sqlx::AssertSqlSafe;

    use super::super::migrations::tests::schema;
    use super::super::migrations::{self, MIGRATIONS};
    use super::*;
    use crate::{Kek, Keystore, KeystoreError};

    #[tokio::test]
    async fn every_step_down_undoes_its_step_up() {
        let Some(server) = require(MariaDb::start()) else { return };
        let (_, db) = empty(&server.url()).await;
        there_and_back(&db).await;
    }

    #[tokio::test]
    async fn writers_wait() {
        let Some(server) = require(MariaDb::start()) else { return };
        writers_wait_for_one_another(&server.url()).await;
    }

    fn statements(script: &str) -> Vec<String> {
        let lines = script.lines().filter(|line| !line.trim_start().starts_with("--"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    }

    fn of(version: u32) -> &'static migrations::Migration {
        MIGRATIONS.iter().find(|m| m.version == version).unwrap()
    }

    /// The version below.
    fn below(version: u32) -> u32 {
        MIGRATIONS.iter().rev().map(|m| m.version).find(|v| *v < version).unwrap_or(0)
    }

    /// A version's row as it is while the change is under way, and the first `count` statements.
    async fn interrupted(conn: &mut Conn, version: u32, state: &str, count: usize) {
        let migration = of(version);
        let script = match state {
            "up" => migration.up(Dialect::MariaDb),
            _ => migration.down(Dialect::MariaDb),
        };
        let row = "REPLACE INTO schema_version VALUES (?, ?, 0, ?)";
        conn.execute(row, args![version, migration.name, state]).await.unwrap();
        for statement in statements(script).into_iter().take(count) {
            conn.script(AssertSqlSafe(statement)).await.unwrap();
        }
        let refused = migrations::check(conn).await.unwrap_err();
        assert!(matches!(refused, KeystoreError::SchemaUnfinished { .. }), "{refused}");
    }

    /// After every single statement, on the way up and on the way down.
    #[tokio::test]
    async fn an_interrupted_change_is_finished_by_the_next() {
        let Some(server) = require(MariaDb::start()) else { return };
        let (_, db) = empty(&server.url()).await;
        let conn = &mut *db.alter().await.unwrap();
        migrations::prepare(conn).await.unwrap();
        migrations::up(conn, 0).await.unwrap();
        migrations::finish(conn).await.unwrap();
        let full = schema(conn).await;
        for migration in MIGRATIONS.iter().rev() {
            let version = migration.version;
            for count in 0..=statements(migration.up(Dialect::MariaDb)).len() {
                migrations::down(conn, below(version)).await.unwrap();
                interrupted(conn, version, "up", count).await;
                assert_eq!(migrations::up(conn, 0).await.unwrap(), below(version));
                migrations::finish(conn).await.unwrap();
                migrations::check(conn).await.unwrap();
                assert_eq!(schema(conn).await, full, "up to {version} after {count}");
            }
            for count in 0..=statements(migration.down(Dialect::MariaDb)).len() {
                migrations::down(conn, version).await.unwrap();
                interrupted(conn, version, "down", count).await;
                // Once by going up again, once by going further down.
                if count % 2 == 0 && version > 1 {
                    let lower = below(below(version));
                    migrations::down(conn, lower).await.unwrap();
                    assert_eq!(migrations::version(conn).await.unwrap(), lower);
                }
                migrations::up(conn, 0).await.unwrap();
                migrations::finish(conn).await.unwrap();
                assert_eq!(schema(conn).await, full, "down from {version} after {count}");
            }
        }
    }

    #[tokio::test]
    async fn an_interrupted_init_is_begun_anew() {
        let Some(server) = require(MariaDb::start()) else { return };
        let folder = tempfile::tempdir().unwrap();
        let kek = Kek::create_file(folder.path().join("kek")).unwrap();
        let domain = TrustDomain::new("cloud.example").unwrap();
        let (address, db) = empty(&server.url()).await;
        let mut alter = db.alter().await.unwrap();
        migrations::prepare(&mut alter).await.unwrap();
        let opened = Keystore::open(&address, kek.clone()).await.unwrap_err();
        assert!(matches!(opened, KeystoreError::Missing { .. }), "{opened}");
        interrupted(&mut alter, 1, "up", 3).await;
        drop(alter);
        db.close().await;
        assert!(Keystore::open(&address, kek.clone()).await.is_err());
        Keystore::init(&address, &domain, kek.clone()).await.unwrap();
        Keystore::open(&address, kek).await.unwrap();
    }
}
