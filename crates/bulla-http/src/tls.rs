//! TLS 1.3, and nothing older unless it is asked for, with certificates on both sides.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certs::CertError;
use crate::file;
use crate::identity::Identity;

/// The PEM files of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The server's certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The server's private key; its mode must be 0600 or less.
    pub key: PathBuf,
    /// The CA that signs client certificates. A client with one of another's is refused.
    pub client_ca: PathBuf,
    /// Whether TLS 1.2 is spoken too, for clients that know nothing newer.
    pub tls12: bool,
    /// Whether clients need one.
    pub client_certificates: ClientCertificates,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Without one there is no connection.
    #[default]
    Required,
    /// Without one, each request must be authenticated in another way.
    Optional,
}

impl ServerTls {
    /// The same, with client certificates as said.
    #[must_use]
    pub fn client_certificates(mut self, client_certificates: ClientCertificates) -> Self {
        self.client_certificates = client_certificates;
        self
    }
}

/// The PEM files of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The CA that signs the server's certificate. No other CA is trusted.
    pub ca: PathBuf,
    /// The operator's certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The operator's private key; its mode must be 0600 or less.
    pub key: PathBuf,
}

/// The server's side.
pub(crate) fn server_config(files: &ServerTls) -> Result<Arc<ServerConfig>, CertError> {
    let provider = provider();
    let roots = Arc::new(load_ca(&files.client_ca)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let verifier = match files.client_certificates {
        ClientCertificates::Required => verifier,
        ClientCertificates::Optional => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|e| CertError::unusable(&files.client_ca, e))?;
    let (chain, key) = load_pair(&files.certificate, &files.key)?;
    let versions: &[_] = if files.tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| CertError::unusable(&files.certificate, e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| mismatch(&files.certificate, &files.key, e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would outlive the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The client's side.
pub(crate) fn client_config(files: &ClientTls) -> Result<Arc<ClientConfig>, CertError> {
    let roots = load_ca(&files.ca)?;
    let (chain, key) = load_pair(&files.certificate, &files.key)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| CertError::unusable(&files.certificate, e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| mismatch(&files.certificate, &files.key, e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A client without a certificate of its own.
pub(crate) fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, CertError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| CertError::unusable(ca, e))?
        .with_root_certificates(load_ca(ca)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The client's side of a server that is not ours, and may be older.
pub(crate) fn foreign_config(ca: &Path) -> Result<Arc<ClientConfig>, CertError> {
    let mut roots = RootCertStore::empty();
    let pem = file::read_public(ca)?;
    let not_pem = || CertError::NotPem { path: ca.into(), what: "certificate" };
    // A bundle of many may hold some that are over.
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let _ = roots.add(certificate.map_err(|_| not_pem())?);
    }
    if roots.is_empty() {
        return Err(not_pem());
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| CertError::unusable(ca, e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The operator that a verified certificate names.
pub(crate) fn operator(leaf: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    // Two names would be one too many to know which one is meant.
    if names.next().is_some() { None } else { Identity::certificate(name) }
}

/// The hybrid post-quantum group first: what an operator asks for today should not be readable
/// later either.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
    ];
    Arc::new(provider)
}

fn load_ca(path: &Path) -> Result<RootCertStore, CertError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_chain(path)? {
        roots.add(certificate).map_err(|e| CertError::unusable(path, e))?;
    }
    Ok(roots)
}

fn load_pair(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CertError> {
    let chain = load_chain(certificate)?;
    let pem = file::read_secret(key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| CertError::NotPem { path: key.into(), what: "private key" })?;
    Ok((chain, key))
}

/// The certificates of a file, each of them valid now.
fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let pem = file::read_public(path)?;
    let not_pem = || CertError::NotPem { path: path.into(), what: "certificate" };
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| not_pem())?;
    if chain.is_empty() {
        return Err(not_pem());
    }
    for certificate in &chain {
        check_dates(path, certificate)?;
    }
    Ok(chain)
}

/// The end of the first certificate of a file, as Unix time.
pub(crate) fn not_after(path: &Path) -> Result<i64, CertError> {
    let chain = load_chain(path)?;
    let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let (_, leaf) =
        leaf.ok_or_else(|| CertError::NotPem { path: path.into(), what: "certificate" })?;
    Ok(leaf.validity().not_after.timestamp())
}

fn check_dates(path: &Path, certificate: &CertificateDer<'_>) -> Result<(), CertError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|e| CertError::Unusable { path: path.into(), why: e.to_string() })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if now > validity.not_after.timestamp() {
        let since = validity.not_after.to_string();
        return Err(CertError::Expired { path: path.into(), since });
    }
    if now < validity.not_before.timestamp() {
        let from = validity.not_before.to_string();
        return Err(CertError::NotYetValid { path: path.into(), from });
    }
    Ok(())
}

fn mismatch(certificate: &Path, key: &Path, error: rustls::Error) -> CertError {
    let why = match error {
        rustls::Error::InconsistentKeys(_) => "it belongs to another certificate".to_owned(),
        other => other.to_string(),
    };
    CertError::KeyMismatch { certificate: certificate.into(), key: key.into(), why }
}
