//! One agent from its invitation to the re-use of its name, with calls flowing all the time, in
//! separate processes over a real RabbitMQ, once with the keystore on PostgreSQL and once on MariaDB,
//! the key-encryption key in a PKCS#11 token. Then somebody has a dump of the database and the
//! broker's passwords.
#![cfg(all(feature = "postgres", feature = "mariadb", feature = "pkcs11"))]
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;
mod stolen;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bulla_services::{MariaDb, Postgres, RabbitMq, SoftHsm, require};
use bulla_transport::{RabbitOptions, RabbitTap};
use bytes::Bytes;
use common::*;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stolen::{Dump, Secrets};

const TOKEN: &str = "bulla";
/// In every call's arguments; nobody but caller and agent sees it.
const WORD: &str = "the quick brown secret";

/// Between two calls: this machine has other work too.
const PAUSE: Duration = Duration::from_millis(40);

struct Servers {
    rabbit: RabbitMq,
    postgres: Postgres,
    mariadb: MariaDb,
}

/// Where the keystore of one life is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Postgres,
    MariaDb,
}

#[test]
fn an_agent_s_whole_life_with_calls_flowing_and_a_dump_that_opens_nothing() {
    let Some(rabbit) = require(RabbitMq::builder().management(true).start()) else { return };
    let Some(postgres) = require(Postgres::start()) else { return };
    let Some(mariadb) = require(MariaDb::start()) else { return };
    let servers = Servers { rabbit, postgres, mariadb };
    std::thread::scope(|scope| {
        for place in [Place::Postgres, Place::MariaDb] {
            let servers = &servers;
            let Some(hsm) = require(SoftHsm::with_token(TOKEN)) else { return };
            scope.spawn(move || Life::begin(servers, &hsm, place).run());
        }
    });
}

struct Life<'a> {
    servers: &'a Servers,
    place: Place,
    deployment: Deployment,
    /// The agent whose life it is, and one that nothing happens to.
    id: &'static str,
    other: &'static str,
    secrets: Secrets,
    /// Every URL with which the agent was ever let in at the broker.
    logins: Vec<String>,
}

impl<'a> Life<'a> {
    /// A deployment as docs/operate.md has it made: its own virtual host, the key-encryption key in
    /// the token, a broker user for each agent, and the control plane with the role of its own.
    fn begin(servers: &'a Servers, hsm: &SoftHsm, place: Place) -> Self {
        let (id, other, owner) = match place {
            Place::Postgres => ("pg-1", "pg-2", servers.postgres.url()),
            Place::MariaDb => ("my-1", "my-2", servers.mariadb.url()),
        };
        let rabbit = &servers.rabbit;
        let (admin, _) = rabbit.admin();
        rabbit.rabbitmqctl(&["add_vhost", id]).unwrap();
        rabbit.rabbitmqctl(&["set_permissions", "-p", id, admin, ".*", ".*", ".*"]).unwrap();
        let mut deployment = Deployment {
            dir: tempfile::tempdir().unwrap(),
            bus: Some(rabbit.url().replace("/%2f", &format!("/{id}"))),
            env: vec![
                ("SOFTHSM2_CONF", hsm.settings().to_str().unwrap().to_owned()),
                ("BULLA_KEK_PIN", SoftHsm::PIN.to_owned()),
                ("BULLA_KEYSTORE_URL", owner.clone()),
            ],
        };
        let home = deployment.home();
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        let settings = format!(
            "[kek]\nprovider = 'pkcs11'\nmodule = '{}'\ntoken = '{TOKEN}'\nkey = 'kek-{id}'\n",
            hsm.module().display()
        );
        fs::write(home.join("bulla.toml"), settings).unwrap();
        deployment.ok(&["init", "--trust-domain", &format!("{id}.example")]);
        deployment.with_broker_users(rabbit);
        let granted = deployment.json(&["db", "grants", "--apply"]);
        let control = granted["roles"].as_array().unwrap().iter();
        let control = control.clone().find(|role| role["component"] == "control").unwrap();
        let (scheme, rest) = owner.split_once("://").unwrap();
        let (_, at) = rest.split_once('@').unwrap();
        deployment.env.retain(|(name, _)| *name != "BULLA_KEYSTORE_URL");
        deployment.env.extend([
            ("BULLA_KEYSTORE_OWNER_URL", owner.clone()),
            (
                "BULLA_KEYSTORE_URL",
                format!("{scheme}://{}@{at}", control["role"].as_str().unwrap()),
            ),
            ("BULLA_KEYSTORE_PASSWORD_FILE", control["password_file"].as_str().unwrap().to_owned()),
        ]);
        let secrets = Secrets::default();
        secrets.text("the token's PIN", SoftHsm::PIN);
        secrets.text("a word in every call", WORD);
        Self { servers, place, deployment, id, other, secrets, logins: Vec::new() }
    }

    fn key(&self) -> PathBuf {
        self.deployment.path(&format!("{}.key", self.id))
    }

    fn show(&self) -> Value {
        self.deployment.json(&["agent", "show", self.id])
    }

    /// Remembers every secret that the agent has on its disk now.
    fn remember(&mut self, key: &Path) {
        self.secrets.key_file(key);
        self.logins.extend(bus(key).urls().map(str::to_owned));
    }

    /// Adds the agent, starts it with the file that it was given, and waits until it is called.
    fn join(&mut self, caller: &Caller) -> Process {
        for name in ["join", "key", "key.joining", "key.renewing"] {
            // Of the name's former holder.
            let _ = fs::remove_file(self.deployment.path(&format!("{}.{name}", self.id)));
        }
        let _ = fs::remove_dir_all(self.deployment.path(&format!("{}.key.state", self.id)));
        let join = self.deployment.invite(self.id);
        self.secrets.join_file(&join);
        let methods = methods(self.deployment.dir.path());
        let agent = self.deployment.run_alone(&join, &["--exec", methods.to_str().unwrap()]);
        self.remember(&self.key());
        eventually("the agent is called", || {
            let output = self.deployment.run(&[
                "call",
                &format!("agent/{}", self.id),
                "agent.ping",
                "--timeout",
                "5",
            ]);
            output.status.success().then_some(())
        });
        caller.expect(true);
        agent
    }

    /// Rotates keys and password, and checks that both changed.
    fn rotate(&mut self) {
        let before = KeyFiles::of(&self.key());
        let said = self.deployment.json(&["agent", "rotate", self.id, "--timeout", "150s"]);
        assert_eq!(said["rotated"], 1, "{said}");
        eventually("the password changed too", || (!bus(&self.key()).login_pending).then_some(()));
        let after = KeyFiles::of(&self.key());
        assert_ne!(before.signing, after.signing);
        assert_ne!(before.url, after.url);
        assert!(lets_in(&after.url) && !lets_in(&before.url));
        self.remember(&self.key());
    }

    fn is_out(&self, caller: &Caller) {
        let user = format!("agent.{}", self.id);
        let rabbit = &self.servers.rabbit;
        // Cheap to ask; who is connected is not.
        if let Some(last) = self.logins.last() {
            eventually("its last login is refused", || (!lets_in(last)).then_some(()));
        }
        for url in &self.logins {
            assert!(!lets_in(url), "the broker lets a former login in");
        }
        let before = caller.refused.load(Ordering::SeqCst);
        eventually("calls to it are refused", || {
            (caller.refused.load(Ordering::SeqCst) > before).then_some(())
        });
        eventually("its connections are closed", || {
            (!connections(rabbit).contains(&user)).then_some(())
        });
    }

    /// A copy of the agent's disk is started beside it, and both renew.
    fn clone_and_be_noticed(&mut self, agent: Process, caller: &Caller) {
        // Two that take from one queue: which of them answers is luck.
        caller.expect(false);
        let folder = self.deployment.path("copy");
        fs::create_dir(&folder).unwrap();
        let copy = folder.join("a.key");
        fs::copy(self.key(), &copy).unwrap();
        let twin = self.deployment.run_alone(&copy, &[]);
        let _first = noticed(&self.deployment, self.id, (&self.key(), agent), (&copy, twin));
        for key in [self.key(), copy] {
            self.remember(&key);
        }
        self.is_out(caller);
        // Nothing brings it back but a new incarnation.
        let said = self.deployment.fails(1, &["agent", "add", self.id, "--again"]);
        assert!(said.contains("exists already"), "{said}");
    }

    fn revoke(&mut self, caller: &Caller) {
        caller.expect(false);
        self.deployment.ok(&["agent", "revoke", self.id]);
        self.is_out(caller);
    }

    fn run(mut self) {
        let control = self.deployment.serve();
        let doctor = self.deployment.ok(&["doctor"]);
        assert!(doctor.contains("with a role's rights"), "{doctor}");
        let shared = format!("{}-shared", self.other);
        let shared = self.deployment.add_agent(&shared, &["--key-type", "shared"]);
        self.secrets.key_file(&shared);
        let other = self.deployment.add_agent(self.other, &[]);
        self.secrets.key_file(&other);
        let methods = methods(self.deployment.dir.path());
        let exec = ["--exec", methods.to_str().unwrap()];
        let bystander = self.deployment.run_alone(&other, &exec);
        let tap = Tap::open(self.deployment.bus.as_deref().unwrap());
        let caller = Caller::start(&self);

        let agent = self.join(&caller);
        caller.flows();
        self.rotate();
        caller.flows();
        assert_eq!(agent.stop(), 0);
        let agent = self.deployment.run_alone(&self.key(), &exec);
        caller.flows();
        self.clone_and_be_noticed(agent, &caller);

        self.revoke(&caller);
        let agent = self.join(&caller);
        assert_eq!(self.show()["incarnation"], 2, "{}", self.show());
        caller.flows();
        self.rotate();
        caller.flows();
        self.revoke(&caller);
        drop(agent);

        let agent = self.join(&caller);
        assert_eq!(self.show()["incarnation"], 3);
        caller.flows();
        self.rotate();
        caller.flows();

        let answered = caller.stop();
        let runs = self.runs();
        for word in &answered {
            assert_eq!(runs.get(word), Some(&1), "{word} was answered and ran so often");
        }
        assert!(runs.values().all(|runs| *runs == 1), "each ran once: {runs:?}");
        let frames = tap.stop();
        stolen::attack(&self, &frames);
        assert_eq!(self.runs(), runs, "nothing ran again, and nothing new");
        for (process, name) in [(agent, "agent"), (bystander, "other"), (control, "control plane")]
        {
            assert_eq!(process.stop(), 0, "{name}");
        }
    }

    /// How often each word was noted.
    fn runs(&self) -> HashMap<String, u32> {
        let text = fs::read_to_string(self.deployment.path("runs")).unwrap_or_default();
        let mut runs = HashMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let value: Value = serde_json::from_str(line).unwrap();
            *runs.entry(value["n"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        runs
    }

    /// A dump of the database as an operator's backup has it.
    fn dumps(&self) -> Vec<Dump> {
        match self.place {
            Place::Postgres => vec![Dump(self.servers.postgres.dump().unwrap())],
            Place::MariaDb => {
                let dump = |hex| Dump(self.servers.mariadb.dump(hex).unwrap());
                vec![dump(true), dump(false)]
            }
        }
    }
}

struct KeyFiles {
    signing: Option<String>,
    url: String,
}

impl KeyFiles {
    fn of(key: &Path) -> Self {
        let file = bulla_rpc::KeyFile::read(key).unwrap();
        Self { signing: file.signing_key.clone(), url: bus(key).url.clone() }
    }
}

/// Calls that never stop, to the agent and to the other in turn.
struct Caller {
    stop: Arc<AtomicBool>,
    /// Even while the agent is rightly cut off, odd while every call to it has to succeed.
    phase: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    thread: JoinHandle<(Vec<String>, Vec<String>)>,
}

impl Caller {
    fn start(life: &Life) -> Self {
        let (stop, phase) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (done, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let client = api(&life.deployment);
        let (id, other) = (life.id, life.other);
        let thread = {
            let (stop, phase) = (stop.clone(), phase.clone());
            let (done, refused) = (done.clone(), refused.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let (mut answered, mut failed) = (Vec::new(), Vec::new());
                for n in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    std::thread::sleep(PAUSE);
                    let before = phase.load(Ordering::SeqCst);
                    let to_other = n % 2 == 0;
                    let may_fail = !to_other && before % 2 == 0;
                    let target = format!("agent/{}", if to_other { other } else { id });
                    let word = format!("{target} {n}");
                    let request = bulla_api::CallRequest {
                        namespace: Some("test".to_owned()),
                        args: json!({ "n": word, "word": WORD }),
                        timeout_ms: Some(if may_fail { 2_000 } else { 60_000 }),
                        ..bulla_api::CallRequest::new(target, "note")
                    };
                    match runtime.block_on(client.call(&request)) {
                        Ok(_) => {
                            answered.push(word);
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            let same = phase.load(Ordering::SeqCst) == before;
                            if to_other || (same && !may_fail) {
                                failed.push(format!("{word}: {error}"));
                            } else {
                                refused.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    }
                }
                (answered, failed)
            })
        };
        Self { stop, phase, done, refused, thread }
    }

    /// From now on calls to the agent have to succeed, or are to fail.
    fn expect(&self, success: bool) {
        if (self.phase.load(Ordering::SeqCst) % 2 == 1) != success {
            self.phase.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flows(&self) {
        let before = self.done.load(Ordering::SeqCst);
        eventually("calls flow", || (self.done.load(Ordering::SeqCst) > before + 6).then_some(()));
    }

    /// What was answered; nothing else may have failed.
    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let (answered, failed) = self.thread.join().unwrap();
        let refused = self.refused.load(Ordering::SeqCst);
        eprintln!("{} calls were answered, {refused} rightly not", answered.len());
        assert!(failed.is_empty(), "{failed:#?}");
        answered
    }
}

/// Everything that the broker sees.
struct Tap {
    frames: Arc<Mutex<Vec<Frame>>>,
    runtime: tokio::runtime::Runtime,
}

/// A frame as it was published.
#[derive(Clone)]
struct Frame {
    key: String,
    payload: Bytes,
}

impl Tap {
    fn open(url: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = RabbitOptions::new(url).unwrap();
        let topics = ["component.control".to_owned(), "group.all".to_owned()];
        let mut tap = runtime.block_on(RabbitTap::open(&options, "bulla", &topics, &[])).unwrap();
        let frames = Arc::<Mutex<Vec<Frame>>>::default();
        let kept = frames.clone();
        runtime.spawn(async move {
            while let Some(seen) = tap.next().await {
                kept.lock().push(Frame { key: seen.routing_key, payload: seen.payload });
            }
        });
        Self { frames, runtime }
    }

    fn stop(self) -> Vec<Frame> {
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        std::mem::take(&mut *self.frames.lock())
    }
}
