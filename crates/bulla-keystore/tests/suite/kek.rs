//! Rotation of the key-encryption key, with the keystore in use.
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulla_keystore::{
    Kek, KekRing, KekSource, KeyType, Keystore, KeystoreError, ROOT_OVERLAP, Rewrapped,
    StoreAddress, next_file,
};
use bulla_seal::{GroupName, OsRandom, Secret, SigningKey, Suite, UnixTime};

use crate::common::{Fixture, Raw, agent, component, fixture, many};

const CHILD: &str = "BULLA_TEST_ROTATION";
const CHILD_KEK: &str = "BULLA_TEST_ROTATION_KEK";
const AGENTS: usize = 2_000;

/// What every process of a deployment with a KEK file holds: the file, and the next one beside it.
fn ring(kek: &Path) -> KekRing {
    let sources = [KekSource::File(kek.to_owned()), KekSource::File(next_file(kek))];
    let look = move || {
        let there = sources.iter().filter_map(|source| match source.load() {
            Err(error) if error.is_absent() => None,
            loaded => Some(loaded),
        });
        there.collect()
    };
    KekRing::watching(look).unwrap()
}

impl Fixture {
    /// As any process of this deployment would open it.
    async fn process(&self) -> Keystore {
        let ring = ring(&self.folder.path().join("kek"));
        Keystore::open(&self.address, ring).await.unwrap()
    }

    async fn with_agents(self, count: usize) -> Self {
        self.keystore.add_group(&GroupName::new("blue").unwrap()).await.unwrap();
        many::add_shared(&mut self.raw().await, &self.kek, count).await;
        self
    }

    /// The key to go over to, beside the present one.
    fn next(&self) -> Kek {
        Kek::create_file(next_file(&self.folder.path().join("kek"))).unwrap()
    }
}

/// Every secret that the keystore gives out of wrapped values, to be compared.
async fn secrets(keystore: &Keystore, agents: usize) -> Vec<Secret<32>> {
    let mut secrets = Vec::new();
    for i in 0..agents {
        let pair = keystore.pair_key(&agent(&many::id(i)), &component("control")).await.unwrap();
        secrets.push(pair.key);
    }
    for name in ["control", "backup"] {
        let kem = keystore.component_keys(name).await.unwrap().0;
        secrets.push(Secret::from_slice(&bulla_seal::Digest::of(kem.expose()).0).unwrap());
    }
    for name in ["all", "blue"] {
        let group = GroupName::new(name).unwrap();
        secrets.push(keystore.group_key(&group, None).await.unwrap().key);
    }
    secrets
}

fn same(before: &[Secret<32>], after: &[Secret<32>]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(a, b)| a.ct_eq(b))
}

/// Ids of KEKs that values are under, by looking past the keystore.
async fn ids_in_use(fixture: &Fixture) -> Vec<String> {
    let mut raw = fixture.raw().await;
    let mut values = Vec::new();
    for sql in [
        "SELECT encrypted_root FROM trust_domain",
        "SELECT encrypted_seed FROM issuers",
        "SELECT encrypted_key FROM group_keys",
    ] {
        values.extend(raw.byte_rows(sql).await);
    }
    let texts = raw.texts("SELECT encrypted_key FROM instance_keys WHERE deleted = 0").await;
    values.extend(texts.iter().map(|text| STANDARD.decode(text).unwrap()));
    let mut ids: Vec<String> = values.iter().map(|value| hex::encode(&value[3..11])).collect();
    ids.sort();
    ids.dedup();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_goes_over_while_others_read_and_write() {
    let fixture = fixture!("control", "backup").with_agents(300).await;
    let before = secrets(&fixture.keystore, 300).await;
    let (reader, writer) = (fixture.process().await, fixture.process().await);
    let next = fixture.next();
    let (stop, reads, writes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let reading = {
        let (stop, reads) = (stop.clone(), reads.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let i = reads.fetch_add(1, Ordering::Relaxed) as usize % 300;
                reader.pair_key(&agent(&many::id(i)), &component("control")).await.unwrap();
                reader.component_keys("backup").await.unwrap();
            }
        })
    };
    let writing = {
        let (stop, writes) = (stop.clone(), writes.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let id = format!("new-{}", writes.fetch_add(1, Ordering::Relaxed));
                writer.add_agent(&id, KeyType::Shared, Suite::Shared).await.unwrap();
            }
        })
    };
    while reads.load(Ordering::Relaxed) < 10 || writes.load(Ordering::Relaxed) < 3 {
        tokio::task::yield_now().await;
    }
    let far = fixture.keystore.rotate_kek(&next, 20, |_| {}).await.unwrap();
    assert!(far.rewrapped >= 300 + 1 + 4 + 2 + 2, "{far:?}");
    let (read, wrote) = (reads.load(Ordering::Relaxed), writes.load(Ordering::Relaxed));
    while reads.load(Ordering::Relaxed) < read + 10 || writes.load(Ordering::Relaxed) < wrote + 3 {
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    reading.await.unwrap();
    writing.await.unwrap();

    let state = fixture.keystore.kek_state().await.unwrap();
    assert_eq!((state.current, state.left()), (next.id(), 0));
    // The same by other eyes.
    assert_eq!(ids_in_use(&fixture).await, [hex::encode(next.id())]);
    // The new key alone is enough, the old one alone is worth nothing.
    let after = Keystore::open(&fixture.address, next).await.unwrap();
    assert!(same(&before, &secrets(&after, 300).await));
    let error = Keystore::open(&fixture.address, &fixture.kek).await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
}

#[tokio::test]
async fn roots_access_keys_and_join_tokens_go_over_too() {
    let fixture = fixture!("control");
    // Roots are put in by who owns the tables; the control plane rewraps them.
    let keystore = fixture.process().await;
    let owner = ring(&fixture.folder.path().join("kek"));
    let owner = Keystore::open(fixture.url.parse::<StoreAddress>().unwrap(), owner).await.unwrap();
    let second = SigningKey::generate(&mut OsRandom::default()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = UnixTime::from_secs(now.as_secs());
    let state = owner.root_state().await.unwrap();
    let handover = state.hand_over(&fixture.root, &second, ROOT_OVERLAP, now).unwrap();
    owner.install_root(&handover).await.unwrap();
    let user = "operator/alice".parse().unwrap();
    let access = keystore.add_access_key(&user, None).await.unwrap();
    for i in 0..30 {
        let life = Duration::from_secs(600);
        keystore.invite_agent(&format!("db-{i}"), Suite::X25519, life, false).await.unwrap();
    }
    let next = fixture.next();
    // Batches that end within a statement's rows, and within one agent's.
    keystore.rotate_kek(&next, 7, |_| {}).await.unwrap();
    let state = keystore.kek_state().await.unwrap();
    let of = |table, column| {
        let found =
            state.counts.iter().find(|count| (count.table, count.column) == (table, column));
        found.map(|count| (count.current, count.other)).unwrap()
    };
    assert_eq!(of("roots", "encrypted_root"), (1, 0));
    assert_eq!(of("access_keys", "encrypted_secret_key"), (1, 0));
    assert_eq!(of("join_tokens", "encrypted_secret"), (30, 0));
    assert_eq!(of("join_tokens", "encrypted_verifier"), (30, 0));
    let after = Keystore::open(&fixture.address, next).await.unwrap();
    let trust = after.trust_store();
    assert_eq!((*trust.root(), trust.root_sequence()), (second.verifying_key(), 2));
    let found = after.access_key(&access.record.id).await.unwrap().unwrap();
    assert_eq!(found.secret.expose(), access.secret.expose());
}

/// Not a test of its own: what the process does that is killed in the next one.
#[tokio::test]
async fn child() {
    let (Ok(url), Ok(kek)) = (std::env::var(CHILD), std::env::var(CHILD_KEK)) else { return };
    let next = Kek::from_file(next_file(kek.as_ref())).unwrap();
    let address = url.parse::<StoreAddress>().unwrap();
    let keystore = Keystore::open(address, ring(kek.as_ref())).await.unwrap();
    let tell = |far: Rewrapped| println!("rewrapped={};", far.rewrapped);
    keystore.rotate_kek(&next, 50, tell).await.unwrap();
}

#[tokio::test]
async fn a_rotation_that_was_killed_goes_on() {
    let fixture = fixture!("control", "backup").with_agents(AGENTS).await;
    let long_running = fixture.process().await;
    let before = secrets(&fixture.keystore, AGENTS).await;
    let next = fixture.next();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "suite::kek::child", "--nocapture"])
        .env(CHILD, &fixture.url)
        .env(CHILD_KEK, fixture.folder.path().join("kek"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, count)) = line.split_once("rewrapped=") else { continue };
        if count.split_once(';').unwrap().0.parse::<usize>().unwrap() > AGENTS / 2 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // Both keys are in use, and every process goes on with both.
    let state = fixture.process().await.kek_state().await.unwrap();
    assert_eq!(state.current, next.id());
    let left = state.left();
    assert!(left > 0 && left < AGENTS as u64 * 3 / 5, "{left}");
    assert_eq!(ids_in_use(&fixture).await.len(), 2);
    assert!(same(&before, &secrets(&fixture.process().await, AGENTS).await));
    // Also one that was started before the rotation.
    assert!(same(&before, &secrets(&long_running, AGENTS).await));

    let far = fixture.process().await.rotate_kek(&next, 500, |_| {}).await.unwrap();
    assert_eq!(far.rewrapped, left, "what was done is not done again");
    assert_eq!(fixture.process().await.kek_state().await.unwrap().left(), 0);
    assert_eq!(ids_in_use(&fixture).await, [hex::encode(next.id())]);
    let after = Keystore::open(&fixture.address, next).await.unwrap();
    assert!(same(&before, &secrets(&after, AGENTS).await));
}

async fn stored(raw: &mut Raw, id: &str) -> String {
    raw.text(&format!("SELECT encrypted_key FROM instance_keys WHERE instance_id = '{id}'")).await
}

/// Puts a value into an agent's row.
async fn put(raw: &mut Raw, id: &str, value: &str) {
    let sql =
        format!("UPDATE instance_keys SET encrypted_key = '{value}' WHERE instance_id = '{id}'");
    assert_eq!(raw.run(&sql).await, 1);
}

#[tokio::test]
async fn what_was_moved_does_not_open_and_is_not_moved_on() {
    let fixture = fixture!("control", "backup").with_agents(20).await;
    let next = fixture.next();
    let before = secrets(&fixture.keystore, 20).await;
    let mut raw = fixture.raw().await;
    let (three, seven) = (stored(&mut raw, "vm-000003").await, stored(&mut raw, "vm-000007").await);
    put(&mut raw, "vm-000003", &seven).await;
    put(&mut raw, "vm-000007", &three).await;

    let error = fixture.keystore.rotate_kek(&next, 7, |_| {}).await.unwrap_err();
    let KeystoreError::NotRewrapped { count, damaged } = &error else { panic!("{error}") };
    assert_eq!(*count, 2, "{damaged:?}");
    assert!(damaged.iter().any(|name| name.contains("agent/vm-000003")), "{damaged:?}");
    for id in ["vm-000003", "vm-000007"] {
        let error = fixture.keystore.pair_key(&agent(id), &component("control")).await.unwrap_err();
        assert!(matches!(error, KeystoreError::Damaged { .. }), "{error}");
    }
    // All others went over, and the old key is still needed.
    assert_eq!(fixture.keystore.kek_state().await.unwrap().left(), 2);
    assert_eq!(ids_in_use(&fixture).await.len(), 2);

    put(&mut raw, "vm-000003", &three).await;
    put(&mut raw, "vm-000007", &seven).await;
    let far = fixture.keystore.rotate_kek(&next, 7, |_| {}).await.unwrap();
    assert_eq!(far.rewrapped, 2);
    let after = Keystore::open(&fixture.address, next).await.unwrap();
    assert!(same(&before, &secrets(&after, 20).await));
}

#[tokio::test]
async fn who_does_not_have_the_new_key_writes_nothing() {
    let fixture = fixture!("control", "backup").with_agents(5).await;
    // A process that has the old key and no way to the new one.
    let behind = Keystore::open(&fixture.address, &fixture.kek).await.unwrap();
    let next = fixture.next();
    fixture.keystore.rotate_kek(&next, 500, |_| {}).await.unwrap();
    let error = behind.add_agent("late", KeyType::Shared, Suite::Shared).await.unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKek { .. }), "{error}");
    let group = GroupName::new("green").unwrap();
    assert!(matches!(behind.add_group(&group).await.unwrap_err(), KeystoreError::WrongKek { .. }));
    assert_eq!(fixture.keystore.kek_state().await.unwrap().left(), 0);
    assert_eq!(ids_in_use(&fixture).await, [hex::encode(next.id())]);
}

#[tokio::test]
async fn an_old_value_that_was_put_back_goes_over_again() {
    let fixture = fixture!("control", "backup").with_agents(5).await;
    let next = fixture.next();
    let mut raw = fixture.raw().await;
    let old = stored(&mut raw, "vm-000001").await;
    fixture.keystore.rotate_kek(&next, 500, |_| {}).await.unwrap();
    put(&mut raw, "vm-000001", &old).await;
    assert_eq!(fixture.keystore.kek_state().await.unwrap().left(), 1);
    let far = fixture.keystore.rotate_kek(&next, 500, |_| {}).await.unwrap();
    assert_eq!((far.rewrapped, fixture.keystore.kek_state().await.unwrap().left()), (1, 0));
}

#[tokio::test]
async fn a_third_key_before_the_second_was_done() {
    let fixture = fixture!("control", "backup").with_agents(50).await;
    let second = fixture.next();
    // Begun, and given up at once.
    let mut raw = fixture.raw().await;
    let id = raw.literal(&second.id());
    raw.run(&format!("UPDATE trust_domain SET kek_id = {id}")).await;
    let third = Kek::create_file(fixture.folder.path().join("third")).unwrap();
    fixture.process().await.rotate_kek(&third, 10, |_| {}).await.unwrap();
    let after = Keystore::open(&fixture.address, third).await.unwrap();
    assert_eq!(after.kek_state().await.unwrap().left(), 0);
}
