//! New keys for component types, on demand and after a host was revoked.
use std::time::Duration;

use crate::common::*;
use bulla_keystore::{HAND_OUT_AFTER, KeystoreError, Reach, SIGNING_LIFETIME, SKEW};
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

#[tokio::test]
async fn keys_follow_by_the_clock_and_of_two_processes_one_makes_them() {
    let fixture = fixture!("control", "api");
    let made = fixture.keystore.credential(&component("api")).await.unwrap();
    let begun = made.validity.not_before + SKEW.as_secs();
    let hours = |hours: u64| {
        let keystore = fixture.keystore.clone().with_key_life(Duration::from_secs(48 * 3_600));
        keystore.unwrap().with_clock(move || UnixTime::from_secs(begun + hours * 3_600))
    };
    assert!(hours(21).rotate_due_components().await.unwrap().is_empty());
    let (one, two) = (hours(27), hours(27));
    let (one, two) = tokio::join!(one.rotate_due_components(), two.rotate_due_components());
    let rotated = [one.unwrap(), two.unwrap()].concat();
    // The control plane's own lives longer.
    let named: Vec<_> =
        rotated.iter().map(|made| (made.party.principal.name(), made.epoch)).collect();
    assert_eq!(named, [("api", 2)]);
    let life = rotated[0].validity.not_after - rotated[0].validity.not_before;
    assert_eq!(life, 48 * 3_600 + SKEW.as_secs());
    // Announced to the hosts at once, and to peers a minute later.
    let keys = hours(27).receive_keys("api").await.unwrap();
    assert_eq!((keys.len(), keys[0].1.epoch), (2, 2));
    assert_eq!(hours(27).credential(&component("api")).await.unwrap().epoch, 1);
    assert_eq!(hours(28).credential(&component("api")).await.unwrap().epoch, 2);
    assert!(hours(28).rotate_due_components().await.unwrap().is_empty());
    // Nobody was there for a while: the next one follows all the same.
    let late = hours(27 + 24 * 30).rotate_due_components().await.unwrap();
    assert_eq!(late.iter().map(|made| made.epoch).collect::<Vec<_>>(), [3]);
    let much = hours(27 + 24 * 60).rotate_due_components().await.unwrap();
    assert_eq!(much.len(), 2, "{much:?}");
    let never = fixture.keystore.clone().with_key_life(Duration::from_secs(60));
    assert!(matches!(never, Err(KeystoreError::KeyLifetime { asked: 60 })));
}
