//! Statements of revocation: epochs that never fall, and what they list.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::*;
use bulla_guard::floor::{Event, FloorStore};
use bulla_keystore::{AgentKeys, KeyType, Keystore, KeystoreError, STATEMENT_LIFETIME};
use bulla_seal::{GroupName, Kid, Level, Party, Suite, UnixTime};

/// The keystore on a clock that the test sets.
fn clocked(keystore: &Keystore) -> (Keystore, Arc<AtomicU64>) {
    let at = Arc::new(AtomicU64::new(0));
    let now = at.clone();
    let start = std::time::SystemTime::now();
    let start = start.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let clock = move || UnixTime::from_secs(start + now.load(Ordering::SeqCst));
    (keystore.clone().with_clock(clock), at)
}

async fn pair(keystore: &Keystore, id: &str) -> Kid {
    match keystore.add_agent(id, KeyType::Pair, Suite::X25519).await.unwrap() {
        AgentKeys::Pair { credential, .. } => credential.kid,
        AgentKeys::Shared { .. } => panic!("a pair was asked for"),
    }
}

#[tokio::test]
async fn a_statement_is_given_again_until_its_half_or_something_to_say() {
    let fixture = fixture!("control");
    let (keystore, clock) = clocked(&fixture.keystore);
    let first = keystore.statement().await.unwrap();
    assert_eq!((first.epoch, first.not_after - first.issued_at), (first.issued_at, 3600));
    assert!(keystore.trust_store().verify_statement(first.as_bytes()).is_ok());
    clock.store(STATEMENT_LIFETIME.as_secs() / 2 - 1, Ordering::SeqCst);
    assert_eq!(keystore.statement().await.unwrap(), first);
    clock.store(STATEMENT_LIFETIME.as_secs() / 2, Ordering::SeqCst);
    let second = keystore.statement().await.unwrap();
    assert_eq!((second.epoch, second.issued_at), (first.epoch + 1800, first.issued_at + 1800));
    let kid = pair(&keystore, "a").await;
    assert_eq!(keystore.statement().await.unwrap(), second, "a new agent is no news");
    keystore.revoke_kid(kid).await.unwrap();
    let third = keystore.statement().await.unwrap();
    assert_eq!(third.epoch, second.epoch + 1);
    assert_eq!(third.revoked.iter().map(|r| r.kid).collect::<Vec<_>>(), [kid]);
    // Another process, and after a restart.
    let again = fixture.open().await.unwrap();
    let (again, at) = clocked(&again);
    at.store(clock.load(Ordering::SeqCst), Ordering::SeqCst);
    assert_eq!(again.statement().await.unwrap(), third);
    again.revoke_principal(&component("control")).await.unwrap();
    assert_eq!(keystore.statement().await.unwrap().epoch, third.epoch + 1);
}

#[tokio::test]
async fn what_is_revoked_is_listed_until_it_can_do_no_harm() {
    let fixture = fixture!("control");
    let (keystore, clock) = clocked(&fixture.keystore);
    let kid = pair(&keystore, "a").await;
    let credential = keystore.credential(&agent("a")).await.unwrap();
    keystore.remove_agent("a").await.unwrap();
    let said = keystore.statement().await.unwrap();
    let [revoked] = said.revoked[..] else { panic!("{said:?}") };
    assert_eq!((revoked.kid, revoked.until), (kid, credential.validity.not_after + 86_400 + 120));
    // Its groups started a new epoch, which the statement says too.
    assert_eq!(said.groups, [(GroupName::new("all").unwrap(), 2)]);
    let left = |at: u64| at - said.issued_at;
    clock.store(left(revoked.until) - 1, Ordering::SeqCst);
    assert_eq!(keystore.statement().await.unwrap().revoked.len(), 1);
    clock.store(left(revoked.until), Ordering::SeqCst);
    assert!(keystore.statement().await.unwrap().revoked.is_empty());
}

#[tokio::test]
async fn a_principal_is_revoked_in_its_incarnation() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    pair(keystore, "a").await;
    fixture.shared("s").await;
    for id in ["a", "s"] {
        let revoked = keystore.revoke_principal(&agent(id)).await.unwrap();
        assert_eq!(revoked, Party::new(agent(id), 1));
    }
    let said = keystore.statement().await.unwrap();
    let lowest: Vec<_> =
        said.lowest.iter().map(|l| (l.principal.to_string(), l.incarnation)).collect();
    assert_eq!(lowest, [("agent/a".into(), 2), ("agent/s".into(), 2)]);
    // The next holder of the name is above it, and revoking nobody is an error.
    keystore.remove_agent("a").await.unwrap();
    let error = keystore.revoke_principal(&agent("a")).await.unwrap_err();
    assert!(matches!(error, KeystoreError::UnknownPrincipal(_)), "{error}");
    pair(keystore, "a").await;
    assert_eq!(keystore.party(&agent("a")).await.unwrap().incarnation, 2);
    let error = keystore.revoke_kid(Kid([9; 8])).await.unwrap_err();
    assert!(matches!(error, KeystoreError::UnknownKid(_)), "{error}");
}

#[tokio::test]
async fn of_many_who_ask_at_once_all_get_one_statement() {
    let fixture = fixture!("control");
    let mut last = 0;
    for round in 1..=3 {
        let mut asking = Vec::new();
        for _ in 0..8 {
            let process = fixture.open().await.unwrap();
            asking.push(tokio::spawn(async move {
                let statement = process.statement().await.unwrap();
                (statement.epoch == process.issued_epoch(), statement)
            }));
        }
        let first = fixture.keystore.statement().await.unwrap();
        assert!(first.epoch > last);
        last = first.epoch;
        let mut issuers = usize::from(fixture.keystore.issued_epoch() == last);
        for asked in asking {
            let (issued, statement) = asked.await.unwrap();
            assert_eq!(statement, first);
            issuers += usize::from(issued);
        }
        assert_eq!(issuers, 1, "agents are told {issuers} times");
        let kid = pair(&fixture.keystore, &format!("a{round}")).await;
        fixture.keystore.revoke_kid(kid).await.unwrap();
    }
}

#[tokio::test]
async fn floors_and_exemptions_are_kept_in_the_keystore() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    pair(keystore, "a").await;
    let party = keystore.party(&agent("a")).await.unwrap();
    let floors = keystore.floors();
    floors.apply(&party, Event::Passed { level: Level::Sealed }).await.unwrap();
    let until = STATEMENT_LIFETIME.as_secs()
        + std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let exemption = keystore.exempt(&party, "guest.resize", Level::Signed, until).await.unwrap();
    assert!(keystore.trust_store().verify_exemption(exemption.as_bytes()).is_ok());
    floors.add_exemption(&exemption).await.unwrap();
    let again = fixture.open().await.unwrap().floors();
    assert_eq!(again.record(&party).await.unwrap().unwrap().accepts, Level::Sealed);
    assert_eq!(again.exemptions().await.unwrap(), [exemption.as_bytes().clone()]);
}
