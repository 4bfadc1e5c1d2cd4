//! One connection: handshake, identity, requests.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use axum::response::{IntoResponse, Response};
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

use crate::identity::Identity;
use crate::limits::Limits;
use crate::listen::{Entrance, Stopping};
use crate::problem::Problem;
use crate::tls;
use crate::token::Token;
use crate::waiting::{Held, PLACE, Place};

/// A request's header at the most, in bytes.
const MAX_HEADER: usize = 64 << 10;

/// What all connections of a listener have in common.
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) entrance: Entrance,
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

/// What is known about the peer of a connection before it asks for anything.
#[derive(Clone)]
enum Peer {
    /// The certificate said it all; `None` if it names no operator.
    Certified(Option<Identity>),
    /// Each request must show the token.
    Token(Arc<Token>),
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
        match &shared.entrance {
            Entrance::Plain(token) => {
                let peer = Peer::Token(Arc::clone(token));
                requests(stream, peer, &shared).await;
            }
            Entrance::Tls(certificates) => {
                let acceptor = &certificates.acceptor();
                let Some(stream) = handshake(acceptor, stream, &shared).await else { return };
                let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let peer = Peer::Certified(leaf.and_then(tls::operator));
                requests(stream, peer, &shared).await;
            }
        }
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
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

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, shared: &Arc<Shared>) {
    let service = service_fn(|request| answer(request, peer.clone(), Arc::clone(shared)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.header)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// One request: no identity, no router.
async fn answer(
    mut request: Request<Incoming>,
    peer: Peer,
    shared: Arc<Shared>,
) -> Result<Response, Infallible> {
    let serving = PLACE.with(Place::serve);
    let Some(identity) = peer.identify(&request) else {
        return Ok(Problem::unauthorized().into_response());
    };
    // The token has done its work; no handler or log of a handler needs it.
    request.headers_mut().remove(header::AUTHORIZATION);
    request.extensions_mut().insert(identity);
    request.extensions_mut().insert(shared.limits);
    request.extensions_mut().insert(Stopping(shared.shutdown.clone()));
    let response = shared.router.clone().oneshot(request.map(Body::new)).await?;
    Ok(response.map(|body| Body::new(Held { body, _serving: serving })))
}

impl Peer {
    fn identify(&self, request: &Request<Incoming>) -> Option<Identity> {
        match self {
            Self::Certified(identity) => identity.clone(),
            Self::Token(token) => {
                let shown = request.headers().get(header::AUTHORIZATION)?;
                token.admits(shown.as_bytes()).then(Identity::bearer)
            }
        }
    }
}
