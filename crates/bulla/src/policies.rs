//! The policy that a server goes by: kept beside its claims, pushed by the control plane, and asked
//! for now and then, for what is pushed may be lost.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulla_journal::events;
use bulla_rpc::builtin::{self, PolicyNews};
use bulla_rpc::{Client, Context, Method, PolicyRule, RemoteError, Router, Taken, kinds};
use bulla_seal::{OsRandom, Random, SignedPolicy};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The file in the state folder.
const FILE: &str = "policy";
/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often agents ask, who are pushed what is new; and hosts of components, who are not.
const ASK_EVERY: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(10));
/// How much later agents ask at the most: no event makes all ask at once.
const SPREAD: u64 = 60_000;
/// How long nobody asks again after a question that failed: at first, and at the most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long after a report of differences the next one goes.
const REPORT_EVERY: Duration = Duration::from_secs(15);

/// Keeps a server's rule the newest.
#[derive(Clone)]
pub(crate) struct Policies(Arc<Inner>);

struct Inner {
    client: Client,
    rule: Arc<PolicyRule>,
    file: PathBuf,
    /// Whether a policy was kept from an earlier start.
    kept: bool,
    one: Mutex<()>,
}

impl Policies {
    /// Begins with what is kept in `folder`. What is there and can't be used denies everything until
    /// the control plane was heard.
    pub(crate) fn open(client: &Client, folder: &Path) -> Self {
        let (rule, file) = (Arc::new(PolicyRule::default()), folder.join(FILE));
        let kept = match fs::read(&file) {
            Ok(bytes) => match client.endpoint().identity().trust().verify_policy(&bytes) {
                Ok(document) => rule.take(&document) == Taken::New,
                Err(refusal) => {
                    let refusal = refusal.as_str();
                    tracing::error!(
                        file = %file.display(),
                        refusal,
                        "the policy that is kept is not signed by the operator: everything is \
                         denied until the control plane tells the policy"
                    );
                    rule.deny_until_told();
                    false
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => {
                tracing::error!(
                    file = %file.display(),
                    %error,
                    "the policy that is kept can't be read: everything is denied until the \
                     control plane tells the policy"
                );
                rule.deny_until_told();
                false
            }
        };
        Self(Arc::new(Inner { client: client.clone(), rule, file, kept, one: Mutex::default() }))
    }

    pub(crate) fn rule(&self) -> Arc<PolicyRule> {
        self.0.rule.clone()
    }

    /// Asks before anything is taken from the bus, where nothing is known yet.
    pub(crate) async fn ask_first(&self) {
        if self.0.kept {
            return;
        }
        if let Err(error) = self.0.ask().await {
            tracing::debug!(%error, "the control plane did not say which policy there is");
        }
    }

    /// A router with the method by which the control plane tells an agent of a policy.
    pub(crate) fn offer(&self, router: Router) -> Router {
        let inner = self.0.clone();
        let tell = move |context: Context, news: PolicyNews| {
            let inner = inner.clone();
            async move {
                let sender = &context.sender().principal;
                if sender.as_str() != "component/control" {
                    let why = format!("only the control plane tells policies, not {sender}");
                    return Err(RemoteError::new(kinds::NOT_PERMITTED, why));
                }
                let bad = |error: bulla_rpc::CallError| {
                    tracing::error!(%error, "what was told of a policy is refused");
                    RemoteError::new(kinds::BAD_ARGUMENTS, error.to_string())
                };
                let document = inner.client.verify_policy(&news.policy).map_err(bad)?;
                inner.take(document).await;
                Ok(())
            }
        };
        let method = Method::new(builtin::POLICY, tell).namespace(builtin::NAMESPACE);
        router.with(method.of_the_protocol().idempotent())
    }

    /// Asks and reports until `stop`.
    pub(crate) fn keep(&self, stop: &CancellationToken) {
        let (inner, stop) = (self.0.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = inner.run() => {}
            }
        });
    }
}

impl Inner {
    async fn run(&self) {
        let agent = self.client.endpoint().identity().principal().is_agent();
        let every = || match agent {
            true => ASK_EVERY.0 + Duration::from_millis(random() % SPREAD),
            false => ASK_EVERY.1,
        };
        let (mut ask, mut report, mut pause) = (Instant::now(), Instant::now(), PAUSES.0);
        if !self.kept {
            // It has asked just now.
            ask += PAUSES.0;
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if Instant::now() >= ask {
                let wait = match self.ask().await {
                    Ok(()) => {
                        pause = PAUSES.0;
                        every()
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the control plane did not say which policy there is");
                        pause = (pause * 2).min(PAUSES.1);
                        pause + Duration::from_millis(random() % 1000)
                    }
                };
                ask = Instant::now() + wait;
            }
            if Instant::now() >= report {
                match self.client.report_differences(&self.rule).await {
                    Ok(0) => {}
                    Ok(_) => report = Instant::now() + REPORT_EVERY,
                    Err(error) => {
                        tracing::debug!(%error, "differences of policies could not be reported");
                        report = Instant::now() + REPORT_EVERY;
                    }
                }
            }
        }
    }

    async fn ask(&self) -> Result<(), bulla_rpc::CallError> {
        match self.client.ask_policy(self.rule.sequence()).await? {
            Some(document) => self.take(document).await,
            None => self.rule.told_there_is_none(),
        }
        Ok(())
    }

    /// On the disk before it is gone by, so that a restart goes back to none that is older.
    async fn take(&self, document: SignedPolicy) {
        let _one = self.one.lock().await;
        let (version, sequence) = (document.version, document.sequence);
        if sequence < self.rule.sequence() {
            tracing::warn!(version, sequence, "a policy older than the one that is held");
            self.client.refuse_policy(bulla_seal::Refusal::PolicyStale);
            return;
        }
        if sequence == self.rule.sequence() {
            return;
        }
        let (file, bytes) = (self.file.clone(), document.as_bytes().clone());
        let written = tokio::task::spawn_blocking(move || write(&file, &bytes)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = written {
            let file = self.file.display();
            tracing::error!(%file, %error, "the policy can't be kept: after a restart the former counts");
        }
        self.rule.take(&document);
        let shadow = document.shadow.is_some();
        let followed = events::PolicyFollowed { version, sequence, shadow };
        self.client.endpoint().events().emit(followed);
    }
}

/// Whole or not at all.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let new = file.with_extension("new");
    let mut out =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    match file.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    match OsRandom::default().fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(_) => 0,
    }
}
