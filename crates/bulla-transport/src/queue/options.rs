//! Where a queue service is, and as whom it is asked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::sign::RequestKey;
use crate::error::TransportError;
use crate::transport::DEFAULT_MAX_MESSAGE;

/// The project that everything of a deployment is in, unless said otherwise.
const PROJECT: &str = "bulla";
/// Zaqar's shortest claim.
const CLAIM: Duration = Duration::from_secs(60);
/// How long a service may hold a request until there is something.
const WAIT: Duration = Duration::from_secs(20);

/// A queue service with Zaqar's v2 API.
#[derive(Clone)]
pub struct QueueOptions {
    pub(super) secure: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) project: String,
    pub(super) ca: Option<Vec<u8>>,
    pub(super) certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) key: Option<Arc<dyn RequestKey>>,
    pub(super) claim: Duration,
    pub(super) wait: Duration,
    pub(super) max_message: usize,
}

impl std::fmt::Debug for QueueOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueOptions").field("address", &self.address()).finish_non_exhaustive()
    }
}

fn bad(why: impl Into<String>) -> TransportError {
    TransportError::BadUrl { why: why.into() }
}

impl QueueOptions {
    /// From `queue+https://host:port`, or `queue+http://` for a service on this machine.
    ///
    /// # Errors
    /// It is something else.
    pub fn new(url: &str) -> Result<Self, TransportError> {
        let bare = url.strip_prefix("queue+").unwrap_or(url);
        let parsed = url::Url::parse(bare).map_err(|error| bad(error.to_string()))?;
        let secure = match parsed.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("it must begin with queue+https:// (or queue+http://)")),
        };
        let host =
            parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("no host"))?;
        let bare = parsed.path() == "/" && parsed.query().is_none() && parsed.username().is_empty();
        if !bare || parsed.password().is_some() {
            return Err(bad("a queue service's address is a host and a port, and nothing else"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let loopback = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if !secure && !loopback {
            return Err(bad("plain HTTP is spoken on this machine alone; use queue+https://"));
        }
        let port = parsed.port_or_known_default().ok_or_else(|| bad("no port"))?;
        Ok(Self {
            secure,
            host,
            port,
            project: PROJECT.to_owned(),
            ca: None,
            certificate: None,
            key: None,
            claim: CLAIM,
            wait: WAIT,
            max_message: DEFAULT_MAX_MESSAGE,
        })
    }

    /// The authorities of the service's certificate, in a PEM file.
    ///
    /// # Errors
    /// It can't be read.
    pub fn ca_file(mut self, path: &Path) -> Result<Self, TransportError> {
        self.ca = Some(self.read(path)?);
        Ok(self)
    }

    /// The same, as PEM.
    #[must_use]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// A client certificate to show, and its key, in PEM files.
    ///
    /// # Errors
    /// They can't be read.
    pub fn client_certificate_files(
        mut self,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, TransportError> {
        self.certificate = Some((self.read(certificate)?, self.read(key)?));
        Ok(self)
    }

    /// What requests are signed with.
    #[must_use]
    pub fn key(mut self, key: Arc<dyn RequestKey>) -> Self {
        self.key = Some(key);
        self
    }

    /// Signs nothing.
    #[must_use]
    pub fn without_key(mut self) -> Self {
        self.key = None;
        self
    }

    /// The project that the queues are in.
    #[must_use]
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = project.into();
        self
    }

    /// How long a message is this process's before it has to say so again; a minute unless the service
    /// allows less.
    #[must_use]
    pub fn claim(mut self, claim: Duration) -> Self {
        self.claim = claim;
        self
    }

    /// Largest frame, in bytes.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}://{}", self.scheme(), self.authority())
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// As it stands in `Host`.
    pub(super) fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default = if self.secure { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, TransportError> {
        std::fs::read(path).map_err(|error| TransportError::Tls {
            address: self.address(),
            why: format!("can't read {}: {error}", path.display()),
        })
    }

    /// TLS with the authorities that were named, and always a check of the name.
    pub(super) fn tls(&self) -> Result<Option<Arc<ClientConfig>>, TransportError> {
        if !self.secure {
            return Ok(None);
        }
        let fail = |why: String| TransportError::Tls { address: self.address(), why };
        let ca = self.ca.as_deref().ok_or_else(|| {
            fail("no authority is named; give the PEM file that signed its certificate".into())
        })?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca).map_err(|why| fail(format!("the authority: {why}")))? {
            roots.add(certificate).map_err(|error| fail(format!("the authority: {error}")))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fail(error.to_string()))?
            .with_root_certificates(roots);
        let config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain)
                    .map_err(|why| fail(format!("the client certificate: {why}")))?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| fail("the client key is no PEM private key".to_owned()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| fail(format!("the client certificate: {error}")))?
            }
        };
        Ok(Some(Arc::new(config)))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no certificate in the PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_and_ports() {
        let address = |url: &str| QueueOptions::new(url).map(|options| options.address());
        assert_eq!(address("queue+https://q.example:8888").unwrap(), "https://q.example:8888");
        assert_eq!(address("queue+https://q.example").unwrap(), "https://q.example");
        assert_eq!(address("queue+http://[::1]:8888").unwrap(), "http://[::1]:8888");
        for bad in [
            "",
            "amqp://h",
            "queue+http://q.example",
            "queue+https://user:secret@h",
            "queue+https://h/v2",
            "queue+https://h?x=1",
        ] {
            let error = address(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
