//! The keystore's file: made, opened, refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bulla_keystore::{Keystore, KeystoreError};
use common::{Fixture, domain};

#[tokio::test]
async fn a_keystore_is_never_overwritten() {
    let fixture = Fixture::new().await;
    let before = fs::read(fixture.path()).unwrap();
    let error = Keystore::init(fixture.path(), &domain(), fixture.kek.clone()).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Exists { .. }), "{error}");
    assert_eq!(fs::read(fixture.path()).unwrap(), before);
    assert!(fixture.open().await.is_ok());
}

#[tokio::test]
async fn a_path_that_can_not_be_written_is_named() {
    let fixture = Fixture::new().await;
    for path in ["/proc/keystore.db", "/nowhere/at/all/keystore.db"] {
        let error =
            Keystore::init(Path::new(path), &domain(), fixture.kek.clone()).await.unwrap_err();
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
        let error = fixture.open().await.unwrap_err();
        assert!(matches!(error, KeystoreError::Unprotected { mode: found, .. } if found == mode));
    }
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(fixture.open().await.is_ok());
}

#[tokio::test]
async fn the_files_are_private() {
    let fixture = Fixture::with_components(&["control"]).await;
    let mut names = Vec::new();
    for entry in fs::read_dir(fixture.folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    assert!(names.contains(&"keystore.db-wal".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_removed_agents_key_leaves_the_file() {
    let fixture = Fixture::new().await;
    fixture.shared("db-1").await;
    let mut raw = fixture.raw().await;
    let wrapped = raw.text("SELECT encrypted_key FROM instance_keys").await;
    // The log is folded in when the last connection closes, so this one must not linger.
    raw.close().await;
    fixture.keystore.remove_agent("db-1").await.unwrap();
    fixture.keystore.clone().close().await;
    let file = fs::read(fixture.path()).unwrap();
    assert!(!file.windows(wrapped.len()).any(|part| part == wrapped.as_bytes()));
    assert!(!fixture.path().with_extension("db-wal").exists());
}
