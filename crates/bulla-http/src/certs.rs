//! Certificates for a first installation: a private CA, the server's certificate, an operator's.
//!
//! ECDSA on P-256, because every HTTP client and browser takes it. The CA signs both sides; what
//! a certificate may be used for is in its extended key usage, so an operator's certificate can't
//! pose as the server.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::file::{self, FileError, PUBLIC, SECRET};
use crate::identity::Identity;
use crate::tls::{self, ClientCertificates, ClientTls, ServerTls};

/// How long the CA is valid: ten years.
pub const CA_VALIDITY: Duration = days(3652);
/// How long the server's and an operator's certificates are valid: one year.
pub const LEAF_VALIDITY: Duration = days(365);

/// Certificates begin in the recent past, for clients whose clocks run late.
const BACKDATED: Duration = Duration::from_secs(3600);
/// The names by which this machine always reaches itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const CA_NAME: &str = "Bulla private CA";

/// Where the certificates and keys of an installation are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The CA's private key. Nothing but [`issue_operator`] needs it; it can be kept elsewhere.
    pub ca_key: PathBuf,
    /// The server's certificate.
    pub server: PathBuf,
    /// The server's private key.
    pub server_key: PathBuf,
    /// The operator's certificate.
    pub operator: PathBuf,
    /// The operator's private key.
    pub operator_key: PathBuf,
}

/// A certificate or key could not be loaded or made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("{} holds no {what} in PEM form", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The certificate can't be used.
    #[error("the certificate in {} can't be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// The certificate is out of date.
    #[error(
        "the certificate in {} expired on {since}; issue a new one \
         (and check this machine's clock)", path.display()
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// Its end.
        since: String,
    },
    /// The certificate's time has not begun.
    #[error(
        "the certificate in {} is valid from {from} on only; check this machine's clock",
        path.display()
    )]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// Its begin.
        from: String,
    },
    /// Certificate and key are no pair.
    #[error(
        "the private key in {} can't be used with the certificate in {}: {why}",
        key.display(), certificate.display()
    )]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        why: String,
    },
    /// A name that can't stand in a certificate.
    #[error("{name:?} can't be used as {what}")]
    BadName {
        /// The name.
        name: String,
        /// What it was to be.
        what: &'static str,
    },
    /// The cryptography library refused.
    #[error("can't make a certificate: {why}")]
    Make {
        /// The cause.
        why: String,
    },
}

impl CertError {
    pub(crate) fn unusable(path: &Path, why: impl ToString) -> Self {
        Self::Unusable { path: path.into(), why: why.to_string() }
    }
}

impl From<rcgen::Error> for CertError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make { why: error.to_string() }
    }
}

impl Files {
    /// The names that [`make`] uses in a folder: `ca.crt`, `ca.key`, `server.crt`, `server.key`,
    /// `operator.crt`, `operator.key`.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            ca: dir.join("ca.crt"),
            ca_key: dir.join("ca.key"),
            server: dir.join("server.crt"),
            server_key: dir.join("server.key"),
            operator: dir.join("operator.crt"),
            operator_key: dir.join("operator.key"),
        }
    }

    /// What a listener needs of them.
    #[must_use]
    pub fn server_tls(&self) -> ServerTls {
        ServerTls {
            certificate: self.server.clone(),
            key: self.server_key.clone(),
            client_ca: self.ca.clone(),
            tls12: false,
            client_certificates: ClientCertificates::default(),
        }
    }

    /// What the operator's client needs of them.
    #[must_use]
    pub fn operator_tls(&self) -> ClientTls {
        ClientTls {
            ca: self.ca.clone(),
            certificate: self.operator.clone(),
            key: self.operator_key.clone(),
        }
    }

    fn all(&self) -> [&PathBuf; 6] {
        let Self { ca, ca_key, server, server_key, operator, operator_key } = self;
        [ca, ca_key, server, server_key, operator, operator_key]
    }
}

/// Makes a private CA, a server certificate for this machine's loopback names and `hosts` (DNS
/// names or IP addresses), and a client certificate for `operator`, in an existing folder.
/// Private keys get mode 0600 from their first moment, nothing is overwritten.
///
/// # Errors
///
/// When a name can't stand in a certificate, one of the files exists, or can't be written.
pub fn make(dir: &Path, hosts: &[String], operator: &str) -> Result<Files, CertError> {
    let files = Files::in_dir(dir);
    let server = server_params(hosts)?;
    let client = operator_params(operator)?;
    if let Some(path) = files.all().into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(FileError::Exists { path: path.clone() }.into());
    }
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let ca_params = ca_params()?;
    let ca = ca_params.self_signed(&ca_key)?;
    write_pair(&ca.pem(), &ca_key, &files.ca, &files.ca_key)?;
    let issuer = Issuer::new(ca_params, ca_key);
    issue(&server, &issuer, &files.server, &files.server_key)
        .inspect_err(|_| remove(&[&files.ca, &files.ca_key]))?;
    issue(&client, &issuer, &files.operator, &files.operator_key).inspect_err(|_| {
        remove(&[&files.ca, &files.ca_key, &files.server, &files.server_key]);
    })?;
    Ok(files)
}

/// Issues a client certificate for one more operator, or the next one for an operator whose own
/// runs out, with the CA of [`make`].
///
/// # Errors
///
/// When the CA's key can't be read, the name can't stand in a certificate, or a file exists.
pub fn issue_operator(
    ca_key: &Path,
    operator: &str,
    certificate: &Path,
    key: &Path,
) -> Result<(), CertError> {
    issue(&operator_params(operator)?, &load_issuer(ca_key)?, certificate, key)
}

/// Issues the server's next certificate with the CA of [`make`].
///
/// # Errors
///
/// As [`issue_operator`].
pub fn issue_server(
    ca_key: &Path,
    hosts: &[String],
    certificate: &Path,
    key: &Path,
) -> Result<(), CertError> {
    issue(&server_params(hosts)?, &load_issuer(ca_key)?, certificate, key)
}

/// When the certificate in a file runs out (the first one, for a chain).
///
/// # Errors
///
/// When the file can't be read or holds no certificate that is valid now.
pub fn not_after(certificate: &Path) -> Result<SystemTime, CertError> {
    let end = tls::not_after(certificate)?;
    Ok(UNIX_EPOCH + Duration::from_secs(u64::try_from(end).unwrap_or_default()))
}

/// The issuer's name is fixed and its key identifier follows from the key, so the CA's
/// certificate itself is not needed to sign.
fn load_issuer(ca_key: &Path) -> Result<Issuer<'static, KeyPair>, CertError> {
    let pem = file::read_secret(ca_key)?;
    let not_pem = || CertError::NotPem { path: ca_key.into(), what: "private key" };
    let text = std::str::from_utf8(&pem).map_err(|_| not_pem())?;
    let key =
        KeyPair::from_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256).map_err(|_| not_pem())?;
    Ok(Issuer::new(ca_params()?, key))
}

fn issue(
    params: &CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
    certificate: &Path,
    key: &Path,
) -> Result<(), CertError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let signed = params.signed_by(&pair, issuer)?;
    write_pair(&signed.pem(), &pair, certificate, key)
}

/// Writes both or neither.
fn write_pair(pem: &str, pair: &KeyPair, certificate: &Path, key: &Path) -> Result<(), CertError> {
    let secret = Zeroizing::new(pair.serialize_pem());
    file::create(key, SECRET, secret.as_bytes())?;
    file::create(certificate, PUBLIC, pem.as_bytes()).inspect_err(|_| remove(&[key]))?;
    Ok(())
}

/// Takes back what was made a moment ago; what can't be removed is named by the next attempt.
fn remove(paths: &[&Path]) {
    for path in paths {
        let _ = fs::remove_file(path);
    }
}

fn ca_params() -> Result<CertificateParams, CertError> {
    let mut params = params(CA_NAME, CA_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn server_params(hosts: &[String]) -> Result<CertificateParams, CertError> {
    let mut params = params("Bulla control plane", LEAF_VALIDITY);
    for host in LOOPBACK.into_iter().chain(hosts.iter().map(String::as_str)) {
        let name = subject_name(host)?;
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    leaf(&mut params, ExtendedKeyUsagePurpose::ServerAuth);
    Ok(params)
}

fn operator_params(operator: &str) -> Result<CertificateParams, CertError> {
    if Identity::certificate(operator).is_none() {
        return Err(CertError::BadName { name: operator.into(), what: "an operator's name" });
    }
    let mut params = params(operator, LEAF_VALIDITY);
    leaf(&mut params, ExtendedKeyUsagePurpose::ClientAuth);
    Ok(params)
}

fn leaf(params: &mut CertificateParams, usage: ExtendedKeyUsagePurpose) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
}

fn params(common_name: &str, validity: Duration) -> CertificateParams {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + (now + validity);
    params
}

fn subject_name(host: &str) -> Result<SanType, CertError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || CertError::BadName { name: host.into(), what: "a host's name" };
    rustls_pki_types::DnsName::try_from(host).map_err(|_| bad())?;
    Ok(SanType::DnsName(host.try_into().map_err(|_| bad())?))
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::tls::{client_config, server_config};

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn keys_are_private_and_everything_loads() {
        let dir = tempfile::tempdir().unwrap();
        let files = make(dir.path(), &["db.example".into(), "192.0.2.7".into()], "ada").unwrap();
        for key in [&files.ca_key, &files.server_key, &files.operator_key] {
            assert_eq!(mode(key), 0o600);
        }
        for certificate in [&files.ca, &files.server, &files.operator] {
            assert_eq!(mode(certificate) & 0o600, 0o600);
        }
        server_config(&files.server_tls()).unwrap();
        client_config(&files.operator_tls()).unwrap();
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("operator.key"), "mine").unwrap();
        let refused = make(dir.path(), &[], "ada").unwrap_err();
        assert!(matches!(refused, CertError::File(FileError::Exists { .. })), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_without_its_certificate_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let files = make(dir.path(), &[], "ada").unwrap();
        let (nowhere, key) = (dir.path().join("none/eve.crt"), dir.path().join("eve.key"));
        let failed = issue_operator(&files.ca_key, "eve", &nowhere, &key).unwrap_err();
        assert!(matches!(failed, CertError::File(FileError::Unwritable { .. })), "{failed}");
        assert!(!key.exists());
    }

    #[test]
    fn the_end_of_a_certificate_can_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let files = make(dir.path(), &[], "ada").unwrap();
        let ca = not_after(&files.ca).unwrap();
        let leaf = not_after(&files.operator).unwrap();
        let between = ca.duration_since(leaf).unwrap();
        assert_eq!(between.as_secs() / 86_400, (CA_VALIDITY - LEAF_VALIDITY).as_secs() / 86_400);
    }

    #[test]
    fn names_that_do_not_belong_into_a_certificate_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for host in ["", "two words", "a\0b", "http://x"] {
            let refused = make(dir.path(), &[host.into()], "ada");
            assert!(matches!(refused, Err(CertError::BadName { .. })), "{host:?}");
        }
        assert!(matches!(make(dir.path(), &[], "a\nb"), Err(CertError::BadName { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let files = make(dir.path(), &[], "ada").unwrap();
        std::fs::set_permissions(&files.server_key, std::fs::Permissions::from_mode(0o644))
            .unwrap();
        let refused = server_config(&files.server_tls()).unwrap_err();
        assert!(matches!(refused, CertError::File(FileError::Exposed { mode: 0o644, .. })));
        assert!(refused.to_string().contains("chmod 600"));
    }

    #[test]
    fn expired_early_and_mismatched_certificates_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = make(dir.path(), &[], "ada").unwrap();
        let issuer = load_issuer(&files.ca_key).unwrap();
        let at = |name: &str| dir.path().join(name);

        let mut old = server_params(&[]).unwrap();
        old.not_before = rcgen::date_time_ymd(2020, 1, 1);
        old.not_after = rcgen::date_time_ymd(2021, 1, 1);
        issue(&old, &issuer, &at("old.crt"), &at("old.key")).unwrap();
        let mut early = server_params(&[]).unwrap();
        early.not_before = rcgen::date_time_ymd(2999, 1, 1);
        early.not_after = rcgen::date_time_ymd(3000, 1, 1);
        issue(&early, &issuer, &at("early.crt"), &at("early.key")).unwrap();

        let load = |certificate: &str, key: &str| {
            let (certificate, key) = (at(certificate), at(key));
            server_config(&ServerTls { certificate, key, ..files.server_tls() }).unwrap_err()
        };
        assert!(matches!(load("old.crt", "old.key"), CertError::Expired { .. }));
        assert!(matches!(load("early.crt", "early.key"), CertError::NotYetValid { .. }));
        assert!(matches!(load("server.crt", "operator.key"), CertError::KeyMismatch { .. }));
        assert!(matches!(load("server.key", "server.key"), CertError::NotPem { .. }));
        assert!(matches!(load("none.crt", "server.key"), CertError::File(_)));
    }
}
