//! `[api.tls]`: the certificates of the HTTPS API, and those that commands show to it.

use std::path::PathBuf;

use bulla_http::certs::Files;
use bulla_http::{ClientTls, ServerTls};
use serde::Deserialize;

use crate::failure::{Failure, Result};
use crate::settings::Home;

/// Paths, which are in the home folder unless set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ApiTls {
    /// The server's.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) tls12: bool,
    /// Of commands.
    pub(crate) operator_certificate: Option<PathBuf>,
    pub(crate) operator_key: Option<PathBuf>,
}

/// A certificate and its key: both as set, or both from the home folder.
fn pair(
    what: &str,
    set: (&Option<PathBuf>, &Option<PathBuf>),
    home: (PathBuf, PathBuf),
) -> Result<(PathBuf, PathBuf)> {
    match set {
        (Some(certificate), Some(key)) => Ok((certificate.clone(), key.clone())),
        (None, None) => Ok(home),
        _ => Err(Failure::usage(format!(
            "[api.tls] {what}certificate and {what}key go together: set both, or none"
        ))),
    }
}

impl ApiTls {
    /// What the listener needs.
    pub(crate) fn server(&self, home: &Home) -> Result<ServerTls> {
        let mut tls = Files::in_dir(&home.tls()).server_tls();
        let set = (&self.certificate, &self.key);
        (tls.certificate, tls.key) = pair("", set, (tls.certificate, tls.key))?;
        tls.client_ca = self.client_ca.clone().unwrap_or(tls.client_ca);
        tls.tls12 = self.tls12;
        Ok(tls)
    }

    /// What commands need; `ca` signs the server's certificate.
    pub(crate) fn operator(&self, home: &Home, ca: Option<PathBuf>) -> Result<ClientTls> {
        let own = Files::in_dir(&home.tls());
        let set = (&self.operator_certificate, &self.operator_key);
        let own_pair = (own.operator.clone(), own.operator_key.clone());
        let (certificate, key) = pair("operator-", set, own_pair)?;
        Ok(ClientTls { ca: ca.unwrap_or(own.ca), certificate, key })
    }

    /// Puts the environment over what is set.
    pub(crate) fn overlay(&mut self, get: impl Fn(&str) -> Option<String>) {
        for (name, path) in [
            ("BULLA_API_TLS_CERTIFICATE", &mut self.certificate),
            ("BULLA_API_TLS_KEY", &mut self.key),
            ("BULLA_API_TLS_CLIENT_CA", &mut self.client_ca),
            ("BULLA_API_OPERATOR_CERTIFICATE", &mut self.operator_certificate),
            ("BULLA_API_OPERATOR_KEY", &mut self.operator_key),
        ] {
            if let Some(given) = get(name) {
                *path = Some(given.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_not_set_is_in_the_home_folder() {
        let home = Home::new(Path::new("/h"));
        let mut set = ApiTls::default();
        assert_eq!(set.server(&home).unwrap(), Files::in_dir(&home.tls()).server_tls());
        assert_eq!(set.operator(&home, None).unwrap(), Files::in_dir(&home.tls()).operator_tls());
        set.certificate = Some("/c".into());
        assert!(set.server(&home).is_err(), "a certificate without its key");
        set.overlay(|name| (name == "BULLA_API_TLS_KEY").then(|| "/k".into()));
        let server = set.server(&home).unwrap();
        assert_eq!((server.certificate, server.key), ("/c".into(), "/k".into()));
        assert_eq!(server.client_ca, Files::in_dir(&home.tls()).ca);
    }
}
