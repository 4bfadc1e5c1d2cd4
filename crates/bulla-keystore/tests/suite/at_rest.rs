//! What the database file gives away, and what moving its values about achieves.
use std::collections::HashSet;
use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulla_keystore::{AgentKeys, Kek, KeyType, Keystore, KeystoreError};
use bulla_seal::{GroupName, Suite, SuiteSet, VerifyingKey};

use crate::common::{Database, Fixture, agent, component, domain, dump, fixture};

async fn run(fixture: &Fixture, sql: &str) -> u64 {
    fixture.raw().await.run(sql).await
}

/// Exchanges a column's values between the rows that two conditions name.
async fn swap(fixture: &Fixture, table: &str, column: &str, one: &str, two: &str) {
    let mut raw = fixture.raw().await;
    let keep = format!(
        "CREATE TEMPORARY TABLE kept AS SELECT {column} AS kept_value, {one} AS kept_first
             FROM {table} WHERE {one} OR {two}"
    );
    raw.run(&keep).await;
    let put = format!(
        "UPDATE {table} SET {column} =
             (SELECT kept_value FROM kept WHERE kept_first = (NOT ({one}))) WHERE {one} OR {two}"
    );
    assert_eq!(raw.run(&put).await, 2);
    raw.close().await;
}

fn is_damaged(error: &KeystoreError) -> bool {
    matches!(error, KeystoreError::Damaged { .. })
}

#[tokio::test]
async fn a_shared_key_in_another_row_does_not_open() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    fixture.shared("db-1").await;
    fixture.shared("db-2").await;
    let control = component("control");
    let before = keystore.pair_key(&agent("db-1"), &control).await.unwrap();
    let (one, two) = ("instance_id = 'db-1'", "instance_id = 'db-2'");
    swap(&fixture, "instance_keys", "encrypted_key", one, two).await;
    for id in ["db-1", "db-2"] {
        let error = keystore.pair_key(&agent(id), &control).await.unwrap_err();
        assert!(is_damaged(&error), "{error}");
        assert!(error.to_string().contains(id), "{error}");
    }
    let error = keystore.pair_by_kid(before.kid).await.unwrap_err();
    assert!(is_damaged(&error), "{error}");
    swap(&fixture, "instance_keys", "encrypted_key", one, two).await;
    let after = keystore.pair_key(&agent("db-1"), &control).await.unwrap();
    assert!(after.key.ct_eq(&before.key));
}

#[tokio::test]
async fn no_wrapped_value_opens_elsewhere() {
    let fixture = fixture!("control", "backup");
    let keystore = &fixture.keystore;
    let blue = GroupName::new("blue").unwrap();
    keystore.add_group(&blue).await.unwrap();

    swap(&fixture, "audience_keys", "encrypted_key", "principal_id = 1", "principal_id = 2").await;
    // Each is under the other type's KEK, so it is the KEK that is wrong.
    let error = keystore.component_keys("control").await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");

    swap(&fixture, "group_keys", "encrypted_key", "group_id = 1", "group_id = 2").await;
    let error = keystore.group_key(&blue, None).await.unwrap_err();
    assert!(is_damaged(&error), "{error}");

    let (one, two) = ("issuer_right = 'agent-issuer'", "issuer_right = 'revocation'");
    swap(&fixture, "issuers", "encrypted_seed", one, two).await;
    let error = keystore.add_agent("db-1", KeyType::Pair, Suite::X25519).await.unwrap_err();
    assert!(is_damaged(&error), "{error}");
}

#[tokio::test]
async fn raised_incarnations_and_epochs_do_not_open() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    fixture.shared("db-1").await;
    let all = GroupName::new("all").unwrap();
    for sql in [
        "UPDATE principals SET incarnation = 2 WHERE kind = 'agent'",
        "UPDATE group_keys SET epoch = 2",
        "UPDATE member_groups SET epoch = 2",
    ] {
        assert_eq!(run(&fixture, sql).await, 1);
    }
    let error = keystore.pair_key(&agent("db-1"), &component("control")).await.unwrap_err();
    assert!(is_damaged(&error), "{error}");
    let error = keystore.group_key(&all, None).await.unwrap_err();
    assert!(is_damaged(&error), "{error}");
}

#[tokio::test]
async fn another_principals_credential_is_not_handed_out() {
    let fixture = fixture!();
    let keystore = &fixture.keystore;
    for id in ["db-1", "db-2"] {
        keystore.add_agent(id, KeyType::Pair, Suite::X25519).await.unwrap();
    }
    swap(&fixture, "credentials", "bytes", "principal_id = 1", "principal_id = 2").await;
    let error = keystore.credential(&agent("db-1")).await.unwrap_err();
    assert!(is_damaged(&error), "{error}");
}

#[tokio::test]
async fn another_root_key_is_not_believed() {
    let fixture = fixture!();
    let other = fixture!();
    let mut raw = other.raw().await;
    assert_eq!(raw.text("SELECT name FROM trust_domain").await, domain().as_str());
    let root = raw.bytes("SELECT encrypted_root FROM trust_domain").await;
    let kek = raw.bytes("SELECT kek_id FROM trust_domain").await;
    let (root, kek) = (raw.literal(&root), raw.literal(&kek));
    run(&fixture, &format!("UPDATE trust_domain SET encrypted_root = {root}")).await;
    let error = fixture.open().await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
    run(&fixture, &format!("UPDATE trust_domain SET kek_id = {kek}")).await;
    let error = Keystore::open(&fixture.address, other.kek.clone()).await.unwrap_err();
    assert!(is_damaged(&error), "issuers of another root: {error}");
}

#[tokio::test]
async fn another_kek_is_named_as_such() {
    let fixture = fixture!();
    let other = Kek::create_file(fixture.folder.path().join("other")).unwrap();
    let error = Keystore::open(&fixture.address, other.clone()).await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
    let error = Keystore::migrate(&fixture.address, &other).await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
    let error = Keystore::revert(&fixture.address, &other, 1).await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
}

/// Looks for every secret in the files or the dump, in binary and in the texts it could have become.
#[tokio::test]
async fn what_is_stored_holds_no_secret() {
    let fixture = fixture!();
    let keystore = &fixture.keystore;
    let mut secrets: Vec<(String, Vec<u8>)> = Vec::new();
    let mut keep = |what: &str, bytes: &[u8]| secrets.push((what.to_owned(), bytes.to_vec()));
    keep("root seed", fixture.root.seed().expose());
    for (name, suite) in [("control", Suite::XWing), ("backup", Suite::X25519)] {
        keystore.add_component(name, &[], SuiteSet::only(suite)).await.unwrap();
        keep("audience key", keystore.component_keys(name).await.unwrap().0.expose());
        let signing = keystore.issue_signing(name, "host", std::time::Duration::from_secs(60));
        keep("host's seed", signing.await.unwrap().0.seed().expose());
    }
    for i in 0..20 {
        let (id, key_type) =
            (format!("db-{i}"), if i % 2 == 0 { KeyType::Pair } else { KeyType::Shared });
        match keystore.add_agent(&id, key_type, Suite::X25519).await.unwrap() {
            AgentKeys::Pair { signing, kem, .. } => {
                keep("agent's seed", signing.seed().expose());
                keep("agent's KEM key", kem.expose());
            }
            AgentKeys::Shared { key, .. } => {
                keep("K", key.expose());
                let pair = keystore.pair_key(&agent(&id), &component("control")).await.unwrap();
                keep("pair key", pair.key.expose());
            }
        }
        if i % 5 == 0 {
            keystore.remove_agent(&id).await.unwrap();
        }
    }
    for epoch in 1..=keystore.list_groups().await.unwrap()[0].epoch {
        let all = GroupName::new("all").unwrap();
        let key = keystore.group_key(&all, Some(epoch)).await.unwrap();
        keep("group key", key.key.expose());
    }
    let kek = fs::read_to_string(fixture.folder.path().join("kek")).unwrap();
    keep("KEK", &STANDARD.decode(kek.lines().nth(1).unwrap()).unwrap());
    assert!(secrets.len() > 40);

    let dump = stored(&fixture).await;
    // A public key must be found, or the search itself is broken.
    let VerifyingKey(public) =
        keystore.trust_store().issuers().map(|(issuer, _)| issuer.key).next().unwrap();
    let [lower, upper] = hex(&public);
    let found = [&public[..], lower.as_bytes(), upper.as_bytes()];
    assert!(found.iter().any(|public| contains(&dump, public)));
    let mut forms = Vec::new();
    for (what, secret) in secrets {
        let [lower, upper] = hex(&secret);
        let base64 = STANDARD.encode(&secret).trim_end_matches('=').to_owned();
        forms.push((format!("{what} in hex"), lower.into_bytes()));
        forms.push((format!("{what} in hex"), upper.into_bytes()));
        forms.push((format!("{what} in base64"), base64.into_bytes()));
        forms.push((what, secret));
    }
    // One pass for all of them, by their first bytes.
    let starts: HashSet<[u8; 4]> = forms.iter().map(|(_, f)| f[..4].try_into().unwrap()).collect();
    for (at, start) in dump.windows(4).enumerate() {
        if starts.contains(start) {
            let found = forms.iter().find(|(_, form)| dump[at..].starts_with(form));
            assert!(found.is_none(), "{} at {at}", found.unwrap().0);
        }
    }
}

fn hex(bytes: &[u8]) -> [String; 2] {
    let lower: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let upper = lower.to_uppercase();
    [lower, upper]
}

/// All that lies on disk or in a backup.
async fn stored(fixture: &Fixture) -> Vec<u8> {
    let mut stored = dump(fixture);
    if fixture.database == Database::Sqlite {
        // The log is full now, and the file itself after the last connection closed.
        let log = fs::read(fixture.path().with_extension("db-wal")).unwrap();
        assert!(log.len() > 10_000);
        stored.extend(log);
        fixture.keystore.clone().close().await;
        stored.extend(dump(fixture));
    }
    stored
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
