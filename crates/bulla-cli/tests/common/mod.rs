//! A deployment of real processes: the `bulla` binary, and where a test wants it a RabbitMQ.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::zombie_processes,
    reason = "tests; `Process` waits for its child when it is dropped"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bulla_rpc::KeyFile;
use bulla_services::RabbitMq;
use bulla_transport::{RabbitOptions, RabbitTransport, Transport};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes longer, even on a machine that is busy; it only ends what hangs.
pub const LIMIT: Duration = Duration::from_secs(200);

/// What a command says that did not reach its broker.
const NO_BROKER: &str = "can't reach the broker";

pub struct Deployment {
    pub dir: TempDir,
    pub bus: Option<String>,
    /// More settings for every command.
    pub env: Vec<(&'static str, String)>,
}

/// A process that is stopped when the test ends.
pub struct Process {
    child: Child,
    pub lines: Vec<String>,
}

impl Deployment {
    /// Initialised, in a folder of its own.
    pub fn new(bus: Option<String>) -> Self {
        let deployment = Self { dir: tempfile::tempdir().unwrap(), bus, env: Vec::new() };
        deployment.ok(&["init"]);
        deployment
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = bulla(&self.home());
        command.args(args).current_dir(self.dir.path());
        if let Some(bus) = &self.bus {
            command.env("BULLA_BUS_URL", bus);
        }
        command.envs(self.env.iter().cloned());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&output).unwrap_or_else(|e| panic!("{args:?}: {e}: {output}"))
    }

    /// The value that a call returns.
    pub fn call(&self, target: &str, method: &str, args: &str) -> Value {
        let answer = self.json(&["call", target, method, args, "--timeout", "30"]);
        answer["value"].clone()
    }

    /// Runs a command that must fail with `code`; what it said.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}{}", text(&output.stdout));
        said
    }

    /// Starts a process and waits until it says `ready`.
    pub fn start(&self, args: &[&str], ready: &str) -> Process {
        Process::start(self.command(args), ready)
    }

    /// Agents get a broker user each from now on.
    pub fn with_broker_users(&mut self, rabbit: &RabbitMq) {
        let (user, password) = rabbit.admin();
        let file = self.path("admin.password");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        self.env.extend([
            ("BULLA_BROKER_USERS_URL", rabbit.management_address()),
            ("BULLA_BROKER_USERS_USER", user.to_owned()),
            ("BULLA_BROKER_USERS_PASSWORD_FILE", file.to_str().unwrap().to_owned()),
        ]);
    }

    /// A join file for a new agent.
    pub fn invite(&self, id: &str) -> PathBuf {
        let join = self.path(&format!("{id}.join"));
        self.ok(&["agent", "add", id, "--out", join.to_str().unwrap()]);
        join
    }

    /// A command as on the agent's own machine: with its file and nothing else.
    pub fn alone(&self, args: &[&str]) -> Command {
        let mut command = bulla(&self.path("elsewhere"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    /// An agent with its file and nothing else.
    pub fn run_alone(&self, file: &Path, more: &[&str]) -> Process {
        let flag = if file.extension().is_some_and(|e| e == "join") { "--join" } else { "--key" };
        let args = [&["agent", "run", flag, file.to_str().unwrap()], more].concat();
        Process::start(self.alone(&args), "answers on")
    }

    /// The control plane on a free port.
    pub fn serve(&self) -> Process {
        self.start(&["serve", "--listen", "127.0.0.1:0"], "API at")
    }

    pub fn add_agent(&self, id: &str, more: &[&str]) -> PathBuf {
        let key = self.path(&format!("{id}.key"));
        self.ok(&[&["agent", "add", id, "--key", "--out", key.to_str().unwrap()], more].concat());
        key
    }

    pub fn agent(&self, key: &Path, more: &[&str]) -> Process {
        let args = [&["agent", "run", "--key", key.to_str().unwrap()], more].concat();
        self.start(&args, "answers on")
    }
}

impl Process {
    /// Starts it again, as a service manager would, while it finds no broker: a busy machine's may
    /// not answer for seconds. Whatever else ends it ends the test.
    pub fn start(mut command: Command, ready: &str) -> Self {
        let begun = Instant::now();
        command.stderr(Stdio::piped());
        loop {
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let errors = child.stderr.take().unwrap();
            let no_broker = std::thread::spawn(move || {
                let told = BufReader::new(errors).lines().map_while(Result::ok);
                told.inspect(|line| eprintln!("{line}"))
                    .filter(|line| line.contains(NO_BROKER))
                    .count()
            });
            match Self::wait_for(child, ready) {
                Ok(process) => return process,
                Err(why) => {
                    let again = no_broker.join().unwrap() > 0 && begun.elapsed() < LIMIT;
                    assert!(again, "{why}");
                    std::thread::sleep(Duration::from_secs(2));
                }
            }
        }
    }

    /// Starts it once, with standard error where the command has it.
    pub fn start_logged(mut command: Command, ready: &str) -> Self {
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        Self::wait_for(child, ready).unwrap_or_else(|why| panic!("{why}"))
    }

    fn wait_for(mut child: Child, ready: &str) -> Result<Self, String> {
        let output = child.stdout.take().unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = sender.send(line);
            }
        });
        let (mut lines, begun) = (Vec::new(), Instant::now());
        while let Ok(line) = receiver.recv_timeout(LIMIT.saturating_sub(begun.elapsed())) {
            let done = line.contains(ready);
            lines.push(line);
            if done {
                return Ok(Self { child, lines });
            }
        }
        // Who has ended can't be killed.
        let _ = child.kill();
        let status = child.wait().unwrap();
        Err(format!("the process never said {ready:?} ({status}): {lines:#?}"))
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, as a service manager would, and waits for it.
    pub fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Asks it to take over what changed.
    pub fn hang_up(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// As a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, with nothing of this machine's environment in its settings.
pub fn bulla(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulla"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BULLA_")) {
        command.env_remove(name);
    }
    command.env("BULLA_HOME", home).env("NO_COLOR", "1").env("BULLA_LOG", "error");
    command.stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Tries until it is so; ends what hangs.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Methods that note what they are given, in `runs`, and one that takes its time.
pub fn methods(dir: &Path) -> std::path::PathBuf {
    let methods = dir.join("methods");
    fs::create_dir_all(methods.join("test")).unwrap();
    let note =
        format!("#!/bin/sh\ncat >> {0}\necho >> {0}\necho null\n", dir.join("runs").display());
    let slow = "#!/bin/sh\necho 'progress: 1' >&2\nsleep 1\necho '\"slept\"'\n";
    for (name, script) in [("note", note.as_str()), ("slow", slow)] {
        fs::write(methods.join("test").join(name), script).unwrap();
    }
    for path in ["", "test", "test/note", "test/slow"] {
        fs::set_permissions(methods.join(path), fs::Permissions::from_mode(0o700)).unwrap();
    }
    methods
}

/// The operator's client of the running control plane.
pub fn api(deployment: &Deployment) -> bulla_api::Client {
    let url = fs::read_to_string(deployment.home().join("api.url")).unwrap();
    let files = bulla_http::certs::Files::in_dir(&deployment.home().join("tls")).operator_tls();
    let endpoint = bulla_api::Endpoint::Tls { url: url.trim().to_owned(), files };
    bulla_api::Client::new(&endpoint).unwrap()
}

/// What a key file says of the broker.
pub fn bus(key: &Path) -> bulla_rpc::identity::BusEntry {
    KeyFile::read(key).unwrap().bus.clone().unwrap()
}

/// Whether the broker lets somebody in.
pub fn lets_in(url: &str) -> bool {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let connected = RabbitTransport::connect(RabbitOptions::new(url).unwrap());
    match runtime.block_on(connected) {
        Ok(transport) => {
            runtime.block_on(transport.close());
            true
        }
        Err(bulla_transport::TransportError::Refused { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A copy of an agent's disk runs beside it, and both ask to renew: first one of them, while the other
/// is let in, then the other, as it does when its time has come. Gives back who runs still.
pub fn noticed(
    deployment: &Deployment,
    id: &str,
    (key, agent): (&Path, Process),
    (copy, twin): (&Path, Process),
) -> Process {
    let before = bus(key).url.clone();
    let renewed = |path: &Path| bus(path).url != before;
    eventually("one of them has new keys", || {
        deployment.run(&["agent", "rotate", id, "--timeout", "5s", "--json"]);
        (renewed(key) || renewed(copy)).then_some(())
    });
    assert!(!(renewed(key) && renewed(copy)));
    let state = || deployment.json(&["agent", "show", id])["join"].clone();
    assert!(lets_in(&before) || state() == "quarantined", "the other is let in, to be noticed");
    let (first, other, late) = match renewed(key) {
        true => (agent, twin, copy),
        false => (twin, agent, key),
    };
    other.stop();
    if state() != "quarantined" {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let refused = runtime.block_on(async {
            let connection = bulla::Connection::open(late, None).await.unwrap();
            let file = KeyFile::read(late).unwrap();
            bulla_rpc::Renewer::new(connection.client(), &file, late).renew().await
        });
        // It may lose its connection before it hears why.
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("two copies") || refused.contains("answer"), "{refused}");
    }
    assert_eq!(state(), "quarantined");
    first
}

/// The users of agents' connections.
pub fn connections(rabbit: &RabbitMq) -> Vec<String> {
    let listed = rabbit.rabbitmqctl(&["list_connections", "-q", "user"]).unwrap();
    listed.lines().filter(|name| name.starts_with("agent.")).map(str::to_owned).collect()
}
