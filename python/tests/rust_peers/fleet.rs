//! A control plane, its broker, and Python's peers.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bulla::{Connection, EndpointOptions, GroupName, KeyFile};
use bulla_oslo::{Carriers, Queues};
use bulla_rpc::NamedGroup;
use bulla_services::{VirtualHost, require};
use serde_json::Value;
use tempfile::TempDir;

/// Debian's, whatever else is on the path.
pub const PYTHON: &str = "/usr/bin/python3";
pub const LIMIT: Duration = Duration::from_secs(120);
pub const EXCHANGE: &str = "trove";
pub const TOPICS: &str =
    "trove-conductor:component/conductor,worker:agent/py-1,guestagent.*:agent/*,rust:agent/rs-1";

/// Whether Debian's Python has what is needed; fails where tests have to run.
pub fn installed() -> bool {
    let script = "import oslo_messaging, trove.conductor.api";
    let found = Command::new(PYTHON).args(["-c", script]).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    let must = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let must = must("CI", "true") || must("BULLA_TEST_REQUIRE", "1");
    assert!(found || !must, "Debian's Trove is not installed: cargo xtask test installs it");
    if !found {
        eprintln!("\n*** SKIPPED, NOT TESTED: Debian's Trove is not installed ***\n");
    }
    found
}

/// A control plane on its broker, and the Python package laid out.
pub struct Fleet {
    folder: TempDir,
    pub host: VirtualHost,
    program: PathBuf,
    control: Child,
}

impl Fleet {
    pub fn new() -> Option<Self> {
        let host = require(VirtualHost::new())?;
        let folder = tempfile::tempdir().unwrap();
        let built = std::env::current_exe().unwrap();
        let built = built.parent().and_then(Path::parent).unwrap().to_owned();
        let (library, program) = (built.join("deps/lib_bulla.so"), built.join("bulla"));
        for needed in [&library, &program] {
            assert!(needed.exists(), "{} is not there: cargo build -p bulla-cli", needed.display());
        }
        let stage = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stage.py");
        let staged = Command::new("python3")
            .arg(stage)
            .args([library, folder.path().join("stage")])
            .status();
        assert!(staged.unwrap().success(), "the package could not be laid out");
        let mut fleet =
            Self { control: Command::new("true").spawn().unwrap(), folder, host, program };
        fleet.control.wait().unwrap();
        fleet.bulla(&["init"]);
        let mut serve = fleet.command(&["serve", "--listen", "127.0.0.1:0"]);
        fleet.control = serve.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(fleet.control.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("API at")), "the control plane did not start");
        std::thread::spawn(move || lines.for_each(drop));
        Some(fleet)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BULLA_")) {
            command.env_remove(name);
        }
        command.env("BULLA_HOME", self.path("home")).env("BULLA_BUS_URL", self.host.url());
        command.env("BULLA_LOG", "error").args(args);
        command
    }

    pub fn bulla(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn component(&self, name: &str, instance: &str) -> PathBuf {
        let key = self.path(&format!("{instance}.key"));
        let out = key.to_str().unwrap();
        self.bulla(&["component", "add", name, "--instance", instance, "--out", out]);
        key
    }

    pub fn agent(&self, id: &str) -> PathBuf {
        let key = self.path(&format!("{id}.key"));
        self.bulla(&["agent", "add", id, "--key", "--out", key.to_str().unwrap()]);
        key
    }

    /// What an operator writes into a service's configuration.
    pub fn config(&self, key: &Path, default: &str, section: &str) -> PathBuf {
        let path = key.with_extension("conf");
        let url = self.host.url().replacen("amqp://", "bulla+rabbit://", 1);
        let mut text = format!("[DEFAULT]\ntransport_url = {url}\ncontrol_exchange = {EXCHANGE}\n");
        let key = key.display();
        write!(text, "{default}\n[bulla]\nkey_file = {key}\ntopics = {TOPICS}\n{section}\n")
            .unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn python(&self, script: &Path, args: &[&str]) -> Peer {
        let mut command = Command::new(PYTHON);
        command
            .arg(script)
            .args(args)
            .env("PYTHONPATH", self.path("stage"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("OSLO_LOCK_PATH", self.folder.path());
        Peer::start(command)
    }

    /// A peer of oslo.messaging with the driver: a server if `options` name a topic.
    pub fn peer(&self, key: &Path, section: &str, mut options: Value) -> Peer {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/bulla-oslo/tests/peer.py");
        options["exchange"] = EXCHANGE.into();
        options["config"] = self.config(key, "", section).to_str().into();
        let url = self.host.url().replacen("amqp://", "bulla+rabbit://", 1);
        self.python(Path::new(script), &[&url, &options.to_string()])
    }

    /// A Rust service among them.
    pub async fn open(&self, key: &Path) -> Connection {
        let exchange = KeyFile::read(key).unwrap().bus.clone().unwrap().exchange;
        let group = GroupName::new("all").unwrap();
        let named = |topic: &str| NamedGroup {
            exchange: EXCHANGE.into(),
            topic: topic.into(),
            group: group.clone(),
        };
        let groups = vec![named("worker"), named("rust")];
        let options = EndpointOptions { groups, ..EndpointOptions::default() };
        let both = |native| Arc::new(Carriers::new(native, Queues::default(), exchange)) as _;
        Connection::open_around(key, None, options, both).await.unwrap()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.control.kill();
        let _ = self.control.wait();
    }
}

/// A process of Python's, asked by lines of JSON.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut peer = Self { child, input, output: BufReader::new(output) };
        let ready = peer.line().to_lowercase();
        assert!(ready.contains("ready"), "{ready}");
        peer
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        tokio::task::block_in_place(|| self.output.read_line(&mut line)).unwrap();
        line
    }

    pub fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.input, "{request}").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
