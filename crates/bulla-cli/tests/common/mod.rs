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

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes longer, even on a machine that is busy; it only ends what hangs.
pub const LIMIT: Duration = Duration::from_secs(90);

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
    pub fn start(mut command: Command, ready: &str) -> Self {
        command.stderr(Stdio::inherit());
        Self::start_logged(command, ready)
    }

    /// The same, with standard error where the command has it.
    pub fn start_logged(mut command: Command, ready: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = sender.send(line);
            }
        });
        let (mut lines, begun) = (Vec::new(), Instant::now());
        loop {
            let left = LIMIT.saturating_sub(begun.elapsed());
            match receiver.recv_timeout(left) {
                Ok(line) => {
                    let done = line.contains(ready);
                    lines.push(line);
                    if done {
                        return Self { child, lines };
                    }
                }
                Err(_) => {
                    child.kill().ok();
                    panic!("the process never said {ready:?}: {lines:#?}");
                }
            }
        }
    }

    /// Asks it to stop, as a service manager would, and waits for it.
    pub fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
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
