//! Another root follows the one that is trusted.
use std::time::Duration;

use crate::common::*;
use bulla_keystore::{
    ISSUER_LIFETIME, Keystore, KeystoreError, ROOT_OVERLAP, RootHandover, StoreAddress,
};
use bulla_seal::{OsRandom, Refusal, SigningKey, SuiteSet, TrustStore, UnixTime};

fn key() -> SigningKey {
    SigningKey::generate(&mut OsRandom::default()).unwrap()
}

fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime::from_secs(since.as_secs())
}

/// The keystore as its owner, for what the control plane has no right to.
async fn owner(fixture: &Fixture) -> Keystore {
    let address: StoreAddress = fixture.url.parse().unwrap();
    Keystore::open(address, fixture.kek.clone()).await.unwrap()
}

async fn hand_over(keystore: &Keystore, old: &SigningKey, new: &SigningKey) -> RootHandover {
    let state = keystore.root_state().await.unwrap();
    state.hand_over(old, new, ROOT_OVERLAP, now()).unwrap()
}

#[tokio::test]
async fn a_new_root_is_trusted_by_every_process_and_after_a_restart() {
    let fixture = fixture!("control");
    let (running, owner) = (&fixture.keystore, owner(&fixture).await);
    let before = running.trust_store();
    let mut outside = before.clone();
    let second = key();
    let handover = hand_over(&owner, &fixture.root, &second).await;
    let announced = owner.install_root(&handover).await.unwrap();
    assert_eq!((announced.sequence, announced.new), (2, second.verifying_key()));
    // Another process takes it over, and issues as before.
    assert_eq!(running.trust_store().root_sequence(), 1);
    assert!(running.refresh_roots().await.unwrap());
    assert!(!running.refresh_roots().await.unwrap());
    let trust = running.trust_store();
    assert_eq!((*trust.root(), trust.root_sequence()), (second.verifying_key(), 2));
    running.add_component("late", &[], SuiteSet::all()).await.unwrap();
    let late = running.credential(&component("late")).await.unwrap();
    let statement = running.statement().await.unwrap();
    // Whoever knows only the former root verifies what comes meanwhile; issuers keep their keys.
    for trust in [&before, &trust] {
        trust.verify(late.as_bytes(), now()).unwrap();
        trust.verify_statement(statement.as_bytes()).unwrap();
    }
    // And follows by what the keystore hands out.
    for bytes in running.root_announcements(1).await.unwrap() {
        outside.take_root(&bytes, now()).unwrap();
    }
    for (_, bytes) in trust.issuers() {
        outside.add_issuer(bytes).unwrap();
    }
    assert!(outside.retire_root(UnixTime::from_secs(announced.until)));
    assert_eq!((*outside.root(), outside.issuers().count()), (second.verifying_key(), 4));
    assert!(running.root_announcements(2).await.unwrap().is_empty());
    let listed = running.list_roots().await.unwrap();
    let listed: Vec<_> = listed.iter().map(|r| (r.sequence, r.key, r.until)).collect();
    let first = (1, fixture.root.verifying_key(), Some(announced.until));
    assert_eq!(listed, [(2, second.verifying_key(), None), first]);
    // A third one, and a start from what is stored.
    let third = key();
    owner.install_root(&hand_over(&owner, &second, &third).await).await.unwrap();
    let opened = Keystore::open(&fixture.address, fixture.kek.clone()).await.unwrap();
    assert_eq!(*opened.trust_store().root(), third.verifying_key());
    assert_eq!(opened.root_announcements(1).await.unwrap().len(), 2);
    opened.add_component("later", &[], SuiteSet::all()).await.unwrap();
    // Issuers go on for another five years, once nobody is left who knows another end.
    let end = |at: u64| {
        let keystore = opened.clone().with_clock(move || UnixTime::from_secs(at));
        async move {
            let name = format!("at-{at}");
            let year = keystore.add_component(&name, &[], SuiteSet::all()).await.unwrap();
            year.audience.validity.not_after
        }
    };
    let first_end = now().secs() + ISSUER_LIFETIME.as_secs();
    let year = 365 * 86_400;
    let (late, overlap) = (first_end - 86_400, ROOT_OVERLAP.as_secs());
    let fourth = key();
    let state = owner.root_state().await.unwrap();
    let handover = state.hand_over(&third, &fourth, ROOT_OVERLAP, UnixTime::from_secs(late));
    let owner = owner.with_clock(move || UnixTime::from_secs(late));
    owner.install_root(&handover.unwrap()).await.unwrap();
    opened.refresh_roots().await.unwrap();
    assert!(end(late).await <= first_end + 10);
    assert!(end(late + overlap).await > first_end + year / 2);
    // An older program would not know what to trust.
    let back =
        Keystore::revert(fixture.url.parse::<StoreAddress>().unwrap(), fixture.kek.clone(), 10);
    let back = back.await;
    assert!(
        matches!(back, Err(KeystoreError::RootsInTheWay | KeystoreError::RolesInTheWay { .. })),
        "{back:?}"
    );
}

#[tokio::test]
async fn nothing_but_what_the_present_root_announced_is_taken_over() {
    let fixture = fixture!("control");
    let keystore = owner(&fixture).await;
    let (second, third) = (key(), key());
    let state = keystore.root_state().await.unwrap();
    let good = state.hand_over(&fixture.root, &second, ROOT_OVERLAP, now()).unwrap();
    // By a key that is not the root's, which says so itself.
    let error = state.hand_over(&second, &third, ROOT_OVERLAP, now()).unwrap_err();
    assert!(matches!(error, KeystoreError::RootKey { sequence: 1 }), "{error}");
    let mut forger = state.clone();
    forger.root = second.verifying_key();
    forger.issuers.clear();
    let forged = forger.hand_over(&second, &third, ROOT_OVERLAP, now()).unwrap();
    let error = keystore.install_root(&forged).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Root(Refusal::RootInvalid)), "{error}");
    // Over before it began.
    let late = UnixTime::from_secs(now().secs() - 7_200);
    let over = state.hand_over(&fixture.root, &second, Duration::from_secs(3_600), late).unwrap();
    let error = keystore.install_root(&over).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Root(Refusal::RootEnded)), "{error}");
    // Without one issuer; with one too many; with one that another root signed.
    let mut few = good.clone();
    few.issuers.pop();
    let mut former = good.clone();
    former.issuers[0] = state.issuers[0].clone();
    for wrong in [few, former] {
        let error = keystore.install_root(&wrong).await.unwrap_err();
        assert!(matches!(error, KeystoreError::RootIssuers), "{error}");
    }
    assert_eq!(keystore.root_state().await.unwrap(), state);
    keystore.install_root(&good).await.unwrap();
    // Again, and another that follows the same root.
    let fork = state.hand_over(&fixture.root, &third, ROOT_OVERLAP, now()).unwrap();
    for wrong in [good, fork] {
        let error = keystore.install_root(&wrong).await.unwrap_err();
        assert!(matches!(error, KeystoreError::Root(Refusal::RootStale)), "{error}");
    }
    assert_eq!(*keystore.trust_store().root(), second.verifying_key());
}

#[tokio::test]
async fn a_root_that_was_put_into_the_database_is_no_root() {
    let fixture = fixture!("control");
    let keystore = owner(&fixture).await;
    let (second, third) = (key(), key());
    keystore.install_root(&hand_over(&keystore, &fixture.root, &second).await).await.unwrap();
    let handover = hand_over(&keystore, &second, &third).await;
    keystore.install_root(&handover).await.unwrap();
    // The row of the second under the third's number.
    let mut raw = Raw::connect(fixture.database, &fixture.url).await;
    raw.run(
        "UPDATE roots SET encrypted_root = (SELECT r FROM (SELECT encrypted_root AS r FROM roots \
             WHERE sequence = 2) x) WHERE sequence = 3",
    )
    .await;
    let opened = Keystore::open(&fixture.address, fixture.kek.clone()).await;
    assert!(matches!(opened, Err(KeystoreError::Damaged { .. })), "{opened:?}");
    // And without the newest row the issuers are nobody's.
    raw.run("DELETE FROM roots WHERE sequence = 3").await;
    let opened = Keystore::open(&fixture.address, fixture.kek.clone()).await;
    assert!(matches!(opened, Err(KeystoreError::Damaged { .. })), "{opened:?}");
    // A process that runs believes none of it.
    keystore.refresh_roots().await.unwrap_err();
    let trust: TrustStore = keystore.trust_store();
    assert_eq!(*trust.root(), third.verifying_key());
}
