//! Access keys of the API's users.
use bulla_keystore::{AccessKeyRefusal, ApiUser, Kek, Keystore, KeystoreError};
use bulla_seal::UnixTime;

use crate::common::fixture;

fn user(name: &str) -> ApiUser {
    name.parse().unwrap()
}

#[tokio::test]
async fn a_key_is_taken_until_it_is_disabled_over_or_removed() {
    let fixture = fixture!();
    let keystore = &fixture.keystore;
    let alice = user("operator/alice");
    let end = UnixTime::from_secs(4_000_000_000);
    let one = keystore.add_access_key(&alice, Some(end)).await.unwrap();
    let two = keystore.add_access_key(&alice, None).await.unwrap();
    assert_eq!((one.record.epoch, two.record.epoch), (1, 2));
    assert_ne!(one.secret.expose(), two.secret.expose());
    let found = keystore.access_key(&one.record.id).await.unwrap().unwrap();
    assert_eq!((&found.record, found.secret.expose()), (&one.record, one.secret.expose()));
    assert!(!format!("{found:?}").contains(one.secret.expose()));

    let refused = async |id: &str| keystore.access_key(id).await.unwrap().unwrap_err();
    assert_eq!(refused("BULLNOTTHERE").await, AccessKeyRefusal::Unknown);
    keystore.disable_access_key(&one.record.id, true).await.unwrap();
    assert_eq!(refused(&one.record.id).await, AccessKeyRefusal::Disabled);
    keystore.disable_access_key(&one.record.id, false).await.unwrap();
    keystore.access_key(&one.record.id).await.unwrap().unwrap();
    let later = keystore.clone().with_clock(move || end);
    assert_eq!(
        later.access_key(&one.record.id).await.unwrap().unwrap_err(),
        AccessKeyRefusal::Expired
    );
    later.access_key(&two.record.id).await.unwrap().unwrap();
    let error = later.add_access_key(&alice, Some(end)).await.unwrap_err();
    assert!(matches!(error, KeystoreError::AccessKeyEnd), "{error}");

    let at = |secs| UnixTime::from_secs(secs);
    for (secs, noted) in [(2_000, 2_000), (1_000, 2_000), (3_000, 3_000)] {
        keystore.note_access_keys_used(&[(two.record.id.clone(), at(secs))]).await.unwrap();
        let listed = keystore.list_access_keys().await.unwrap();
        assert_eq!(listed[1].last_used, Some(at(noted)), "a use is not forgotten");
    }

    keystore.remove_access_key(&two.record.id).await.unwrap();
    assert_eq!(refused(&two.record.id).await, AccessKeyRefusal::Unknown);
    for id in [&two.record.id, "nobody"] {
        let error = keystore.remove_access_key(id).await.unwrap_err();
        assert!(matches!(error, KeystoreError::UnknownAccessKey { .. }), "{error}");
        assert!(keystore.disable_access_key(id, true).await.is_err());
    }
    let three = keystore.add_access_key(&alice, None).await.unwrap();
    assert_eq!(three.record.epoch, 3, "an epoch is not given again");
    let listed = keystore.list_access_keys().await.unwrap();
    assert_eq!(listed.iter().map(|key| key.epoch).collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test]
async fn a_secret_of_another_row_does_not_open() {
    let fixture = fixture!();
    let keystore = &fixture.keystore;
    let alice = keystore.add_access_key(&user("operator/alice"), None).await.unwrap();
    let again = keystore.add_access_key(&user("operator/alice"), None).await.unwrap();
    let mallory = keystore.add_access_key(&user("program/mallory"), None).await.unwrap();
    let mut raw = fixture.raw().await;
    let stored = |id: &str| {
        format!("SELECT encrypted_secret_key FROM access_keys WHERE access_key_id = '{id}'")
    };
    for thief in [&again, &mallory] {
        let known = raw.bytes(&stored(&thief.record.id)).await;
        let known = raw.literal(&known);
        raw.run(&format!(
            "UPDATE access_keys SET encrypted_secret_key = {known} WHERE access_key_id = '{}'",
            alice.record.id
        ))
        .await;
        let error = keystore.access_key(&alice.record.id).await.unwrap_err();
        assert!(matches!(error, KeystoreError::Damaged { .. }), "{error}");
    }
    // Nor with the key's owner changed.
    raw.run("UPDATE access_keys SET api_user = 'operator/root' WHERE api_user = 'program/mallory'")
        .await;
    let error = keystore.access_key(&mallory.record.id).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn they_go_over_to_another_key_encryption_key() {
    let fixture = fixture!();
    let keystore = &fixture.keystore;
    let key = keystore.add_access_key(&user("operator/alice"), None).await.unwrap();
    let gone = keystore.add_access_key(&user("operator/alice"), None).await.unwrap();
    keystore.remove_access_key(&gone.record.id).await.unwrap();
    let next = Kek::create_file(fixture.folder.path().join("next")).unwrap();
    keystore.rotate_kek(&next, 500, |_| {}).await.unwrap();
    let state = keystore.kek_state().await.unwrap();
    let count = state.counts.iter().find(|count| count.table == "access_keys").unwrap();
    assert_eq!((count.current, count.other), (1, 0));
    let after = Keystore::open(&fixture.address, next).await.unwrap();
    let found = after.access_key(&key.record.id).await.unwrap().unwrap();
    assert_eq!(found.secret.expose(), key.secret.expose());
}
