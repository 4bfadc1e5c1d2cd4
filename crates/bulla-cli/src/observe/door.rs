//! A door of its own for metrics and health: plain HTTP, two paths and no more. What it tells is no
//! secret to who may be on that address; it listens on a loopback address unless told otherwise.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Answer, Observer};
use crate::failure::{Failure, Result};

/// Connections at a time.
const CONNECTIONS: usize = 32;
/// How long a client may take for a header, and a whole connection without one.
const HEADER: Duration = Duration::from_secs(10);
/// How long one connection is kept.
const LIFE: Duration = Duration::from_secs(600);
/// A request's header at the most, in bytes.
const MAX_HEADER: usize = 16 << 10;
/// Rest after a failed `accept`.
const PAUSE: Duration = Duration::from_millis(100);

/// A door that is open; nobody is served yet.
pub(crate) struct Door(TcpListener, SocketAddr);

impl Door {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let failed =
            |error| Failure::new(format!("can't listen for metrics on {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self(listener, address))
    }

    /// With the port that was really taken.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.1)
    }

    /// Serves until `stop`.
    pub(crate) fn serve(self, observer: Arc<Observer>, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        tokio::spawn(async move {
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else { return };
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = self.0.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        let (observer, stop) = (observer.clone(), stop.clone());
                        tokio::spawn(async move {
                            let serving = tokio::time::timeout(LIFE, connection(stream, observer));
                            tokio::select! {
                                () = stop.cancelled() => {}
                                _ = serving => {}
                            }
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "can't accept a connection for metrics");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }
}

async fn connection(stream: TcpStream, observer: Arc<Observer>) {
    let service = service_fn(move |request| {
        let observer = observer.clone();
        async move { Ok::<_, Infallible>(answer(&request, &observer).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection for metrics ended");
    }
}

async fn answer(request: &Request<Incoming>, observer: &Observer) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let found = observer.answer(request.uri().path()).await;
    let Answer { status, kind, body } =
        found.unwrap_or_else(|| Answer::text(404, "not here: /metrics, /healthz, /readyz\n"));
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
