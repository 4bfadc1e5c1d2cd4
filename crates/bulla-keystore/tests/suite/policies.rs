//! Policies: every activation stays, the newest counts, and what is signed can't be put together by
//! whoever writes into the database.
use crate::common::*;
use bulla_keystore::{KeystoreError, PolicyDifference, PolicyOrigin, PolicyText};
use bulla_seal::Refusal;

fn text<'a>(source: &'a str, compiled: &'a [u8]) -> PolicyText<'a> {
    PolicyText { source, compiled }
}

fn difference(method: &str, count: u64) -> PolicyDifference {
    PolicyDifference {
        receiver: "agent/db-1".into(),
        sender: "component/control".into(),
        method: method.into(),
        allowed: true,
        rule: "open".into(),
        shadow_rule: "closed".into(),
        count,
        last: 0,
    }
}

#[tokio::test]
async fn every_activation_stays_and_each_can_be_gone_back_to() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    assert_eq!(keystore.policy_document().await.unwrap(), None);
    assert!(matches!(
        keystore.roll_back_policy(None).await.unwrap_err(),
        KeystoreError::NoEarlierPolicy
    ));
    let mut sequence = 0;
    let mut rises = |signed: &bulla_seal::SignedPolicy| {
        assert!(signed.sequence > sequence);
        sequence = signed.sequence;
        let trust = keystore.trust_store();
        assert_eq!(trust.verify_policy(signed.as_bytes()).unwrap(), *signed);
        (signed.version, signed.active.clone())
    };
    let one = Some(b"one".to_vec());
    let first = keystore.activate_policy(text("a", b"one"), PolicyOrigin::Command).await.unwrap();
    assert_eq!(rises(&first), (1, one.clone()));
    // The file of the settings, by whichever process, once.
    let file = keystore.activate_policy_file(text("b", b"two")).await.unwrap().unwrap();
    assert_eq!(rises(&file), (2, Some(b"two".to_vec())));
    let again = fixture.open().await.unwrap();
    assert_eq!(again.activate_policy_file(text("b", b"two")).await.unwrap(), None);
    let back = keystore.roll_back_policy(None).await.unwrap();
    assert_eq!(rises(&back), (3, one.clone()));
    // Who went back stays there, whatever the file says, until it says something else.
    assert_eq!(again.activate_policy_file(text("b", b"two")).await.unwrap(), None);
    assert_eq!(rises(&keystore.roll_back_policy(None).await.unwrap()), (4, None));
    assert!(keystore.roll_back_policy(None).await.is_err());
    assert_eq!(rises(&keystore.roll_back_policy(Some(3)).await.unwrap()), (5, one));
    let unknown = keystore.roll_back_policy(Some(6)).await.unwrap_err();
    assert!(matches!(unknown, KeystoreError::UnknownPolicy { version: 6 }), "{unknown}");
    // Another process sees all of it.
    let held = again.policy_document().await.unwrap().unwrap();
    assert_eq!(held.version, 5);
    assert_eq!(again.policy_document_after(held.sequence).await.unwrap(), None);
    let newer = again.policy_document_after(held.sequence - 1).await.unwrap();
    assert_eq!(newer, Some(held));
    let listed = again.policies().await.unwrap();
    let row =
        |r: &bulla_keystore::PolicyRecord| (r.version, r.origin, r.again_of, r.source.clone());
    let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
    use PolicyOrigin::{Command, File, RollBack};
    assert_eq!(
        listed.iter().map(row).collect::<Vec<_>>(),
        [
            (5, RollBack, Some(1), a.clone()),
            (4, RollBack, Some(0), None),
            (3, RollBack, Some(1), a.clone()),
            (2, File, None, b),
            (1, Command, None, a),
        ]
    );
}

#[tokio::test]
async fn what_judges_in_the_shadow_is_counted_until_something_else_does() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    let active = keystore.activate_policy(text("a", b"one"), PolicyOrigin::Command).await.unwrap();
    let shadow = keystore.shadow_policy(Some(text("s", b"strict"))).await.unwrap();
    assert!(shadow.sequence > active.sequence);
    assert_eq!((shadow.version, &shadow.active), (1, &Some(b"one".to_vec())));
    assert_eq!(shadow.shadow, Some(b"strict".to_vec()));
    assert_eq!(keystore.shadow_text().await.unwrap().as_deref(), Some("s"));
    let now = shadow.sequence;
    assert_eq!(keystore.note_differences(now, &[difference("a", 2)]).await.unwrap(), 1);
    let two = [difference("a", 3), difference("b", 1)];
    assert_eq!(keystore.note_differences(now, &two).await.unwrap(), 2);
    // Of another document, and such as no receiver of ours reports.
    assert_eq!(keystore.note_differences(active.sequence, &two).await.unwrap(), 0);
    let long = difference(&"m".repeat(1000), 1);
    assert_eq!(keystore.note_differences(now, &[long]).await.unwrap(), 0);
    let found = keystore.policy_differences().await.unwrap();
    let counted: Vec<_> = found.iter().map(|d| (d.method.as_str(), d.count)).collect();
    assert_eq!(counted, [("a", 5), ("b", 1)]);
    let ended = keystore.shadow_policy(None).await.unwrap();
    assert_eq!((ended.version, ended.shadow.clone()), (1, None));
    assert!(keystore.policy_differences().await.unwrap().is_empty());
    // An activation ends it too.
    keystore.shadow_policy(Some(text("s", b"strict"))).await.unwrap();
    let next = keystore.activate_policy(text("c", b"three"), PolicyOrigin::Command).await.unwrap();
    assert_eq!((next.version, next.shadow.clone()), (2, None));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_changes() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    let large = vec![0; bulla_seal::policy::MAX_POLICY];
    let refused = keystore.activate_policy(text("x", &large), PolicyOrigin::Command).await;
    assert!(matches!(refused.unwrap_err(), KeystoreError::PolicyTooLarge { .. }));
    assert!(keystore.policies().await.unwrap().is_empty());
    assert_eq!(keystore.policy_document().await.unwrap(), None);
    // Another deployment's is not this one's.
    let signed = keystore.activate_policy(text("a", b"one"), PolicyOrigin::Command).await.unwrap();
    let other = fixture!("control");
    let refused = other.keystore.trust_store().verify_policy(signed.as_bytes());
    assert_eq!(refused.unwrap_err(), Refusal::PolicyInvalid);
}
