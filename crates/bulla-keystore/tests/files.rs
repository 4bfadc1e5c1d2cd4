//! The keystore's file: made, opened, refused, taken from one schema version to another.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bulla_keystore::{AgentKeys, KeyType, Keystore, KeystoreError};
use bulla_seal::{GroupName, Suite};
use common::{Fixture, agent, component, domain};

async fn open(fixture: &Fixture) -> Result<Keystore, KeystoreError> {
    Keystore::open(fixture.path(), fixture.kek.clone()).await
}

#[tokio::test]
async fn what_was_stored_is_there_after_opening_again() {
    let fixture = Fixture::with_components(&["control"]).await;
    fixture.shared("db-1").await;
    let pair = fixture.keystore.pair_key(&agent("db-1"), &component("control")).await.unwrap();
    fixture.keystore.clone().close().await;
    let again = open(&fixture).await.unwrap();
    let same = again.pair_by_kid(pair.kid).await.unwrap().unwrap();
    assert!(same.key.ct_eq(&pair.key));
    assert_eq!(*again.trust_store().root(), fixture.root.verifying_key());
    assert_eq!(again.trust_store().issuers().count(), 4);
}

#[tokio::test]
async fn a_keystore_is_never_overwritten() {
    let fixture = Fixture::new().await;
    let before = fs::read(fixture.path()).unwrap();
    let error = Keystore::init(fixture.path(), &domain(), fixture.kek.clone()).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Exists { .. }), "{error}");
    assert_eq!(fs::read(fixture.path()).unwrap(), before);
    assert!(open(&fixture).await.is_ok());
}

#[tokio::test]
async fn a_path_that_can_not_be_written_is_named() {
    let fixture = Fixture::new().await;
    for path in ["/proc/keystore.db", "/nowhere/at/all/keystore.db"] {
        let error = Keystore::init(path, &domain(), fixture.kek.clone()).await.unwrap_err();
        assert!(matches!(error, KeystoreError::CannotWrite { .. }), "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_keystore_is_refused() {
    let fixture = Fixture::new().await;
    let path = fixture.folder.path().join("other.db");
    let open = || Keystore::open(&path, fixture.kek.clone());
    let error = open().await.unwrap_err();
    assert!(matches!(error, KeystoreError::Missing { .. }), "{error}");
    assert!(!path.exists(), "opening must not make a file");
    let text = "not a database at all, however long this text may be".repeat(100);
    for content in ["", "short", &text] {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = open().await.unwrap_err();
        assert!(matches!(error, KeystoreError::NotAKeystore { .. }), "{content:?}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let error = Keystore::open(fixture.folder.path(), fixture.kek.clone()).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NotAKeystore { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_others_can_use_is_refused() {
    let fixture = Fixture::new().await;
    for mode in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(fixture.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = open(&fixture).await.unwrap_err();
        assert!(matches!(error, KeystoreError::Unprotected { mode: found, .. } if found == mode));
    }
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(open(&fixture).await.is_ok());
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let fixture = Fixture::new().await;
    sqlx::query("INSERT INTO schema_version VALUES (99, 'later', 0)")
        .execute(&mut fixture.raw().await)
        .await
        .unwrap();
    let known = Keystore::schema_version();
    for error in [
        open(&fixture).await.unwrap_err(),
        Keystore::migrate(fixture.path(), &fixture.kek).await.unwrap_err(),
        Keystore::revert(fixture.path(), &fixture.kek, 1).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, KeystoreError::SchemaNewer { found: 99, known: k } if k == known),
            "{error}"
        );
    }
}

#[tokio::test]
async fn going_down_and_up_keeps_what_the_schema_has_a_place_for() {
    let fixture = Fixture::with_components(&["control"]).await;
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

    let error = Keystore::revert(fixture.path(), &fixture.kek, 0).await.unwrap_err();
    assert!(matches!(error, KeystoreError::RevertTooFar), "{error}");
    assert_eq!(Keystore::revert(fixture.path(), &fixture.kek, 1).await.unwrap(), 3);
    let error = open(&fixture).await.unwrap_err();
    assert!(matches!(error, KeystoreError::SchemaOlder { found: 1, known: 3 }), "{error}");
    assert!(error.to_string().contains("bulla db migrate"), "{error}");
    assert_eq!(Keystore::migrate(fixture.path(), &fixture.kek).await.unwrap(), 1);
    assert_eq!(Keystore::migrate(fixture.path(), &fixture.kek).await.unwrap(), 3);

    let keystore = open(&fixture).await.unwrap();
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
