//! Renewal, step by step: cut off after each, told apart from a second copy, and with everything
//! that was sealed before.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod common;

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_rpc::identity::AudienceEntry;
use bulla_rpc::renewal::wire::{self, HoldArgs, RenewAnswer, RenewArgs};
use bulla_rpc::*;
use bulla_seal::*;
use common::*;
use parking_lot::Mutex;
use tempfile::TempDir;

type Answers = Arc<Mutex<HashMap<u64, (Digest, String)>>>;

/// A control plane that remembers requests, and issues.
struct Control {
    server: Server,
    /// Whether the agent hears the answer.
    answers: Answers,
    held: Arc<Mutex<Vec<String>>>,
    asked: Arc<AtomicU32>,
    /// Keeps an answer back, as a lost connection would.
    mute: Arc<AtomicBool>,
}

struct Setting {
    world: World,
    folder: TempDir,
    path: PathBuf,
}

impl Setting {
    /// An agent's key file, and a control plane that nobody started yet.
    fn new() -> Self {
        let world = World::new();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let mut random = OsRandom::default();
        let party = Party::new(Principal::agent("a").unwrap(), 1);
        let key = SigningKey::generate(&mut random).unwrap();
        let kem = KemSecretKey::generate(Suite::X25519, &mut random).unwrap();
        // Over in an hour.
        let validity = Validity { not_after: now().secs() + 3600, ..validity() };
        let (signing, public) = (Some(key.verifying_key()), Some(kem.public().clone()));
        let first = Credential { signing, kem: public, validity, ..credential(&party) };
        let first = Arc::new(world.agents.issue(&first).unwrap());
        world.directory.add_peer(first.clone());
        let receive = ReceiveKey { credential: first.clone(), key: kem };
        key_file(&world, &key, &first, &receive).write(&path).unwrap();
        Self { world, folder, path }
    }

    async fn control(&self, renews: bool) -> Control {
        let identity = self.world.component_identity("control", "h1", 1, validity());
        let transport = Arc::new(self.world.bus.transport());
        let renewing = EndpointOptions { renews, ..EndpointOptions::default() };
        let directory = self.world.directory.clone();
        let endpoint = Endpoint::new(identity, directory, transport, renewing).unwrap();
        let (answers, held) = (Answers::default(), Arc::<Mutex<Vec<String>>>::default());
        let (asked, mute) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let issuer = self.world.agents.clone();
        let trust = self.world.trust.clone();
        let (known, count, deaf) = (answers.clone(), asked.clone(), Arc::clone(&mute));
        let renew = move |context: Context, args: RenewArgs| {
            count.fetch_add(1, Ordering::SeqCst);
            let bytes = BASE64.decode(&args.request).unwrap();
            let claims = RenewalClaims::verify(&bytes, trust.domain()).unwrap();
            let own = context.credential().unwrap();
            assert_eq!((claims.credential, claims.counter), (own.kid, own.epoch.into()));
            let digest = RenewalClaims::digest(&bytes);
            let mut known = known.lock();
            let answer = match known.get(&claims.counter) {
                Some((first, _)) if *first != digest => {
                    Err(RemoteError::new("renew-cloned", "two copies"))
                }
                Some((_, credential)) => Ok(credential.clone()),
                None => {
                    let mut kid = [0; 8];
                    OsRandom::default().fill(&mut kid).unwrap();
                    let next = Credential {
                        kid: Kid(kid),
                        epoch: own.epoch + 1,
                        signing: Some(claims.signing),
                        kem: claims.kem.clone(),
                        validity: Validity { not_after: now().secs() + 160_000, ..own.validity },
                        ..Credential::clone(own)
                    };
                    let text = BASE64.encode(issuer.issue(&next).unwrap().as_bytes());
                    known.insert(claims.counter, (digest, text.clone()));
                    Ok(text)
                }
            };
            drop(known);
            let lost = deaf.load(Ordering::SeqCst);
            async move {
                if lost {
                    std::future::pending::<()>().await;
                }
                answer.map(|credential| RenewAnswer {
                    credential,
                    peers: Vec::new(),
                    broker_user: None,
                })
            }
        };
        let hold = {
            let held = held.clone();
            move |_: Context, args: HoldArgs| {
                held.lock().push(args.kid);
                async move { Ok(()) }
            }
        };
        let other = |_: Context, (): ()| async move { Ok(7_u32) as HandlerResult<u32> };
        let open = |method: Method| method.namespace(wire::NAMESPACE).idempotent().open_to_agents();
        let router = Router::new()
            .with(open(Method::new(wire::AGENT, renew)))
            .with(open(Method::new(wire::HOLD, hold)))
            .with(Method::new("other", other).open_to_agents());
        let server = Server::start(endpoint, router, options()).await.unwrap();
        Control { server, answers, held, asked, mute }
    }

    /// The agent as it starts from its disk.
    fn start(&self, path: &Path) -> Agent {
        let file = KeyFile::read(path).unwrap();
        self.start_at(&file, path, Arc::new(SystemClock))
    }

    fn start_at(&self, file: &KeyFile, path: &Path, clock: Arc<dyn Clock>) -> Agent {
        let (identity, _) = file.open(path, clock.now()).unwrap();
        let endpoint = self.world.endpoint_at(identity, clock);
        let client = Client::new(endpoint);
        let renewer = Renewer::new(&client, file, path);
        Agent { client, renewer }
    }

    fn renewing(&self) -> PathBuf {
        self.folder.path().join("a.key.renewing")
    }
}

struct Agent {
    client: Client,
    renewer: Renewer,
}

fn key_file(
    world: &World,
    key: &SigningKey,
    signing: &SignedCredential,
    receive: &ReceiveKey,
) -> KeyFile {
    let issuers = world.trust.issuers().map(|(_, bytes)| BASE64.encode(bytes)).collect();
    let credential = BASE64.encode(signing.as_bytes());
    KeyFile {
        version: 1,
        principal: signing.party.principal.to_string(),
        incarnation: signing.party.incarnation,
        trust_domain: world.trust.domain().to_string(),
        root: BASE64.encode(world.trust.root().as_bytes()),
        root_sequence: 1,
        former_root: None,
        issuers,
        shared_key: None,
        signing_key: Some(BASE64.encode(key.seed().expose())),
        signing_credential: Some(credential.clone()),
        receive: vec![AudienceEntry {
            suite: receive.key.suite().as_str().to_owned(),
            key: BASE64.encode(receive.key.expose()),
            credential,
        }],
        peers: Vec::new(),
        pairs: Vec::new(),
        statements: false,
        renewed: false,
        bus: None,
    }
}

#[tokio::test]
async fn whenever_it_is_cut_off_it_goes_on_with_the_same_request() {
    // How far the first attempt comes: written, asked and not heard, heard, stored, and told.
    for cut in 0..5 {
        let setting = Setting::new();
        let control = setting.control(true).await;
        let before = KeyFile::read(&setting.path).unwrap();
        let mut agent = setting.start(&setting.path);
        agent.renewer.prepare().unwrap();
        let written = std::fs::read_to_string(setting.renewing()).unwrap();
        let mode = setting.renewing().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        if cut == 1 {
            control.mute.store(true, Ordering::SeqCst);
            let asking = tokio::time::timeout(Duration::from_millis(300), agent.renewer.ask());
            assert!(asking.await.is_err());
            until("it was asked", || control.asked.load(Ordering::SeqCst) == 1).await;
            control.mute.store(false, Ordering::SeqCst);
        } else if cut > 1 {
            let answer = agent.renewer.ask().await.unwrap();
            if cut > 2 {
                agent.renewer.take(&answer).unwrap();
            }
            if cut > 3 {
                agent.renewer.confirm().await.unwrap();
            }
        }
        drop(agent);

        let mut again = setting.start(&setting.path);
        assert_eq!(again.renewer.is_under_way(), cut < 4, "cut at {cut}");
        if cut < 4 {
            assert_eq!(std::fs::read_to_string(setting.renewing()).unwrap(), written);
            again.renewer.renew().await.unwrap();
        }
        assert!(!setting.renewing().exists());
        let present = again.renewer.credential().unwrap();
        assert_eq!((present.epoch, control.answers.lock().len()), (2, 1), "cut at {cut}");
        assert_eq!(control.held.lock().last(), Some(&present.kid.to_string()));
        let after = KeyFile::read(&setting.path).unwrap();
        assert_eq!((after.receive.len(), after.renewed), (2, true));
        assert_eq!(after.receive[1].key, before.receive[0].key);
        // And the next one is another.
        again.renewer.renew().await.unwrap();
        assert_eq!(again.renewer.credential().unwrap().epoch, 3);
    }
}

#[tokio::test]
async fn an_answer_that_is_for_other_keys_changes_nothing() {
    let setting = Setting::new();
    let _control = setting.control(true).await;
    let mut agent = setting.start(&setting.path);
    let before = std::fs::read_to_string(&setting.path).unwrap();
    agent.renewer.prepare().unwrap();
    let good = agent.renewer.ask().await.unwrap();
    let Keys::Pair { signing, .. } = setting.world.agent_keys("a", Suite::X25519, 1) else {
        panic!()
    };
    let other = BASE64.encode(signing.as_bytes());
    for credential in [other, String::new(), "AAAA".to_owned(), good.credential[4..].to_owned()] {
        let taken =
            agent.renewer.take(&RenewAnswer { credential, peers: Vec::new(), broker_user: None });
        assert!(matches!(taken, Err(RenewalError::Unusable(_))), "{taken:?}");
    }
    let peers = vec![BASE64.encode(b"no credential")];
    let taken = agent.renewer.take(&RenewAnswer { peers, ..good.clone() });
    assert!(matches!(taken, Err(RenewalError::Unusable(_))), "{taken:?}");
    assert_eq!(std::fs::read_to_string(&setting.path).unwrap(), before);
    agent.renewer.take(&good).unwrap();
}

/// One copy renews and shows its new credential; then the other asks.
#[tokio::test]
async fn under_a_credential_that_was_followed_only_a_request_to_renew_is_opened() {
    for renews in [true, false] {
        let setting = Setting::new();
        let control = setting.control(renews).await;
        let copy = setting.folder.path().join("copy.key");
        std::fs::copy(&setting.path, &copy).unwrap();
        let mut agent = setting.start(&setting.path);
        agent.renewer.renew().await.unwrap();
        let target: Target = "component/control".parse().unwrap();
        let restarted = setting.start(&setting.path);
        assert_eq!(restarted.client.call::<_, u32>(&target, "other", &()).await.unwrap(), 7);

        let mut copied = setting.start(&copy);
        let quick = Duration::from_millis(400);
        let other = copied.client.request(&target, "other").timeout(quick).call::<_, u32>(&());
        assert!(matches!(other.await, Err(CallError::Timeout { .. })));
        let counters = control.server.endpoint().counters();
        assert!(counters.refused(Refusal::EpochStale) >= 1);
        copied.renewer.prepare().unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(2), copied.renewer.ask()).await;
        if renews {
            let error = asked.unwrap().unwrap_err();
            assert!(error.is_final() && error.to_string().contains("two copies"), "{error}");
            assert!(copied.renewer.renew().await.is_err());
        } else {
            assert!(asked.is_err(), "{asked:?}");
        }
        // The holder of the newer one is none the worse.
        assert_eq!(restarted.client.call::<_, u32>(&target, "other", &()).await.unwrap(), 7);
    }
}

#[tokio::test]
async fn what_was_sealed_to_the_old_key_opens_until_the_key_is_destroyed() {
    let setting = Setting::new();
    let control = setting.control(true).await;
    let clock = Shifted::by(0);
    let file = KeyFile::read(&setting.path).unwrap();
    let mut agent = setting.start_at(&file, &setting.path, clock.clone());
    let (old, first) = (file.receive[0].key.clone(), agent.renewer.credential().unwrap());
    // What waits in the queue is sealed to the old key: the directory knows no other.
    let caller = Client::new(control.server.endpoint().clone());
    let target: Target = "agent/a".parse().unwrap();
    let ran = Arc::new(AtomicU32::new(0));
    let count = ran.clone();
    let note = move |_: Context, (): ()| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { Ok(()) as HandlerResult<()> }
    };
    let before = Server::start(agent.client.endpoint().clone(), Router::new(), options()).await;
    before.unwrap().drain(Duration::ZERO).await;
    caller.cast(&target, "note", &()).await.unwrap();
    agent.renewer.renew().await.unwrap();
    assert_eq!(agent.client.endpoint().identity().receive_kids().len(), 2);
    let router = Router::new().method("note", note);
    let server = Server::start(agent.client.endpoint().clone(), router, options()).await.unwrap();
    until("the queued message ran", || ran.load(Ordering::SeqCst) == 1).await;
    server.drain(Duration::from_secs(5)).await;

    let (skew, now) = (bulla_seal::DEFAULT_SKEW, SystemClock.now().secs());
    let retired = i64::try_from(first.retire_at(skew) - now).unwrap();
    // Long over, but something may be under way to it; a restart changes nothing about that.
    clock.set(retired - 60);
    assert_eq!(agent.renewer.retire().unwrap(), 0);
    let kept = KeyFile::read(&setting.path).unwrap();
    let restarted = setting.start_at(&kept, &setting.path, clock.clone());
    assert!(restarted.client.endpoint().identity().receive_key(first.kid).is_some());
    clock.set(retired);
    assert_eq!(agent.renewer.retire().unwrap(), 1);
    assert!(agent.client.endpoint().identity().receive_key(first.kid).is_none());
    assert!(!std::fs::read_to_string(&setting.path).unwrap().contains(&old));
    assert_eq!(KeyFile::read(&setting.path).unwrap().receive.len(), 1);
    assert_eq!(agent.renewer.retire().unwrap(), 0);
}

/// As two programs do that were given the same key file.
#[tokio::test]
async fn two_processes_with_one_key_file_renew_once_and_both_go_on() {
    let setting = Setting::new();
    let control = setting.control(true).await;
    let (mut one, mut two) = (setting.start(&setting.path), setting.start(&setting.path));
    one.renewer.renew().await.unwrap();
    let taken_over = two.renewer.renew().await.unwrap();
    assert_eq!(Some(taken_over), one.renewer.credential());
    assert_eq!(control.answers.lock().len(), 1);
    let (first, second) = tokio::join!(one.renewer.renew(), two.renewer.renew());
    assert!(first.is_ok() || second.is_ok());
    for outcome in [first, second] {
        assert!(matches!(outcome, Ok(_) | Err(RenewalError::Busy { .. })), "{outcome:?}");
    }
    assert!(one.renewer.renew().await.is_ok() && two.renewer.renew().await.is_ok());
}
