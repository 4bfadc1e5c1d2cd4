//! Running an executable for one request.

use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bulla_rpc::{Clock, Context, HandlerResult, RemoteError, SystemClock, kinds};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use super::{EXEC_FAILED, Executable, scan};

/// What the caller is told of standard error, from its end.
const TAIL: usize = 2 * 1024;
/// A longer line is no progress, but text.
const MAX_LINE: usize = 64 * 1024;
const PROGRESS: &[u8] = b"progress: ";
/// How long it is waited for output after the program ended: something that it started may hold
/// the pipe open for ever.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// A program that is just being written can't be run for a moment.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Where programs are looked for if this process does not know.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs it with `args`, for as long as the request lives. When the caller gives up, this future is
/// dropped and everything that was started is killed with it.
pub(super) async fn run(
    executable: &Executable,
    limit: usize,
    context: &Context,
    args: &Value,
) -> HandlerResult<Value> {
    let input = serde_json::to_vec(args)
        .map_err(|error| RemoteError::new(kinds::BAD_ARGUMENTS, error.to_string()))?;
    // It was looked at when the agent started; it may have been given away since.
    let safe = std::fs::metadata(&executable.path)
        .map_err(|error| error.to_string())
        .and_then(|meta| scan::ours(&executable.path, &meta));
    if let Err(why) = safe {
        tracing::warn!(method = executable.full_name(), why, "not run");
        return Err(failed("the program may not be run any more", None, b""));
    }
    let mut process = Process::start(executable, context).await.map_err(|error| {
        tracing::warn!(path = %executable.path.display(), %error, "can't be run");
        failed(&format!("the program can't be started: {error}"), None, b"")
    })?;
    let mut tail = Tail::default();
    let ended = tokio::time::timeout(left(context), process.talk(input, limit, &mut tail, context));
    match ended.await {
        Err(_) => {
            drop(process);
            Err(failed("the request's time was over and the program was stopped", None, &tail.0))
        }
        Ok(Err(error)) => {
            drop(process);
            Err(failed(&error, None, &tail.0))
        }
        Ok(Ok((status, output))) if status.success() => value(&output, &tail.0),
        Ok(Ok((status, _))) => {
            Err(failed(&format!("the program failed: {status}"), status.code(), &tail.0))
        }
    }
}

/// What is left of the request's life.
fn left(context: &Context) -> Duration {
    let now = Duration::from_nanos(SystemClock.now().ns);
    Duration::from_secs(context.expires()).saturating_sub(now)
}

/// The error that the caller gets.
fn failed(message: &str, code: Option<i32>, stderr: &[u8]) -> RemoteError {
    let stderr = String::from_utf8_lossy(stderr);
    RemoteError::new(EXEC_FAILED, message)
        .with_details(json!({ "exit_code": code, "stderr": stderr }))
}

fn value(output: &[u8], stderr: &[u8]) -> HandlerResult<Value> {
    if output.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(output).map_err(|error| {
        failed(&format!("the program's output is not JSON: {error}"), Some(0), stderr)
    })
}

/// All that a program gets to know of its surroundings.
fn environment(executable: &Executable, context: &Context) -> Vec<(&'static str, OsString)> {
    let own = |name| std::env::var_os(name).map(|value| (name, value));
    let mut environment = vec![
        ("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into())),
        ("BULLA_SENDER", context.sender().principal.to_string().into()),
        ("BULLA_METHOD", executable.full_name().into()),
        ("BULLA_MESSAGE_ID", context.message_id().to_string().into()),
    ];
    environment.extend(["HOME", "LANG"].into_iter().filter_map(own));
    environment
}

/// A running program, in a process group of its own. Dropped before it ended, the whole group is
/// killed.
struct Process {
    child: Child,
    group: Option<Pid>,
}

impl Process {
    async fn start(executable: &Executable, context: &Context) -> io::Result<Self> {
        let mut command = Command::new(&executable.path);
        command
            .env_clear()
            .envs(environment(executable, context))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut tries = 0;
        let child = loop {
            match command.spawn() {
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                other => break other?,
            }
        };
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Self { child, group: id.and_then(Pid::from_raw) })
    }

    /// Gives it its input, takes its output and waits for its end.
    async fn talk(
        &mut self,
        input: Vec<u8>,
        limit: usize,
        tail: &mut Tail,
        context: &Context,
    ) -> Result<(ExitStatus, Vec<u8>), String> {
        let (stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err("the program has no standard streams".into());
        };
        let mut output = Vec::new();
        let status = {
            let streams = async {
                let fed = feed(stdin, input);
                let taken = take(stdout, &mut output, limit);
                let heard = listen(stderr, tail, context);
                let ((), taken, ()) = tokio::join!(fed, taken, heard);
                taken
            };
            let mut streams = std::pin::pin!(streams);
            let failed = |error: io::Error| format!("the program was lost: {error}");
            tokio::select! {
                taken = &mut streams => {
                    taken?;
                    self.child.wait().await.map_err(failed)?
                }
                status = self.child.wait() => {
                    let status = status.map_err(failed)?;
                    // What it wrote is in the pipes already.
                    if let Ok(taken) = tokio::time::timeout(AFTERWARDS, &mut streams).await {
                        taken?;
                    }
                    status
                }
            }
        };
        self.group = None;
        Ok((status, output))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group.take()
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a program had ended before it was stopped");
        }
    }
}

/// A program that does not read its input is no failure.
async fn feed(mut stdin: ChildStdin, input: Vec<u8>) {
    if let Err(error) = stdin.write_all(&input).await {
        tracing::debug!(%error, "the program did not read its arguments");
    }
}

async fn take(
    stdout: impl AsyncRead + Unpin,
    output: &mut Vec<u8>,
    limit: usize,
) -> Result<(), String> {
    // One more than allowed tells whether there is more.
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    stdout.take(most).read_to_end(output).await.map_err(|error| error.to_string())?;
    if output.len() > limit {
        return Err(format!("the program's output is longer than {limit} bytes"));
    }
    Ok(())
}

/// Takes standard error line by line: progress to the caller, the rest to the tail.
async fn listen(mut stderr: impl AsyncRead + Unpin, tail: &mut Tail, context: &Context) {
    let mut chunk = vec![0; 8 * 1024];
    let mut line = Vec::new();
    loop {
        let read = stderr.read(&mut chunk).await.unwrap_or(0);
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") || line.len() > MAX_LINE {
                one_line(&line, tail, context).await;
                line.clear();
            }
        }
    }
    one_line(&line, tail, context).await;
}

async fn one_line(line: &[u8], tail: &mut Tail, context: &Context) {
    let progress = line.strip_prefix(PROGRESS).filter(|_| line.len() <= MAX_LINE);
    let progress = progress.and_then(|text| serde_json::from_slice::<Value>(text).ok());
    match progress {
        Some(item) => {
            if let Err(error) = context.progress(&item).await {
                tracing::debug!(%error, "progress could not be sent");
            }
        }
        None => tail.push(line),
    }
}

/// The end of what was written.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let over = self.0.len().saturating_sub(TAIL);
        self.0.drain(..over);
    }
}
