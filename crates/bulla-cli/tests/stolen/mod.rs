//! Somebody who has a dump of the keystore's database, the broker's passwords, and everything that
//! went over the broker.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bulla_rpc::KeyFile;
use bulla_services::SoftHsm;
use bulla_transport::{
    Address, ConsumeOptions, Inbox, Login, Outbound, PublishError, RabbitOptions, RabbitTransport,
    Transport, TransportError,
};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::common::{bulla, bus, eventually, text};
use crate::{Frame, Life, Place, TOKEN, WORD};

/// A dump's bytes.
pub struct Dump(pub Vec<u8>);

/// What must be found nowhere, each with what it is.
#[derive(Default)]
pub struct Secrets(Mutex<Vec<(String, Vec<u8>)>>);

impl Secrets {
    pub fn bytes(&self, what: &str, bytes: &[u8]) {
        assert!(bytes.len() >= 12, "{what} is too short to be searched for");
        self.0.lock().push((what.to_owned(), bytes.to_vec()));
    }

    pub fn text(&self, what: &str, text: &str) {
        self.bytes(what, text.as_bytes());
    }

    fn base64(&self, what: &str, text: &str) {
        self.bytes(what, &STANDARD.decode(text).unwrap());
    }

    /// The agent's keys, and its password at the broker.
    pub fn key_file(&self, path: &Path) {
        let file = KeyFile::read(path).unwrap();
        for key in [&file.shared_key, &file.signing_key].into_iter().flatten() {
            self.base64("an agent's key", key);
        }
        for entry in &file.receive {
            self.base64("an agent's key to receive with", &entry.key);
        }
        for url in bus(path).urls() {
            self.text("a broker password", &Login::of_url(url).unwrap().password);
        }
    }

    /// The token, and the first password.
    pub fn join_file(&self, path: &Path) {
        let text = std::fs::read_to_string(path).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = \"")));
            line.unwrap().trim_end_matches('"').to_owned()
        };
        self.base64("a token", &value("secret"));
        self.text("a broker password", &Login::of_url(&value("url")).unwrap().password);
    }
}

/// Frames that are sent again at the most.
const REPLAYED: usize = 60;

/// Bytes by which it is looked for all at once.
const HEAD: usize = 12;

/// What is looked for, in each of the forms that a dump may have it in.
struct Wanted {
    by_head: HashMap<[u8; HEAD], Vec<(String, Vec<u8>)>>,
    /// Whether a head begins with these two bytes: most of a dump is passed over by this alone.
    begins: Vec<bool>,
}

impl Wanted {
    fn new<'a>(values: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut wanted = Self { by_head: HashMap::new(), begins: vec![false; 1 << 16] };
        let base64 = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
        for (what, bytes) in values {
            let mut forms = vec![
                ("raw", bytes.to_vec()),
                ("escaped", escaped(bytes)),
                ("hex", hex::encode(bytes).into_bytes()),
                ("HEX", hex::encode_upper(bytes).into_bytes()),
            ];
            forms.extend(base64.map(|engine| ("base64", engine.encode(bytes).into_bytes())));
            for (form, text) in forms {
                let head: [u8; HEAD] = text[..HEAD].try_into().unwrap();
                wanted.begins[pair(head[0], head[1])] = true;
                let of_head = wanted.by_head.entry(head).or_default();
                of_head.push((format!("{what} ({form})"), text));
            }
        }
        wanted
    }

    /// What of it is there.
    fn find(&self, text: &[u8]) -> HashSet<&str> {
        let mut found = HashSet::new();
        let Some(last) = text.len().checked_sub(HEAD) else { return found };
        for at in 0..=last {
            if !self.begins[pair(text[at], text[at + 1])] {
                continue;
            }
            let wanted = self.by_head.get::<[u8]>(&text[at..at + HEAD]);
            for (what, wanted) in wanted.into_iter().flatten() {
                if text[at..].starts_with(wanted) {
                    found.insert(what.as_str());
                }
            }
        }
        found
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// As MariaDB writes binary strings.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            0 => text.extend(b"\\0"),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\\' | b'\'' | b'"' => text.extend([b'\\', *byte]),
            0x1a => text.extend(b"\\Z"),
            byte => text.push(*byte),
        }
    }
    text
}

/// Everything that such a person can try; nothing of it may come to anything.
pub fn attack(life: &Life, frames: &[Frame]) {
    let dumps = life.dumps();
    search(life, &dumps, frames);
    restore(life, &dumps[0]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(with_the_agent_s_password(life, frames));
    runtime.block_on(with_the_control_plane_s_password(life, frames));
    for id in [life.id, life.other] {
        let answer = life.deployment.call(&format!("agent/{id}"), "agent.ping", "{}");
        assert_eq!(answer["pong"], true, "{id} goes on");
    }
}

fn search(life: &Life, dumps: &[Dump], frames: &[Frame]) {
    // What is no secret is found: else nothing ever would be.
    let file = KeyFile::read(&life.key()).unwrap();
    let credential = STANDARD.decode(file.signing_credential.as_ref().unwrap()).unwrap();
    let public = Wanted::new([("a credential", credential.as_slice())]);
    let secrets = life.secrets.0.lock();
    assert!(secrets.len() > 30, "{} secrets", secrets.len());
    let secrets = Wanted::new(secrets.iter().map(|(what, secret)| (what.as_str(), &secret[..])));
    for dump in dumps {
        assert!(!public.find(&dump.0).is_empty(), "a public credential is in the dump");
        assert_eq!(secrets.find(&dump.0), HashSet::new(), "in the dump");
    }
    let to_agent = frames.iter().filter(|frame| frame.key == format!("agent.{}", life.id));
    assert!(to_agent.count() > 20 && frames.len() > 100, "{} frames", frames.len());
    for frame in frames {
        assert_eq!(secrets.find(&frame.payload), HashSet::new(), "on the bus, to {}", frame.key);
    }
}

/// The dump goes into a database of the thief's own, and the program over it, with a key-encryption
/// key of the thief's and with a token of the same names and PIN.
fn restore(life: &Life, dump: &Dump) {
    let (url, name) = match life.place {
        Place::Postgres => (life.servers.postgres.load("stolen", &dump.0).unwrap(), "stolen"),
        Place::MariaDb => (life.servers.mariadb.load("stolen", &dump.0).unwrap(), "stolen"),
    };
    let home = life.deployment.path(name);
    let own = SoftHsm::with_token(TOKEN).unwrap();
    let copy = |name: &str| std::fs::copy(life.deployment.home().join(name), home.join(name));
    for settings in ["its own key", "a token of the same name"] {
        let _ = std::fs::remove_dir_all(&home);
        // What lies beside the settings is not secret but for its operators.
        let made = bulla(&home).arg("init").output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        if settings != "its own key" {
            copy("bulla.toml").unwrap();
        }
        for args in [
            &["agent", "list"][..],
            &["agent", "add", "intruder", "--key"],
            &["group", "add", "intruders"],
        ] {
            let tried = bulla(&home)
                .args(args)
                .env("BULLA_KEYSTORE_URL", &url)
                .env("SOFTHSM2_CONF", own.settings())
                .env("BULLA_KEK_PIN", SoftHsm::PIN)
                .output()
                .unwrap();
            let said = text(&tried.stderr);
            assert!(!tried.status.success(), "{settings} opens a stolen dump: {args:?}");
            assert!(said.contains("Not lost") || said.contains("no secret key"), "{said}");
        }
    }
}

async fn connect(url: &str) -> RabbitTransport {
    RabbitTransport::connect(RabbitOptions::new(url).unwrap()).await.unwrap()
}

fn outbound(payload: Bytes) -> Outbound {
    Outbound { confirm: true, ..Outbound::new(payload) }
}

fn topic(topic: &str) -> Address {
    Address::Topic { exchange: "bulla".to_owned(), topic: topic.to_owned() }
}

/// The same with one bit of its end turned.
fn bent(payload: &Bytes) -> Bytes {
    let mut bytes = payload.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

/// As the agent at the broker: it may speak to the control plane, and to nobody else.
async fn with_the_agent_s_password(life: &Life<'_>, frames: &[Frame]) {
    let intruder = connect(&bus(&life.key()).url).await;
    let said = frames.iter().filter(|frame| frame.key == "component.control");
    for frame in said.take(50) {
        for payload in [frame.payload.clone(), bent(&frame.payload)] {
            intruder.publish(&topic("component.control"), outbound(payload)).await.unwrap();
        }
    }
    let other = format!("agent.{}", life.other);
    let sent = intruder.publish(&topic(&other), outbound(frames[0].payload.clone())).await;
    assert!(sent.is_err(), "to another agent");
    let inbox = Inbox::Topic { exchange: "bulla".to_owned(), topic: other };
    let read = intruder.consume(&inbox, &ConsumeOptions::default()).await;
    assert!(matches!(read, Err(TransportError::Refused { .. })), "another agent's messages");
    intruder.close().await;
}

/// As the control plane at the broker: it may write to everybody, and what it writes is what went
/// over the bus before, as it was and bent, to whom it was for and to somebody else.
async fn with_the_control_plane_s_password(life: &Life<'_>, frames: &[Frame]) {
    let intruder = connect(life.deployment.bus.as_deref().unwrap()).await;
    let agents = [life.id, life.other].map(|id| format!("agent.{id}"));
    let seen: Vec<_> = frames.iter().filter(|frame| agents.contains(&frame.key)).collect();
    // From all of its life.
    for frame in seen.iter().step_by(seen.len() / REPLAYED + 1) {
        for agent in &agents {
            for payload in [frame.payload.clone(), bent(&frame.payload)] {
                match intruder.publish(&topic(agent), outbound(payload)).await {
                    Ok(()) | Err(PublishError::Unconfirmed) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    let plain = format!(r#"{{"method":"test.note","args":{{"n":"forged","word":"{WORD}"}}}}"#);
    intruder.publish(&topic(&agents[0]), outbound(plain.into())).await.unwrap();
    intruder.close().await;
    let rabbit = &life.servers.rabbit;
    eventually("all of it was taken", || {
        let listed = ["list_queues", "-q", "-p", life.id, "name", "messages"];
        let queues = rabbit.rabbitmqctl(&listed).unwrap();
        agents.iter().all(|agent| queues.contains(&format!("{agent}\t0"))).then_some(())
    });
}
