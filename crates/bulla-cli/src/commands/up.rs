//! `bulla up`: everything in one process, beginning with one sealed call.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla::{Claims, Connection, ServeOptions, Serving};
use bulla_guard::{MemoryClaims, StoreOptions};
use bulla_keystore::{KeyType, KeystoreError};
use bulla_rpc::{Clock, KeyFile, KeyFileError, SystemClock, Target};
use bulla_seal::{Refusal, Suite};
use bulla_transport::memory::Tapped;
use serde_json::{Value, json};

use super::serve::{self, Running};
use super::tap;
use super::{agent, init};
use crate::agent::AgentOptions;
use crate::cli::{InitArgs, SuiteArg, UpArgs};
use crate::control::bus::{Bus, endpoint_options};
use crate::control::queue_bus::QueueService;
use crate::control::{open_keystore, tap_event};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::{Home, Settings};

/// The agent that runs inside `bulla up`.
const LOCAL: &str = "local";
/// How long the first call may take, and how long what the bus saw of it is waited for.
const FIRST_CALL: Duration = Duration::from_secs(20);
const FIRST_TAP: Duration = Duration::from_millis(500);

pub(crate) async fn run(home: &Home, args: &UpArgs, out: Output) -> Result<()> {
    let begun = Instant::now();
    if !home.is_initialised() {
        let init = InitArgs {
            trust_domain: "bulla.local".to_owned(),
            hosts: Vec::new(),
            operator: "operator".to_owned(),
            suite: SuiteArg::X25519,
        };
        init::make(home, &init).await?;
        out.say(format!(
            "Made a new deployment in {}.",
            out.bold(&home.dir().display().to_string())
        ));
    }
    let mut settings = serve::settings(home, &args.serve)?;
    if !args.queue {
        let bus = Bus::from_settings(&settings.bus, "up")?;
        return up(home, args, &settings, bus, begun, out).await;
    }
    settings.queue.listen = args.queue_listen.or(settings.queue.listen);
    // The queue service is in this process, and so is whoever takes from the control plane's queues:
    // one can't ask a queue service who else there is.
    settings.claims.only_host = true;
    let queue = QueueService::start(home, &settings).await?;
    let ended = match queue.bus(&settings) {
        Ok(bus) => up(home, args, &settings, bus, begun, out).await,
        Err(failure) => Err(failure),
    };
    queue.stop().await;
    ended
}

/// The control plane on its bus.
async fn up(
    home: &Home,
    args: &UpArgs,
    settings: &Settings,
    bus: Bus,
    begun: Instant,
    out: Output,
) -> Result<()> {
    let mut running = serve::start(home, settings, bus).await?;
    let (local, serving) = match start_local(home, settings, &running).await {
        Ok(local) => local,
        Err(failure) => {
            running.stop().await;
            return Err(failure);
        }
    };
    let first = first_call(&running).await;
    let shown = first.and_then(|first| show_first(&first, &running, home, begun, out));
    if shown.is_ok() && !args.once {
        next_steps(&running, home, out);
        running.tell_ready().await;
        running.wait_for_stop().await;
        out.say("Stopping: letting what runs end.");
    }
    serving.drain(Duration::from_secs(10)).await;
    local.close().await;
    running.stop().await;
    shown
}

/// The local agent, with a key file and a memory like any other's.
async fn start_local(
    home: &Home,
    settings: &Settings,
    running: &Running,
) -> Result<(Connection, Serving)> {
    let path = home.agents().join(format!("{LOCAL}.key"));
    if path.exists() && is_over(&KeyFile::read(&path)?, &path) {
        // Nothing was up for longer than its keys live: it is only this machine's own.
        bulla_rpc::identity::burn_file(&path)?;
    }
    if !path.exists() {
        // A key file that was taken away can't be made again; the name gets a new incarnation.
        let keystore = open_keystore(home).await?;
        match keystore.remove_agent(LOCAL).await {
            Ok(_) | Err(KeystoreError::UnknownPrincipal { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        keystore.close().await;
        agent::add(home, LOCAL, KeyType::Pair, Suite::X25519, &path).await?;
    }
    let bus = &running.node.bus;
    let claims = if bus.is_memory() {
        // The bus was born with this process: nothing can have run before.
        Claims::Store(Arc::new(MemoryClaims::for_new_bus(StoreOptions::default())))
    } else {
        Claims::Folder(home.state().join(LOCAL))
    };
    let (file, endpoint) = (KeyFile::read(&path)?, endpoint_options(&settings.bus)?);
    let options = ServeOptions::new().claims(claims);
    agent::start((&file, &path), (bus, endpoint), &AgentOptions::default(), options).await
}

/// Whether the agent was off for longer than its keys live.
fn is_over(file: &KeyFile, path: &Path) -> bool {
    let expired = Refusal::CredentialExpired;
    matches!(
        file.open(path, SystemClock.now()),
        Err(KeyFileError::Credential { refusal, .. }) if refusal == expired
    )
}

/// What the agent got and gave, and what the bus saw of it.
struct First {
    facts: Value,
    took: Duration,
    seen: Vec<Tapped>,
}

async fn first_call(running: &Running) -> Result<First> {
    let node = &running.node;
    let exchange = node.client.endpoint().options().exchange.clone();
    // A queue service shows nobody what passes, nor does the oslo carrier's default exchange.
    let watched = node.bus.can_be_tapped();
    let reply = node.client.reply_name();
    let mut tap = if watched { Some(node.bus.tap(&exchange, &[], reply).await?) } else { None };
    let target: Target = format!("agent/{LOCAL}").parse()?;
    let begun = Instant::now();
    let request = node.client.request(&target, "facts").namespace("host").timeout(FIRST_CALL);
    let facts: Value = request.call(&json!({})).await?;
    let took = begun.elapsed();
    let mut seen = Vec::new();
    // Request and reply; a lookup of the agent's own may pass in between.
    while let Some(tap) = &mut tap
        && let Ok(Some(tapped)) = tokio::time::timeout(FIRST_TAP, tap.next()).await
    {
        let ours = tapped.routing_key == target.topic();
        let answer = tapped.routing_key.starts_with(reply.as_str());
        if ours || answer {
            seen.push(tapped);
        }
        if answer {
            break;
        }
    }
    if watched && seen.is_empty() {
        return Err(Failure::new("the first call was answered, but the bus showed nothing of it"));
    }
    Ok(First { facts, took, seen })
}

fn show_first(
    first: &First,
    running: &Running,
    home: &Home,
    begun: Instant,
    out: Output,
) -> Result<()> {
    let events: Vec<_> = first.seen.iter().map(tap_event).collect();
    let value = json!({
        "api": running.url,
        "bus": running.node.bus.address(),
        "call": { "target": format!("agent/{LOCAL}"), "method": "host.facts", "value": first.facts },
        "bus_saw": events,
    });
    if out.is_json() {
        return out.json_line(&value);
    }
    out.say("");
    out.say(format!(
        "The control plane called {} on {}:",
        out.bold("host.facts"),
        out.bold("agent/local")
    ));
    out.say("");
    out.say(out.dim("What the agent answered"));
    for (name, text) in summary(&first.facts) {
        out.say(format!("  {name:<10} {}", out.good(&text)));
    }
    out.say("");
    let (bus, address) = (&running.node.bus, running.node.bus.address());
    out.say(out.dim(&match (bus.is_queue(), bus.can_be_tapped()) {
        (true, _) => format!("It passed through the queue service {address}"),
        (_, true) => format!("What the bus ({address}) saw of it"),
        _ => format!("It passed through {address} in oslo.messaging's bodies"),
    }));
    events.iter().for_each(|event| tap::show(event, out));
    out.say("");
    out.say(format!(
        "Answered in {:.1} ms; up in {:.2} s. Home: {}",
        first.took.as_secs_f64() * 1e3,
        begun.elapsed().as_secs_f64(),
        home.dir().display()
    ));
    Ok(())
}

/// A few facts as lines; whatever shape they have.
fn summary(facts: &Value) -> Vec<(String, String)> {
    let Some(map) = facts.as_object() else { return vec![("value".into(), facts.to_string())] };
    map.iter()
        .map(|(name, value)| {
            let text = in_words(value);
            let short: String = text.chars().take(84).collect();
            (name.clone(), if short.len() < text.len() { format!("{short}…") } else { short })
        })
        .collect()
}

/// A value without JSON's punctuation.
fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(in_words).collect::<Vec<_>>().join("; "),
        Value::Object(map) => {
            let pair = |(name, value): (&String, &Value)| format!("{name} {}", in_words(value));
            map.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn next_steps(running: &Running, home: &Home, out: Output) {
    let home_flag = if home.dir() == std::path::Path::new("bulla") {
        String::new()
    } else {
        format!(" --home {}", home.dir().display())
    };
    let commands = [
        (format!("bulla{home_flag} call agent/local agent.ping"), "another call"),
        (format!("bulla{home_flag} tap"), "what the bus sees, live"),
        (format!("bulla{home_flag} fanout group/all agent.ping"), "to every agent"),
        (format!("bulla{home_flag} agent list"), "who exists"),
        (format!("bulla{home_flag} doctor"), "is all well"),
    ];
    out.say("");
    if let Some(metrics) = &running.metrics {
        out.say(format!("Metrics at {metrics}/metrics."));
    }
    out.say(format!("API at {}. In another terminal, try:", running.url));
    let rows =
        commands.map(|(command, what)| vec![format!("  {}", out.bold(&command)), out.dim(what)]);
    out.table(&["", ""], rows.to_vec());
    if running.node.bus.is_queue() {
        out.say("Agents on other machines need nothing else: bulla agent add ID --transport queue");
    }
    if running.node.bus.is_memory() {
        out.say("Agents on other machines need a broker: bulla up --bus amqp://user:password@host");
    }
    if home.root_key().exists() {
        init::root_key_notice(home, out);
    }
    out.say("");
    out.say(out.dim("Running. Stop with Ctrl-C."));
}
