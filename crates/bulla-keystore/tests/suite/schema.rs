//! Opened again, refused, taken from one schema version to another.

use bulla_keystore::{AgentKeys, KeyType, Keystore, KeystoreError, StoreAddress};
use bulla_seal::{GroupName, Suite};

use crate::common::{Database, agent, component, domain, empty_database, fixture};

#[tokio::test]
async fn what_was_stored_is_there_after_opening_again() {
    let fixture = fixture!("control");
    fixture.shared("db-1").await;
    let pair = fixture.keystore.pair_key(&agent("db-1"), &component("control")).await.unwrap();
    fixture.keystore.clone().close().await;
    let again = fixture.open().await.unwrap();
    let same = again.pair_by_kid(pair.kid).await.unwrap().unwrap();
    assert!(same.key.ct_eq(&pair.key));
    assert_eq!(*again.trust_store().root(), fixture.root.verifying_key());
    assert_eq!(again.trust_store().issuers().count(), 4);
}

#[tokio::test]
async fn a_keystore_is_never_put_over_another() {
    let fixture = fixture!("control");
    let error = Keystore::init(&fixture.address, &domain(), fixture.kek.clone()).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Exists { .. }), "{error}");
    fixture.open().await.unwrap().component_keys("control").await.unwrap();
}

#[tokio::test]
async fn a_server_that_has_no_keystore_or_does_not_let_us_in_is_told_without_the_password() {
    if crate::DATABASE == Database::Sqlite {
        return;
    }
    let fixture = fixture!();
    let Some(url) = empty_database(crate::DATABASE).await else { return };
    let open = async |url: &str| {
        let address: StoreAddress = url.parse().unwrap();
        Keystore::open(&address, fixture.kek.clone()).await.unwrap_err()
    };
    let error = open(&url).await;
    assert!(matches!(error, KeystoreError::Missing { .. }), "{error}");
    let mut told = format!("{error} {error:?} {:?} {:?}", fixture.address, fixture.keystore);
    let (before, _) = url.rsplit_once('/').unwrap();
    let closed = url.replace("127.0.0.1:", "127.0.0.1:1");
    let closed = closed
        .split_once("127.0.0.1:")
        .map(|(a, b)| format!("{a}127.0.0.1:1/{}", b.split_once('/').unwrap().1));
    for bad in [url.replace("test-only", "wrong"), format!("{before}/none"), closed.unwrap()] {
        let error = open(&bad).await;
        assert!(matches!(error, KeystoreError::Unreachable { .. }), "{error:?}");
        told += &format!("{error} {error:?}");
    }
    assert!(!told.contains("test-only") && !told.contains("wrong"), "{told}");
    // Tables of something else are not taken for an empty place.
    let mut raw = crate::common::Raw::connect(crate::DATABASE, &url).await;
    raw.run("CREATE TABLE credentials (id BIGINT)").await;
    let address: StoreAddress = url.parse().unwrap();
    let error = Keystore::init(&address, &domain(), fixture.kek.clone()).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Exists { .. }), "{error}");
    raw.run("DROP TABLE credentials").await;
    Keystore::init(&address, &domain(), fixture.kek.clone()).await.unwrap();
}

#[tokio::test]
async fn a_plan_tells_what_would_be_done_and_does_nothing() {
    let fixture = fixture!("control");
    let latest = Keystore::schema_version();
    let before = Keystore::schema_status(&fixture.address).await.unwrap();
    assert_eq!((before.found, before.known, before.interrupted), (latest, latest, None));
    assert_eq!(before.applied.last().unwrap().0, latest);
    assert!(Keystore::plan_migrate(&fixture.address).await.unwrap().is_empty());
    let down = Keystore::plan_revert(&fixture.address, 1).await.unwrap();
    assert_eq!(down.len(), before.applied.len() - 1);
    assert!(down.last().unwrap().sql.contains("DROP TABLE"), "{down:?}");
    assert_eq!(Keystore::schema_status(&fixture.address).await.unwrap(), before);
    Keystore::revert(&fixture.address, &fixture.kek, 2).await.unwrap();
    let up = Keystore::plan_migrate(&fixture.address).await.unwrap();
    let versions: Vec<_> = up.iter().map(|step| step.version).collect();
    let known: Vec<_> = before.applied.iter().map(|(version, ..)| *version).collect();
    assert_eq!(versions, known[2..]);
    assert!(up[0].sql.contains("CREATE TABLE"), "{up:?}");
    assert_eq!(Keystore::schema_status(&fixture.address).await.unwrap().found, 2);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let fixture = fixture!();
    let state = if fixture.database == Database::MariaDb { ", 'applied'" } else { "" };
    let sql = format!("INSERT INTO schema_version VALUES (99, 'later', 0{state})");
    fixture.raw().await.run(&sql).await;
    let known = Keystore::schema_version();
    for error in [
        fixture.open().await.unwrap_err(),
        Keystore::migrate(&fixture.address, &fixture.kek).await.unwrap_err(),
        Keystore::revert(&fixture.address, &fixture.kek, 1).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, KeystoreError::SchemaNewer { found: 99, known: k } if k == known),
            "{error}"
        );
    }
}

#[tokio::test]
async fn going_down_and_up_keeps_what_the_schema_has_a_place_for() {
    let fixture = fixture!("control");
    let latest = Keystore::schema_version();
    let keystore = fixture.keystore.clone();
    let keys = keystore.add_agent("db-1", KeyType::Pair, Suite::X25519).await.unwrap();
    let AgentKeys::Pair { credential, .. } = keys else { panic!("{keys:?}") };
    fixture.shared("db-2").await;
    fixture.shared("db-3").await;
    keystore.remove_agent("db-3").await.unwrap();
    keystore.add_group(&GroupName::new("blue").unwrap()).await.unwrap();
    let pair = keystore.pair_key(&agent("db-2"), &component("control")).await.unwrap();
    let all = GroupName::new("all").unwrap();
    let group_key = keystore.group_key(&all, None).await.unwrap();
    let statement = keystore.statement().await.unwrap();
    keystore.close().await;

    let error = Keystore::revert(&fixture.address, &fixture.kek, 0).await.unwrap_err();
    assert!(matches!(error, KeystoreError::RevertTooFar), "{error}");
    assert_eq!(Keystore::revert(&fixture.address, &fixture.kek, 1).await.unwrap(), latest);
    let error = fixture.open().await.unwrap_err();
    assert!(
        matches!(error, KeystoreError::SchemaOlder { found: 1, known } if known == latest),
        "{error}"
    );
    assert!(error.to_string().contains("bulla db migrate"), "{error}");
    assert_eq!(Keystore::migrate(&fixture.address, &fixture.kek).await.unwrap(), 1);
    assert_eq!(Keystore::migrate(&fixture.address, &fixture.kek).await.unwrap(), latest);

    let keystore = fixture.open().await.unwrap();
    // What was revoked had no place; the epoch goes on above what receivers have seen.
    assert!(!statement.revoked.is_empty());
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert!(keystore.statement().await.unwrap().epoch > statement.epoch);
    assert_eq!(keystore.credential(&agent("db-1")).await.unwrap(), credential);
    let same = keystore.pair_by_kid(pair.kid).await.unwrap().unwrap();
    assert!(same.key.ct_eq(&pair.key));
    keystore.component_keys("control").await.unwrap();
    assert!(keystore.party(&agent("db-3")).await.is_err());
    // Groups had no place. Group `all` is made anew, with everybody in it and another key.
    let groups = keystore.list_groups().await.unwrap();
    assert_eq!(
        groups.iter().map(|g| g.name.clone()).collect::<Vec<_>>(),
        std::slice::from_ref(&all)
    );
    let members = keystore.members_of(&all).await.unwrap();
    assert_eq!(members, [agent("db-1"), agent("db-2")]);
    assert!(!keystore.group_key(&all, None).await.unwrap().key.ct_eq(&group_key.key));
    keystore.add_agent("db-3", KeyType::Shared, Suite::Shared).await.unwrap();
    let db3 = keystore.party(&agent("db-3")).await.unwrap();
    assert_eq!(db3.incarnation, 2, "incarnations are not forgotten");
}
