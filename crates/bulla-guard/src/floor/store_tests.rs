//! What every store of floors must do, and what is asked of one on each message.

use std::sync::Arc;

use bulla_seal::{
    Exemption, Issuer, IssuerCredential, IssuerRight, Kid, Level, Party, Principal, Secret,
    SignedExemption, SigningKey, TrustDomain, Validity,
};

use super::*;

fn agent(name: &str) -> Party {
    Party::new(Principal::agent(name).unwrap(), 1)
}

fn component() -> Party {
    Party::new(Principal::component("api").unwrap(), 1)
}

fn exemption(peer: &Party, until: u64) -> SignedExemption {
    let key = SigningKey::from_seed(Secret::new([7; 32])).unwrap();
    let credential = IssuerCredential {
        kid: Kid([1; 8]),
        domain: TrustDomain::new("test").unwrap(),
        right: IssuerRight::Exemptions,
        key: key.verifying_key(),
        validity: Validity { not_before: 0, not_after: 1_000_000 },
    };
    let issuer = Issuer::new(key, credential).unwrap();
    let (peer, method) = (peer.clone(), "ping".to_owned());
    let (id, level, not_before) = (Kid([until as u8; 8]), Level::Signed, 0);
    issuer.exempt(&Exemption { id, peer, method, level, not_before, until }).unwrap()
}

async fn keeps(store: &dyn FloorStore) {
    let (a, b) = (agent("a"), component());
    assert_eq!(store.record(&a).await.unwrap(), None);
    let start = store.generation().await.unwrap();
    let (record, action) = store.apply(&a, Event::Passed { level: Level::Sealed }).await.unwrap();
    assert_eq!(
        (record.accepts, action),
        (Level::Sealed, Action::Raised { from: Level::Plaintext })
    );
    assert_eq!(store.record(&a).await.unwrap(), Some(record));
    let risen = store.generation().await.unwrap();
    assert_ne!(risen, start);
    let (_, action) = store.apply(&a, Event::Passed { level: Level::Signed }).await.unwrap();
    assert_eq!(action, Action::Keep);
    assert_eq!(store.generation().await.unwrap(), risen, "nothing changed");
    // Another incarnation shares nothing with it.
    let again = Party { incarnation: 2, ..a.clone() };
    assert_eq!(store.record(&again).await.unwrap(), None);
    store.apply(&b, Event::Rehearse { to: Level::Sealed }).await.unwrap();
    let rehearsed = store.record(&b).await.unwrap().unwrap();
    assert_eq!((rehearsed.accepts, rehearsed.target), (Level::Plaintext, Some(Level::Sealed)));
    assert_eq!(store.records().await.unwrap().len(), 2);

    let (one, two) = (exemption(&a, 100), exemption(&a, 200));
    store.add_exemption(&one).await.unwrap();
    store.add_exemption(&two).await.unwrap();
    let before = store.generation().await.unwrap();
    assert!(store.remove_exemption(one.id).await.unwrap());
    assert!(!store.remove_exemption(one.id).await.unwrap());
    assert_ne!(store.generation().await.unwrap(), before);
    assert_eq!(store.exemptions().await.unwrap(), vec![two.as_bytes().clone()]);

    let row = |level, count, last, last_below| CensusRow {
        peer: a.clone(),
        method: "guest.resize".into(),
        level,
        count,
        last,
        below: u64::from(last_below > 0),
        last_below,
    };
    let before = store.generation().await.unwrap();
    store.add_census(&[row(Level::Sealed, 5, 50, 0), row(Level::Signed, 1, 40, 40)]).await.unwrap();
    store.add_census(&[row(Level::Sealed, 7, 45, 44)]).await.unwrap();
    let expected = [row(Level::Signed, 1, 40, 40), row(Level::Sealed, 12, 50, 44)];
    assert_eq!(store.census().await.unwrap(), expected);
    assert_eq!(store.generation().await.unwrap(), before, "counting makes nobody read again");
}

#[tokio::test]
async fn memory_keeps() {
    keeps(&MemoryFloors::new()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_file_keeps_and_outlives_the_process() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("floors.db");
    let store = SqliteFloors::open(&path).await.unwrap();
    keeps(&store).await;
    store.close().await;
    let store = SqliteFloors::open(&path).await.unwrap();
    assert_eq!(store.record(&agent("a")).await.unwrap().unwrap().accepts, Level::Sealed);
    assert_eq!(store.census().await.unwrap().len(), 2);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let other = folder.path().join("other.db");
    let claims = crate::SqliteOptions::new(crate::NewStore::NothingBefore, 1);
    crate::SqliteClaims::open(&other, claims).await.unwrap().close().await;
    assert!(SqliteFloors::open(&other).await.is_err(), "another program's file");
}

/// Two processes over one store.
#[tokio::test]
async fn what_one_process_raises_counts_for_the_other() {
    let store = Arc::new(MemoryFloors::new());
    let (one, two) = (Floors::new(store.clone()), Floors::new(store.clone()));
    let a = agent("a");
    let (at_one, at_two) = (one.peer(&a).await.unwrap(), two.peer(&a).await.unwrap());
    let none = |_: &[u8]| None;
    assert!(two.refresh(none).await.unwrap());
    let action = one.passed(&at_one, Level::Sealed).await.unwrap();
    assert_eq!(action, Action::Raised { from: Level::Plaintext });
    assert!(!one.may_pass(&at_one, Level::Signed, Level::Signed, 0));
    assert!(two.may_pass(&at_two, Level::Signed, Level::Signed, 0), "not heard of yet");
    assert!(two.refresh(none).await.unwrap());
    assert!(!two.may_pass(&at_two, Level::Signed, Level::Signed, 0));
    assert!(!two.refresh(none).await.unwrap());
}

#[tokio::test]
async fn an_exemption_lets_through_what_both_floors_refuse_until_its_end() {
    let store = Arc::new(MemoryFloors::new());
    let floors = Floors::new(store.clone());
    let a = agent("a");
    let peer = floors.peer(&a).await.unwrap();
    floors.passed(&peer, Level::Sealed).await.unwrap();
    let given = exemption(&a, 100);
    store.add_exemption(&given).await.unwrap();
    let verify = |bytes: &[u8]| (bytes == given.as_bytes()).then(|| (*given).clone());
    floors.refresh(|_| None).await.unwrap();
    assert!(!floors.may_pass(&peer, Level::Signed, Level::Sealed, 50), "not verified");
    store.apply(&component(), Event::Raise { to: Level::Signed }).await.unwrap();
    floors.refresh(verify).await.unwrap();
    let judge = |method, now| floors.judge(&peer, method, Level::Signed, Level::Sealed, now);
    assert!(floors.may_pass(&peer, Level::Signed, Level::Sealed, 50));
    assert_eq!(judge("ping", 50), Judgement::Exempt { id: given.id, until: 100 });
    assert_eq!(judge("pong", 50), Judgement::Refuse { floor: Level::Sealed });
    assert_eq!(judge("ping", 100), Judgement::Refuse { floor: Level::Sealed });
    assert!(!floors.may_pass(&peer, Level::Signed, Level::Sealed, 100));
    peer.note("ping", Level::Signed, 50, judge("ping", 50));
    floors.flush().await.unwrap();
    floors.flush().await.unwrap();
    let census = store.census().await.unwrap();
    let [row] = &census[..] else { panic!("{census:?}") };
    assert_eq!((row.count, row.below, row.last_below), (1, 1, 50));
}
