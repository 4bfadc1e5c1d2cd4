//! One private server: its directory, how it is started, and whether it answers.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::ServiceError;
use crate::process::Process;

const START_LIMIT: Duration = Duration::from_secs(120);
/// How often a restart is tried again, and after how long.
const RESTARTS: u32 = 10;
const RESTART_PAUSE: Duration = Duration::from_millis(500);

type Ready = Box<dyn Fn() -> bool + Send + Sync>;

pub(crate) struct Instance {
    server: &'static str,
    args: Vec<String>,
    signal: &'static str,
    ready: Ready,
    process: Option<Process>,
    // Dropped last: the server writes into it until it ends.
    directory: TempDir,
}

impl Instance {
    /// `signal` is what asks the server to end without waiting for its clients.
    pub(crate) fn start(
        server: &'static str,
        directory: TempDir,
        args: Vec<String>,
        signal: &'static str,
        ready: Ready,
    ) -> Result<Self, ServiceError> {
        let mut instance = Self { server, args, signal, ready, process: None, directory };
        instance.spawn()?;
        Ok(instance)
    }

    fn spawn(&mut self) -> Result<(), ServiceError> {
        let output = File::create(self.output()).map_err(ServiceError::io("the server's log"))?;
        let errors = output.try_clone().map_err(ServiceError::io("the server's log"))?;
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let mut process = Process::start(&args, |command| {
            command
                .current_dir(self.directory.path())
                .env("WATCHED_DIRECTORY", self.directory.path())
                .env("WATCHED_SIGNAL", self.signal)
                .stdout(output)
                .stderr(errors);
        })?;
        let deadline = Instant::now() + START_LIMIT;
        while !(self.ready)() {
            if !process.running() || Instant::now() > deadline {
                process.stop();
                return Err(ServiceError::NotStarted { server: self.server, why: self.log_tail() });
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
        Ok(())
    }

    fn output(&self) -> PathBuf {
        self.directory.path().join("output")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read(self.output()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }

    pub(crate) fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop();
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill_and_bury();
        }
    }

    pub(crate) fn freeze(&self) {
        if let Some(process) = &self.process {
            process.freeze();
        }
    }

    pub(crate) fn thaw(&self) {
        if let Some(process) = &self.process {
            process.thaw();
        }
    }

    pub(crate) fn restart(&mut self) -> Result<(), ServiceError> {
        self.stop();
        // A server that was killed may still be there as a corpse, which some take for a living one.
        let mut tries = 0;
        loop {
            match self.spawn() {
                Err(ServiceError::NotStarted { .. }) if tries < RESTARTS => {
                    tries += 1;
                    thread::sleep(RESTART_PAUSE);
                }
                started => return started,
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Nothing of it is kept, so there is nothing to end in an orderly way.
        self.kill();
    }
}

/// What every guard offers.
macro_rules! guard {
    ($guard:ty, $name:literal) => {
        impl $guard {
            /// Its port on 127.0.0.1.
            pub fn port(&self) -> u16 {
                self.port
            }

            /// The server's own directory.
            pub fn directory(&self) -> std::path::PathBuf {
                self.instance.directory().to_owned()
            }

            /// The last lines of what the server wrote.
            pub fn log_tail(&self) -> String {
                self.instance.log_tail()
            }

            /// Ends it in an orderly way, without waiting for its clients; its data stays.
            pub fn stop(&mut self) {
                self.instance.stop();
            }

            /// Ends it at once, as a crash would.
            pub fn kill(&mut self) {
                self.instance.kill();
            }

            /// Stops it in its tracks: connections stay, nobody answers, until it is thawed.
            pub fn freeze(&self) {
                self.instance.freeze();
            }

            /// Lets it go on.
            pub fn thaw(&self) {
                self.instance.thaw();
            }

            /// Starts it again on the same port with the same data, ending it first if it runs.
            ///
            /// # Errors
            /// When it does not start.
            pub fn restart(&mut self) -> Result<(), crate::error::ServiceError> {
                self.instance.restart()
            }
        }

        impl std::fmt::Debug for $guard {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($name, "(127.0.0.1:{})"), self.port)
            }
        }
    };
}
pub(crate) use guard;

/// A new directory for a server.
pub(crate) fn directory(name: &str) -> Result<TempDir, ServiceError> {
    tempfile::Builder::new()
        .prefix(&format!("bulla-{name}-"))
        .tempdir()
        .map_err(ServiceError::io("making a directory"))
}

/// Words that run `program` as `user`, if we are root: databases refuse root.
pub(crate) fn as_user(user: &str, program: &Path) -> Vec<String> {
    let mut words = Vec::new();
    if rustix::process::geteuid().is_root() {
        words.push("setpriv".to_owned());
        words.extend([format!("--reuid={user}"), format!("--regid={user}")]);
        words.push("--clear-groups".to_owned());
    }
    words.push(program.display().to_string());
    words
}

/// Root gives `path` to the user that the server runs as.
pub(crate) fn hand_over(path: &Path, user: &str) -> Result<(), ServiceError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let words = ["chown", "-R", &format!("{user}:{user}"), &path.display().to_string()];
    run(path, &words.map(str::to_owned))
}

/// Runs a client of the server to its end, with a password and with `input`; what it printed.
pub(crate) fn client(
    program: &Path,
    args: &[&str],
    password: (&str, &str),
    input: &[u8],
) -> Result<Vec<u8>, ServiceError> {
    let name = program.display().to_string();
    let io = |error| ServiceError::io(&name)(error);
    let mut file = tempfile::tempfile().map_err(io)?;
    file.write_all(input).and_then(|()| file.rewind()).map_err(io)?;
    let output = Command::new(program)
        .args(args)
        .env(password.0, password.1)
        .stdin(file)
        .output()
        .map_err(io)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ServiceError::Command { command: name, why })
}

/// Runs a command of the server's own to its end, in `directory`.
pub(crate) fn run(directory: &Path, words: &[String]) -> Result<(), ServiceError> {
    let (program, args) = words.split_first().map_or(("true", &[][..]), |(p, a)| (p.as_str(), a));
    let output = Command::new(program)
        .args(args)
        .current_dir(directory)
        .output()
        .map_err(ServiceError::io(program))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned();
    Err(ServiceError::Command { command: program.to_owned(), why })
}
