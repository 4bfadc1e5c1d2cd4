//! New keys for component types, on demand and after a host was revoked.
use crate::common::*;
use bulla_keystore::{HAND_OUT_AFTER, KeystoreError, Reach, SIGNING_LIFETIME};
use bulla_seal::{GroupName, Kid, SuiteSet, UnixTime};

async fn kids(fixture: &Fixture, name: &str) -> Vec<Kid> {
    let keys = fixture.keystore.receive_keys(name).await.unwrap();
    for (key, credential) in &keys {
        assert_eq!(Some(key.public()), credential.kem.as_ref());
    }
    keys.iter().map(|(_, credential)| credential.kid).collect()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

#[tokio::test]
async fn a_rotated_type_receives_under_both_keys_and_is_sealed_to_under_the_new_one() {
    let fixture = fixture!("api");
    let first = kids(&fixture, "api").await;
    let second = fixture.keystore.rotate_component("api").await.unwrap();
    assert_eq!((first.len(), second.epoch), (1, 2));
    // Hosts have both from now on; peers seal to the new one when every host has it.
    assert_eq!(kids(&fixture, "api").await, [second.kid, first[0]]);
    assert_eq!(fixture.keystore.credential(&component("api")).await.unwrap().kid, first[0]);
    assert_eq!(fixture.keystore.component_keys("api").await.unwrap().1, second);
    let late = second.validity.not_before + 120 + HAND_OUT_AFTER.as_secs();
    let late = fixture.keystore.clone().with_clock(move || UnixTime::from_secs(late));
    assert_eq!(late.credential(&component("api")).await.unwrap(), second);
    let (_, signing) = late.issue_signing("api", "h1", SIGNING_LIFETIME).await.unwrap();
    assert_eq!(signing.epoch, 2);
    // The next one follows the newest, whether peers know that or not.
    assert_eq!(fixture.keystore.rotate_component("api").await.unwrap().epoch, 3);
    let nobody = fixture.keystore.rotate_component("nobody").await;
    assert!(matches!(nobody, Err(KeystoreError::UnknownPrincipal(_))), "{nobody:?}");
}

#[tokio::test]
async fn everything_that_a_revoked_host_held_is_new() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    let roles = ["group:web".to_owned()];
    keystore.add_component("api", &roles, SuiteSet::all()).await.unwrap();
    for name in ["web", "db", "other"] {
        keystore.add_group(&group(name)).await.unwrap();
    }
    keystore.add_member(&group("db"), &component("api")).await.unwrap();
    fixture.shared("s").await;
    let pair = keystore.pair_key(&agent("s"), &component("api")).await.unwrap();
    let other = keystore.pair_key(&agent("s"), &component("control")).await.unwrap();
    let (_, stolen) = keystore.issue_signing("api", "h1", SIGNING_LIFETIME).await.unwrap();
    let (_, again) = keystore.issue_signing("api", "h1", SIGNING_LIFETIME).await.unwrap();
    let (_, sound) = keystore.issue_signing("api", "h2", SIGNING_LIFETIME).await.unwrap();
    let former = kids(&fixture, "api").await;
    let control = kids(&fixture, "control").await;

    let revoked = keystore.revoke_host("api", "h1", Reach::Type).await.unwrap();
    assert_eq!((revoked.epoch, revoked.pair_epoch), (2, Some(2)));
    assert_eq!(revoked.groups, [(group("db"), 2), (group("web"), 2)]);
    let mut both = vec![stolen.kid, again.kid];
    both.sort_unstable();
    let mut signing = revoked.signing.clone();
    signing.sort_unstable();
    assert_eq!(signing, both);

    let statement = keystore.statement().await.unwrap();
    let listed: Vec<_> = statement.revoked.iter().map(|revoked| revoked.kid).collect();
    for kid in both.iter().chain(&former) {
        assert!(listed.contains(kid), "{kid}");
    }
    assert!(!listed.contains(&sound.kid) && listed.len() == 3);
    assert_eq!(statement.lowest.len(), 1);
    let lowest = &statement.lowest[0];
    assert_eq!((&lowest.principal, lowest.pair_epoch), (&component("api"), 2));
    assert_eq!(statement.groups, [(group("db"), 2), (group("web"), 2)]);

    let now = kids(&fixture, "api").await;
    assert!(now.len() == 1 && now != former);
    let renewed = keystore.pair_key(&agent("s"), &component("api")).await.unwrap();
    assert!(renewed.epoch == 2 && renewed.kid != pair.kid && !renewed.key.ct_eq(&pair.key));
    let same = keystore.pair_key(&agent("s"), &component("control")).await.unwrap();
    assert_eq!((same.kid, kids(&fixture, "control").await), (other.kid, control));
}

#[tokio::test]
async fn a_host_of_the_control_plane_takes_every_group_with_it_and_leaves_agents_a_way_in() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    keystore.add_group(&group("web")).await.unwrap();
    let (_, stolen) = keystore.issue_signing("control", "h1", SIGNING_LIFETIME).await.unwrap();
    let former = kids(&fixture, "control").await;
    let revoked = keystore.revoke_host("control", "h1", Reach::Everything).await.unwrap();
    assert_eq!(revoked.pair_epoch, None);
    assert_eq!(revoked.groups, [(group("all"), 2), (group("web"), 2)]);
    let listed = keystore.statement().await.unwrap();
    assert_eq!(listed.revoked.iter().map(|r| r.kid).collect::<Vec<_>>(), [stolen.kid]);
    assert_eq!(kids(&fixture, "control").await[1..], former);
}

#[tokio::test]
async fn a_host_that_nobody_knows_changes_nothing() {
    let fixture = fixture!("api");
    let before = fixture.keystore.statement().await.unwrap();
    let error = fixture.keystore.revoke_host("api", "h9", Reach::Type).await.unwrap_err();
    assert!(matches!(&error, KeystoreError::UnknownInstance { instance, .. } if instance == "h9"));
    assert_eq!(fixture.keystore.statement().await.unwrap(), before);
    assert_eq!(fixture.keystore.credential(&component("api")).await.unwrap().epoch, 1);
}
