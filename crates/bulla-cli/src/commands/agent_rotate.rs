//! `bulla agent rotate`: has agents renew their keys now, spread over a time.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use bulla_api::{Agent, Client, KeyType, RotateAgentRequest, Rotation};
use bulla_rpc::{Clock, SystemClock};
use bulla_seal::{OsRandom, Random};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api_client;
use crate::cli::AgentRotateArgs;
use crate::control::agents::RENEWAL_WAITS;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::Home;
use crate::when;

/// Agents asked at the same time at the most.
const AT_ONCE: usize = 64;
/// Longest time to spread over.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// Names that are shown to people of each sort.
const NAMES: usize = 20;

/// What became of one agent.
enum Outcome {
    Rotated,
    /// It did not answer; whether the request waits for it.
    Away {
        queued: bool,
    },
    /// It has no keys that are good: it did not join yet, or was off for too long.
    Keyless,
    Failed(String),
}

/// What became of all.
#[derive(Default)]
struct Tally {
    rotated: Vec<String>,
    away: Vec<String>,
    /// Of those, who was never there, so that no request waits for them.
    unheard: usize,
    keyless: Vec<String>,
    failed: Vec<(String, String)>,
    shared: Vec<String>,
    not_asked: usize,
}

pub(super) async fn run(home: &Home, args: &AgentRotateArgs, out: Output) -> Result<()> {
    let over = over(args.over.as_deref())?;
    if args.id.is_some() && args.over.is_some() {
        return Err(Failure::usage("--over spreads --all: one agent is asked at once"));
    }
    let patience =
        when::duration(&args.timeout).filter(|time| !time.is_zero() && *time <= RENEWAL_WAITS);
    let patience = patience.ok_or_else(|| {
        Failure::usage(format!("--timeout {}: give a while such as 30s, 24h at most", args.timeout))
    })?;
    let client = api_client(home, &args.api)?;
    let agents = match &args.id {
        Some(id) => vec![client.agent(id).await?.agent],
        None => client.all_agents().await?,
    };
    let asking = Asking { client, issued_by: SystemClock.now().secs(), patience };
    let tally = rotate(asking, agents, over, out).await;
    show(&tally, out)?;
    match (tally.failed.len(), &args.id) {
        (0, Some(id)) if !tally.keyless.is_empty() => Err(Failure::new(format!(
            "agent/{id} has no keys to renew: it did not join yet, or was off for longer than they \
             live (`bulla agent add {id} --again`)"
        ))),
        (0, _) => Ok(()),
        (failed, _) => Err(Failure::new(format!("{failed} could not renew their keys"))),
    }
}

fn over(text: Option<&str>) -> Result<Duration> {
    let Some(text) = text else { return Ok(Duration::ZERO) };
    when::duration(text).filter(|over| *over <= LONGEST).ok_or_else(|| {
        Failure::usage(format!("--over {text}: give a while such as 90m or 2h, 7d at most"))
    })
}

/// How each agent is asked.
#[derive(Clone)]
struct Asking {
    client: Client,
    /// Keys that were issued later are not renewed again.
    issued_by: u64,
    patience: Duration,
}

async fn rotate(asking: Asking, agents: Vec<Agent>, over: Duration, out: Output) -> Tally {
    let mut tally = Tally::default();
    let (shared, pairs): (Vec<_>, Vec<_>) =
        agents.into_iter().partition(|agent| agent.key_type == KeyType::Shared);
    tally.shared = shared.into_iter().map(|agent| agent.id).collect();
    let bar = progress(pairs.len(), out);
    let (begun, slots, count) = (Instant::now(), Arc::new(Semaphore::new(AT_ONCE)), pairs.len());
    let mut asked: JoinSet<(String, Outcome)> = JoinSet::new();
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    for (place, agent) in pairs.into_iter().enumerate() {
        let at = begun + over.mul_f64((place as f64 + share()) / count as f64);
        let slot = loop {
            tokio::select! {
                slot = slot_at(&slots, at) => break slot,
                Some(done) = asked.join_next() => tally.take(done, &bar),
                _ = &mut stop => break None,
            }
        };
        let Some(slot) = slot else {
            tally.not_asked = count - place;
            break;
        };
        let asking = asking.clone();
        asked.spawn(async move {
            let outcome = asking.ask(&agent.id).await;
            drop(slot);
            (agent.id, outcome)
        });
    }
    while let Some(done) = asked.join_next().await {
        tally.take(done, &bar);
    }
    bar.finish_and_clear();
    tally
}

/// A place among those that are asked, not before `at`.
async fn slot_at(slots: &Arc<Semaphore>, at: Instant) -> Option<tokio::sync::OwnedSemaphorePermit> {
    tokio::time::sleep_until(at).await;
    slots.clone().acquire_owned().await.ok()
}

impl Asking {
    async fn ask(&self, id: &str) -> Outcome {
        let request = RotateAgentRequest {
            timeout_ms: u64::try_from(self.patience.as_millis()).ok(),
            issued_by_ms: Some(self.issued_by.saturating_mul(1000)),
        };
        match self.client.rotate_agent(id, &request).await {
            Ok(rotated) => match rotated.outcome {
                Rotation::Rotated => Outcome::Rotated,
                Rotation::Away => Outcome::Away { queued: true },
                Rotation::NeverThere => Outcome::Away { queued: false },
                Rotation::WithoutKeys => Outcome::Keyless,
                Rotation::Failed => Outcome::Failed(rotated.problem.unwrap_or_default()),
            },
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

impl Tally {
    fn take(
        &mut self,
        done: std::result::Result<(String, Outcome), tokio::task::JoinError>,
        bar: &ProgressBar,
    ) {
        bar.inc(1);
        match done {
            Ok((id, Outcome::Rotated)) => self.rotated.push(id),
            Ok((id, Outcome::Away { queued })) => {
                self.unheard += usize::from(!queued);
                self.away.push(id);
            }
            Ok((id, Outcome::Keyless)) => self.keyless.push(id),
            Ok((id, Outcome::Failed(why))) => self.failed.push((id, why)),
            Err(error) => self.failed.push(("?".to_owned(), error.to_string())),
        }
    }
}

fn show(tally: &Tally, out: Output) -> Result<()> {
    let failed: Vec<_> =
        tally.failed.iter().map(|(id, why)| json!({ "agent": id, "error": why })).collect();
    let value = json!({
        "rotated": tally.rotated.len(),
        "away": tally.away,
        "failed": failed,
        "without_keys": tally.keyless,
        "shared": tally.shared,
        "not_asked": tally.not_asked,
    });
    out.result(&value, |out| {
        out.say(format!(
            "{} rotated, {} away, {} failed.",
            out.good(&tally.rotated.len().to_string()),
            tally.away.len(),
            tally.failed.len()
        ));
        if !tally.away.is_empty() {
            out.say(format!("Away: {}", names(&tally.away)));
            let queued = tally.away.len() - tally.unheard;
            if queued > 0 {
                out.say("  The request waits for them for a day; or they renew at their half-life.");
            }
            if tally.unheard > 0 {
                out.say("  Some were never there: they renew at the half-life of their keys.");
            }
        }
        if !tally.keyless.is_empty() {
            out.say(format!("Without keys: {}", names(&tally.keyless)));
            out.say("  They did not join yet, or were off for longer than keys live.");
        }
        for (id, why) in tally.failed.iter().take(NAMES) {
            out.say(format!("{} {id}: {why}", out.bad("failed")));
        }
        if !tally.shared.is_empty() {
            out.say(format!("With a shared key, not rotated: {}", names(&tally.shared)));
            out.say(
                "  A new key, sent under the old one, would be known to whoever has the old: `bulla \
                 agent revoke` them and add them anew.",
            );
        }
        if tally.not_asked > 0 {
            out.say(format!("Stopped: {} were not asked.", tally.not_asked));
        }
    })
}

fn names(all: &[String]) -> String {
    let shown = all.iter().take(NAMES).map(String::as_str).collect::<Vec<_>>().join(" ");
    match all.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more (--json names all)"),
    }
}

fn progress(count: usize, out: Output) -> ProgressBar {
    if count < 2 || out.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count as u64);
    match ProgressStyle::with_template("{bar:30} {pos}/{len} agents  {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Between 0 and 1.
fn share() -> f64 {
    let mut bytes = [0; 4];
    match OsRandom::default().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
