//! Keeping keys fresh (protocol section 10): by schedule, when the control plane asks for it, and on
//! with what the last start left unfinished.

use std::path::Path;
use std::time::Duration;

use bulla_journal::{Events, events};
use bulla_rpc::builtin::{self, Renew, Renewed};
use bulla_rpc::{
    Client, Context, KeyFile, Method, RemoteError, RenewalError, Renewer, Router, kinds,
};
use bulla_seal::{OsRandom, Random, SignedCredential};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether something is due: by the wall clock, so that a machine that slept
/// is not late by its sleep.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a component's host asks for its type's keys.
const FETCH_EVERY: Duration = Duration::from_secs(10);
/// How often agents ask which root follows, up to a tenth earlier or later; and hosts.
const ROOTS_EVERY: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(10));
/// How long nobody asks again after a failure: at first, and at the most, each up to half more. A
/// control plane that comes back is not run over.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// The same after a refusal, which another attempt does not change.
const REFUSED: Duration = Duration::from_secs(3600);
/// Requests of the control plane that wait at the most.
const WAITING: usize = 16;

/// A request to renew now.
struct Ask {
    issued_by: Option<u64>,
    done: oneshot::Sender<Result<Renewed, RemoteError>>,
}

/// Where such requests go.
#[derive(Clone)]
pub(crate) struct Asks(mpsc::Sender<Ask>);

impl Asks {
    /// The method by which the control plane has an agent renew its keys.
    pub(crate) fn method(&self) -> Method {
        let asks = self.0.clone();
        let renew = move |context: Context, args: Renew| {
            let asks = asks.clone();
            async move {
                let sender = &context.sender().principal;
                if sender.as_str() != "component/control" {
                    let why = format!("only the control plane has keys renewed, not {sender}");
                    return Err(RemoteError::new(kinds::NOT_PERMITTED, why));
                }
                let (done, answer) = oneshot::channel();
                let gone = |_| RemoteError::new(kinds::INTERNAL, "this agent is stopping");
                asks.send(Ask { issued_by: args.issued_by, done }).await.map_err(|_| gone(()))?;
                answer.await.map_err(|_| gone(()))?
            }
        };
        Method::new(builtin::RENEW, renew)
            .namespace(builtin::NAMESPACE)
            .of_the_protocol()
            .idempotent()
    }

    /// A router with the method in it, if `router` is an agent's.
    pub(crate) fn offer(&self, router: Router, agent: bool) -> Router {
        if agent { router.with(self.method()) } else { router }
    }
}

/// Keeps the keys of `client` fresh until `stop`.
pub(crate) fn keep(client: &Client, file: &KeyFile, path: &Path, stop: &CancellationToken) -> Asks {
    let (asks, asked) = mpsc::channel(WAITING);
    let identity = client.endpoint().identity();
    // The control plane itself makes its keys in its keystore.
    if identity.principal().as_str() != "component/control"
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        let keeper = Keeper {
            events: client.endpoint().events().clone(),
            renewer: Renewer::new(client, file, path),
            component: identity.principal().is_component(),
            next: Instant::now(),
            fetch: Instant::now(),
            roots: Instant::now(),
            again: PAUSES.0,
            pause: PAUSES.0,
            warned: false,
        };
        runtime.spawn(keeper.run(asked, stop.clone()));
    }
    Asks(asks)
}

struct Keeper {
    events: Events,
    renewer: Renewer,
    component: bool,
    /// Nothing is tried by schedule before then.
    next: Instant,
    fetch: Instant,
    roots: Instant,
    /// How long nobody asks for roots again after the next failure.
    again: Duration,
    pause: Duration,
    warned: bool,
}

impl Keeper {
    async fn run(mut self, mut asked: mpsc::Receiver<Ask>, stop: CancellationToken) {
        loop {
            let ask = tokio::select! {
                () = stop.cancelled() => return,
                ask = asked.recv() => ask,
                () = tokio::time::sleep(LOOK_EVERY) => None,
            };
            let step = async {
                match ask {
                    // A shared key: there is nothing to renew, and whoever asks is told so.
                    Some(ask) if self.renewer.credential().is_none() => refuse(ask),
                    Some(ask) => self.answer(ask).await,
                    None => self.look().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = step => {}
            }
        }
    }

    async fn answer(&mut self, ask: Ask) {
        let answer = match self.renew_issued_by(ask.issued_by).await {
            Ok(renewed) => Ok(renewed),
            Err(error) => {
                self.failed(&error);
                Err(RemoteError::new("NotRenewed", error.to_string()))
            }
        };
        let _ = ask.done.send(answer);
    }

    async fn renew_issued_by(&mut self, issued_by: Option<u64>) -> Result<Renewed, RenewalError> {
        let present = self.renewer.credential().ok_or(RenewalError::Shared)?;
        let issued =
            present.validity.not_before.saturating_add(crate::connection::ISSUED_AFTER.as_secs());
        if issued_by.is_some_and(|by| issued > by) && !self.renewer.is_under_way() {
            self.renewer.renew_login().await?;
            return Ok(told(&present, false));
        }
        let renewed = self.renewer.renew().await?;
        self.succeeded(&renewed);
        Ok(told(&renewed, true))
    }

    /// What is due by the clock.
    async fn look(&mut self) {
        if let Err(error) = self.renewer.retire_root() {
            tracing::debug!(%error, "a root that ended stays in the key file for now");
        }
        if Instant::now() >= self.roots {
            self.learn_roots().await;
        }
        match self.renewer.retire() {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "former keys to receive with were destroyed"),
            Err(error) => tracing::debug!(%error, "a former key can't be destroyed yet"),
        }
        if self.component && Instant::now() >= self.fetch {
            self.fetch_keys().await;
        }
        let now = self.renewer.now();
        let due = self.renewer.due().is_some_and(|due| now >= due) || self.renewer.is_under_way();
        if !(due || self.renewer.is_login_under_way()) || Instant::now() < self.next {
            return;
        }
        let renewed = match due {
            true => self.renewer.renew().await.map(Some),
            false => self.renewer.renew_login().await.map(|()| None),
        };
        match renewed {
            Ok(Some(renewed)) => self.succeeded(&renewed),
            Ok(None) => {
                (self.next, self.pause, self.warned) = (Instant::now(), PAUSES.0, false);
                tracing::info!("the broker has this agent's new password");
            }
            Err(error) => self.failed(&error),
        }
    }

    async fn learn_roots(&mut self) {
        let every = if self.component { ROOTS_EVERY.1 } else { ROOTS_EVERY.0 };
        let pause = match self.renewer.learn_roots().await {
            Ok(_) => {
                self.again = PAUSES.0;
                every.mul_f64(0.9 + share() / 5.0)
            }
            Err(error @ RenewalError::Root { .. }) => {
                tracing::error!(%error, "no other root is trusted");
                every
            }
            Err(error) => {
                tracing::debug!(%error, "the control plane did not say which root follows");
                let pause = self.again;
                self.again = (self.again * 2).min(PAUSES.1);
                pause.mul_f64(1.0 + share() / 2.0)
            }
        };
        self.roots = Instant::now() + pause;
    }

    async fn fetch_keys(&mut self) {
        self.fetch = Instant::now() + FETCH_EVERY;
        match self.renewer.fetch_keys().await {
            Ok(true) => tracing::info!("there are new keys to receive with"),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the control plane gave no keys to receive with"),
        }
    }

    fn succeeded(&mut self, renewed: &SignedCredential) {
        (self.next, self.pause, self.warned) = (Instant::now(), PAUSES.0, false);
        self.roots = Instant::now();
        let (kid, epoch) = (renewed.kid, renewed.epoch);
        self.events.emit(events::KeysRenewed { kid, epoch });
    }

    /// Told once, and again when the control plane has decided.
    fn failed(&mut self, error: &RenewalError) {
        if error.is_final() {
            self.next = Instant::now() + REFUSED;
            tracing::error!(
                %error,
                "this principal's keys are not renewed; `bulla agent show` at the control plane \
                 says more"
            );
            return;
        }
        self.next = Instant::now() + self.pause.mul_f64(1.0 + share() / 2.0);
        self.pause = (self.pause * 2).min(PAUSES.1);
        let ends = self.renewer.credential().map(|present| present.validity.not_after);
        if std::mem::replace(&mut self.warned, true) {
            tracing::debug!(%error, "keys could not be renewed");
        } else {
            tracing::warn!(%error, ends, "keys could not be renewed; it is tried again");
        }
    }
}

fn refuse(ask: Ask) {
    let why = RemoteError::new("SharedKey", RenewalError::Shared.to_string());
    // Whoever asked may be gone.
    let _ = ask.done.send(Err(why));
}

fn told(credential: &SignedCredential, renewed: bool) -> Renewed {
    Renewed {
        renewed,
        kid: credential.kid.to_string(),
        epoch: credential.epoch,
        expires: credential.validity.not_after,
    }
}

/// Between 0 and 1.
fn share() -> f64 {
    let mut bytes = [0; 4];
    match OsRandom::default().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.0,
    }
}
