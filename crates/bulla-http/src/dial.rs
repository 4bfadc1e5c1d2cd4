//! The other end of the line: connections to a listener of ours.

use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certs::CertError;
use crate::tls::{self, ClientTls};

/// Makes connections with one way of proving who asks.
#[derive(Clone)]
pub struct Dialer {
    tls: Option<TlsConnector>,
}

/// A connection, with or without TLS.
#[derive(Debug)]
pub enum DialStream {
    /// TLS 1.3 with a client certificate.
    Tls(Box<TlsStream<TcpStream>>),
    /// Plain, over loopback.
    Plain(TcpStream),
}

/// No connection came about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody listens there.
    #[error("nothing listens at {address}")]
    Refused {
        /// Host and port.
        address: String,
    },
    /// The host can't be reached.
    #[error("can't reach {address}: {source}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// The peer took too long.
    #[error("{address} did not answer within {} s", limit.as_secs_f32())]
    TooSlow {
        /// Host and port.
        address: String,
        /// How long was waited.
        limit: Duration,
    },
    /// TLS failed.
    #[error("TLS with {address} failed: {fault}")]
    Tls {
        /// Host and port.
        address: String,
        /// Why.
        fault: TlsFault,
    },
    /// Plain HTTP stays on this machine.
    #[error(
        "{address} is no loopback address, and plain HTTP is spoken on those only; use https://"
    )]
    NotLoopback {
        /// Host and port.
        address: String,
    },
}

/// Why TLS failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// The server's certificate is from another CA.
    #[error("its certificate is not from the CA that is trusted here")]
    UnknownServerCa,
    /// The server's certificate is for another name.
    #[error("its certificate is for another host name")]
    WrongServerName,
    /// The server's certificate is out of date, or the clock is.
    #[error("its certificate is not valid at this time (is the clock right?)")]
    ServerCertificateDates,
    /// The server does not accept the client certificate.
    #[error("it does not accept the client certificate: {why}")]
    ClientCertificateRefused {
        /// The alert that it sent.
        why: String,
    },
    /// The peer does not speak TLS.
    #[error("it does not speak TLS")]
    NotTls,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Dialer {
    /// TLS 1.3 with the operator's certificate.
    ///
    /// # Errors
    ///
    /// When a certificate or key can't be used.
    pub fn tls(files: &ClientTls) -> Result<Self, CertError> {
        Ok(Self { tls: Some(TlsConnector::from(tls::client_config(files)?)) })
    }

    /// TLS 1.3 with a server of others, whose certificate is from an authority in `ca`; nothing is proven
    /// to it.
    ///
    /// # Errors
    ///
    /// When the authority's certificate can't be used.
    pub fn trusting(ca: &Path) -> Result<Self, CertError> {
        Ok(Self { tls: Some(TlsConnector::from(tls::trusting(ca)?)) })
    }

    /// TLS 1.2 or newer, to servers of others.
    pub(crate) fn tls_to_others(ca: &Path) -> Result<Self, CertError> {
        Ok(Self { tls: Some(TlsConnector::from(tls::foreign_config(ca)?)) })
    }

    /// Plain TCP, to loopback addresses only.
    #[must_use]
    pub fn plain_loopback() -> Self {
        Self { tls: None }
    }

    /// Connects to a host name or address.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<DialStream, DialError> {
        let address =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        match tokio::time::timeout(limit, self.dial(host, port, &address)).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::TooSlow { address, limit }),
        }
    }

    async fn dial(&self, host: &str, port: u16, address: &str) -> Result<DialStream, DialError> {
        let stream = TcpStream::connect((host, port)).await.map_err(|source| {
            let address = address.to_owned();
            match source.kind() {
                io::ErrorKind::ConnectionRefused => DialError::Refused { address },
                _ => DialError::Unreachable { address, source },
            }
        })?;
        // A request is one small write that should not wait for company; it works without, too.
        let _ = stream.set_nodelay(true);
        if self.tls.is_none() {
            return plain(stream, address);
        }
        let failed = |fault| DialError::Tls { address: address.to_owned(), fault };
        self.secure(stream, host).await.map_err(failed)
    }

    /// TLS over a connection that is there, with a server of this name.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> Result<DialStream, TlsFault> {
        let Some(tls) = &self.tls else { return Err(TlsFault::NotTls) };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsFault::WrongServerName)?;
        let stream = tls.connect(name, stream).await.map_err(TlsFault::of_io)?;
        Ok(DialStream::Tls(Box::new(stream)))
    }
}

fn plain(stream: TcpStream, address: &str) -> Result<DialStream, DialError> {
    // Judged by where the connection leads, not by what the name looks like.
    if stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
        return Ok(DialStream::Plain(stream));
    }
    Err(DialError::NotLoopback { address: address.to_owned() })
}

impl TlsFault {
    /// Looks for a TLS error in a chain of causes. TLS 1.3 servers judge the client's certificate
    /// after the handshake, so their refusal is met when the first answer is read.
    #[must_use]
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Some(Self::of(tls));
            }
            // An io::Error hands out its payload's source, never the payload itself.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(tls) = inner.and_then(|e| e.downcast_ref::<rustls::Error>()) {
                return Some(Self::of(tls));
            }
            next = error.source();
        }
        None
    }

    fn of_io(error: io::Error) -> Self {
        Self::find(&error).unwrap_or_else(|| Self::Other(error.to_string()))
    }

    fn of(error: &rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Self::UnknownServerCa,
            E::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::WrongServerName,
            E::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::ServerCertificateDates,
            E::AlertReceived(alert) if about_certificate(*alert) => {
                Self::ClientCertificateRefused { why: format!("{alert:?}") }
            }
            E::InvalidMessage(_) => Self::NotTls,
            other => Self::Other(other.to_string()),
        }
    }
}

fn about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

impl AsyncRead for DialStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for DialStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
