//! One connection: handshake, identity, requests.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::debug;

use crate::gate::{Admitted, Gate, Peer};
use crate::limits::Limits;
use crate::listen::{Entrance, Stopping};
use crate::tls;
use crate::waiting::{Held, PLACE, Place};

/// A request's header at the most, in bytes.
const MAX_HEADER: usize = 64 << 10;

/// What all connections of a listener have in common.
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) entrance: Entrance,
    pub(crate) gate: Gate,
    pub(crate) limits: Limits,
    /// Finish what is in flight.
    pub(crate) shutdown: CancellationToken,
    /// Drop everything.
    pub(crate) abandon: CancellationToken,
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) place: Place,
    pub(crate) shared: Arc<Shared>,
}

impl Connection {
    /// Serves it in a task of its own, for which it holds `slot`.
    // Not async: what runs is compiled here, as this crate is optimised (docs/adr/0008).
    #[inline(never)]
    pub(crate) fn start(self, slot: OwnedSemaphorePermit, tasks: &TaskTracker) {
        tasks.spawn(async move {
            self.run().await;
            drop(slot);
        });
    }

    async fn run(self) {
        let (shared, place) = (Arc::clone(&self.shared), self.place.clone());
        tokio::select! {
            () = shared.abandon.cancelled() => {}
            () = place.pushed_out() => debug!("closed, to make room for another"),
            () = PLACE.scope(place.clone(), self.serve()) => {}
        }
        place.leave();
    }

    async fn serve(self) {
        let Self { stream, shared, .. } = self;
        // Only latency is lost where this is refused.
        let _ = stream.set_nodelay(true);
        // Nobody is at the other end any more.
        let Ok(from) = stream.peer_addr() else { return };
        match &shared.entrance {
            Entrance::Open => requests(stream, (Peer::Open, from.ip()), &shared).await,
            Entrance::Plain(token) => {
                let peer = Peer::Plain(Arc::clone(token));
                requests(stream, (peer, from.ip()), &shared).await;
            }
            Entrance::Tls(certificates) => {
                let stream = handshake(certificates.acceptor(), stream, &shared);
                let Some(stream) = Box::pin(stream).await else { return };
                identified(stream, from.ip(), &shared).await;
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    shared: &Shared,
) -> Option<TlsStream<TcpStream>> {
    let from = stream.peer_addr().ok();
    let shaking = tokio::time::timeout(shared.limits.handshake, acceptor.accept(stream));
    tokio::select! {
        () = shared.shutdown.cancelled() => None,
        shaken = shaking => match shaken {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                debug!(?from, %error, "TLS handshake refused");
                None
            }
            Err(_) => {
                debug!(?from, "TLS handshake took too long");
                None
            }
        },
    }
}

/// The requests of a connection with a certificate, or without one.
fn identified(
    stream: TlsStream<TcpStream>,
    from: IpAddr,
    shared: &Arc<Shared>,
) -> impl Future<Output = ()> + use<> {
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = leaf.map_or(Peer::Uncertified, |leaf| Peer::Certified(tls::operator(leaf)));
    requests(stream, (peer, from), shared)
}

/// In a box that is made here, and not within the future: that would hold what the connection is made of
/// beside it, and a plain one as much as one over TLS.
fn requests<I>(
    stream: I,
    from: (Peer, IpAddr),
    shared: &Arc<Shared>,
) -> impl Future<Output = ()> + use<I>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (shutdown, header) = (shared.shutdown.clone(), shared.limits.header);
    let shared = Arc::clone(shared);
    let service = service_fn(move |request| answer(request, from.clone(), Arc::clone(&shared)));
    let mut connection = Box::pin(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header)
            .max_buf_size(MAX_HEADER)
            .serve_connection(TokioIo::new(stream), service),
    );
    async move {
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "connection ended");
        }
    }
}

/// One request: no identity, no router.
async fn answer(
    request: Request<Incoming>,
    (peer, from): (Peer, IpAddr),
    shared: Arc<Shared>,
) -> Result<Response, Infallible> {
    let serving = PLACE.with(Place::serve);
    // In a box: a request that waits for something holds no room for how it was let in.
    let admitted = Box::pin(shared.gate.admit(request.map(Body::new), &peer, from)).await;
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => return Ok(*refused),
    };
    let (mut request, left) = admitted.into_parts();
    request.extensions_mut().insert(shared.limits);
    request.extensions_mut().insert(Stopping(shared.shutdown.clone()));
    let mut response = shared.router.clone().oneshot(request).await?;
    Admitted::finish(left, &mut response);
    Ok(response.map(|body| Body::new(Held { body, _serving: serving })))
}
