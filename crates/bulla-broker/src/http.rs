//! HTTP to the management API: connections that are kept, answers that are bounded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use url::Url;
use zeroize::Zeroizing;

use crate::error::BrokerError;
use crate::tls;

/// Time for TCP and TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for a request and its answer: the broker makes a whole batch of users in one.
const ANSWER: Duration = Duration::from_secs(120);
/// The largest answer that is read, in bytes: a list of a million users.
const MAX_ANSWER: usize = 128 << 20;
/// Connections that are kept for the next request.
const KEPT: usize = 8;

/// Asks one management API as one user.
pub(crate) struct Http {
    place: Place,
    tls: Option<Arc<ClientConfig>>,
    authorization: HeaderValue,
    idle: Mutex<Vec<Wire>>,
}

/// Where it is.
struct Place {
    host: String,
    port: u16,
    /// What stands before `/api` in paths.
    base: String,
    /// Host and port, as in a URL.
    address: String,
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// A connection and the task that drives it.
struct Wire {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A way to the broker, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

impl Http {
    pub(crate) fn new(
        url: &str,
        user: &str,
        password: &str,
        ca: Option<&[u8]>,
    ) -> Result<Self, BrokerError> {
        let (place, secure) = Place::parse(url)?;
        let tls = match (secure, ca) {
            (true, ca) => {
                let failed = |why| BrokerError::Tls { address: place.address.clone(), why };
                Some(tls::config(ca).map_err(failed)?)
            }
            (false, None) => None,
            (false, Some(_)) => {
                let why = "an authority is given, but it begins with http://; write https://";
                return Err(BrokerError::BadUrl { why: why.to_owned() });
            }
        };
        let login = Zeroizing::new(format!("{user}:{password}"));
        let text = Zeroizing::new(format!("Basic {}", BASE64.encode(login.as_bytes())));
        let mut authorization = HeaderValue::from_str(&text)
            .map_err(|_| BrokerError::BadUrl { why: "the login can't be sent".to_owned() })?;
        authorization.set_sensitive(true);
        Ok(Self { place, tls, authorization, idle: Mutex::default() })
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.place.address
    }

    /// Sends a request and reads its answer. What is asked for here can be asked for twice: a kept
    /// connection may turn out to be gone, and then another is tried.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, BrokerError> {
        let asking = self.try_ask(method, path, body);
        match tokio::time::timeout(ANSWER, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(self.slow(ANSWER)),
        }
    }

    async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, BrokerError> {
        loop {
            let kept = self.idle.lock().pop();
            let fresh = kept.is_none();
            let mut wire = match kept {
                Some(wire) => wire,
                None => self.dial().await?,
            };
            let request = self.request(&method, path, body.clone())?;
            match self.exchange(&mut wire, request).await {
                Ok(answer) => {
                    let mut idle = self.idle.lock();
                    if idle.len() < KEPT && wire.sender.is_ready() {
                        idle.push(wire);
                    }
                    return Ok(answer);
                }
                Err(error @ BrokerError::Unreachable { .. }) if fresh => return Err(error),
                Err(BrokerError::Unreachable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>, BrokerError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api{path}", self.place.base))
            .header(header::HOST, &self.place.address)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("bulla/", env!("CARGO_PKG_VERSION")))
            .header(header::AUTHORIZATION, self.authorization.clone());
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| BrokerError::BadUrl { why: error.to_string() })
    }

    async fn exchange(
        &self,
        wire: &mut Wire,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, BrokerError> {
        let response = wire.sender.send_request(request).await.map_err(|e| self.lost(&e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                self.odd("its answer has no end")
            } else {
                self.lost(&*error)
            }
        })?;
        // The connection is good for another request once its driver has seen the end of this one.
        if wire.sender.ready().await.is_err() {
            wire.driver.abort();
        }
        Ok(Answer { status: head.status, body: body.to_bytes() })
    }

    async fn dial(&self) -> Result<Wire, BrokerError> {
        let stream = match tokio::time::timeout(CONNECT, self.connect()).await {
            Ok(connected) => connected?,
            Err(_) => return Err(self.slow(CONNECT)),
        };
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(&error))?;
        // Its errors are also the request's.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Wire { sender, driver })
    }

    async fn connect(&self) -> Result<Pin<Box<dyn Stream>>, BrokerError> {
        let Place { host, port, .. } = &self.place;
        let stream =
            TcpStream::connect((host.as_str(), *port)).await.map_err(|error| self.lost(&error))?;
        // A request is one small write that should not wait for company; it works without, too.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            // Judged by where the connection leads, not by what the name looks like.
            if stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
                return Ok(Box::pin(stream));
            }
            let why = "it is on another machine, and plain HTTP would show the password; use https";
            return Err(BrokerError::BadUrl { why: why.to_owned() });
        };
        let failed = |why: String| BrokerError::Tls { address: self.place.address.clone(), why };
        let name = ServerName::try_from(host.clone()).map_err(|e| failed(e.to_string()))?;
        let connector = TlsConnector::from(tls.clone());
        let stream = connector.connect(name, stream).await.map_err(|e| failed(e.to_string()))?;
        Ok(Box::pin(stream))
    }

    /// Something else than the management API.
    pub(crate) fn odd(&self, why: &str) -> BrokerError {
        BrokerError::NotManagement { address: self.place.address.clone(), why: why.to_owned() }
    }

    fn lost(&self, error: &(dyn std::error::Error + 'static)) -> BrokerError {
        let refused = std::iter::successors(Some(error), |error| error.source())
            .filter_map(|error| error.downcast_ref::<io::Error>())
            .any(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        let why = match refused {
            true => "nothing listens there; is the management plugin enabled?".to_owned(),
            false => error.to_string(),
        };
        BrokerError::Unreachable { address: self.place.address.clone(), why }
    }

    fn slow(&self, limit: Duration) -> BrokerError {
        BrokerError::TooSlow { address: self.place.address.clone(), limit }
    }
}

impl Place {
    /// Takes `http[s]://host[:port][/path]` apart; whether it is to be TLS.
    fn parse(url: &str) -> Result<(Self, bool), BrokerError> {
        let bad = |why: &str| BrokerError::BadUrl { why: why.to_owned() };
        // The parser's own message may quote the URL.
        let parsed = Url::parse(url).map_err(|_| bad("the management API's is no URL"))?;
        let secure = match parsed.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("the management API's should begin with https://")),
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(bad(
                "the management API's holds a login; it belongs into `user` and a password file",
            ));
        }
        let host = parsed.host_str().ok_or_else(|| bad("the management API's names no host"))?;
        let port = parsed.port_or_known_default().unwrap_or(443);
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let place = Self {
            host: bare.to_owned(),
            port,
            base: parsed.path().trim_end_matches('/').to_owned(),
            address: format!("{host}:{port}"),
        };
        Ok((place, secure))
    }
}

/// Percent-encodes what goes into a path (RFC 3986, all but the unreserved characters).
pub(crate) fn escape(text: &str) -> String {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| if unreserved(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let (place, secure) = Place::parse("https://[::1]:15671/rabbit/").unwrap();
        assert_eq!((place.host.as_str(), place.port, secure), ("::1", 15671, true));
        assert_eq!((place.base.as_str(), place.address.as_str()), ("/rabbit", "[::1]:15671"));
        let (place, secure) = Place::parse("http://localhost:15672").unwrap();
        assert_eq!((place.base.as_str(), place.port, secure), ("", 15672, false));
    }

    #[test]
    fn a_login_in_the_address_is_refused_and_not_repeated() {
        for bad in ["https://ada:secret@h", "amqp://ada:secret@h", "secret"] {
            let error = Http::new(bad, "u", "p", None).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn an_authority_is_not_silently_left_out_or_missed() {
        let plain = Http::new("http://localhost", "u", "p", Some(b"x"));
        assert!(matches!(plain, Err(BrokerError::BadUrl { .. })));
        let blind = Http::new("https://localhost", "u", "p", None);
        assert!(matches!(blind, Err(BrokerError::Tls { .. })));
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("a.b~c-d_e"), "a.b~c-d_e");
        assert_eq!(escape("/ä"), "%2F%C3%A4");
    }
}
