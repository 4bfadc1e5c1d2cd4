//! HTTP to Keystone: a few connections that are kept, answers that are bounded.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::Scheme;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::KeystoneError;
use crate::dial::Dialer;

/// Time for TCP and TLS, and for a request and its answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Connections that are kept for the next request.
const KEPT: usize = 8;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

pub(super) struct Http {
    dialer: Dialer,
    host: String,
    port: u16,
    authority: String,
    base: String,
    idle: Mutex<Vec<Wire>>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `X-Subject-Token`.
    pub(super) token: Option<Zeroizing<String>>,
    pub(super) body: Bytes,
}

/// A connection and the task that drives it.
struct Wire {
    sender: SendRequest<Body>,
    driver: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Http {
    pub(super) fn new(url: &str, ca: Option<&Path>) -> Result<Self, KeystoneError> {
        let bad = KeystoneError::BadUrl;
        let uri: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
        let authority = uri.authority().ok_or(bad("it names no host"))?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(bad("it should hold no user name and no query"));
        }
        let base = uri.path().trim_end_matches('/');
        if !base.ends_with("/v3") {
            return Err(bad("it should end with /v3"));
        }
        let (dialer, default_port) = match (uri.scheme(), ca) {
            (Some(scheme), Some(ca)) if *scheme == Scheme::HTTPS => {
                (Dialer::tls_to_others(ca)?, 443)
            }
            (Some(scheme), None) if *scheme == Scheme::HTTPS => {
                return Err(bad("of https://, the CA must be named, too"));
            }
            // Tokens and the password would be read by whoever is on the way.
            (Some(scheme), None) if *scheme == Scheme::HTTP => (Dialer::plain_loopback(), 80),
            (Some(scheme), Some(_)) if *scheme == Scheme::HTTP => {
                return Err(bad("a CA is given, but it begins with http://"));
            }
            _ => return Err(bad("it should begin with https://")),
        };
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Ok(Self {
            dialer,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.as_str().to_owned(),
            base: base.to_owned(),
            idle: Mutex::default(),
        })
    }

    /// Asks for a token of one's own.
    pub(super) async fn login(&self, body: Zeroizing<Vec<u8>>) -> Result<Answer, String> {
        let request = || {
            self.request(Method::POST, "")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_vec()))
        };
        self.ask(request).await
    }

    /// Asks whose `token` is.
    pub(super) async fn validate(&self, own: &str, token: &str) -> Result<Answer, String> {
        let secret = |text: &str| {
            HeaderValue::from_str(text).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        };
        let own = secret(own).map_err(|_| "its token is none".to_owned())?;
        let token = secret(token).map_err(|_| "the token is none".to_owned())?;
        let request = || {
            self.request(Method::GET, "?nocatalog")
                .header(AUTH_TOKEN, own.clone())
                .header(SUBJECT_TOKEN, token.clone())
                .body(Body::empty())
        };
        self.ask(request).await
    }

    fn request(&self, method: Method, query: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}/auth/tokens{query}", self.base))
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("bulla/", env!("CARGO_PKG_VERSION")))
    }

    async fn ask(
        &self,
        request: impl Fn() -> Result<Request<Body>, axum::http::Error>,
    ) -> Result<Answer, String> {
        let asking = async {
            loop {
                // A kept connection may turn out to be gone; then another is tried.
                let kept = self.idle.lock().ok().and_then(|mut idle| idle.pop());
                let fresh = kept.is_none();
                let wire = match kept {
                    Some(wire) => wire,
                    None => self.dial().await?,
                };
                let request = request().map_err(|_| "the request can't be written".to_owned())?;
                match self.exchange(wire, request).await {
                    Err(_) if !fresh => {}
                    asked => return asked,
                }
            }
        };
        match tokio::time::timeout(ANSWER, asking).await {
            Ok(asked) => asked,
            Err(_) => Err(format!("it did not answer within {} s", ANSWER.as_secs())),
        }
    }

    async fn dial(&self) -> Result<Wire, String> {
        let stream = self.dialer.connect(&self.host, self.port, CONNECT).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| error.to_string())?;
        // Its errors are also the request's.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Wire { sender, driver })
    }

    async fn exchange(&self, mut wire: Wire, request: Request<Body>) -> Result<Answer, String> {
        let response = wire.sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (head, body) = response.into_parts();
        let mut stream = Body::new(body).into_data_stream();
        let mut body = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            body.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
            if body.len() > MAX_ANSWER {
                return Err("its answer has no end".to_owned());
            }
        }
        let token = head.headers.get(SUBJECT_TOKEN).and_then(|value| value.to_str().ok());
        let token = token.map(|token| Zeroizing::new(token.to_owned()));
        if wire.sender.ready().await.is_ok()
            && let Ok(mut idle) = self.idle.lock()
            && idle.len() < KEPT
        {
            idle.push(wire);
        }
        Ok(Answer { status: head.status, token, body: body.freeze() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_judged() {
        let http = Http::new("http://[::1]:5000/identity/v3/", None).unwrap();
        assert_eq!((http.host.as_str(), http.port), ("::1", 5000));
        assert_eq!((http.base.as_str(), http.authority.as_str()), ("/identity/v3", "[::1]:5000"));
        let ca = Path::new("/nowhere");
        for (bad, ca) in [
            ("", None),
            ("keystone:5000/v3", None),
            ("https://keystone/v3", None),
            ("http://keystone/v3", Some(ca)),
            ("https://keystone/", Some(ca)),
            ("https://ada:hush@keystone/v3", Some(ca)),
            ("https://keystone/v3?x", Some(ca)),
            ("ftp://keystone/v3", None),
        ] {
            let error = Http::new(bad, ca).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }
}
