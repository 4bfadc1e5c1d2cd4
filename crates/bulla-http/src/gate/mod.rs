//! Which credential a request shows, whose it is, and how often its owner may ask.

mod answers;
mod signed;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use zeroize::Zeroizing;

use crate::identity::{Authenticator, Identity, IdentityKind};
use crate::keystone::{Keystone, KeystoneError, KeystoneOptions, Refusal};
use crate::limits::Limits;
use crate::problem::Problem;
use crate::rate::{Buckets, Drawn, Rate};
use crate::signature::{
    AccessSecret, Claimed, MemoryNonces, Nonces, SIGNATURE, SIGNATURE_INPUT, Times,
};
use crate::token::Token;
use answers::{refused, say, shut_out, unavailable, wait_for};

/// Where tokens of Keystone's are shown.
pub const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// Failed authentications of one address: 20 at once, and one a second over time.
const FAILURES: Rate = Rate { rate: 1.0, burst: 20 };

/// Where access keys are kept.
#[async_trait]
pub trait AccessKeys: Send + Sync + 'static {
    /// The user (`operator/NAME` or `program/NAME`) and the secret of an access key that is to be
    /// taken now; otherwise the stable name of the reason against it.
    ///
    /// # Errors
    ///
    /// It can't be told, and why: the request is refused.
    async fn find(&self, id: &str) -> Result<Result<KeyOwner, &'static str>, String>;

    /// It was used for a request that counts.
    fn used(&self, id: &str);
}

/// Where the keys of agents are found.
#[async_trait]
pub trait AgentKeys: Send + Sync + 'static {
    /// What an agent's requests are checked with, by its id and the key's own, if it is to be taken now;
    /// otherwise the stable name of the reason against it.
    ///
    /// # Errors
    ///
    /// It can't be told, and why: the request is refused.
    async fn find(&self, agent: &str, key: &str) -> Result<Result<AgentKey, &'static str>, String>;
}

/// What an agent's requests are checked with. Each is good for its own algorithm alone.
#[derive(Clone)]
pub enum AgentKey {
    /// The public half of the Ed25519 key that it signs with.
    Ed25519([u8; 32]),
    /// The key of its MACs (HMAC-SHA-256), which follows from a key that it shares.
    Hmac(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519(_) => "AgentKey::Ed25519(..)",
            Self::Hmac(_) => "AgentKey::Hmac(redacted)",
        })
    }
}

/// Whose an access key is.
#[derive(Debug, Clone)]
pub struct KeyOwner {
    /// `operator/NAME` or `program/NAME`.
    pub user: String,
    /// What its requests are signed with.
    pub secret: AccessSecret,
}

/// Hears of requests that go no further.
pub trait Watch: Send + Sync + 'static {
    /// A request was not authenticated: which credential it showed (`none`, `several`, or an
    /// authenticator's name), the stable name of the reason, and from where.
    fn refused(&self, credential: &'static str, why: &'static str, from: IpAddr);

    /// Somebody asks more often than allowed.
    fn limited(&self, identity: &Identity);

    /// Too many requests of one address were not authenticated: more are not looked at.
    fn shut_out(&self, from: IpAddr);
}

/// How requests are authenticated beside client certificates and the bearer token, what identities
/// may be in rules, and how often they may ask.
#[derive(Default, Clone)]
pub struct Authenticators {
    access_keys: Option<Arc<dyn AccessKeys>>,
    agent_keys: Option<Arc<dyn AgentKeys>>,
    nonces: Option<Arc<dyn Nonces>>,
    keystone: Option<Arc<Keystone>>,
    roles: Arc<Vec<(String, Vec<String>)>>,
    rate: Option<Rate>,
    failures: Option<Rate>,
    watch: Option<Arc<dyn Watch>>,
    grants: &'static [&'static str],
    public: &'static [&'static str],
}

impl fmt::Debug for Authenticators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticators")
            .field("access_keys", &self.access_keys.is_some())
            .field("keystone", &self.keystone)
            .field("roles", &self.roles)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

impl Authenticators {
    /// Takes signatures with access keys. `nonces` remembers them; `None` is in this process alone.
    #[must_use]
    pub fn access_keys(
        mut self,
        keys: Arc<dyn AccessKeys>,
        nonces: Option<Arc<dyn Nonces>>,
    ) -> Self {
        self.access_keys = Some(keys);
        self.nonces = Some(nonces.unwrap_or_else(|| Arc::new(MemoryNonces::default())));
        self
    }

    /// Takes signatures with agents' own keys. Which signatures were seen is remembered where it is for
    /// access keys, in this process alone unless said otherwise there.
    #[must_use]
    pub fn agent_keys(mut self, keys: Arc<dyn AgentKeys>) -> Self {
        self.agent_keys = Some(keys);
        self.nonces.get_or_insert_with(|| Arc::new(MemoryNonces::default()));
        self
    }

    /// Takes tokens of a Keystone's.
    ///
    /// # Errors
    ///
    /// When the address, the CA or the service's secret can't be used. Keystone itself is not asked
    /// for anything yet.
    pub fn keystone(mut self, options: KeystoneOptions) -> Result<Self, KeystoneError> {
        self.keystone = Some(Arc::new(Keystone::new(options)?));
        Ok(self)
    }

    /// Gives identities (`operator/ada`) roles.
    #[must_use]
    pub fn roles(mut self, roles: Vec<(String, Vec<String>)>) -> Self {
        self.roles = Arc::new(roles);
        self
    }

    /// How often each identity may ask; any number of times unless set.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// How many requests of one address may fail to be authenticated.
    #[must_use]
    pub fn failures(mut self, rate: Rate) -> Self {
        self.failures = Some(rate);
        self
    }

    /// Who hears of what is refused.
    #[must_use]
    pub fn watch(mut self, watch: Arc<dyn Watch>) -> Self {
        self.watch = Some(watch);
        self
    }

    /// Passes requests on that show one of these header fields (in small letters) and no other
    /// credential, without an identity: the router has to decide by what they grant.
    #[must_use]
    pub fn grants(mut self, headers: &'static [&'static str]) -> Self {
        self.grants = headers;
        self
    }

    /// Passes requests on that get one of these paths and show no credential.
    #[must_use]
    pub fn public(mut self, paths: &'static [&'static str]) -> Self {
        self.public = paths;
        self
    }

    /// Whether signatures that were used are forgotten when the process ends.
    pub(crate) fn forgets(&self) -> bool {
        self.nonces.as_ref().is_some_and(|nonces| !nonces.outlives())
    }

    /// Whether requests can be authenticated without a client certificate.
    #[must_use]
    pub fn without_certificate(&self) -> bool {
        self.access_keys.is_some() || self.agent_keys.is_some() || self.keystone.is_some()
    }
}

/// What is known of the peer of a connection before it asks for anything.
#[derive(Clone)]
pub(crate) enum Peer {
    /// It showed a certificate; `None` if that names no operator.
    Certified(Option<Identity>),
    /// It showed none, over TLS.
    Uncertified,
    /// Plain, on loopback: the bearer token is taken, too.
    Plain(Arc<Token>),
    /// Plain, on loopback: nobody is asked for anything.
    Open,
}

impl Peer {
    fn scheme(&self) -> &'static str {
        if matches!(self, Self::Plain(_) | Self::Open) { "http" } else { "https" }
    }
}

/// Lets requests in.
pub(crate) struct Gate {
    by: Authenticators,
    identities: Option<Buckets<(IdentityKind, Arc<str>)>>,
    failures: Buckets<IpAddr>,
    limits: Limits,
    times: Times,
    /// Signatures that were made before, in Unix seconds, may have been used; nobody remembers.
    since: u64,
    /// Stands in for the secret of a key that is not there, so that both take the same time.
    nobody: Option<AccessSecret>,
}

/// What a request shows, each in its own way.
enum Shown {
    /// Nothing, where that is enough.
    Nothing,
    /// Something that the router looks at, and has to.
    Grant,
    Certificate(Option<Identity>),
    Bearer(Arc<Token>, HeaderValue),
    Signature,
    Token(HeaderValue),
}

/// A request that goes on, and what its answer is to say beside.
pub(crate) struct Admitted {
    pub(crate) request: Request<Body>,
    left: Option<(Rate, u32)>,
}

/// Why one does not.
struct Refused {
    credential: &'static str,
    why: &'static str,
    problem: Problem,
}

impl Gate {
    pub(crate) fn new(by: Authenticators, limits: Limits, since: u64) -> Self {
        Self {
            identities: by.rate.map(Buckets::new),
            failures: Buckets::new(by.failures.unwrap_or(FAILURES)),
            limits,
            times: Times::default(),
            since,
            nobody: AccessSecret::new("nobody").ok(),
            by,
        }
    }

    /// Finds out who asks, by the one credential of the request, and by nothing else.
    pub(crate) async fn admit(
        &self,
        mut request: Request<Body>,
        peer: &Peer,
        from: IpAddr,
    ) -> Result<Admitted, Box<Response>> {
        let from = origin(from);
        // Who proved itself to TLS, or has the token, guesses at nothing: others of the same address
        // must not be able to keep it out.
        let proven = match peer {
            Peer::Certified(identity) => identity.is_some(),
            Peer::Uncertified => false,
            Peer::Open => return Ok(Admitted::unidentified(request)),
            Peer::Plain(token) => {
                let shown = request.headers().get(header::AUTHORIZATION);
                shown.is_some_and(|shown| token.admits(shown.as_bytes()))
            }
        };
        if !proven && let Drawn::No(wait) = self.failures.look(from, Instant::now()) {
            return Err(Box::new(shut_out(wait)));
        }
        let identity = match self.identify(&mut request, peer).await {
            Ok(Some(identity)) => identity,
            Ok(None) => return Ok(Admitted::unidentified(request)),
            Err(refused) => return Err(Box::new(self.refuse(refused, peer, from))),
        };
        let name = identity.to_string();
        let given = self.by.roles.iter().filter(|(who, _)| *who == name);
        let identity = identity.with_roles(given.flat_map(|(_, roles)| roles));
        let left = self.draw(&identity)?;
        request.extensions_mut().insert(identity);
        Ok(Admitted { request: without_credentials(request), left })
    }

    async fn identify(
        &self,
        request: &mut Request<Body>,
        peer: &Peer,
    ) -> Result<Option<Identity>, Refused> {
        let identity = match self.shown(request, peer)? {
            Shown::Nothing | Shown::Grant => return Ok(None),
            Shown::Certificate(Some(identity)) => Ok(identity),
            Shown::Certificate(None) => Err(refused(
                Authenticator::Certificate.as_str(),
                "certificate-name",
                "the client certificate names no operator: its subject needs one common name",
            )),
            Shown::Bearer(token, shown) if token.admits(shown.as_bytes()) => Ok(Identity::bearer()),
            Shown::Bearer(..) => Err(refused(
                Authenticator::Bearer.as_str(),
                "bearer-wrong",
                "the bearer token is not this listener's",
            )),
            Shown::Signature => self.signed(request, peer.scheme()).await,
            Shown::Token(token) => self.token(&token).await,
        };
        identity.map(Some)
    }

    /// Exactly one, of a kind that is taken here.
    fn shown(&self, request: &Request<Body>, peer: &Peer) -> Result<Shown, Refused> {
        let headers = request.headers();
        let mut shown = Vec::with_capacity(1);
        // Whatever is in it: an empty one is one, too.
        if self.by.grants.iter().any(|name| headers.contains_key(*name)) {
            shown.push(Shown::Grant);
        }
        if let Peer::Certified(identity) = peer {
            shown.push(Shown::Certificate(identity.clone()));
        }
        if Claimed::is_there(headers) {
            shown.push(Shown::Signature);
        }
        shown.extend(headers.get_all(AUTH_TOKEN).iter().cloned().map(Shown::Token));
        let mut foreign = false;
        for value in headers.get_all(header::AUTHORIZATION) {
            match peer {
                Peer::Plain(token) => shown.push(Shown::Bearer(token.clone(), value.clone())),
                _ => foreign = true,
            }
        }
        let several = shown.len() + usize::from(foreign) > 1;
        if several {
            return Err(Refused {
                credential: "several",
                why: "several-credentials",
                problem: Problem::new(
                    StatusCode::BAD_REQUEST,
                    "several-credentials",
                    "The request shows several credentials",
                    "a request shows one credential: a client certificate, a signature, \
                     `X-Auth-Token` or, on a plain loopback listener, `Authorization: Bearer`",
                ),
            });
        }
        match shown.pop() {
            Some(shown) => Ok(shown),
            None if !foreign && self.is_public(request) => Ok(Shown::Nothing),
            None => Err(Refused {
                credential: "none",
                why: if foreign { "credential-not-taken" } else { "no-credential" },
                problem: Problem::unauthorized(),
            }),
        }
    }

    fn is_public(&self, request: &Request<Body>) -> bool {
        let path = request.uri().path();
        request.method() == Method::GET && self.by.public.contains(&path)
    }

    async fn token(&self, token: &HeaderValue) -> Result<Identity, Refused> {
        let credential = Authenticator::Keystone.as_str();
        let Some(keystone) = &self.by.keystone else {
            let detail = "tokens of Keystone's are not taken here";
            return Err(refused(credential, "credential-not-taken", detail));
        };
        let text = token.to_str().map_err(|_| Refusal::Invalid);
        let identified = match text {
            Ok(text) => keystone.identify(text).await,
            Err(refusal) => Err(refusal),
        };
        identified.map_err(|refusal| {
            let detail = match &refusal {
                Refusal::Invalid => {
                    "Keystone does not know this token, or not any more; get a new one"
                }
                Refusal::Project => "this token is for a project that is not taken here",
                Refusal::Name => "the user's name or its domain can't be one here",
                Refusal::Unavailable(_) => {
                    let problem = unavailable(
                        "Keystone can't be asked whose the token is; the log says why. Nothing is \
                         allowed meanwhile",
                    );
                    return Refused { credential, why: refusal.name(), problem };
                }
            };
            refused(credential, refusal.name(), detail)
        })
    }

    fn refuse(&self, refused: Refused, peer: &Peer, from: IpAddr) -> Response {
        let Refused { credential, why, problem } = refused;
        // What can't be told is nobody's guess.
        if problem.status != StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            let before = self.failures.look(from, Instant::now());
            let after = self.failures.draw(from, Instant::now());
            if let (Some(watch), Drawn::Yes(1..), Drawn::Yes(0)) = (&self.by.watch, before, after) {
                watch.shut_out(from);
            }
        }
        if let Some(watch) = &self.by.watch {
            watch.refused(credential, why, from);
        }
        let unauthorized = problem.status == StatusCode::UNAUTHORIZED.as_u16();
        let mut response = problem.into_response();
        if unauthorized {
            let challenges = self.challenges(peer);
            response.headers_mut().remove(header::WWW_AUTHENTICATE);
            for challenge in challenges.iter().filter_map(|text| HeaderValue::from_str(text).ok()) {
                response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }

    /// How one may authenticate here.
    fn challenges(&self, peer: &Peer) -> Vec<String> {
        let mut all = Vec::new();
        match peer {
            Peer::Open => {}
            Peer::Plain(_) => all.push("Bearer".to_owned()),
            _ => all.push("Mutual".to_owned()),
        }
        if self.by.access_keys.is_some() || self.by.agent_keys.is_some() {
            all.push("Signature".to_owned());
        }
        if let Some(keystone) = &self.by.keystone {
            all.push(format!("Keystone uri=\"{}\"", keystone.url()));
        }
        all
    }

    fn draw(&self, identity: &Identity) -> Result<Option<(Rate, u32)>, Box<Response>> {
        let Some(buckets) = &self.identities else { return Ok(None) };
        let rate = buckets.rate();
        match buckets.draw((identity.kind(), identity.name().into()), Instant::now()) {
            Drawn::Yes(left) => Ok(Some((rate, left))),
            Drawn::No(wait) => {
                if let Some(watch) = &self.by.watch {
                    watch.limited(identity);
                }
                let problem = Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate-limited",
                    "Too many requests",
                    format!("{identity} asks more often than {} times a second", rate.rate),
                );
                let mut response = wait_for(problem, wait);
                say(&mut response, rate, 0, wait);
                Err(Box::new(response))
            }
        }
    }
}

impl Admitted {
    fn unidentified(request: Request<Body>) -> Self {
        Self { request: without_credentials(request), left: None }
    }
}

/// They have done their work; no handler, and no log of a handler, needs them.
fn without_credentials(mut request: Request<Body>) -> Request<Body> {
    for used in [header::AUTHORIZATION, AUTH_TOKEN, SIGNATURE, SIGNATURE_INPUT] {
        request.headers_mut().remove(used);
    }
    request
}

/// Whom failures are counted for: an address, or the network that a host has of IPv6.
fn origin(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_origin() {
        let of = |text: &str| origin(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
}
