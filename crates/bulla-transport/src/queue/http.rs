//! Requests over connections that are kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::options::QueueOptions;
use super::sign::sign;
use crate::error::TransportError;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// Connections that are kept.
const KEPT: usize = 64;
/// Largest answer: a page of the largest messages and what is around them.
const MAX_ANSWER: usize = 8 << 20;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
    pub(super) body: Bytes,
}

/// The way to a service.
pub(super) struct Http {
    pub(super) options: QueueOptions,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    client_id: HeaderValue,
    kept: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Http {
    pub(super) fn new(options: QueueOptions) -> Result<Self, TransportError> {
        let tls = match options.tls()? {
            None => None,
            Some(config) => {
                let name = ServerName::try_from(options.host.clone()).map_err(|_| {
                    TransportError::Tls {
                        address: options.address(),
                        why: "its name is neither a DNS name nor an IP address".to_owned(),
                    }
                })?;
                Some((TlsConnector::from(config), name))
            }
        };
        let mut id = [0_u8; 16];
        // It names this process to itself; nothing rests on it.
        let _ = aws_lc_rs::rand::fill(&mut id);
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let client_id = HeaderValue::from_str(&id).map_err(|_| TransportError::Closed)?;
        Ok(Self { options, tls, client_id, kept: Mutex::default() })
    }

    /// Asks, and waits at most `patience` for the answer.
    ///
    /// # Errors
    /// The service can't be reached, did not answer in time, or refuses who asks.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, TransportError> {
        let mut again = true;
        loop {
            let asked = self.ask_once(&method, path, body.clone());
            let answer = tokio::time::timeout(patience, asked)
                .await
                .map_err(|_| self.unreachable("it did not answer in time"))??;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            let Some(key) = self.options.key.as_ref().filter(|_| again) else {
                return Err(self.refused(path, &answer));
            };
            key.refused();
            again = false;
        }
    }

    async fn ask_once(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, TransportError> {
        loop {
            let kept = self.kept.lock().pop();
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            if connection.ready().await.is_err() {
                if is_kept {
                    continue;
                }
                return Err(self.unreachable("the connection was closed"));
            }
            let request = self.request(method, path, body.clone())?;
            match connection.try_send_request(request).await {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    let body = Limited::new(body, MAX_ANSWER).collect().await;
                    let body = body.map_err(|error| self.unreachable(&error.to_string()))?;
                    let mut kept = self.kept.lock();
                    if kept.len() < KEPT {
                        kept.push(connection);
                    }
                    let location = parts.headers.get(LOCATION).and_then(|at| at.to_str().ok());
                    return Ok(Answer {
                        status: parts.status,
                        location: location.map(str::to_owned),
                        body: body.to_bytes(),
                    });
                }
                Err(mut failed) => {
                    // A kept one that was closed meanwhile: nothing was sent.
                    if !is_kept || failed.take_message().is_none() {
                        return Err(self.unreachable(&failed.into_error().to_string()));
                    }
                }
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, TransportError> {
        let authority = self.options.authority();
        let built = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &authority)
            .header(CONTENT_TYPE, "application/json")
            .header("client-id", self.client_id.clone())
            .header("x-project-id", &self.options.project)
            .body(Full::new(body.clone()));
        let mut request = built.map_err(|error| self.unreachable(&error.to_string()))?;
        if let Some(key) = &self.options.key {
            let target = format!("{}://{authority}{path}", self.options.scheme());
            let headers = request.headers_mut();
            sign(key.as_ref(), (method, &target), &body, headers)
                .ok_or_else(|| self.unreachable("the request can't be signed"))?;
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, TransportError> {
        let dialing = async {
            let address = (self.options.host.as_str(), self.options.port);
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        let late = || self.unreachable("no connection in time");
        let stream = tokio::time::timeout(CONNECT, dialing).await.map_err(|_| late())?;
        let stream = stream.map_err(|error| self.unreachable(&error.to_string()))?;
        let Some((connector, name)) = &self.tls else {
            return self.shake(TokioIo::new(stream)).await;
        };
        let shaking = connector.connect(name.clone(), stream);
        let stream = tokio::time::timeout(CONNECT, shaking).await.map_err(|_| late())?;
        let stream = stream.map_err(|error| TransportError::Tls {
            address: self.options.address(),
            why: error.to_string(),
        })?;
        self.shake(TokioIo::new(stream)).await
    }

    async fn shake<I>(&self, io: I) -> Result<SendRequest<Full<Bytes>>, TransportError>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let shaken = http1::handshake(io).await;
        let (send, connection) = shaken.map_err(|error| self.unreachable(&error.to_string()))?;
        tokio::spawn(async move {
            // Whoever uses it is told.
            let _ = connection.await;
        });
        Ok(send)
    }

    pub(super) fn unreachable(&self, why: &str) -> TransportError {
        TransportError::Unreachable { address: self.options.address(), why: why.to_owned() }
    }

    /// A refusal, with what the service says of it.
    pub(super) fn refused(&self, path: &str, answer: &Answer) -> TransportError {
        let text: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
        TransportError::Refused {
            what: path.split('?').next().unwrap_or_default().to_owned(),
            why: format!("{} {text}", answer.status),
        }
    }
}

/// What a transport and its consumers share.
pub(super) type Way = Arc<Http>;
