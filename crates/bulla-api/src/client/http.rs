//! One request, one connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use bulla_http::{
    AUTH_TOKEN, AccessKey, Dialer, KeystoneToken, PROBLEM_CONTENT_TYPE, Problem, Token,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::endpoint::{Credential, Endpoint, Place};
use super::error::ClientError;

/// Time for TCP and TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: a value of 16 MiB as JSON, and room.
const MAX_ANSWER: usize = 64 << 20;

/// Asks one control plane.
#[derive(Clone)]
pub(super) struct Asker {
    place: Place,
    dialer: Dialer,
    shows: Shows,
}

/// What goes with each request.
#[derive(Clone)]
enum Shows {
    /// The connection's certificate says it.
    Nothing,
    Bearer(Token),
    Signature(AccessKey),
    KeystoneToken(KeystoneToken),
}

/// The head of an answer, with its body still to come.
pub(super) struct Answer {
    status: StatusCode,
    content_type: String,
    url: String,
    body: Incoming,
    _connection: Connection,
}

/// The task that drives a connection; the connection ends with it.
struct Connection(JoinHandle<()>);

impl Asker {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ClientError> {
        Ok(match endpoint {
            Endpoint::Tls { url, files } => Self {
                place: Place::parse(url, "https", 443)?,
                dialer: Dialer::tls(files)?,
                shows: Shows::Nothing,
            },
            Endpoint::Loopback { url, token } => Self {
                place: Place::parse(url, "http", 80)?,
                dialer: Dialer::plain_loopback(),
                shows: Shows::Bearer(Token::load(token)?),
            },
            Endpoint::Shown { url, ca, credential } => {
                let plain = url.starts_with("http://");
                let (scheme, port) = if plain { ("http", 80) } else { ("https", 443) };
                let dialer = match plain {
                    true => Dialer::plain_loopback(),
                    false => Dialer::trusting(ca)?,
                };
                let shows = match credential {
                    Credential::AccessKey(file) => Shows::Signature(AccessKey::load(file)?),
                    Credential::KeystoneToken(file) => {
                        Shows::KeystoneToken(KeystoneToken::load(file)?)
                    }
                };
                Self { place: Place::parse(url, scheme, port)?, dialer, shows }
            }
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.place.url
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        events: bool,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let request = self.request(method, path, body, events)?;
        let asking = self.send(request);
        match tokio::time::timeout(limit, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(ClientError::Silent { limit }),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        events: bool,
    ) -> Result<Request<Body>, ClientError> {
        let accept = if events { "text/event-stream" } else { "application/json" };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.place.authority)
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("bulla/", env!("CARGO_PKG_VERSION")));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let unsendable = |why: String| ClientError::Unsendable { why };
        let secret = match &self.shows {
            Shows::Bearer(token) => Some((header::AUTHORIZATION, token.authorization())),
            Shows::KeystoneToken(token) => Some((AUTH_TOKEN, token.expose().clone())),
            Shows::Nothing | Shows::Signature(_) => None,
        };
        if let Some((name, secret)) = secret {
            let mut value =
                HeaderValue::from_str(&secret).map_err(|e| unsendable(e.to_string()))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let body = body.unwrap_or_default();
        let mut request = request.body(()).map_err(|e| unsendable(e.to_string()))?;
        if let Shows::Signature(key) = &self.shows {
            let signed = key.sign(self.place.scheme, &mut request, &body);
            signed.map_err(|e| unsendable(e.to_string()))?;
        }
        let body = if body.is_empty() { Body::empty() } else { Body::from(body) };
        Ok(request.map(|()| body))
    }

    async fn send(&self, request: Request<Body>) -> Result<Answer, ClientError> {
        let Place { host, port, url, .. } = &self.place;
        let stream = self.dialer.connect(host, *port, CONNECT).await;
        let stream = stream.map_err(|e| ClientError::of_dial(url, e))?;
        let broken = |e: hyper::Error| ClientError::of_connection(url, &e);
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Its errors are also the request's.
        let connection = Connection(tokio::spawn(async move { drop(driver.await) }));
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Answer {
            status: head.status,
            content_type: content_type.to_owned(),
            url: url.clone(),
            body,
            _connection: connection,
        })
    }
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the body is of this content type.
    pub(super) fn is(&self, content_type: &str) -> bool {
        let essence = self.content_type.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(content_type)
    }

    /// Reads the whole body as what was asked for, or as a problem.
    pub(super) async fn decode<T: DeserializeOwned>(mut self) -> Result<T, ClientError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.next().await {
            body.extend_from_slice(&chunk?);
            if body.len() > MAX_ANSWER {
                return Err(ClientError::NotUs { why: "its answer has no end".to_owned() });
            }
        }
        let not_us = |e: serde_json::Error| ClientError::NotUs {
            why: format!("it answered {} with {e}", self.status),
        };
        if self.status.is_success() {
            return serde_json::from_slice(&body).map_err(not_us);
        }
        if !self.is(PROBLEM_CONTENT_TYPE) {
            let why = format!("it answered {}", self.status);
            return Err(ClientError::NotUs { why });
        }
        let problem: Problem = serde_json::from_slice(&body).map_err(not_us)?;
        Err(ClientError::of_problem(problem))
    }
}

/// The body, piece by piece.
impl Stream for Answer {
    type Item = Result<Bytes, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
            return Poll::Ready(match frame {
                None => None,
                Some(Err(e)) => Some(Err(ClientError::of_connection(&self.url, &e))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    // Trailers say nothing here.
                    Err(_) => continue,
                },
            });
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Percent-encodes what goes into a path or query (RFC 3986, all but the unreserved characters).
pub(super) fn escape(text: &str) -> String {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| if unreserved(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
