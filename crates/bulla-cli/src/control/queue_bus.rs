//! The queue service that a control plane has beside it, as its bus.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bulla::QUEUE_SCHEME;
use bulla_http::{AgentKey, AgentKeys, Authenticators, ClientCertificates, Listener, Options};
use bulla_keystore::{Keystore, KeystoreError};
use bulla_queue::{AgentMay, GRANT_HEADERS, PUBLIC, Service};
use bulla_seal::{Kid, Principal};
use bulla_transport::{QueueOptions, QueueUse};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::bus::Bus;
use crate::commands::queue;
use crate::failure::{Failure, Result};
use crate::settings::{Home, Settings};

/// The project that the queues of a deployment are in.
const PROJECT: &str = "bulla";

/// How often is looked for queues of large messages in which nothing is any more.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// A queue service that runs.
pub(crate) struct QueueService {
    pub(crate) url: String,
    service: Arc<Service>,
    serving: JoinHandle<()>,
    stop: CancellationToken,
    keystore: Keystore,
    home: Home,
}

impl QueueService {
    /// Begins to serve.
    pub(crate) async fn start(home: &Home, settings: &Settings) -> Result<Self> {
        let queue = &settings.queue;
        if queue.noauth {
            return Err(Failure::usage(
                "[queue] noauth is for `bulla queue serve` alone: a control plane's queues are not \
                 everybody's",
            ));
        }
        let files = settings.api.tls.server(home)?;
        let files = files.client_certificates(ClientCertificates::Optional);
        let keystore = super::open_keystore(home).await?;
        let stop = CancellationToken::new();
        let by = Authenticators::default()
            .access_keys(super::access_keys(&keystore, &stop), None)
            .agent_keys(Arc::new(Keys::new(keystore.clone())))
            .grants(GRANT_HEADERS)
            .public(PUBLIC);
        let by = queue::with_keystone(by, settings)?.roles(settings.api.roles()?);
        let options = Options::tls(queue.address()?, files).limits(queue.door()).authenticators(by);
        let listener = Listener::bind(options).await?;
        let url = listener.url();
        let service =
            queue::service(home, settings).await?.agents(PROJECT, may).quota(queue.quota());
        let service = Arc::new(service);
        tokio::spawn(stop.clone().run_until_cancelled_owned(tidy(service.clone())));
        let router = bulla_queue::router(service.clone());
        let serving = tokio::spawn(listener.serve(router, stop.clone()));
        let path = home.queue_url();
        std::fs::write(&path, &url)
            .map_err(|error| Failure::new(format!("can't write {}: {error}", path.display())))?;
        Ok(Self { url, service, serving, stop, keystore, home: home.clone() })
    }

    /// The way of the control plane itself: as its operator.
    pub(crate) fn bus(&self, settings: &Settings) -> Result<Bus> {
        let url = format!("{QUEUE_SCHEME}{}", self.url);
        Ok(Bus::Queue(Box::new(as_operator(&self.home, settings, &url)?)))
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the queue service ended badly");
        }
        self.service.close().await;
        self.keystore.close().await;
        // Nobody is there any more.
        let _ = std::fs::remove_file(self.home.queue_url());
    }
}

/// A deployment's queue service at `url` (`queue+https://…`), asked as the operator.
pub(crate) fn as_operator(home: &Home, settings: &Settings, url: &str) -> Result<QueueOptions> {
    let files = settings.api.tls.operator(home, None)?;
    let options = QueueOptions::new(url)?.ca_file(&files.ca)?;
    Ok(options.client_certificate_files(&files.certificate, &files.key)?.project(PROJECT))
}

/// Removes queues that nobody needs any more: messages end by themselves, queues do not.
async fn tidy(service: Arc<Service>) {
    let mut every = tokio::time::interval(TIDY_EVERY);
    loop {
        every.tick().await;
        match service.tidy().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "empty queues of large messages were removed"),
            Err(error) => tracing::warn!(%error, "empty queues can't be removed"),
        }
    }
}

/// What an agent may do in a queue, by its name.
fn may(queue: &str, agent: &str) -> AgentMay {
    match QueueUse::of(queue, agent) {
        QueueUse::Own => AgentMay::Take,
        QueueUse::Component => AgentMay::Post,
        QueueUse::Parts => AgentMay::Share,
        QueueUse::Other => AgentMay::Nothing,
    }
}

/// How long an agent's key is known without asking the keystore, where it may be revoked meanwhile.
const KNOWN: Duration = Duration::from_secs(1);
/// Keys that are known at the most.
const MAX_KNOWN: usize = 16_384;

/// A key, and until when it is known.
type Found = (Instant, AgentKey);

/// Agents' keys in the keystore.
struct Keys {
    keystore: Keystore,
    known: Mutex<HashMap<(String, String), Found>>,
}

/// Which of an agent's keys is meant.
enum Named {
    /// That of a credential.
    Kid(Kid),
    /// What follows from the shared key of an incarnation.
    Incarnation(u32),
}

impl Named {
    /// A kid has 16 digits in hexadecimal; an incarnation fewer.
    fn parse(key: &str) -> Option<Self> {
        if key.len() == 16 && key.bytes().all(|b| b.is_ascii_hexdigit()) {
            let kid = u64::from_str_radix(key, 16).ok()?;
            return Some(Self::Kid(Kid(kid.to_be_bytes())));
        }
        let number: u32 = key.parse().ok()?;
        // In one form alone: what is remembered of signatures goes by the text.
        (number.to_string() == key).then_some(Self::Incarnation(number))
    }
}

impl Keys {
    fn new(keystore: Keystore) -> Self {
        Self { keystore, known: Mutex::default() }
    }

    fn learn(&self, of: (String, String), key: AgentKey) {
        let now = Instant::now();
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() < MAX_KNOWN {
            known.insert(of, (now + KNOWN, key));
        }
    }

    async fn look(
        &self,
        agent: &Principal,
        named: Named,
    ) -> std::result::Result<Option<AgentKey>, KeystoreError> {
        Ok(match named {
            Named::Kid(kid) => {
                self.keystore.agent_key(agent, kid).await?.map(|key| AgentKey::Ed25519(key.0))
            }
            Named::Incarnation(incarnation) => {
                let key = self.keystore.agent_http_key(agent, incarnation).await?;
                key.map(|key| AgentKey::Hmac(Zeroizing::new(*key.expose())))
            }
        })
    }
}

#[async_trait]
impl AgentKeys for Keys {
    async fn find(
        &self,
        agent: &str,
        key: &str,
    ) -> std::result::Result<std::result::Result<AgentKey, &'static str>, String> {
        let Ok(agent) = Principal::agent(agent) else { return Ok(Err("agent-key-name")) };
        let Some(named) = Named::parse(key) else { return Ok(Err("agent-key-name")) };
        let of = (agent.name().to_owned(), key.to_owned());
        if let Some((until, key)) = self.known.lock().get(&of)
            && Instant::now() < *until
        {
            return Ok(Ok(key.clone()));
        }
        match self.look(&agent, named).await {
            Ok(Some(key)) => {
                self.learn(of, key.clone());
                Ok(Ok(key))
            }
            Ok(None) => Ok(Err("agent-key-unknown")),
            // Over, or not by an issuer that counts.
            Err(KeystoreError::Credential(_)) => Ok(Err("agent-key-over")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Has key files name the queue service that runs here.
pub(crate) fn for_key_files(home: &Home, settings: &mut Settings) -> Result<()> {
    let running = std::fs::read_to_string(home.queue_url()).ok();
    let url = settings.queue.url.clone().or(running).ok_or_else(|| {
        Failure::new(
            "no queue service runs here: start `bulla up --queue`, or say in [queue] url where \
             agents reach it",
        )
    })?;
    let ca = bulla_http::certs::Files::in_dir(&home.tls()).ca;
    let pem = std::fs::read_to_string(&ca)
        .map_err(|error| Failure::new(format!("can't read {}: {error}", ca.display())))?;
    let url = format!("{QUEUE_SCHEME}{}", url.trim());
    QueueOptions::new(&url)?;
    settings.bus.key_file_url = Some(url);
    settings.bus.ca = None;
    settings.bus.ca_pem = Some(pem);
    settings.bus.client_cert = None;
    settings.bus.client_key = None;
    settings.broker_users.url = None;
    Ok(())
}
