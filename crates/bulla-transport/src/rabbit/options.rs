//! How to reach a RabbitMQ.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::tls::{self, TlsConfig};
use crate::amqp::{Mechanism, Uri};
use crate::error::TransportError;
use crate::login::Logins;
use crate::transport::DEFAULT_MAX_MESSAGE;

/// How to reach a RabbitMQ. Credentials are in the URL; nothing prints them.
#[derive(Clone)]
pub struct RabbitOptions {
    pub(super) uri: Uri,
    pub(super) ca: Option<Vec<u8>>,
    pub(super) identity: Option<(Vec<u8>, Arc<[u8]>)>,
    pub(super) server_name: Option<String>,
    pub(super) connect_timeout: Duration,
    pub(super) patience: Duration,
    pub(super) max_message: usize,
    pub(super) name: String,
    pub(super) logins: Option<Logins>,
}

impl fmt::Debug for RabbitOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitOptions")
            .field("address", &self.address())
            .field("vhost", &self.uri.vhost)
            .field("credentials", &"redacted")
            .field("tls", &self.is_tls())
            .field("client_certificate", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

impl RabbitOptions {
    /// From `amqp://user:password@host:port/vhost` or `amqps://…`.
    ///
    /// # Errors
    /// [`TransportError::BadUrl`] when it is not of that form.
    pub fn new(url: &str) -> Result<Self, TransportError> {
        let bad = |why: &str| TransportError::BadUrl { why: why.to_owned() };
        let mut uri = Uri::parse(url).map_err(bad)?;
        uri.heartbeat = uri.heartbeat.or(Some(10));
        Ok(Self {
            uri,
            ca: None,
            identity: None,
            server_name: None,
            connect_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            max_message: DEFAULT_MAX_MESSAGE,
            name: "bulla".to_owned(),
            logins: None,
        })
    }

    /// The certificates (PEM) of the authorities that may have signed the broker's. Only these
    /// are trusted; `amqps` needs at least one.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// The same from a file.
    ///
    /// # Errors
    /// [`TransportError::Tls`] when it can't be read.
    pub fn ca_file(self, path: &Path) -> Result<Self, TransportError> {
        let pem = tls::read(&self.address(), path)?;
        Ok(self.ca_pem(pem))
    }

    /// The certificate chain and private key (PEM) that we show to the broker. Without
    /// credentials in the URL the broker is asked to take the user's name from it (EXTERNAL).
    #[must_use]
    pub fn client_certificate(mut self, chain: impl Into<Vec<u8>>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some((chain.into(), Arc::from(key.as_ref())));
        self
    }

    /// The same from files.
    ///
    /// # Errors
    /// [`TransportError::Tls`] when one can't be read.
    pub fn client_certificate_files(
        self,
        chain: &Path,
        key: &Path,
    ) -> Result<Self, TransportError> {
        let (chain, key) = (tls::read(&self.address(), chain)?, tls::read(&self.address(), key)?);
        Ok(self.client_certificate(chain, key))
    }

    /// The name that the broker's certificate must have, if it is not the host of the URL.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// How often both sides show that they are alive; 10 s unless the URL says otherwise. At
    /// least one second.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        let seconds = every.as_secs().clamp(1, u64::from(u16::MAX));
        self.uri.heartbeat = u16::try_from(seconds).ok();
        self
    }

    /// How long TCP, TLS and the greeting may take together; 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long a message without a time to live waits for a lost connection; 30 s.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// The largest frame to send, in bytes.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// What the broker's operator sees this connection as.
    #[must_use]
    pub fn connection_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Logins that are tried instead of the URL's, newest first, and that may change; one that
    /// the broker refuses makes place for the next.
    #[must_use]
    pub fn logins(mut self, logins: Logins) -> Self {
        self.logins = Some(logins);
        self
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// Host and port, without credentials.
    pub fn address(&self) -> String {
        let (host, port) = (&self.uri.host, self.uri.port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.uri.tls
    }

    /// EXTERNAL when the certificate is all that we have.
    pub(super) fn mechanism(&self) -> Mechanism {
        match self.uri.mechanism {
            Some(mechanism) => mechanism,
            None if self.identity.is_some() && !self.uri.has_credentials => Mechanism::External,
            None => Mechanism::Plain,
        }
    }

    pub(super) fn tls(&self) -> Result<Option<TlsConfig>, TransportError> {
        if self.is_tls() {
            return tls::config(self).map(Some);
        }
        if self.ca.is_some() || self.identity.is_some() {
            return Err(TransportError::BadUrl {
                why: "certificates are given, but the URL is amqp://; write amqps://".to_owned(),
            });
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_the_credentials() {
        let options = RabbitOptions::new("amqp://someone:s3cret@broker:5673/%2f").unwrap();
        let text = format!("{options:?} {}", options.address());
        assert!(!text.contains("s3cret") && !text.contains("someone"), "{text}");
        for bad in [
            "http://someone:s3cret@broker",
            "someone:s3cret@broker",
            "amqp://someone:s3cret@",
            "amqp://a:s3cret@broker:99999",
        ] {
            let error = RabbitOptions::new(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn certificates_are_not_silently_left_out() {
        let options = RabbitOptions::new("amqp://broker").unwrap().ca_pem("x");
        assert!(matches!(options.tls(), Err(TransportError::BadUrl { .. })));
        let options = RabbitOptions::new("amqps://broker").unwrap();
        assert!(matches!(options.tls(), Err(TransportError::Tls { .. })));
        let v6 = RabbitOptions::new("amqp://[::1]:5672/%2f").unwrap();
        assert_eq!(v6.address(), "[::1]:5672");
    }
}
