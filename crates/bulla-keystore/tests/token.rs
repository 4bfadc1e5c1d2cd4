//! Key-encryption keys in a PKCS#11 token: SoftHSM 2.
//!
//! The library reads `SOFTHSM2_CONF` when it is loaded, once a process: so each test runs itself
//! again, in a process of its own with a token of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use bulla_keystore::pkcs11::{Pin, TokenError, TokenKey};
use bulla_keystore::{Kek, KekError, KekRing, KekSource, Keystore, KeystoreError};
use bulla_services::{SoftHsm, require};
use common::{Fixture, agent, component, domain};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

const MODULE: &str = "BULLA_TEST_TOKEN_MODULE";
const PIN: &str = "BULLA_TEST_TOKEN_PIN";
const TOKEN: &str = "bulla-test";

/// Runs the test of that name again, in a process that finds a fresh token. Whether this is that
/// process.
fn in_process_with_token(test: &str) -> bool {
    if std::env::var_os(MODULE).is_some() {
        return true;
    }
    let Some(hsm) = require(SoftHsm::with_token(TOKEN)) else { return false };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("SOFTHSM2_CONF", hsm.settings())
        .env(MODULE, hsm.module())
        .env(PIN, SoftHsm::PIN)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn module() -> PathBuf {
    std::env::var_os(MODULE).unwrap().into()
}

fn key(label: &str) -> TokenKey {
    TokenKey {
        module: module(),
        token: TOKEN.to_owned(),
        label: label.to_owned(),
        id: None,
        pin: Pin::Environment(PIN.to_owned()),
    }
}

fn source(label: &str) -> KekSource {
    KekSource::Pkcs11(key(label))
}

/// A session past our code, as another program that has the PIN has it. Its library must be kept.
fn session() -> (Pkcs11, Session) {
    let library = Pkcs11::new(module()).unwrap();
    // Ours may have been first.
    let _ = library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    let slot = library.get_slots_with_initialized_token().unwrap()[0];
    let session = library.open_rw_session(slot).unwrap();
    // The login counts for the whole process.
    let _ = session.login(UserType::User, Some(&AuthPin::from(SoftHsm::PIN.to_owned())));
    (library, session)
}

fn make(label: &str, sensitive: bool, extractable: bool, aes: bool) {
    let (_library, session) = session();
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(if aes { KeyType::AES } else { KeyType::GENERIC_SECRET }),
        Attribute::ValueLen(32.into()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(vec![7, 7]),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(sensitive),
        Attribute::Extractable(extractable),
        Attribute::Sign(true),
    ];
    let how = if aes { Mechanism::AesKeyGen } else { Mechanism::GenericSecretKeyGen };
    session.generate_key(&how, &template).unwrap();
}

fn refused(source: &KekSource) -> TokenError {
    match source.load().unwrap_err() {
        KekError::Token(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_key_is_made_once_and_computes_the_same_each_time() {
    if !in_process_with_token("a_key_is_made_once_and_computes_the_same_each_time") {
        return;
    }
    let error = source("kek").load().unwrap_err();
    assert!(error.is_absent(), "{error}");
    let made = source("kek").create().unwrap();
    assert_eq!(source("kek").load().unwrap().id(), made.id());
    assert!(matches!(
        source("kek").create().unwrap_err(),
        KekError::Token(TokenError::KeyExists { .. })
    ));
    assert_ne!(source("other").create().unwrap().id(), made.id());
    // What the token made can't be read out of it.
    let (_library, session) = session();
    let found = session.find_objects(&[Attribute::Label(b"kek".to_vec())]).unwrap();
    let value = session.get_attributes(found[0], &[cryptoki::object::AttributeType::Value]);
    assert!(!value.is_ok_and(|value| !value.is_empty()), "the key left its token");
}

#[test]
fn a_key_that_may_leave_the_token_is_refused() {
    if !in_process_with_token("a_key_that_may_leave_the_token_is_refused") {
        return;
    }
    make("extractable", true, true, false);
    make("readable", false, false, false);
    make("both", false, true, false);
    for label in ["extractable", "readable", "both"] {
        let error = refused(&source(label));
        assert!(matches!(error, TokenError::MayLeave { .. }), "{label}: {error}");
    }
    make("good", true, false, false);
    source("good").load().unwrap();
}

#[test]
fn an_aes_key_computes_with_cmac() {
    if !in_process_with_token("an_aes_key_computes_with_cmac") {
        return;
    }
    make("aes", true, false, true);
    let kek = source("aes").load().unwrap();
    assert_eq!(source("aes").load().unwrap().id(), kek.id());
    // Its halves are not the same block twice: the id is derived from both.
    make("hmac", true, false, false);
    assert_ne!(source("hmac").load().unwrap().id(), kek.id());
}

#[test]
fn what_is_wrong_with_the_token_is_said() {
    if !in_process_with_token("what_is_wrong_with_the_token_is_said") {
        return;
    }
    let with = |change: fn(&mut TokenKey)| {
        let mut key = key("kek");
        change(&mut key);
        KekSource::Pkcs11(key)
    };
    // Before the first login of this process: afterwards it is logged in.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pin");
    fs::write(&file, "not-the-pin\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let wrong = KekSource::Pkcs11(TokenKey { pin: Pin::File(file.clone()), ..key("kek") });
    let error = refused(&wrong);
    assert!(matches!(error, TokenError::Login { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("not-the-pin"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(refused(&wrong), TokenError::PinFile(_)));
    let empty = with(|key| key.pin = Pin::Environment("BULLA_TEST_NOT_SET".into()));
    assert!(matches!(refused(&empty), TokenError::NoPin { .. }));
    let none = with(|key| key.token = "elsewhere".into());
    assert!(matches!(refused(&none), TokenError::NoToken { .. }));
    let library = with(|key| key.module = "/usr/lib/none.so".into());
    assert!(matches!(refused(&library), TokenError::Module { .. }));
    assert!(matches!(refused(&source("kek")), TokenError::NoKey { .. }));
    make("twice", true, false, false);
    make("twice", true, false, false);
    assert!(matches!(refused(&source("twice")), TokenError::SeveralKeys { found: 2, .. }));
}

#[tokio::test]
async fn a_keystore_goes_over_to_a_token_and_back() {
    if !in_process_with_token("a_keystore_goes_over_to_a_token_and_back") {
        return;
    }
    let fixture = Fixture::with_components(&["control"]).await;
    for i in 0..50 {
        fixture.shared(&format!("db-{i}")).await;
    }
    let (db, control) = (agent("db-7"), component("control"));
    let before = fixture.keystore.pair_key(&db, &control).await.unwrap().key;
    let token = source("kek").create().unwrap();
    fixture.keystore.rotate_kek(&token, 10, |_| {}).await.unwrap();
    // A process that starts fetches it from the token.
    let ring = KekRing::watching(|| Ok(vec![source("kek").load()?])).unwrap();
    let keystore = Keystore::open(fixture.path(), ring).await.unwrap();
    assert!(keystore.pair_key(&db, &control).await.unwrap().key.ct_eq(&before));
    let error = Keystore::open(fixture.path(), &fixture.kek).await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
    let file = Kek::create_file(fixture.folder.path().join("kek.2")).unwrap();
    keystore.rotate_kek(&file, 10, |_| {}).await.unwrap();
    let after = Keystore::open(fixture.path(), file).await.unwrap();
    assert!(after.pair_key(&db, &control).await.unwrap().key.ct_eq(&before));
    assert_eq!(after.kek_state().await.unwrap().left(), 0);
    // And one that was never anywhere else.
    let path = fixture.folder.path().join("second.db");
    let made = Keystore::init(path.as_path(), &domain(), token).await.unwrap();
    assert_eq!(made.keystore.kek_state().await.unwrap().left(), 0);
}
