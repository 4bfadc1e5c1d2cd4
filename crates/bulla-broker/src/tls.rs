//! TLS to the management API: only the authorities that were named, always a name check.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The configuration that trusts the certificates in `pem`; why not, in words.
pub(crate) fn config(pem: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let pem = pem.ok_or(
        "no authority is named; give the PEM file that signed the management API's certificate",
    )?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("the authority: {error}"))?;
        roots.add(certificate).map_err(|error| format!("the authority: {error}"))?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in the authority's PEM".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
