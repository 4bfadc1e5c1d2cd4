//! Commands that can't outlive us, can't ask questions and can't hang for ever.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::console::{colour, root};

/// Runs `"$@"` and ends its process group when stdin closes: our end of the pipe closes when we
/// give up, and also when we are killed.
const WATCHDOG: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
job=$!
(
    trap '' TERM
    read -r _ <&3
    kill -TERM 0
    sleep 10
    kill -KILL 0
) >/dev/null 2>&1 &
guard=$!
exec 3<&-
wait $job
status=$?
kill -KILL $guard
exit $status
"#;

/// One command, run from the root of the checkout.
pub(crate) struct Job {
    command: Command,
    name: String,
    limit: Duration,
}

impl Job {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(&program).current_dir(root());
        let name = program.as_ref().to_string_lossy().into_owned();
        Self { command, name, limit: Duration::from_secs(45 * 60) }
    }

    /// The cargo that runs us, in the same colours.
    pub(crate) fn cargo() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut job = Self::new(cargo);
        job.name = "cargo".to_owned();
        job.env("CARGO_TERM_COLOR", if colour() { "always" } else { "never" })
    }

    /// The same, and everything else on the machine goes first.
    pub(crate) fn patient_cargo() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut job = Self::new("nice");
        job.command.args(["-n", "19"]).arg(cargo);
        job.name = "cargo".to_owned();
        job
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        for arg in args {
            self.name += " ";
            self.name += &arg.as_ref().to_string_lossy();
            self.command.arg(arg);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in that folder instead.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// How long it may take before it counts as hung.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it; its output goes to ours.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let child = self.spawn()?;
        self.wait(child)
    }

    /// Runs it and shows each line of its output to `see` (stdout and stderr, as they come).
    pub(crate) fn lines(mut self, see: impl FnMut(&str) + Send + 'static) -> Result<(), String> {
        let (reader, writer) = pipe()?;
        let again = writer.try_clone().map_err(|error| format!("making a pipe: {error}"))?;
        self.command.stdout(writer).stderr(again);
        self.read(reader, see)
    }

    /// Runs it and returns what it wrote to stdout.
    pub(crate) fn output(mut self) -> Result<String, String> {
        let (reader, writer) = pipe()?;
        self.command.stdout(writer);
        let output = Arc::<Mutex<String>>::default();
        let into = Arc::clone(&output);
        self.read(reader, move |line| {
            let mut output = into.lock().unwrap_or_else(PoisonError::into_inner);
            output.push_str(line);
            output.push('\n');
        })?;
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(output.clone())
    }

    fn read(
        mut self,
        reader: PipeReader,
        mut see: impl FnMut(&str) + Send + 'static,
    ) -> Result<(), String> {
        let child = self.spawn()?;
        // Our copies of the writing end would keep the reader waiting.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let (done, read) = mpsc::channel::<()>();
        thread::spawn(move || {
            each_line(reader, &mut see);
            drop(done);
        });
        let ended = self.wait(child);
        // A stray grandchild may hold the pipe: what it still writes doesn't matter.
        let _ = read.recv_timeout(Duration::from_secs(10));
        ended
    }

    fn spawn(&mut self) -> Result<Child, String> {
        let command = self.command.stdin(Stdio::piped()).process_group(0);
        command.spawn().map_err(|error| format!("{}: {error}", self.name))
    }

    fn wait(&self, mut child: Child) -> Result<(), String> {
        let alarm = Alarm::set(child.stdin.take(), self.limit);
        let status = child.wait().map_err(|error| format!("{}: {error}", self.name))?;
        self.judge(status, alarm.rang())
    }

    fn judge(&self, status: ExitStatus, late: bool) -> Result<(), String> {
        let name = &self.name;
        if late {
            let minutes = self.limit.as_secs() / 60;
            return Err(format!("`{name}` was stopped: it took more than {minutes} minutes"));
        }
        match (status.success(), status.code(), status.signal()) {
            (true, ..) => Ok(()),
            (_, Some(127), _) => Err(format!("`{name}`: the program was not found")),
            (_, Some(code), _) => Err(format!("`{name}` ended with exit code {code}")),
            (_, None, signal) => Err(format!("`{name}` was ended by signal {signal:?}")),
        }
    }
}

/// Holds the watchdog's pipe, and lets go of it when the time is up.
struct Alarm {
    cancel: mpsc::Sender<()>,
    ringing: thread::JoinHandle<bool>,
}

impl Alarm {
    fn set(pipe: Option<ChildStdin>, limit: Duration) -> Self {
        let (cancel, cancelled) = mpsc::channel();
        let ringing = thread::spawn(move || {
            let late = cancelled.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            drop(pipe);
            late
        });
        Self { cancel, ringing }
    }

    fn rang(self) -> bool {
        drop(self.cancel);
        self.ringing.join().unwrap_or(false)
    }
}

fn pipe() -> Result<(PipeReader, PipeWriter), String> {
    std::io::pipe().map_err(|error| format!("making a pipe: {error}"))
}

fn each_line(pipe: PipeReader, see: &mut impl FnMut(&str)) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        see(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
}

/// Whether a command runs and says yes; nothing is shown.
pub(crate) fn says_yes(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Job {
        Job::new("sh").args(["-c", script])
    }

    #[test]
    fn tells_how_it_ended() {
        assert_eq!(shell("exit 0").run(), Ok(()));
        assert!(shell("exit 3").run().unwrap_err().contains("exit code 3"));
        assert!(shell("kill -KILL $$").run().unwrap_err().contains("137"));
        assert!(Job::new("/no/such/program").run().unwrap_err().contains("not found"));
        assert_eq!(shell("echo out; echo err >&2").output(), Ok("out\n".to_owned()));
    }

    #[test]
    fn shows_both_streams_line_by_line() {
        let (seen, lines) = (Arc::<Mutex<Vec<String>>>::default(), shell("echo a; echo b >&2"));
        let into = Arc::clone(&seen);
        lines.lines(move |line| into.lock().unwrap().push(line.to_owned())).unwrap();
        assert_eq!(*seen.lock().unwrap(), ["a", "b"]);
    }

    #[test]
    fn has_no_stdin() {
        assert_eq!(shell("if read -r line; then exit 1; fi").run(), Ok(()));
    }

    #[test]
    fn ends_with_its_children_when_the_time_is_up() {
        let folder = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        let pid = folder.join("pid");
        std::fs::create_dir_all(&folder).unwrap();
        let script = format!("sleep 600 & echo $! >{}; wait", pid.display());
        let error = shell(&script).limit(Duration::from_secs(2)).run().unwrap_err();
        assert!(error.contains("was stopped"), "{error}");
        let child = std::fs::read_to_string(&pid).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        // It got its signal before its group was given up; it may take a moment to go.
        while says_yes("kill", &["-0", child.trim()]) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}
