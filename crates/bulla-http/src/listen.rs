//! The listener: accepts, authenticates, serves, drains.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::request::Parts;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::certs::CertError;
use crate::connection::{Connection, Shared};
use crate::gate::{Authenticators, Gate};
use crate::limits::Limits;
use crate::reload::Certificates;
use crate::tls::ServerTls;
use crate::token::Token;
use crate::waiting::Waiting;

/// Rest after a failed `accept`: usually the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen, for whom, within which limits.
#[derive(Debug, Clone)]
pub struct Options {
    address: SocketAddr,
    door: Door,
    limits: Limits,
    authenticators: Authenticators,
}

#[derive(Debug, Clone)]
enum Door {
    Tls(ServerTls),
    Plain(Token),
    Open,
}

/// A bound listener that serves nobody yet.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    entrance: Entrance,
    limits: Limits,
    authenticators: Authenticators,
    /// The first second, of Unix time, in which no other process had the port.
    since: u64,
}

/// How a connection and its requests are authenticated.
#[derive(Clone)]
pub(crate) enum Entrance {
    Tls(Certificates),
    Plain(Arc<Token>),
    Open,
}

/// Tells a handler when shutdown begins, so that a response without an end can end.
#[derive(Debug, Clone)]
pub struct Stopping(pub(crate) CancellationToken);

/// A listener could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another process has the port.
    #[error(
        "port {} of {} is in use; stop the process that listens there (`ss -ltnp` names it) \
         or choose another port", address.port(), address.ip()
    )]
    InUse {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The operating system refused the address.
    #[error("can't listen on {address}: {source}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Plain HTTP was asked for on an address that others can reach.
    #[error(
        "{address} is no loopback address, and plain HTTP is spoken on those only; \
         use 127.0.0.1 or ::1, or HTTPS"
    )]
    NotLoopback {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// A certificate or key can't be used.
    #[error(transparent)]
    Certificate(#[from] CertError),
}

impl Options {
    /// HTTPS: TLS 1.3, with client certificates as `files` say.
    #[must_use]
    pub fn tls(address: SocketAddr, files: ServerTls) -> Self {
        let (limits, authenticators) = (Limits::default(), Authenticators::default());
        Self { address, door: Door::Tls(files), limits, authenticators }
    }

    /// Plain HTTP with a bearer token, on a loopback address.
    ///
    /// # Errors
    ///
    /// [`ListenError::NotLoopback`] for any other address.
    pub fn plain_loopback(address: SocketAddr, token: Token) -> Result<Self, ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback { address });
        }
        let (limits, authenticators) = (Limits::default(), Authenticators::default());
        Ok(Self { address, door: Door::Plain(token), limits, authenticators })
    }

    /// Plain HTTP without any authentication, on a loopback address: the router hears of no identity,
    /// and of no credential either. Every program on this machine can use it.
    ///
    /// # Errors
    ///
    /// [`ListenError::NotLoopback`] for any other address.
    pub fn dangerously_open_loopback(address: SocketAddr) -> Result<Self, ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback { address });
        }
        let (limits, authenticators) = (Limits::default(), Authenticators::default());
        Ok(Self { address, door: Door::Open, limits, authenticators })
    }

    /// Authenticates requests by more than the door itself does, and limits how many there are.
    #[must_use]
    pub fn authenticators(mut self, authenticators: Authenticators) -> Self {
        self.authenticators = authenticators;
        self
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

impl Listener {
    /// Loads the certificates and takes the port. Where used signatures are kept in memory this lasts until
    /// the second is over: times in signatures are whole ones, and what was signed in an earlier second
    /// may have been used with the process before.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub async fn bind(options: Options) -> Result<Self, ListenError> {
        let Options { address, door, limits, authenticators } = options;
        let entrance = match door {
            Door::Tls(files) => Entrance::Tls(Certificates::load(files)?),
            Door::Plain(token) => Entrance::Plain(Arc::new(token)),
            Door::Open => Entrance::Open,
        };
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address },
            _ => ListenError::Bind { address, source },
        };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let now = unix_time();
        let since = now.as_secs() + 1;
        if authenticators.forgets() {
            tokio::time::sleep(Duration::from_secs(since).saturating_sub(now)).await;
        }
        Ok(Self { socket, address, entrance, limits, authenticators, since })
    }

    /// Authenticates requests by more than the door itself does, and limits how many there are.
    #[must_use]
    pub fn authenticators(mut self, authenticators: Authenticators) -> Self {
        self.authenticators = authenticators;
        self
    }

    /// The address with the port that was really taken (for port 0).
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The certificates, to be read again while it serves; `None` for the plain door.
    #[must_use]
    pub fn certificates(&self) -> Option<Certificates> {
        match &self.entrance {
            Entrance::Tls(certificates) => Some(certificates.clone()),
            Entrance::Plain(_) | Entrance::Open => None,
        }
    }

    /// The URL by which this machine reaches the listener.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if matches!(self.entrance, Entrance::Tls(_)) { "https" } else { "http" };
        // "All addresses" is one to listen on, not one to go to.
        if self.address.ip().is_unspecified() {
            return format!("{scheme}://localhost:{}", self.address.port());
        }
        format!("{scheme}://{}", self.address)
    }

    /// Serves `router` until `shutdown` is cancelled, then takes no more connections, lets the
    /// requests in flight finish within [`Limits::drain`], and returns. Dropping the future
    /// closes every connection.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        let Self { socket, address, entrance, limits, authenticators, since } = self;
        let since = if authenticators.forgets() { since } else { 0 };
        // The extractors read the limits from the request; this one is for axum's own.
        let router = router.layer(DefaultBodyLimit::max(limits.max_body));
        let slots = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
        let waiting = Waiting::default();
        if let Entrance::Tls(certificates) = &entrance {
            tokio::spawn(certificates.clone().watch(shutdown.clone()));
        }
        let tasks = TaskTracker::new();
        let abandon = CancellationToken::new();
        let _abandon_when_dropped = abandon.clone().drop_guard();
        let shared = Arc::new(Shared {
            router,
            entrance,
            gate: Gate::new(authenticators, limits, since),
            limits,
            shutdown: shutdown.clone(),
            abandon: abandon.clone(),
        });
        info!(%address, "listening");
        while let Some((stream, slot)) = next(&socket, &slots, &waiting, &shutdown).await {
            let place = waiting.enter();
            let connection = Connection { stream, place, shared: Arc::clone(&shared) };
            connection.start(slot, &tasks);
        }
        drop(socket);
        tasks.close();
        debug!(%address, open = tasks.len(), "draining");
        if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
            warn!(%address, open = tasks.len(), "requests did not finish in time and are cut off");
            abandon.cancel();
            tasks.wait().await;
        }
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The next connection, once there is room for it; `None` once shutdown began.
async fn next(
    socket: &TcpListener,
    slots: &Arc<Semaphore>,
    waiting: &Waiting,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let accepting = async {
        let stream = loop {
            match socket.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    warn!(%error, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Some((stream, slot));
        }
        waiting.push_out();
        Some((stream, Arc::clone(slots).acquire_owned().await.ok()?))
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        accepted = accepting => accepted,
    }
}

impl Stopping {
    /// Waits until shutdown begins.
    pub async fn begun(self) {
        self.0.cancelled_owned().await;
    }
}

impl<S: Sync> FromRequestParts<S> for Stopping {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        // Without a listener (a router under test) nothing ever stops.
        Ok(parts
            .extensions
            .get::<Self>()
            .cloned()
            .unwrap_or_else(|| Self(CancellationToken::new())))
    }
}
