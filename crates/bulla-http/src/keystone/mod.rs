//! Tokens of Keystone's (`X-Auth-Token`): each is asked for at Keystone itself, and its answer holds for
//! a short while.

mod cache;
mod http;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use axum::http::StatusCode;
use thiserror::Error;
use tokio::sync::{Mutex, Semaphore};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use crate::certs::CertError;
use crate::file::{self, FileError};
use crate::identity::Identity;
use cache::{Cache, Known};
use http::{Answer, Http};
use wire::Validated;

/// Longest token, in bytes.
const MAX_TOKEN: usize = 8192;
/// How many requests to Keystone are under way at most.
const AT_A_TIME: usize = 32;
/// Those that ask for the same token at the same time wait for one answer.
const LANES: usize = 64;
/// How long before its end a service token is replaced.
const EARLY: u64 = 60;

/// How tokens are validated.
#[derive(Debug, Clone)]
pub struct KeystoneOptions {
    /// Its address with the version, such as `https://keystone.example:5000/v3`.
    pub url: String,
    /// The CA of its certificate; none other is trusted.
    pub ca: Option<PathBuf>,
    /// As whom tokens are asked for.
    pub login: KeystoneLogin,
    /// How long an answer holds, and a revocation may go unnoticed.
    pub cache: Duration,
    /// What a role of Keystone's is called in rules. A role that is not here is none.
    pub roles: Vec<(String, String)>,
    /// Tokens for these projects alone (ids, or `NAME@DOMAIN`) are taken; for any if empty.
    pub projects: Vec<String>,
}

/// A user of Keystone's that may validate tokens.
#[derive(Debug, Clone)]
pub enum KeystoneLogin {
    /// By password.
    Password {
        /// The user's name.
        user: String,
        /// The name of the user's domain.
        user_domain: String,
        /// The name of the project that its own token is for.
        project: String,
        /// The name of the project's domain.
        project_domain: String,
        /// A file with the password alone in it, which only its owner may reach.
        file: PathBuf,
    },
    /// By application credential.
    ApplicationCredential {
        /// Its id.
        id: String,
        /// A file with its secret alone in it, which only its owner may reach.
        file: PathBuf,
    },
}

/// Keystone can't be asked as the settings say.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeystoneError {
    /// The address.
    #[error("Keystone's address can't be used: {0}")]
    BadUrl(&'static str),
    /// The file with the password or the secret.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// There is no randomness.
    #[error("the operating system's random source failed")]
    NoRandomness,
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Keystone does not know it, or not any more.
    Invalid,
    /// It is for another project than those that are taken.
    Project,
    /// The user's name can't be one here.
    Name,
    /// Keystone could not be asked.
    Unavailable(String),
}

impl Refusal {
    /// Its stable name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Invalid => "token-invalid",
            Self::Project => "token-project",
            Self::Name => "token-name",
            Self::Unavailable(_) => "keystone-unavailable",
        }
    }
}

/// Asks one Keystone.
pub(crate) struct Keystone {
    options: KeystoneOptions,
    http: Http,
    /// What tokens are known by here: never by themselves.
    digest: hmac::Key,
    cache: Cache,
    service: Mutex<Option<ServiceToken>>,
    lanes: Vec<Mutex<()>>,
    turns: Semaphore,
}

#[derive(Clone)]
struct ServiceToken {
    token: Arc<Zeroizing<String>>,
    expires: u64,
}

impl fmt::Debug for Keystone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keystone").field("url", &self.options.url).finish_non_exhaustive()
    }
}

impl Keystone {
    pub(crate) fn new(options: KeystoneOptions) -> Result<Self, KeystoneError> {
        let http = Http::new(&options.url, options.ca.as_deref())?;
        // That it can be read is seen now, and read again whenever it is needed.
        options.login.secret()?;
        let digest = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| KeystoneError::NoRandomness)?;
        Ok(Self {
            cache: Cache::new(options.cache),
            options,
            http,
            digest,
            service: Mutex::default(),
            lanes: (0..LANES).map(|_| Mutex::default()).collect(),
            turns: Semaphore::new(AT_A_TIME),
        })
    }

    /// Its address, for callers who need a token.
    pub(crate) fn url(&self) -> &str {
        &self.options.url
    }

    /// Whose a token is, by Keystone's word of now or of shortly before.
    pub(crate) async fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        if token.is_empty()
            || token.len() > MAX_TOKEN
            || !token.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(Refusal::Invalid);
        }
        let tag = hmac::sign(&self.digest, token.as_bytes());
        let key: [u8; 32] = tag.as_ref().try_into().map_err(|_| Refusal::Invalid)?;
        if let Some(known) = self.cache.get(&key, Instant::now()) {
            return answer(known);
        }
        let lane = usize::from(key[0]) % LANES;
        let lane = self.lanes.get(lane).ok_or(Refusal::Invalid)?;
        let _lane = lane.lock().await;
        // Somebody else may have asked meanwhile.
        if let Some(known) = self.cache.get(&key, Instant::now()) {
            return answer(known);
        }
        // What holds begins when it was asked for, not when the answer came.
        let asked = Instant::now();
        let (known, holds) = match self.validate(token).await? {
            None => (Known::Invalid, self.cache.longest()),
            Some(validated) => {
                let left = Duration::from_secs(validated.expires.saturating_sub(unix_now()));
                if left.is_zero() {
                    (Known::Invalid, self.cache.longest())
                } else {
                    (self.known(validated), left)
                }
            }
        };
        self.cache.put(key, known.clone(), asked, holds);
        answer(known)
    }

    fn known(&self, validated: Validated) -> Known {
        let Validated { user, domain, project, roles, .. } = validated;
        let Some(identity) = Identity::keystone(&user, &domain) else { return Known::Unnameable };
        let projects: Vec<String> = project
            .map(|project| vec![project.id, format!("{}@{}", project.name, project.domain)])
            .unwrap_or_default();
        let wanted = &self.options.projects;
        if !wanted.is_empty() && !projects.iter().any(|project| wanted.contains(project)) {
            return Known::OtherProject;
        }
        let mapped = self.options.roles.iter();
        let mapped = mapped.filter(|(theirs, _)| roles.contains(theirs)).map(|(_, ours)| ours);
        Known::Good(identity.with_roles(mapped).with_projects(projects))
    }

    /// `None` if Keystone says that the token is none.
    async fn validate(&self, token: &str) -> Result<Option<Validated>, Refusal> {
        let _turn = self.turns.acquire().await.map_err(|_| unavailable("it is shut down"))?;
        let mut fresh = false;
        loop {
            let service = self.service_token(fresh).await?;
            let Answer { status, body, .. } =
                self.http.validate(&service, token).await.map_err(|why| self.lost(why))?;
            match status {
                StatusCode::OK => {
                    let read = wire::validated(&body);
                    return read.map(Some).map_err(|why| self.lost(format!("its answer {why}")));
                }
                StatusCode::NOT_FOUND => return Ok(None),
                // The service's own token was revoked or ran out.
                StatusCode::UNAUTHORIZED if !fresh => fresh = true,
                StatusCode::FORBIDDEN => {
                    let why = "the service's own user may not validate tokens: give it the role \
                               `service` or `admin` on its project";
                    return Err(self.lost(why.to_owned()));
                }
                other => return Err(self.lost(format!("it answered {other}"))),
            }
        }
    }

    /// The token that tokens are asked for with.
    async fn service_token(&self, fresh: bool) -> Result<Arc<Zeroizing<String>>, Refusal> {
        let mut held = self.service.lock().await;
        if let Some(service) = held.as_ref().filter(|_| !fresh)
            && service.expires > unix_now().saturating_add(EARLY)
        {
            return Ok(service.token.clone());
        }
        *held = None;
        let secret = self.options.login.secret().map_err(|error| self.lost(error.to_string()))?;
        let asked = wire::login(&self.options.login, &secret);
        let answer = self.http.login(asked).await.map_err(|why| self.lost(why))?;
        match (answer.status, answer.token) {
            (StatusCode::CREATED, Some(token)) => {
                let expires = wire::expires(&answer.body)
                    .map_err(|why| self.lost(format!("its answer {why}")))?;
                debug!("logged in at Keystone");
                let token = Arc::new(token);
                *held = Some(ServiceToken { token: token.clone(), expires });
                Ok(token)
            }
            (StatusCode::UNAUTHORIZED, _) => {
                let why = "it does not take the service's own login; are user, project and the \
                           secret's file right?";
                Err(self.lost(why.to_owned()))
            }
            (status, _) => Err(self.lost(format!("it answered {status} to the service's login"))),
        }
    }

    /// For the log at length; who asked hears no more than that.
    fn lost(&self, why: String) -> Refusal {
        warn!(keystone = %self.options.url, %why, "Keystone can't be asked");
        Refusal::Unavailable(why)
    }
}

impl KeystoneLogin {
    fn secret(&self) -> Result<Zeroizing<String>, FileError> {
        let (Self::Password { file, .. } | Self::ApplicationCredential { file, .. }) = self;
        let bytes = file::read_secret(file)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

fn answer(known: Known) -> Result<Identity, Refusal> {
    match known {
        Known::Good(identity) => Ok(identity),
        Known::Invalid => Err(Refusal::Invalid),
        Known::OtherProject => Err(Refusal::Project),
        Known::Unnameable => Err(Refusal::Name),
    }
}

fn unavailable(why: &str) -> Refusal {
    Refusal::Unavailable(why.to_owned())
}

fn unix_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(u64::MAX, |now| now.as_secs())
}
