//! Joining over the bus in memory: who asks with a token is answered, once; nobody else is.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bulla_rpc::enrol::{EnrolServer, Enroller, JoinError, Refused, TOPIC, Verdict, join};
use bulla_rpc::identity::{
    BusEntry, Injected, JoinFile, PendingFile, TokenEntry, burn, burn_file, replace,
};
use bulla_rpc::*;
use bulla_seal::enrol::{Answer, Applicant, Application, JoinToken, Request};
use bulla_seal::*;
use bulla_transport::{Address, ConsumeOptions, Inbox, Outbound, ReplyName, Transport};
use bytes::Bytes;
use common::*;
use parking_lot::Mutex;

const PATIENCE: Duration = Duration::from_secs(30);

/// One token, and what was asked with it.
struct Desk {
    trust: TrustStore,
    agents: Issuer,
    control: ReceiveKey,
    party: Party,
    token: JoinToken,
    seen: Mutex<Vec<Bytes>>,
    /// Requests that get no answer at first.
    deaf: Mutex<u32>,
}

#[async_trait]
impl Enroller for Desk {
    async fn enrol(&self, bytes: Bytes) -> Result<Verdict, DirectoryError> {
        self.seen.lock().push(bytes.clone());
        let refused = |name, unknown| {
            let why = "in a test".to_owned();
            Ok(Verdict::Refused(Refused { name, why, unknown, alarm: false }))
        };
        let request = Request::parse(&bytes).unwrap();
        if request.token() != self.token.id {
            return refused("enrol-token-unknown", true);
        }
        let own = (&**self.control.credential, &self.control.key);
        let Ok(opened) = request.open(self.trust.domain(), (&self.party, &self.token), own) else {
            return refused("enrol-invalid", false);
        };
        {
            let mut deaf = self.deaf.lock();
            if *deaf > 0 {
                *deaf -= 1;
                return Err(DirectoryError("away".into()));
            }
        }
        let credential = Credential {
            signing: Some(*opened.signing()),
            kem: Some(opened.kem().clone()),
            ..common::credential(&self.party)
        };
        let answer = Answer {
            credential: self.agents.issue(&credential).unwrap().as_bytes().clone(),
            issuers: self.trust.issuers().map(|(_, bytes)| bytes.clone()).collect(),
            peers: vec![self.control.credential.as_bytes().clone()],
        };
        let answer = opened.answer(&answer, now(), &mut OsRandom::default()).unwrap();
        let agent = self.party.principal.clone();
        Ok(Verdict::Answer { agent, answer, again: false })
    }
}

struct Scene {
    world: World,
    desk: Arc<Desk>,
    endpoint: Endpoint,
    _server: EnrolServer,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let keys = world.component_keys("control", "host-1", 1, validity());
        let Keys::Pair { receive, .. } = &keys else { panic!("a pair") };
        let desk = Arc::new(Desk {
            trust: world.trust.clone(),
            agents: world.agents.clone(),
            control: receive[0].clone(),
            party: Party::new(Principal::agent("db-1").unwrap(), 3),
            token: JoinToken::generate(&mut OsRandom::default()).unwrap(),
            seen: Mutex::default(),
            deaf: Mutex::new(0),
        });
        let endpoint = world.endpoint(keys.identity(&world.trust));
        let server = EnrolServer::start(endpoint.clone(), desk.clone()).await.unwrap();
        Self { world, desk, endpoint, _server: server }
    }

    fn apply_with(&self, token: &JoinToken) -> Application {
        let random = &mut OsRandom::default();
        let signing = SigningKey::generate(random).unwrap();
        let kem = KemSecretKey::generate(Suite::X25519, random).unwrap();
        let applicant = Applicant {
            domain: self.desk.trust.domain(),
            party: &self.desk.party,
            token,
            enroller: &self.desk.control.credential,
        };
        applicant.apply(signing, kem, now(), random).unwrap()
    }

    fn apply(&self) -> Application {
        self.apply_with(&self.desk.token)
    }

    fn root(&self) -> TrustStore {
        TrustStore::new(self.desk.trust.domain().clone(), *self.desk.trust.root())
    }

    async fn join(
        &self,
        application: &Application,
        patience: Duration,
    ) -> Result<bulla_seal::enrol::Enrolled, JoinError> {
        let transport: Arc<dyn Transport> = Arc::new(self.world.bus.transport());
        join(&transport, "bulla", application, &self.root(), patience).await
    }

    fn file(&self) -> JoinFile {
        use base64::Engine;
        let text = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let (trust, token) = (&self.desk.trust, &self.desk.token);
        JoinFile {
            version: 1,
            principal: "agent/db-1".into(),
            incarnation: 3,
            trust_domain: trust.domain().to_string(),
            root: text(trust.root().as_bytes()),
            root_sequence: 1,
            issuers: trust.issuers().map(|(_, bytes)| text(bytes)).collect(),
            enroller: text(self.desk.control.credential.as_bytes()),
            suite: "x25519".into(),
            statements: true,
            join: TokenEntry {
                id: text(token.id.as_bytes()),
                secret: text(token.secret.expose()),
                expires: now().secs() + 1800,
            },
            bus: Some(BusEntry {
                url: "amqp://u:hunter2@h".into(),
                former_url: None,
                login_pending: false,
                exchange: "bulla".into(),
                ca_pem: None,
                ca: None,
                client_cert: None,
                client_key: None,
            }),
        }
    }
}

#[tokio::test]
async fn an_agent_joins_and_asks_with_the_same_bytes_until_then() {
    let scene = Scene::new().await;
    *scene.desk.deaf.lock() = 1;
    let application = scene.apply();
    let enrolled = scene.join(&application, PATIENCE).await.unwrap();
    assert_eq!(enrolled.credential.party, scene.desk.party);
    let seen = scene.desk.seen.lock().clone();
    assert_eq!(seen, [application.request().clone(), application.request().clone()]);
}

#[tokio::test]
async fn who_is_not_in_order_is_not_answered_but_counted() {
    let scene = Scene::new().await;
    let wrong = JoinToken { id: scene.desk.token.id, secret: Secret::new([1; 32]) };
    let stranger = JoinToken::generate(&mut OsRandom::default()).unwrap();
    for (token, name) in [(wrong, "enrol-invalid"), (stranger, "enrol-token-unknown")] {
        let application = scene.apply_with(&token);
        let error = scene.join(&application, Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, JoinError::NoAnswer { refused: None, .. }), "{error}");
        assert_eq!(scene.endpoint.counters().refused_by_name(name), 1, "{name}");
    }
    // What is no request at all does not get to the desk.
    let asked = scene.desk.seen.lock().len();
    let transport = scene.world.bus.transport();
    let address = Address::Topic { exchange: "bulla".into(), topic: TOPIC.into() };
    for bytes in [&b"\x87\x01"[..], b"", &[0; 5000]] {
        let outbound = Outbound::new(Bytes::copy_from_slice(bytes));
        transport.publish(&address, outbound).await.unwrap();
    }
    scene.join(&scene.apply(), PATIENCE).await.unwrap();
    assert_eq!(scene.desk.seen.lock().len(), asked + 1);
    let counters = scene.endpoint.counters();
    assert_eq!(counters.refused(Refusal::Malformed) + counters.refused(Refusal::TooLarge), 3);
}

#[tokio::test]
async fn no_answer_goes_into_anothers_name_space() {
    let scene = Scene::new().await;
    let transport = scene.world.bus.transport();
    let name = ReplyName::new("agent/db-2", "9f3a").unwrap();
    let inbox = Inbox::Reply { exchange: "bulla".into(), name: name.clone() };
    let mut theirs = transport.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
    let application = scene.apply();
    let address = Address::Topic { exchange: "bulla".into(), topic: TOPIC.into() };
    let outbound =
        Outbound { reply_hint: Some(name), ..Outbound::new(application.request().clone()) };
    transport.publish(&address, outbound).await.unwrap();
    // The agent itself is answered after that; the other heard nothing.
    scene.join(&application, PATIENCE).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_millis(100), theirs.next()).await;
    assert!(heard.is_err());
}

#[tokio::test]
async fn what_anybody_sends_to_the_agent_is_no_answer() {
    let scene = Scene::new().await;
    *scene.desk.deaf.lock() = 1;
    let mut tap = scene.world.bus.tap();
    let application = scene.apply();
    let forging = async {
        let asked = tap.next().await.unwrap();
        let to = ReplyName::parse(&asked.reply_to.unwrap()).unwrap();
        let from = "component/control".to_owned();
        let address = Address::Reply { exchange: "bulla".into(), to, from };
        let transport = scene.world.bus.transport();
        for bytes in [asked.payload, Bytes::from_static(b"\x84\x01")] {
            transport.publish(&address, Outbound::new(bytes)).await.unwrap();
        }
    };
    let (joined, ()) = tokio::join!(scene.join(&application, PATIENCE), forging);
    assert_eq!(joined.unwrap().credential.party, scene.desk.party);
}

#[tokio::test]
async fn join_files_become_key_files() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db-1.join");
    let file = scene.file();
    assert!(!format!("{file:?}").contains("hunter2"));
    file.write(&path).unwrap();
    assert!(file.write(&path).is_err(), "never overwritten");
    let Injected::Join(file) = Injected::read(&path).unwrap() else { panic!("a join file") };
    let said = KeyFile::read(&path).unwrap_err().to_string();
    assert!(said.contains("--join"), "{said}");
    let terms = file.open(&path, now()).unwrap();
    assert_eq!((&terms.party, terms.suite), (&scene.desk.party, Suite::X25519));
    let application = terms.apply(now()).unwrap();

    // Kept and read again, it is the same application.
    let pending = folder.path().join("db-1.key.joining");
    PendingFile::new(&application).write(&pending).unwrap();
    let kept = PendingFile::read(&pending).unwrap();
    let other = Party::new(Principal::agent("db-1").unwrap(), 4);
    assert!(kept.application(&pending, &other).is_err());
    let application = kept.application(&pending, &terms.party).unwrap();
    let enrolled = scene.join(&application, PATIENCE).await.unwrap();

    let key = folder.path().join("db-1.key");
    let keys = file.key_file(&application, &enrolled);
    replace(&key, &keys).unwrap();
    burn(&path).unwrap();
    burn_file(&pending).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let Injected::Key(keys) = Injected::read(&key).unwrap() else { panic!("a key file") };
    let (identity, _) = keys.open(&key, now()).unwrap();
    assert_eq!(identity.party(), &scene.desk.party);
    assert!(identity.requires_statement());
    // In the place of the join file, and over an older key file.
    file.write(&path).unwrap();
    replace(&path, &keys).unwrap();
    assert!(matches!(Injected::read(&path).unwrap(), Injected::Key(_)));
}

#[tokio::test]
async fn a_join_file_of_another_root_or_with_a_mistake_is_refused() {
    let scene = Scene::new().await;
    let path = std::path::Path::new("x.join");
    let (good, other) = (scene.file(), Scene::new().await.file());
    assert!(good.open(path, now()).is_ok());
    type Change<'a> = &'a dyn Fn(&mut JoinFile);
    let cases: [(&str, Change<'_>); 7] = [
        ("root", &|f| f.root.clone_from(&other.root)),
        ("enroller", &|f| f.enroller.clone_from(&other.enroller)),
        ("issuers", &|f| f.issuers.clear()),
        ("principal", &|f| f.principal = "component/control".into()),
        ("suite", &|f| f.suite = "shared-key".into()),
        ("token", &|f| f.join.id = "AAAA".into()),
        ("secret", &|f| f.join.secret = "!".into()),
    ];
    for (name, change) in cases {
        let mut file = good.clone();
        change(&mut file);
        let error = file.open(path, now()).unwrap_err().to_string();
        assert!(error.contains("x.join") && !error.contains(&good.join.secret), "{name}: {error}");
    }
}
