//! A server process in a group of its own that ends with us, whatever happens to us.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::error::ServiceError;

/// Starts `"$@"`, and ends it when stdin does: our end of the pipe closes when this process goes
/// away, even when it is killed. (A parent-death signal would not do: it is tied to the thread.)
/// Nobody is left then to remove the directory, so it is removed too.
const WATCHDOG: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(
    trap '' TERM
    word=
    read -r word <&3
    signal=${WATCHED_SIGNAL:-TERM}
    [ "$word" != kill ] || signal=KILL
    kill -"$signal" $server
    n=0
    while kill -0 $server && [ $n -lt 150 ]; do sleep 0.1; n=$((n + 1)); done
    [ -n "$word" ] || rm -rf -- "$WATCHED_DIRECTORY"
    kill -KILL 0
) >/dev/null 2>&1 &
exec 3<&-
wait $server
status=$?
trap '' TERM
kill -TERM 0
exit $status
"#;

/// A running server.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts the program under the watchdog; `command` holds program, arguments, environment
    /// and directory, and gets stdin for the watchdog.
    pub(crate) fn start(
        args: &[&str],
        configure: impl FnOnce(&mut Command),
    ) -> Result<Self, ServiceError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(WATCHDOG).arg("watchdog").args(args);
        configure(&mut command);
        command.stdin(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(ServiceError::io("starting a server"))?;
        Ok(Self { child })
    }

    /// Whether it is still running.
    pub(crate) fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, and insists after a while.
    pub(crate) fn stop(mut self) {
        if let Some(mut watchdog) = self.child.stdin.take() {
            // If it is gone, so is the server.
            let _ = watchdog.write_all(b"keep\n");
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        if self.running() {
            self.kill();
        }
    }

    /// Stops it in its tracks: connections stay, nobody answers.
    pub(crate) fn freeze(&self) {
        if let Some(group) = self.group() {
            let _ = kill_process_group(group, Signal::STOP);
        }
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        if let Some(group) = self.group() {
            let _ = kill_process_group(group, Signal::CONT);
        }
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Ends the server itself at once, by its parent: some servers do not start again while their
    /// earlier process is there, if only as a corpse that the machine has not buried yet.
    pub(crate) fn kill_and_bury(mut self) {
        if let Some(mut watchdog) = self.child.stdin.take() {
            let _ = watchdog.write_all(b"kill\n");
        }
        // Long: on a busy machine the parent takes its time to bury it.
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        self.kill();
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(mut self) {
        let Some(group) = self.group() else { return };
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
        // The rest of the group goes a moment later, and only then are its ports free.
        let deadline = Instant::now() + Duration::from_secs(5);
        while test_kill_process_group(group).is_ok() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether the server speaks first, as databases do.
pub(crate) fn greets(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    stream.read_exact(&mut [0]).is_ok()
}

/// Whether the server accepts connections and, after `hello`, answers.
pub(crate) fn answers(port: u16, hello: &[u8]) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    if hello.is_empty() {
        return true;
    }
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut byte = [0];
    stream.write_all(hello).is_ok() && stream.read_exact(&mut byte).is_ok()
}
