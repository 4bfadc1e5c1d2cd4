//! TLS to the broker with our own rules: only the authorities that were named, always a name
//! check, aws-lc-rs.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::options::RabbitOptions;
use crate::error::TransportError;

/// What a handshake needs.
#[derive(Clone)]
pub(super) struct TlsConfig {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
}

pub(super) fn read(address: &str, path: &Path) -> Result<Vec<u8>, TransportError> {
    std::fs::read(path).map_err(|error| TransportError::Tls {
        address: address.to_owned(),
        why: format!("can't read {}: {error}", path.display()),
    })
}

pub(super) fn config(options: &RabbitOptions) -> Result<TlsConfig, TransportError> {
    let fail = |why: String| TransportError::Tls { address: options.address(), why };
    let ca = options.ca.as_deref().ok_or_else(|| {
        fail("no authority is named; give the PEM file that signed the broker's certificate".into())
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
    let client = match &options.identity {
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
    let server_name = options.server_name.clone().unwrap_or_else(|| options.uri.host.clone());
    let server_name = ServerName::try_from(server_name)
        .map_err(|_| fail("its name is neither a DNS name nor an IP address".to_owned()))?;
    Ok(TlsConfig { client: Arc::new(client), server_name })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no certificate in the PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}
