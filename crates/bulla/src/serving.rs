//! A server with what a long-running process needs beside it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bulla_guard::ClaimStore;
use bulla_rpc::{Authorization, Endpoint, Router, Server, ServerOptions, Unsealed};
use bulla_seal::Level;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claims::Claims;
use crate::error::ConnectError;

/// How often the directory is asked which groups this process is in.
const GROUPS_EVERY: Duration = Duration::from_secs(30);

/// How to serve.
#[derive(Clone, Default)]
pub struct ServeOptions {
    pub(crate) claims: Option<Claims>,
    only_host: bool,
    concurrency: Option<usize>,
    level: Option<Level>,
    inner_signature: bool,
    authorization: Option<Arc<dyn Authorization>>,
    unsealed: Option<Arc<dyn Unsealed>>,
}

impl ServeOptions {
    /// The defaults: claims in [the folder beside the key file](crate::default_state), 256
    /// methods at a time, level `sealed`, the policy that the control plane hands out.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where to remember which messages ran.
    #[must_use]
    pub fn claims(mut self, claims: Claims) -> Self {
        self.claims = Some(claims);
        self
    }

    /// The operator's word that this is the only host of its component: without a claim store that
    /// hosts share, several could run one message. Agents need not say it.
    #[must_use]
    pub fn only_host(mut self) -> Self {
        self.only_host = true;
        self
    }

    /// Methods that run at the same time at the most.
    #[must_use]
    pub fn concurrency(mut self, methods: usize) -> Self {
        self.concurrency = Some(methods);
        self
    }

    /// The lowest level taken.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// Demands each request's sender's signature inside the seal.
    #[must_use]
    pub fn inner_signature(mut self) -> Self {
        self.inner_signature = true;
        self
    }

    /// Who may run what, in place of the policy that the control plane hands out (the default rule
    /// until it does).
    #[must_use]
    pub fn authorization(mut self, rule: Arc<dyn Authorization>) -> Self {
        self.authorization = Some(rule);
        self
    }

    /// Reads messages of peers that do not seal. Each is refused unless an exemption of the operator's names
    /// its sender, its method and how little protects it (`bulla peers exempt`).
    #[must_use]
    pub fn unsealed(mut self, reader: Arc<dyn Unsealed>) -> Self {
        self.unsealed = Some(reader);
        self
    }

    pub(crate) fn has_authorization(&self) -> bool {
        self.authorization.is_some()
    }

    fn server(&self, claims: Arc<dyn ClaimStore>) -> ServerOptions {
        let defaults = ServerOptions::new(claims);
        ServerOptions {
            only_host: self.only_host,
            concurrency: self.concurrency.unwrap_or(defaults.concurrency),
            level: self.level.unwrap_or(defaults.level),
            inner_signature: self.inner_signature,
            authorization: self.authorization.clone().unwrap_or(defaults.authorization.clone()),
            unsealed: self.unsealed.clone(),
            ..defaults
        }
    }
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions")
            .field("claims", &self.claims)
            .field("only_host", &self.only_host)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// A running server, which keeps up with the groups that it is in. Dropping it does not stop it:
/// call [`Serving::drain`].
#[derive(Debug)]
pub struct Serving {
    server: Arc<Server>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Serving {
    pub(crate) async fn start(
        endpoint: Endpoint,
        router: Router,
        claims: Arc<dyn ClaimStore>,
        options: &ServeOptions,
    ) -> Result<Self, ConnectError> {
        let server = Server::start(endpoint, router, options.server(claims)).await?;
        let serving = Self {
            server: Arc::new(server),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        join_groups(&serving.server).await;
        serving.keep_up_with_groups();
        Ok(serving)
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The server, to be looked at by others.
    pub fn shared(&self) -> Arc<Server> {
        self.server.clone()
    }

    fn keep_up_with_groups(&self) {
        let (server, stop) = (self.server.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(GROUPS_EVERY) => {}
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = join_groups(&server) => {}
                }
            }
        });
    }

    /// Takes nothing new, lets what runs end within `grace`, then returns how many methods were
    /// cut off. What was not taken yet stays in its queue.
    pub async fn drain(self, grace: Duration) -> usize {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.server.drain(grace).await
    }
}

/// A group that can't be listened to keeps nobody from being called.
async fn join_groups(server: &Server) {
    if let Err(error) = server.join_groups().await {
        tracing::warn!(%error, "a group can't be listened to; it is tried again");
    }
}
