//! `bulla agent run|list|revoke`; the others have files of their own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulla::{Claims, Connection, QUEUE_SCHEME, ServeOptions, Serving};
use bulla_keystore::{KeyType, Page};
use bulla_rpc::identity::BusEntry;
use bulla_rpc::{Clock, EndpointOptions, KeyFile, SystemClock};
use bulla_seal::Suite;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::component::refuse_existing;
use super::serve::StopSignals;
use super::{agent_add, agent_join, agent_rotate, agent_show, private_folder};
use crate::agent::AgentOptions;
use crate::cli::{AgentCommand, AgentRunArgs, FormatArg};
use crate::control::agent_file::{Kind, Packed};
use crate::control::agents::{Plan, Revoked, Starter};
use crate::control::bus::{Bus, endpoint_options};
use crate::control::desk::Desk;
use crate::control::open_keystore;
use crate::failure::{Failure, Result};
use crate::journal::{JournalSettings, Journalled};
use crate::observe::traces::{Service, Traces};
use crate::observe::{self, BusWatch, Door, Notify, Observer, Parts};
use crate::output::{Output, date};
use crate::settings::{self, Home, Settings};

pub(crate) async fn run(home: &Home, command: &AgentCommand, out: Output) -> Result<()> {
    match command {
        AgentCommand::Add(args) => agent_add::run(home, args, out).await,
        AgentCommand::Run(args) => serve(args, out).await,
        AgentCommand::Revoke { id } => revoke(home, id, out).await,
        AgentCommand::List => list(home, out).await,
        AgentCommand::Show { id } => agent_show::run(home, id, out).await,
        AgentCommand::Rotate(args) => agent_rotate::run(home, args, out).await,
    }
}

/// Adds an agent and writes its key file.
pub(crate) async fn add(
    home: &Home,
    id: &str,
    key_type: KeyType,
    suite: Suite,
    path: &Path,
) -> Result<()> {
    bulla_seal::Principal::agent(id)?;
    refuse_existing(path)?;
    let desk = Desk::open(home).await?;
    let lifetime = bulla_keystore::TOKEN_LIFETIME;
    let plan = Plan { kind: Kind::Key, key_type, suite, lifetime, again: false };
    let mut take = |starter: Starter| {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            private_folder(dir)?;
        }
        Packed { kind: plan.kind, format: FormatArg::File, id, text: &starter.text }
            .write(path, true)
    };
    let added = desk.add_agent(&plan, id, &mut take).await;
    let closed = desk.close().await;
    added?;
    closed
}

async fn revoke(home: &Home, id: &str, out: Output) -> Result<()> {
    let desk = Desk::open(home).await?;
    let revoked = desk.revoke_agent(id).await;
    let journalled = desk.close().await;
    let Revoked { party, groups, cut } = revoked?;
    let Some(party) = party else { return left_over(id, out) };
    let revoked = json!({
        "agent": party.principal.to_string(),
        "incarnation": party.incarnation,
        "groups_rekeyed": groups,
        "broker_user": broker_word(&cut),
    });
    out.result(&revoked, |out| {
        out.say(format!("Revoked {party}: nobody takes its keys any more."));
        if !groups.is_empty() {
            out.say(format!("New keys for: {}", groups.join(" ")));
        }
        out.say(
            "Control-plane processes know within a second; agents as soon as they hear of it, an \
             hour later at the most.",
        );
        match &cut {
            Ok(Some(true)) => {
                out.say("Its broker user is gone, and its connections are closed.");
            }
            Ok(Some(false)) => out.say("It had no broker user of its own."),
            Ok(None) => out.say(
                "Its login at the broker is for you to take away: with that it can still remove \
                 messages from its queue, though not read them.",
            ),
            Err(_) => {}
        }
    })?;
    cut.map(drop).map_err(|failure| {
        Failure::new(format!(
            "agent/{id} is revoked, but its broker user could not be removed: {failure}. With it, \
             it can still take messages from its queue, though not read them. Once the broker \
             answers, `bulla agent revoke {id}` again"
        ))
    })?;
    journalled
}

fn left_over(id: &str, out: Output) -> Result<()> {
    let value = json!({ "agent": format!("agent/{id}"), "broker_user": "removed" });
    out.result(&value, |out| {
        out.say(format!(
            "agent/{id} was revoked before. Its broker user is gone now too, and its connections \
             are closed."
        ));
    })
}

fn broker_word(cut: &Result<Option<bool>>) -> serde_json::Value {
    match cut {
        Ok(None) => serde_json::Value::Null,
        Ok(Some(cut)) => json!(if *cut { "removed" } else { "none" }),
        Err(_) => json!("not removed"),
    }
}

/// What a key file says of the broker.
pub(crate) fn bus_notice(settings: &Settings, out: Output) {
    if settings.broker_users.url.is_some() {
        return out.say("It has a broker user of its own, which the file holds the login of.");
    }
    match (&settings.bus.key_file_url, &settings.bus.url) {
        (Some(_), _) => {}
        (None, Some(_)) => out.say(
            "It holds the control plane's own broker login; [bus] key-file-url gives key files \
             another, [broker-users] each agent its own.",
        ),
        (None, None) => out.say("It names no broker: give --bus or BULLA_BUS_URL there."),
    }
}

async fn list(home: &Home, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let (mut agents, mut page) = (Vec::new(), Some(Page::default()));
    while let Some(wanted) = page {
        let found = keystore.list_agents(&wanted).await?;
        agents.extend(found.agents);
        page = found.next;
    }
    keystore.close().await;
    let value: Vec<_> = agents
        .iter()
        .map(|a| {
            json!({
                "id": a.party.principal.name(),
                "incarnation": a.party.incarnation,
                "key_type": a.key_type.as_str(),
                "created": a.created.secs(),
            })
        })
        .collect();
    out.result(&value, |out| {
        let rows = agents
            .iter()
            .map(|a| {
                vec![
                    a.party.principal.to_string(),
                    a.key_type.as_str().to_owned(),
                    a.party.incarnation.to_string(),
                    date(a.created.secs()),
                ]
            })
            .collect();
        out.table(&["AGENT", "KEY", "INCARNATION", "ADDED"], rows);
    })
}

/// Starts answering as the agent of a key file.
pub(crate) async fn start(
    (file, path): (&KeyFile, &Path),
    (bus, endpoint): (&Bus, EndpointOptions),
    agent: &AgentOptions,
    options: ServeOptions,
) -> Result<(Connection, Serving)> {
    // Looked at before the broker is troubled.
    let (identity, _) = file.open(path, SystemClock.now())?;
    if !identity.principal().is_agent() {
        return Err(Failure::usage(format!(
            "{} is the key file of {}, which is no agent; a component's service opens its key \
             file with the bulla library",
            path.display(),
            identity.principal()
        )));
    }
    let router = crate::agent::router(identity.principal(), agent)?;
    let connection = Connection::over(file, path, bus.transport().await?, endpoint)?;
    match connection.serve(router, options).await {
        Ok(serving) => Ok((connection, serving)),
        Err(error) => {
            connection.close().await;
            Err(error.into())
        }
    }
}

async fn serve(args: &AgentRunArgs, out: Output) -> Result<()> {
    let (file, path) = agent_join::key_file(args, out).await?;
    let (bus, mut endpoint) = agent_bus(args, &file.principal, file.bus.as_ref())?;
    let bus = signed(bus, &file, &path)?;
    let journal = journal(args, &file)?;
    let door = observe::open_door(args.metrics).await?;
    let mut settings = Settings::default();
    settings.overlay_environment()?;
    let service = Service { name: "bulla-agent", instance: &file.principal };
    let traces = Traces::start(&settings.traces, &service)?;
    endpoint.tracer = traces.tracer();
    endpoint.events = journal.events.clone();
    endpoint.journal_calls = args.journal_calls.into();
    let agent = AgentOptions { exec: args.exec.clone(), ..AgentOptions::default() };
    let mut options = ServeOptions::new().concurrency(args.concurrency);
    if let Some(state) = &args.state {
        options = options.claims(Claims::Folder(state.clone()));
    }
    let (connection, serving) = start((&file, &path), (&bus, endpoint), &agent, options).await?;
    let mut signals = StopSignals::listen()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let principal = connection.principal().clone();
    let stop = CancellationToken::new();
    let observer = observer(&connection, &serving, &journal, &stop);
    let metrics = door.as_ref().map(Door::url);
    if let Some(door) = door {
        door.serve(observer.clone(), stop.clone());
    }
    let notify = Notify::from_env();
    let _alive = observe::keep_informed(&notify, &observer, &stop);
    if out.is_json() {
        out.json_line(&json!({ "agent": principal.to_string(), "bus": bus.address() }))?;
    }
    if let Some(metrics) = &metrics {
        out.say(format!("Metrics at {metrics}/metrics."));
    }
    out.say(format!(
        "{} answers on {}. Stop with Ctrl-C.",
        out.bold(principal.as_str()),
        bus.address()
    ));
    notify.ready(&observer.status_line().await);
    loop {
        tokio::select! {
            () = signals.wait() => break,
            // It has no settings to take over; who asks is told that it is as it was.
            _ = hangup.recv() => {
                notify.reloading();
                notify.ready(&observer.status_line().await);
            }
        }
    }
    out.say("Stopping: letting what runs end.");
    notify.stopping();
    stop.cancel();
    let cut = serving.drain(Duration::from_secs(args.grace)).await;
    connection.close().await;
    journal.close().await;
    traces.close().await;
    if cut > 0 {
        return Err(Failure::new(format!(
            "{cut} methods were still running after {} s and were cut off; their callers will be \
             told that the outcome is unknown",
            args.grace
        )));
    }
    Ok(())
}

/// On a queue service, with the key file's own key.
fn signed(bus: Bus, file: &KeyFile, path: &Path) -> Result<Bus> {
    match bus {
        Bus::Queue(options) => {
            let url = format!("{QUEUE_SCHEME}{}", options.address());
            Ok(Bus::Queue(Box::new(bulla::queue_options(file, path, &url)?)))
        }
        other => Ok(other),
    }
}

/// What is shown of an agent.
fn observer(
    connection: &Connection,
    serving: &Serving,
    journal: &Journalled,
    stop: &CancellationToken,
) -> Arc<Observer> {
    let server = serving.shared();
    let load = {
        let server = Arc::downgrade(&server);
        move || server.upgrade().map(|server| server.load())
    };
    Observer::new(Parts {
        client: connection.client().clone(),
        claims: server.claims().clone(),
        load: Box::new(load),
        bus: BusWatch::start(connection.transport(), stop),
        journal: journal.clone(),
        keystore: None,
    })
}

/// The agent's journal, if it is to keep one.
fn journal(args: &AgentRunArgs, file: &KeyFile) -> Result<Journalled> {
    let settings = JournalSettings { off: args.journal.is_none(), ..JournalSettings::default() };
    let folder = args.journal.clone().unwrap_or_default();
    let domain = bulla_seal::TrustDomain::new(&file.trust_domain)?;
    if !settings.off {
        private_folder(&folder)?;
    }
    Journalled::open(&folder, "agent", &folder.join("journal.key"), &settings, &domain)
}

/// The bus from the flag or BULLA_BUS_URL, else from the key file.
pub(super) fn agent_bus(
    args: &AgentRunArgs,
    principal: &str,
    entry: Option<&BusEntry>,
) -> Result<(Bus, EndpointOptions)> {
    let mut bus = settings::Bus::default();
    if let Some(entry) = entry {
        bus.url = Some(entry.url.clone());
        bus.exchange = Some(entry.exchange.clone());
        bus.ca.clone_from(&entry.ca);
        bus.client_cert.clone_from(&entry.client_cert);
        bus.client_key.clone_from(&entry.client_key);
    }
    let mut merged = Settings { bus, ..Settings::default() };
    merged.overlay_environment()?;
    if let Some(url) = &args.bus.bus {
        merged.bus.url = Some(url.clone());
    }
    if merged.bus.url.is_none() {
        return Err(Failure::usage(
            "the key file names no broker: give --bus amqp://… or BULLA_BUS_URL",
        ));
    }
    let options = endpoint_options(&merged.bus)?;
    let bus = Bus::from_settings(&merged.bus, principal)?;
    // A login that is given from outside is not this file's to change.
    let own = entry.filter(|entry| merged.bus.url.as_ref() == Some(&entry.url));
    let bus = match own {
        Some(entry) => bus.with_logins(entry),
        None => bus,
    };
    Ok((bus, options))
}
