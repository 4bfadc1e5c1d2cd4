//! Which key files are refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulla_keystore::{FileError, Kek, KeystoreError, root_key};
use bulla_seal::{OsRandom, SigningKey, TrustDomain};

fn write(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("kek");
    let _ = fs::remove_file(&path);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn with_key(folder: &Path, key: &[u8]) -> Result<Kek, FileError> {
    Kek::from_file(write(folder, &format!("bulla-kek 1\n{}\n", STANDARD.encode(key))))
}

#[test]
fn a_new_file_is_private_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    let made = Kek::create_file(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Kek::from_file(&path).unwrap().id(), made.id());
    let text = fs::read_to_string(&path).unwrap();
    let encoded = text.lines().nth(1).unwrap();
    assert!(text.starts_with("bulla-kek 1\n"));
    assert!(!format!("{made:?}").contains(encoded));
    let again = Kek::create_file(&path).unwrap_err();
    assert!(matches!(again, KeystoreError::File(FileError::Exists { .. })), "{again}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_file_that_others_can_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    Kek::create_file(&path).unwrap();
    for mode in [0o640, 0o620, 0o604, 0o602, 0o610, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Kek::from_file(&path).unwrap_err();
        assert!(matches!(error, FileError::Unprotected { mode: found, .. } if found == mode));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(Kek::from_file(&path).is_ok());
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    Kek::create_file(&path).unwrap();
    // Only root can give a file away; without it there is nothing to try.
    if chown(&path, Some(12_345), None).is_ok() {
        let error = Kek::from_file(&path).unwrap_err();
        assert!(matches!(error, FileError::WrongOwner { owner: 12_345, .. }), "{error}");
    }
}

#[test]
fn what_is_no_key_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let key = STANDARD
        .encode((0..32u8).map(|i| i.wrapping_mul(i) ^ i.wrapping_mul(91)).collect::<Vec<u8>>());
    assert!(Kek::from_file(write(folder.path(), &format!("bulla-kek 1\n{key}\n"))).is_ok());
    for text in ["", "\n", &key, &format!("{key}\n"), &format!("bulla-kek 2\n{key}\n")] {
        let error = Kek::from_file(write(folder.path(), text)).unwrap_err();
        assert!(matches!(error, FileError::WrongHeader { .. }), "{text:?}: {error}");
    }
    let root = format!("bulla-root-key 1 cloud.example\n{key}\n");
    assert!(matches!(
        Kek::from_file(write(folder.path(), &root)).unwrap_err(),
        FileError::WrongHeader { .. }
    ));
    for text in [
        format!("bulla-kek 1\n{key}\n\n"),
        format!("bulla-kek 1\n{key}\n{key}\n"),
        format!("bulla-kek 1\n {key}\n"),
        "bulla-kek 1\nnot base64!\n".to_owned(),
        format!("bulla-kek 1\n{}", "A".repeat(2_000)),
    ] {
        let error = Kek::from_file(write(folder.path(), &text)).unwrap_err();
        assert!(matches!(error, FileError::Malformed { .. }), "{text:?}: {error}");
    }
}

#[test]
fn a_key_of_another_length_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for len in [0, 1, 16, 31, 33, 64] {
        let key: Vec<u8> = (0..len).map(|i: u8| i.wrapping_mul(91)).collect();
        let error = with_key(folder.path(), &key).unwrap_err();
        assert!(matches!(error, FileError::Length { found, .. } if found == len.into()), "{error}");
    }
}

#[test]
fn a_default_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rising: Vec<u8> = (0..32).collect();
    let trove = &b"bzH6y0SGmjuoY0FNSTptrhgieGXNDX6PIhvz"[..32];
    for key in [&[0; 32][..], &[0xff; 32], &rising, trove, b"5f4dcc3b5aa765d61d8327deb882cf99"] {
        let error = with_key(folder.path(), key).unwrap_err();
        assert!(matches!(error, FileError::Guessable { .. }), "{error}");
        assert!(error.to_string().contains("bulla init"), "{error}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Kek::from_file(folder.path()).unwrap_err();
    assert!(matches!(error, FileError::NotAFile { .. }), "{error}");
    let pipe = folder.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    // A pipe that nobody writes to must not be waited for.
    let error = Kek::from_file(&pipe).unwrap_err();
    assert!(matches!(error, FileError::NotAFile { .. }), "{error}");
    let error = Kek::from_file(folder.path().join("none")).unwrap_err();
    assert!(matches!(error, FileError::Io { .. }), "{error}");
}

#[test]
fn a_root_key_reads_back_with_its_domain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    let domain = TrustDomain::new("cloud.example").unwrap();
    let root = SigningKey::generate(&mut OsRandom::default()).unwrap();
    root_key::create_file(&path, &domain, &root).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (read, key) = root_key::from_file(&path).unwrap();
    assert_eq!(read, domain);
    assert_eq!(key.verifying_key(), root.verifying_key());
    assert!(matches!(Kek::from_file(&path).unwrap_err(), FileError::WrongHeader { .. }));
    assert!(matches!(
        root_key::create_file(&path, &domain, &root).unwrap_err(),
        FileError::Exists { .. }
    ));
}
