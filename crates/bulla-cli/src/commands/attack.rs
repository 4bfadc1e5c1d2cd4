//! `bulla attack`.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use bulla_api::{CallFailure, CallRequest, Client, ClientError};
use bulla_attack::live::{BAIT, Bait, LIVE_ROWS, Live};
use bulla_attack::{
    Bus, Cell, Group, KeyType, Kind, LiveReport, ROWS, Report, Row, RowReport, Trouble, Verdict,
};
use bulla_rpc::{CallError, EndpointOptions, kinds};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::api_client;
use crate::cli::AttackArgs;
use crate::control::bus::{Bus as SettingsBus, endpoint_options};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::{Home, Settings};

/// How long the bait may take.
const PATIENCE_MS: u64 = 8000;

fn told(trouble: Trouble) -> Failure {
    Failure::new(trouble.0)
}

pub(crate) async fn run(home: &Home, args: &AttackArgs, out: Output) -> Result<()> {
    let rows = chosen(&args.only)?;
    if args.list {
        return list(&rows, out);
    }
    let mut settings = Settings::load(home.dir())?;
    settings.bus.url.clone_from(&args.bus);
    let options = endpoint_options(&settings.bus)?;
    let bus = match SettingsBus::from_settings(&settings.bus, "attack")? {
        SettingsBus::Memory(_) => Bus::memory(),
        SettingsBus::Rabbit(rabbit) => Bus::rabbit((*rabbit).clone()).await.map_err(told)?,
        SettingsBus::Queue(_) => {
            return Err(Failure::usage(
                "the attacks are those of a RabbitMQ, or of a bus in memory",
            ));
        }
        SettingsBus::Oslo(..) => {
            return Err(Failure::usage(
                "the attacks are made on the native carrier's frames: run this with \
                 BULLA_BUS_CARRIER=native",
            ));
        }
    };
    let live = args.bus.is_some() && wants_live(&args.only) && may_attack(args, out)?;
    let report = own(&rows, &bus, options.clone(), out).await?;
    let live = match live {
        true => attack_live(home, args, &bus, &options, out).await?,
        false => Vec::new(),
    };
    bus.close().await;
    let through = through(&report, &live);
    let value = json!({ "good": through == 0, "own": report, "live": live });
    out.result(&value, |out| people(&report, &live, out))?;
    match through {
        0 => Ok(()),
        1 => Err(Failure::new("one attack did not end as it must; see above")),
        count => Err(Failure::new(format!("{count} attacks did not end as they must; see above"))),
    }
}

fn chosen(only: &[String]) -> Result<Vec<&'static Row>> {
    if only.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let wanted = |row: &&Row| {
        let id = row.id.to_ascii_lowercase();
        only.iter().any(|only| id.starts_with(&only.to_ascii_lowercase()))
    };
    let rows: Vec<_> = ROWS.iter().filter(wanted).collect();
    match rows.is_empty() && !wants_live(only) {
        true => Err(Failure::usage("no row has this id; `bulla attack --list` shows them")),
        false => Ok(rows),
    }
}

/// Whether the rows on the user's own deployment are among those asked for.
fn wants_live(only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|only| only.eq_ignore_ascii_case("live"))
}

fn list(rows: &[&'static Row], out: Output) -> Result<()> {
    let value: Vec<_> = rows
        .iter()
        .map(|row| {
            let checks: Vec<Vec<_>> =
                row.red.iter().map(|set| set.iter().map(|check| check.name()).collect()).collect();
            json!({
                "id": row.id, "tries": row.tries, "incident": row.incident,
                "expected": row.expected, "kinds": row.kinds, "keys": row.keys, "checks": checks,
            })
        })
        .collect();
    out.result(&value, |out| {
        for group in Group::ALL {
            let rows: Vec<_> = rows.iter().filter(|row| row.group() == group).collect();
            if rows.is_empty() {
                continue;
            }
            out.say(out.bold(group.title()));
            for row in rows {
                out.say(format!("  {}  {}", out.secret(&format!("{:<32}", row.id)), row.tries));
                out.say(out.dim(&format!("  {:<32}  {}", "", row.incident)));
            }
        }
        out.say(out.bold("On your own deployment (--bus URL --yes)"));
        for row in LIVE_ROWS {
            out.say(format!("  {}  {}", out.secret(&format!("{:<32}", row.id)), row.tries));
        }
    })
}

/// Whether the user's own deployment is attacked: only when that was asked for.
fn may_attack(args: &AttackArgs, out: Output) -> Result<bool> {
    if args.yes {
        return Ok(true);
    }
    if out.is_json() || !std::io::stdin().is_terminal() {
        eprintln!("Your own deployment on that broker is left alone; --yes attacks it too.");
        return Ok(false);
    }
    eprint!(
        "Attack your own deployment on that broker too? It gets forged and repeated messages for \
         about half a minute;\nthe bait is calls of a method that does not exist, and nothing of \
         yours is run or removed. [y/N] "
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn own(
    rows: &[&'static Row],
    bus: &Bus,
    options: EndpointOptions,
    out: Output,
) -> Result<Report> {
    let settings = bulla_attack::Settings::like(options).map_err(told)?;
    let bar = progress(rows.len() * Cell::all().count(), out);
    let report = bulla_attack::run(rows, bus, &settings, |row, cell| {
        bar.set_message(format!("{} ({}, {})", row.id, cell.kind, cell.key));
        bar.inc(1);
    })
    .await;
    bar.finish_and_clear();
    Ok(report)
}

fn progress(length: usize, out: Output) -> ProgressBar {
    if out.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

async fn attack_live(
    home: &Home,
    args: &AttackArgs,
    bus: &Bus,
    options: &EndpointOptions,
    out: Output,
) -> Result<Vec<LiveReport>> {
    let agent = bait_agent(home, args).await?;
    out.say(out.dim(&format!("Attacking your deployment, with calls to {agent} as the bait.")));
    let (api, dir) = (args.api.clone(), home.clone());
    let target = agent.clone();
    let bait: Bait = Box::new(move || {
        let (api, dir, target) = (api.clone(), dir.clone(), target.clone());
        Box::pin(async move {
            let client = api_client(&dir, &api).map_err(|e| Trouble(e.to_string()))?;
            bite(&client, &target).await
        })
    });
    let live = Live::new(bus, &options.exchange, options.max_message, bait).await;
    let mut live = live.map_err(told)?;
    let bar = progress(LIVE_ROWS.len(), out);
    let mut reports = live
        .run(|report| {
            bar.set_message(report.id);
            bar.inc(1);
        })
        .await;
    bar.finish_and_clear();
    if let Some(key) = &args.key {
        reports.extend(with_key(key, args.bus.as_deref(), &agent).await?);
    }
    Ok(reports)
}

/// The agent that was named, or the first that answers.
async fn bait_agent(home: &Home, args: &AttackArgs) -> Result<String> {
    let client = api_client(home, &args.api)?;
    let named = args.agent.as_ref().map(|id| vec![format!("agent/{id}")]);
    let agents = match named {
        Some(agents) => agents,
        None => client.all_agents().await?.into_iter().map(|agent| agent.principal).collect(),
    };
    for agent in agents {
        if bite(&client, &agent).await.is_ok() {
            return Ok(agent);
        }
    }
    Err(Failure::new(
        "no agent answers, so there is nothing to capture; start one with `bulla agent run`, or \
         leave --yes out",
    ))
}

/// One call of a method that nobody has: answered under seal, written down as done, run by nobody.
async fn bite(client: &Client, agent: &str) -> std::result::Result<(), Trouble> {
    let request = CallRequest {
        target: agent.to_owned(),
        namespace: None,
        method: BAIT.to_owned(),
        version: None,
        args: Value::Null,
        context: None,
        timeout_ms: Some(PATIENCE_MS),
    };
    match client.call(&request).await {
        Err(ClientError::Failed(CallFailure::Remote { .. })) => Ok(()),
        Ok(value) => Err(Trouble(format!("the bait returned {value}"))),
        Err(error) => Err(Trouble(error.to_string())),
    }
}

/// What one agent's key file lets an intruder do besides.
async fn with_key(
    key: &std::path::Path,
    url: Option<&str>,
    agent: &str,
) -> Result<Vec<LiveReport>> {
    let connection = bulla::Connection::open(key, url).await?;
    let own = connection.endpoint().identity().principal().to_string();
    let mut reports = Vec::new();
    for (id, tries, target) in [
        ("live-11-agent-calls-agent", "with the key file, call another agent", agent),
        (
            "live-12-method-that-is-not-open",
            "with the key file, call a method of the control plane that is not open",
            "component/control",
        ),
    ] {
        let begun = std::time::Instant::now();
        let (verdict, seen) = match target == own {
            true => (Verdict::NotApplicable, "the key file is the bait's own".to_owned()),
            false => denied(&connection, target).await?,
        };
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let expected = "denied, unknown or unanswered";
        reports.push(LiveReport { id, tries, expected, verdict, seen, millis });
    }
    connection.close().await;
    Ok(reports)
}

async fn denied(connection: &bulla::Connection, target: &str) -> Result<(Verdict, String)> {
    let to: bulla_rpc::Target = target.parse()?;
    let request = connection.client().request(&to, BAIT).timeout(Duration::from_secs(5));
    let answer: std::result::Result<Value, CallError> = request.call(&()).await;
    Ok(match answer {
        Ok(value) => (Verdict::GotThrough, format!("it returned {value}")),
        // Who may not call there at all is not told which methods there are.
        Err(CallError::Remote(error))
            if error.kind == kinds::NO_SUCH_METHOD && target.starts_with("agent/") =>
        {
            (Verdict::GotThrough, format!("it was told: {error}"))
        }
        Err(error) => (Verdict::Held, error.to_string()),
    })
}

fn through(report: &Report, live: &[LiveReport]) -> usize {
    let live = live.iter().filter(|row| !is_good(row.verdict)).count();
    report.rows.iter().filter(|row| !row.is_good()).count() + live
}

fn is_good(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Held | Verdict::NotApplicable)
}

fn people(report: &Report, live: &[LiveReport], out: Output) {
    let mut group = None;
    for row in &report.rows {
        if group != Some(row.group) {
            group = Some(row.group);
            out.say(format!("\n{}", out.bold(row.group.title())));
        }
        show(row, out);
    }
    if !report.rows.is_empty() {
        summary(report, out);
    }
    if live.is_empty() {
        return;
    }
    out.say(format!("\n{}", out.bold("On your own deployment")));
    for row in live {
        let mark = mark(row.verdict, out);
        out.say(format!("  {mark} {:<34} {}", row.id, row.tries));
        out.say(out.dim(&format!("    {:<34} {}", "", row.seen)));
    }
}

fn summary(report: &Report, out: Output) {
    let (trials, good) = report.trials();
    out.say(format!(
        "\n{} rows on {} ({}), each for call, cast, fanout and reply:",
        report.rows.len(),
        report.transport,
        report.address
    ));
    let words = format!("{good} of {trials} trials held, in {:.1} s", report.seconds);
    out.say(if good == trials { out.good(&words) } else { out.bad(&words) });
}

/// Four marks a key type: call, cast, fanout, reply.
fn show(row: &RowReport, out: Output) {
    let marks = |key: KeyType| -> String {
        let cell = |kind| row.cells.iter().find(|cell| (cell.key, cell.kind) == (key, kind));
        Kind::ALL.map(|kind| cell(kind).map_or(" ".into(), |cell| mark(cell.verdict, out))).concat()
    };
    let (pair, shared) = (marks(KeyType::Pair), marks(KeyType::Shared));
    out.say(format!(
        "  {:<34} pair {pair}  shared {shared}  {}",
        row.id,
        out.dim(&format!("expected: {}", row.expected))
    ));
    out.say(out.dim(&format!("    {}", row.tries)));
    out.say(out.dim(&format!("    seen: {}", seen(row))));
    for cell in row.cells.iter().filter(|cell| !cell.is_good()) {
        let line =
            format!("    {} with a {}: {:?}: {}", cell.kind, cell.key, cell.verdict, cell.seen);
        out.say(out.bad(&line));
    }
}

/// What was seen, each once.
fn seen(row: &RowReport) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for cell in row.cells.iter().filter(|cell| cell.verdict != Verdict::NotApplicable) {
        if !seen.contains(&cell.seen.as_str()) {
            seen.push(&cell.seen);
        }
    }
    let more = seen.len().saturating_sub(3);
    seen.truncate(3);
    let text = seen.join("; ");
    if more > 0 { format!("{text}; and {more} more") } else { text }
}

fn mark(verdict: Verdict, out: Output) -> String {
    match verdict {
        Verdict::Held => out.good("✓"),
        Verdict::NotApplicable => out.dim("·"),
        Verdict::Unexpected => out.bad("?"),
        Verdict::GotThrough | Verdict::Failed => out.bad("✗"),
    }
}
