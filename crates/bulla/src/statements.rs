//! Keeping a current statement of revocation (protocol section 10): most come beside messages, and
//! where none came for a while the control plane is asked.

use std::time::Duration;

use bulla_rpc::Client;
use bulla_seal::{OsRandom, Random};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether to ask: a machine that was asleep finds its statement over.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a component asks.
const COMPONENTS_ASK_EVERY: Duration = Duration::from_secs(10);
/// How long nobody asks again after a question that failed: at first, and at the most. A control
/// plane that comes back is not run over.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How old a statement may be before an agent asks, in seconds: a little past the half of its
/// life, at which the control plane makes the next.
const ASK_AFTER: u64 = 1_900;
/// Spread of that over all agents, in seconds: no event makes all ask at once.
const SPREAD: u64 = 400;

/// Asks before anything is taken from the bus: without a statement it would be refused.
pub(crate) async fn ask_first(client: &Client) {
    if client.endpoint().check_component_messages().is_err()
        && let Err(error) = client.ask_statement().await
    {
        tracing::warn!(
            %error,
            "there is no statement of revocation yet: components' messages are refused until one \
             comes with them"
        );
    }
}

/// Asks whenever the statement that is held grows old: components every ten seconds, for they
/// decide about others' messages, agents when none came for half an hour.
pub(crate) fn keep(client: &Client, stop: &CancellationToken) {
    let endpoint = client.endpoint();
    if !endpoint.identity().requires_statement() && endpoint.identity().principal().is_agent() {
        return;
    }
    if endpoint.identity().principal().name() == "control" {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let (client, stop) = (client.clone(), stop.clone());
    let spread = spread();
    runtime.spawn(async move {
        let mut pause = PAUSES.0;
        loop {
            let look = async {
                if !is_old(&client, spread) {
                    return LOOK_EVERY;
                }
                match client.ask_statement().await {
                    Ok(_) => {
                        pause = PAUSES.0;
                        rest(&client)
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the control plane gave no statement of revocation");
                        pause = (pause * 2).min(PAUSES.1);
                        pause.mul_f64(1.0 + spread as f64 / SPREAD as f64)
                    }
                }
            };
            let step = async { tokio::time::sleep(look.await).await };
            tokio::select! {
                () = stop.cancelled() => return,
                () = step => {}
            }
        }
    });
}

fn rest(client: &Client) -> Duration {
    let component = client.endpoint().identity().principal().is_component();
    if component { COMPONENTS_ASK_EVERY } else { LOOK_EVERY }
}

fn is_old(client: &Client, spread: u64) -> bool {
    let endpoint = client.endpoint();
    let Some(held) = endpoint.statement() else { return true };
    let age = endpoint.now().secs().saturating_sub(held.issued_at);
    endpoint.identity().principal().is_component() || age >= ASK_AFTER + spread
}

fn spread() -> u64 {
    let mut bytes = [0; 8];
    match OsRandom::default().fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes) % SPREAD,
        Err(_) => 0,
    }
}
