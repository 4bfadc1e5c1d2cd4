//! What the service manager is told (sd_notify): readiness, reloading, stopping, and that we live.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The socket of the service manager, if one started this process and listens.
#[derive(Debug, Clone)]
pub(crate) struct Notify(Option<Arc<Socket>>);

#[derive(Debug)]
struct Socket {
    own: UnixDatagram,
    manager: SocketAddr,
}

impl Notify {
    /// By `$NOTIFY_SOCKET`; without it nobody is told anything.
    pub(crate) fn from_env() -> Self {
        let path = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        Self(path.and_then(|path| match Socket::to(path.as_bytes()) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                tracing::warn!(%error, "the service manager's socket can't be used");
                None
            }
        }))
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// It serves.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}\nMAINPID={}", line(status), std::process::id()));
    }

    /// How it does.
    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", line(status)));
    }

    /// It takes new settings over; [`ready`](Self::ready) says when it did.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
    }

    /// It ends.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=letting what runs end");
    }

    /// Tells that we live, twice as often as is asked for, as long as the runtime runs tasks. It ends with
    /// what it returns, or with `stop`.
    pub(crate) fn keep_alive(&self, stop: &CancellationToken) -> Option<AbortOnDropHandle<()>> {
        let (Some(_), Some(every)) = (&self.0, watchdog()) else { return None };
        let (own, stop) = (self.clone(), stop.clone());
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let mut tick = tokio::time::interval(every / 2);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = tick.tick() => own.send("WATCHDOG=1"),
                }
            }
        })))
    }

    fn send(&self, state: &str) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.own.send_to_addr(state.as_bytes(), &socket.manager) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

impl Socket {
    fn to(path: &[u8]) -> std::io::Result<Self> {
        let manager = match path.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path)))?,
        };
        let own = UnixDatagram::unbound()?;
        own.set_nonblocking(true)?;
        Ok(Self { own, manager })
    }
}

/// How often the service manager wants to hear from this process.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0)?;
    let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    mine.then(|| Duration::from_micros(micros))
}

/// A state is lines of its own.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
