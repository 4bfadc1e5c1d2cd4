//! `[api]`: where the HTTPS API is, who is let in, and how often.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bulla_http::{ClientCertificates, KeystoneLogin, KeystoneOptions, Rate};
use serde::Deserialize;

use crate::failure::{Failure, Result};
use crate::tls_settings::ApiTls;
use crate::when;

/// How often each user may ask unless set, a second and at once.
const RATE: f64 = 5000.0;
const BURST: u32 = 10_000;
/// How long Keystone's word of a token holds unless set, and at most.
const CACHE: Duration = Duration::from_secs(30);
const MAX_CACHE: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Api {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) plain: bool,
    pub(crate) tls: ApiTls,
    pub(crate) client_certificates: ClientCertificatesSetting,
    pub(crate) rate: Option<f64>,
    pub(crate) burst: Option<u32>,
    pub(crate) failures_per_minute: Option<u32>,
    /// Who has which role.
    pub(crate) roles: BTreeMap<String, Vec<String>>,
    pub(crate) keystone: KeystoneSettings,
    /// Of the client: the server's CA, and what it shows instead of a certificate.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) access_key: Option<PathBuf>,
    pub(crate) keystone_token: Option<PathBuf>,
}

/// Whether a client needs a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientCertificatesSetting {
    #[default]
    Required,
    Optional,
}

impl From<ClientCertificatesSetting> for ClientCertificates {
    fn from(setting: ClientCertificatesSetting) -> Self {
        match setting {
            ClientCertificatesSetting::Required => Self::Required,
            ClientCertificatesSetting::Optional => Self::Optional,
        }
    }
}

/// How tokens of Keystone's are validated. Names and paths only, and no secret.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct KeystoneSettings {
    pub(crate) url: Option<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) user_domain: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) project_domain: Option<String>,
    pub(crate) application_credential: Option<String>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) cache: Option<String>,
    pub(crate) projects: Vec<String>,
    /// What its roles are called in rules.
    pub(crate) roles: BTreeMap<String, String>,
}

impl Api {
    /// How often each user may ask.
    pub(crate) fn rate(&self) -> Result<Rate> {
        let rate = self.rate.unwrap_or(RATE);
        let burst = self.burst.unwrap_or(if self.rate.is_some() {
            // Two seconds' worth.
            (rate * 2.0).clamp(1.0, 1e9) as u32
        } else {
            BURST
        });
        if !(rate.is_finite() && rate > 0.0 && rate <= 1e9) || burst == 0 {
            return Err(Failure::usage("[api] rate and burst must be above 0"));
        }
        Ok(Rate { rate, burst })
    }

    /// How many requests of an address may fail to be authenticated.
    pub(crate) fn failures(&self) -> Result<Option<Rate>> {
        match self.failures_per_minute {
            None => Ok(None),
            Some(0) => Err(Failure::usage("[api] failures-per-minute must be above 0")),
            Some(number) => Ok(Some(Rate { rate: f64::from(number) / 60.0, burst: number })),
        }
    }

    /// The roles of each user.
    pub(crate) fn roles(&self) -> Result<Vec<(String, Vec<String>)>> {
        let mut of = BTreeMap::<String, Vec<String>>::new();
        for (role, users) in &self.roles {
            for user in users {
                let named = user.split_once('/').is_some_and(|(kind, name)| {
                    matches!(kind, "operator" | "program" | "user") && !name.is_empty()
                });
                if !named {
                    return Err(Failure::usage(format!(
                        "[api.roles] {role}: {user:?} is not of the form operator/NAME, \
                         program/NAME or user/NAME@DOMAIN"
                    )));
                }
                of.entry(user.clone()).or_default().push(role.clone());
            }
        }
        Ok(of.into_iter().collect())
    }
}

impl KeystoneSettings {
    /// Whom to ask about tokens, if anybody.
    pub(crate) fn options(&self) -> Result<Option<KeystoneOptions>> {
        let Some(url) = &self.url else { return Ok(None) };
        let missing = |what: &str| Failure::usage(format!("[api.keystone] needs {what}"));
        let file = self.secret_file.clone().ok_or_else(|| {
            missing("secret-file: the password, or the application credential's secret")
        })?;
        let default = || "Default".to_owned();
        let login = match (&self.application_credential, &self.user) {
            (Some(id), None) => KeystoneLogin::ApplicationCredential { id: id.clone(), file },
            (None, Some(user)) => KeystoneLogin::Password {
                user: user.clone(),
                user_domain: self.user_domain.clone().unwrap_or_else(default),
                project: self.project.clone().unwrap_or_else(|| "service".to_owned()),
                project_domain: self.project_domain.clone().unwrap_or_else(default),
                file,
            },
            _ => return Err(missing("either user or application-credential")),
        };
        let cache = match &self.cache {
            None => CACHE,
            Some(text) if text == "0" || text == "0s" => Duration::ZERO,
            Some(text) => {
                when::duration(text).filter(|cache| *cache <= MAX_CACHE).ok_or_else(|| {
                    Failure::usage(format!(
                        "[api.keystone] cache {text:?}: give a while up to 10m, such as 30s, or 0"
                    ))
                })?
            }
        };
        let roles = self.roles.iter().map(|(theirs, ours)| (theirs.clone(), ours.clone()));
        Ok(Some(KeystoneOptions {
            url: url.clone(),
            ca: self.ca.clone(),
            login,
            cache,
            roles: roles.collect(),
            projects: self.projects.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(text: &str) -> Api {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn rates_have_bounds() {
        assert_eq!(Api::default().rate().unwrap(), Rate { rate: RATE, burst: BURST });
        assert_eq!(api("rate = 0.5").rate().unwrap(), Rate { rate: 0.5, burst: 1 });
        assert_eq!(api("rate = 10\nburst = 3").rate().unwrap(), Rate { rate: 10.0, burst: 3 });
        for bad in ["rate = 0", "rate = -1", "rate = nan", "burst = 0"] {
            assert!(api(bad).rate().is_err(), "{bad}");
        }
        let six = api("failures-per-minute = 6").failures().unwrap();
        assert_eq!(six, Some(Rate { rate: 0.1, burst: 6 }));
    }

    #[test]
    fn roles_are_of_users() {
        let set = api("[roles]\na = ['operator/ada', 'user/bob@Default']\nb = ['operator/ada']");
        let of = |user: &str, roles: &[&str]| {
            (user.to_owned(), roles.iter().map(|&role| role.to_owned()).collect())
        };
        let wanted = vec![of("operator/ada", &["a", "b"]), of("user/bob@Default", &["a"])];
        assert_eq!(set.roles().unwrap(), wanted);
        for bad in ["ada", "agent/db-1", "operator/"] {
            assert!(api(&format!("[roles]\na = ['{bad}']")).roles().is_err(), "{bad}");
        }
    }

    #[test]
    fn keystone_is_asked_as_somebody() {
        let keystone = |text: &str| api(&format!("[keystone]\n{text}")).keystone.options();
        assert!(keystone("").unwrap().is_none());
        let url = "url = 'https://k/v3'\nca = '/ca'\n";
        for bad in ["", "secret-file = '/s'", "user = 'bulla'", "cache = '1d'"] {
            assert!(keystone(&format!("{url}{bad}")).is_err(), "{bad}");
        }
        let both = format!("{url}secret-file = '/s'\nuser = 'a'\napplication-credential = 'b'");
        assert!(keystone(&both).is_err());
        let good = format!("{url}secret-file = '/s'\nuser = 'bulla'\ncache = '0'");
        assert_eq!(keystone(&good).unwrap().unwrap().cache, Duration::ZERO);
    }
}
