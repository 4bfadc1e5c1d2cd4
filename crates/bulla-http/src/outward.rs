//! Requests to addresses that others chose: where they may lead is decided by where the connection
//! goes, not by what the name looks like.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};

use crate::certs::CertError;
use crate::dial::{DialStream, Dialer};

/// Which addresses may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Those of the internet alone.
    #[default]
    Public,
    /// Those of private networks, too.
    Private,
    /// This machine and its link, too.
    Everything,
}

impl Reach {
    /// Whether an address may be asked. One that stands for another, by mapping or translation, is
    /// judged as that.
    #[must_use]
    pub fn allows(self, ip: IpAddr) -> bool {
        let ip = match ip {
            IpAddr::V6(ip) => embedded(ip).map_or(IpAddr::V6(ip), IpAddr::V4),
            v4 => v4,
        };
        match (self, class(ip)) {
            (_, Class::Public) | (Self::Private | Self::Everything, Class::Private) => true,
            (Self::Everything, Class::Local) => true,
            (_, Class::Private | Class::Local | Class::Nowhere) => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Public,
    Private,
    /// This machine, or whoever is on its link: metadata services, too.
    Local,
    /// No single machine's.
    Nowhere,
}

fn class(ip: IpAddr) -> Class {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            if ip.is_loopback() || ip.is_link_local() {
                Class::Local
            } else if a == 0 || ip.is_multicast() || a >= 240 {
                Class::Nowhere
            } else if ip.is_private()
                // Shared address space, benchmarks, protocol assignments, documentation.
                || a == 100 && b & 0xc0 == 64
                || a == 198 && b & 0xfe == 18
                || (a, b, c) == (192, 0, 0)
                || ip.is_documentation()
            {
                Class::Private
            } else {
                Class::Public
            }
        }
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            if ip.is_loopback() || first & 0xffc0 == 0xfe80 {
                Class::Local
            } else if ip.is_unspecified() || ip.is_multicast() {
                Class::Nowhere
            } else if first & 0xe000 != 0x2000 || (first, second) == (0x2001, 0x0db8) {
                // All that is not handed out, unique local addresses among it.
                Class::Private
            } else {
                Class::Public
            }
        }
    }
}

/// The IPv4 address that one of IPv6 leads to: mapped, compatible, NAT64, 6to4.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(v4(high, low))
        }
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// Sends requests to addresses that others chose. Redirections are not followed, and answers are not
/// read beyond their status.
#[derive(Clone)]
pub struct Outward {
    reach: Reach,
    /// `None`: nothing with TLS.
    tls: Option<Dialer>,
}

/// A request was not sent, or not answered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OutwardError {
    /// Its address is none.
    #[error("{0}")]
    Address(&'static str),
    /// Its name leads nowhere.
    #[error("the name {0} can't be resolved")]
    Name(String),
    /// It leads where requests may not go.
    #[error("{0} leads to an address that may not be asked")]
    Forbidden(String),
    /// The connection broke, or none came about.
    #[error("{host}: {why}")]
    Io {
        /// Which.
        host: String,
        /// Why.
        why: String,
    },
    /// There was no answer in time.
    #[error("{0} did not answer in time")]
    TooSlow(String),
}

/// An address, taken apart.
struct Target {
    uri: Uri,
    is_tls: bool,
    host: String,
    port: u16,
}

impl Target {
    fn of(url: &str) -> Result<Self, OutwardError> {
        let bad = OutwardError::Address;
        let uri: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(bad("it should begin with https:// or http://")),
        };
        let authority = uri.authority().ok_or(bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it should hold no user name"));
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { is_tls, host: host.to_owned(), port, uri: uri.clone() })
    }
}

impl Outward {
    /// To what `reach` allows; with TLS to servers whose certificate is from an authority in the file
    /// `ca`, and without it nothing with TLS.
    ///
    /// # Errors
    /// The authorities can't be read.
    pub fn new(reach: Reach, ca: Option<&Path>) -> Result<Self, CertError> {
        Ok(Self { reach, tls: ca.map(Dialer::tls_to_others).transpose()? })
    }

    /// Whether an address can be one: what its name leads to is seen when it is asked.
    ///
    /// # Errors
    /// It can't.
    pub fn check(&self, url: &str) -> Result<(), OutwardError> {
        let target = Target::of(url)?;
        if target.is_tls && self.tls.is_none() {
            return Err(OutwardError::Address("https:// is not offered here: there is no CA"));
        }
        match target.host.parse::<IpAddr>() {
            Ok(ip) if !self.reach.allows(ip) => Err(OutwardError::Forbidden(target.host)),
            _ => Ok(()),
        }
    }

    /// Posts a body, and says what it was answered with.
    ///
    /// # Errors
    /// See [`OutwardError`].
    pub async fn post(
        &self,
        url: &str,
        headers: &HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<StatusCode, OutwardError> {
        let target = Target::of(url)?;
        match tokio::time::timeout(limit, self.exchange(&target, headers, body)).await {
            Ok(answered) => answered,
            Err(_) => Err(OutwardError::TooSlow(target.host)),
        }
    }

    async fn exchange(
        &self,
        target: &Target,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<StatusCode, OutwardError> {
        let failed = |why: String| OutwardError::Io { host: target.host.clone(), why };
        let stream = self.dial(target).await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, driver) = handshake.map_err(|error| failed(error.to_string()))?;
        // It ends with the request's future.
        let driver = Driven(tokio::spawn(async move { drop(driver.await) }));
        let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder().method(Method::POST).uri(path);
        if let Some(all) = request.headers_mut() {
            all.extend(headers.clone());
            let authority = target.uri.authority().map(|authority| authority.as_str());
            let host = authority.and_then(|host| HeaderValue::from_str(host).ok());
            all.insert(header::HOST, host.ok_or(OutwardError::Address("it names no host"))?);
            all.insert(header::CONNECTION, HeaderValue::from_static("close"));
            let agent = concat!("bulla/", env!("CARGO_PKG_VERSION"));
            all.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        }
        let request = request.body(Body::from(body)).map_err(|error| failed(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
        drop(driver);
        Ok(answer.status())
    }

    async fn dial(&self, target: &Target) -> Result<DialStream, OutwardError> {
        let host = || target.host.clone();
        let found = lookup_host((target.host.as_str(), target.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|_| OutwardError::Name(host()))?.collect();
        let allowed: Vec<_> = found.iter().filter(|at| self.reach.allows(at.ip())).collect();
        if allowed.is_empty() && !found.is_empty() {
            return Err(OutwardError::Forbidden(host()));
        }
        let mut why = "the name has no address".to_owned();
        for at in allowed {
            match TcpStream::connect(at).await {
                Ok(stream) => return self.wrap(stream, target).await,
                Err(error) => why = error.to_string(),
            }
        }
        Err(OutwardError::Io { host: host(), why })
    }

    async fn wrap(&self, stream: TcpStream, target: &Target) -> Result<DialStream, OutwardError> {
        let failed = |why: String| OutwardError::Io { host: target.host.clone(), why };
        // It works without, too.
        let _ = stream.set_nodelay(true);
        // What was looked up is what is judged; this is for the case that it was not.
        let peer = stream.peer_addr().map_err(|error: io::Error| failed(error.to_string()))?;
        if !self.reach.allows(peer.ip()) {
            return Err(OutwardError::Forbidden(target.host.clone()));
        }
        if !target.is_tls {
            return Ok(DialStream::Plain(stream));
        }
        let tls = self.tls.as_ref();
        let tls = tls.ok_or(OutwardError::Address("https:// is not offered here"))?;
        tls.secure(stream, &target.host).await.map_err(|fault| failed(fault.to_string()))
    }
}

/// Ends its task when it goes.
struct Driven(tokio::task::JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_judged_by_where_they_lead() {
        let allowed = |text: &str| {
            let ip: IpAddr = text.parse().unwrap();
            [Reach::Public, Reach::Private, Reach::Everything].map(|reach| reach.allows(ip))
        };
        for public in ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"] {
            assert_eq!(allowed(public), [true; 3], "{public}");
        }
        for private in
            ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1"]
        {
            assert_eq!(allowed(private), [false, true, true], "{private}");
        }
        for local in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
        ] {
            assert_eq!(allowed(local), [false, false, true], "{local}");
        }
        for nowhere in ["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "ff02::1"] {
            assert_eq!(allowed(nowhere), [false; 3], "{nowhere}");
        }
    }

    #[test]
    fn a_name_is_not_believed() {
        let outward = Outward::new(Reach::Public, None).unwrap();
        assert!(outward.check("http://hook.example/a?b").is_ok());
        for bad in [
            "",
            "hook.example",
            "ftp://hook.example/",
            "http://ada@hook.example/",
            "http://127.0.0.1/",
            "http://[::1]:80/",
            "http://169.254.169.254/latest",
            "https://hook.example/",
        ] {
            assert!(outward.check(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_asked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let outward = Outward::new(Reach::Private, None).unwrap();
        let (headers, limit) = (HeaderMap::new(), Duration::from_secs(20));
        let asked = outward.post(&url, &headers, Bytes::new(), limit).await;
        assert!(matches!(asked, Err(OutwardError::Forbidden(_))), "{asked:?}");
    }
}
