//! Several processes and pools at once on one keystore.
use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{agent, component, fixture};
use bulla_keystore::{Kek, KeyType, Keystore, KeystoreError, Page, StoreAddress};
use bulla_seal::Suite;

const CHILD: &str = "BULLA_TEST_KEYSTORE";
const CHILD_KEK: &str = "BULLA_TEST_KEYSTORE_KEK";
const AGENTS: usize = 40;

/// Adds agents whose names every worker wants; how many it got.
async fn add_all(keystore: &Keystore) -> usize {
    let mut added = 0;
    for i in 0..AGENTS {
        let key_type = if i % 2 == 0 { KeyType::Shared } else { KeyType::Pair };
        match keystore.add_agent(&format!("db-{i}"), key_type, Suite::X25519).await {
            Ok(_) => added += 1,
            Err(KeystoreError::NameTaken(_)) => {}
            Err(e) => panic!("{e}"),
        }
    }
    added
}

/// Not a test of its own: what the other processes of the next test do.
#[tokio::test]
async fn child() {
    if let (Ok(url), Ok(kek)) = (std::env::var(CHILD), std::env::var(CHILD_KEK)) {
        let (address, kek) = (url.parse::<StoreAddress>().unwrap(), Kek::from_file(kek).unwrap());
        let added = add_all(&Keystore::open(address, kek).await.unwrap()).await;
        println!("added={added};");
    }
}

#[tokio::test]
async fn processes_share_the_names_out_between_them() {
    let fixture = fixture!("control");
    let program = std::env::current_exe().unwrap();
    let spawn = |_| {
        Command::new(&program)
            .args(["--exact", "suite::concurrency::child", "--nocapture"])
            .env(CHILD, &fixture.url)
            .env(CHILD_KEK, fixture.folder.path().join("kek"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..3).map(spawn).collect();
    let mut added = add_all(&fixture.keystore).await;
    for child in children {
        // Not on the runtime's own thread: it has a transaction to roll back.
        let output = tokio::task::spawn_blocking(|| child.wait_with_output());
        let output = output.await.unwrap().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        let count = text.split_once("added=").unwrap().1.split_once(';').unwrap().0;
        added += count.parse::<usize>().unwrap();
    }
    assert_eq!(added, AGENTS);
    let page = fixture.keystore.list_agents(&Page::default()).await.unwrap();
    assert_eq!(page.agents.len(), AGENTS);
    assert!(page.agents.iter().all(|agent| agent.party.incarnation == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pair_gets_one_name_however_many_ask_first() {
    let fixture = fixture!();
    for i in 0..10 {
        fixture.shared(&format!("db-{i}")).await;
    }
    fixture.keystore.add_component("conductor", &[], bulla_seal::SuiteSet::all()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let keystore = fixture.open().await.unwrap();
        for i in 0..10 {
            let keystore = keystore.clone();
            tasks.spawn(async move {
                let agent = agent(&format!("db-{i}"));
                keystore.pair_key(&agent, &component("conductor")).await.unwrap().kid
            });
        }
    }
    let kids: HashSet<_> = tasks.join_all().await.into_iter().collect();
    assert_eq!(kids.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_name_has_one_holder_at_a_time() {
    let fixture = fixture!();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let keystore = fixture.open().await.unwrap();
        tasks.spawn(async move {
            let mut incarnations = Vec::new();
            for _ in 0..20 {
                match keystore.add_agent("db-1", KeyType::Shared, Suite::Shared).await {
                    Ok(bulla_keystore::AgentKeys::Shared { incarnation, .. }) => {
                        incarnations.push(incarnation);
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(KeystoreError::NameTaken(_)) => {
                        // Another worker may be quicker.
                        let _ = keystore.remove_agent("db-1").await;
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            incarnations
        });
    }
    let mut given: Vec<u32> = tasks.join_all().await.into_iter().flatten().collect();
    given.sort_unstable();
    assert!(!given.is_empty());
    assert_eq!(given, (1..=given.len() as u32).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_listens_hears_of_a_revocation_where_the_database_pushes() {
    let fixture = fixture!("control");
    let other = fixture.open().await.unwrap();
    let mut news = other.news();
    let postgres = crate::DATABASE == crate::common::Database::Postgres;
    // Once for what may have changed before.
    let hear = async |news: &mut bulla_keystore::News| {
        tokio::time::timeout(Duration::from_secs(if postgres { 60 } else { 1 }), news.changed())
            .await
            .is_ok_and(|heard| heard.is_ok())
    };
    assert_eq!(hear(&mut news).await, postgres);
    fixture.keystore.add_agent("a", KeyType::Pair, Suite::X25519).await.unwrap();
    fixture.keystore.revoke_principal(&agent("a")).await.unwrap();
    assert_eq!(hear(&mut news).await, postgres);
    // A statement says it all, and adding somebody is no news.
    let before = other.statement().await.unwrap();
    fixture.keystore.add_agent("b", KeyType::Pair, Suite::X25519).await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(300), news.changed()).await;
    assert!(silent.is_err(), "{silent:?}");
    fixture.keystore.remove_agent("b").await.unwrap();
    assert_eq!(hear(&mut news).await, postgres);
    assert!(other.statement().await.unwrap().epoch > before.epoch);
}
