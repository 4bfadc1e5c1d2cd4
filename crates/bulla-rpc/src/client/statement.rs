//! Asking the control plane for the newest statement of revocation.

use std::time::{Duration, Instant};

use bulla_guard::revocation::Applied;
use bulla_seal::Principal;
use parking_lot::Mutex;

use super::Client;
use crate::directory::wire::{self, StatementAnswer, StatementArgs};
use crate::error::CallError;
use crate::target::Target;

/// How long the question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody asks again after a question that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// One question at a time.
#[derive(Default)]
pub(super) struct Asking {
    one: tokio::sync::Mutex<()>,
    failed: Mutex<Option<Instant>>,
}

impl Client {
    /// Asks the control plane for the newest statement of revocation and takes it.
    ///
    /// # Errors
    /// It does not answer, or what it answers is no statement of this deployment's issuer.
    pub async fn ask_statement(&self) -> Result<Applied, CallError> {
        let target = Target::Principal(control()?);
        let request = self.request(&target, wire::STATEMENT).namespace(wire::NAMESPACE);
        let request = request.timeout(PATIENCE).cancel_on_drop(false).asks_statement();
        let answer: StatementAnswer = request.call(&StatementArgs {}).await?;
        let unusable = |why: &str| CallError::UnknownTarget {
            target: target.to_string(),
            why: format!("its statement of revocation can't be used: {why}"),
        };
        let bytes = wire::statement_bytes(&answer.statement);
        let bytes = bytes.ok_or_else(|| unusable("it is not base64"))?;
        let taken = self.endpoint().take_statement(&bytes);
        taken.map_err(|refusal| unusable(refusal.as_str()))
    }

    /// An agent that needs a current statement to believe a component's reply asks for one before
    /// it calls. If there is none to be had, the reply may still bring it.
    pub(super) async fn ensure_statement(&self, peer: &Principal) {
        let wants = || self.endpoint().check_component_messages().is_err();
        if !peer.is_component() || !wants() {
            return;
        }
        let through = self.0.asks.as_ref().unwrap_or(self);
        let asking = &through.0.asking;
        let _one = asking.one.lock().await;
        let paused = asking.failed.lock().is_some_and(|failed| failed.elapsed() < PAUSE);
        if paused || !wants() {
            return;
        }
        // A future of its own kind: a call that makes a call.
        let asked = Box::pin(through.ask_statement()).await;
        *asking.failed.lock() = asked.is_err().then(Instant::now);
        if let Err(error) = asked {
            tracing::warn!(%error, "there is no current statement of revocation, and none to be had");
        }
    }
}

fn control() -> Result<Principal, CallError> {
    Principal::component("control").map_err(|error| CallError::Usage(error.to_string()))
}
