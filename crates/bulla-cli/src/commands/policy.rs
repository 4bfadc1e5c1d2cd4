//! `bulla policy`: who may call what.

use std::fs;
use std::path::Path;

use bulla_journal::events;
use bulla_keystore::{KeystoreError, PolicyDifference, PolicyOrigin, PolicyRecord, PolicyText};
use bulla_policy::{Mistake, Peer, Policy, Reach, Source, starter};
use bulla_seal::SignedPolicy;
use serde_json::{Value, json};

use super::policy_explain;
use crate::cli::{PolicyCommand, StarterArg};
use crate::control::open_keystore;
use crate::failure::{Failure, Result};
use crate::journal::CommandJournal;
use crate::output::{Output, date};
use crate::settings::Home;

/// Largest text of a policy, in bytes.
const MAX_TEXT: u64 = 4 * 1024 * 1024;

pub(crate) async fn run(home: &Home, command: &PolicyCommand, out: Output) -> Result<()> {
    match command {
        PolicyCommand::Check { file } => check(home, file, out).await,
        PolicyCommand::Explain(args) => policy_explain::run(home, args, out).await,
        PolicyCommand::Starter { kind } => {
            out.line(starter_text(*kind).trim_end());
            Ok(())
        }
        PolicyCommand::Activate { file } => activate(home, file, out).await,
        PolicyCommand::Rollback { version } => roll_back(home, *version, out).await,
        PolicyCommand::List => list(home, out).await,
        PolicyCommand::Shadow { file: Some(file), .. } => shadow(home, file, out).await,
        PolicyCommand::Shadow { stop: true, .. } => stop_shadow(home, out).await,
        PolicyCommand::Shadow { .. } => differences(home, out).await,
    }
}

fn starter_text(kind: StarterArg) -> &'static str {
    match kind {
        StarterArg::Fleet => starter::FLEET,
        StarterArg::Trove => starter::TROVE,
    }
}

/// A policy that was read, validated and compiled.
pub(crate) struct Checked {
    pub(crate) source: String,
    pub(crate) policy: Policy,
    compiled: Vec<u8>,
}

impl Checked {
    /// Reads, validates and compiles a file; every mistake is told with its place.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let show = file.display();
        let size = fs::metadata(file)
            .map_err(|error| Failure::new(format!("can't read the policy {show}: {error}")))?;
        if size.len() > MAX_TEXT {
            return Err(Failure::new(format!("the policy {show} is larger than 4 MiB")));
        }
        let source = fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("can't read the policy {show}: {error}")))?;
        let policy = Source::parse(&source).and_then(|source| source.compile());
        let policy = policy.map_err(|mistakes| told(file, &mistakes))?;
        let compiled = policy.to_bytes();
        // What receivers would refuse is told here.
        Policy::from_bytes(&compiled)
            .map_err(|_| Failure::new(format!("the policy {show} is too large or too deep")))?;
        Ok(Self { source, policy, compiled })
    }

    pub(crate) fn text(&self) -> PolicyText<'_> {
        PolicyText { source: &self.source, compiled: &self.compiled }
    }
}

/// Every mistake as compilers tell them: a place that editors jump to, what is wrong, what to do.
fn told(file: &Path, mistakes: &[Mistake]) -> Failure {
    let count = match mistakes.len() {
        1 => "a mistake".to_owned(),
        n => format!("{n} mistakes"),
    };
    let mut text = format!("the policy {} has {count}:", file.display());
    for mistake in mistakes {
        let place = match (mistake.line, mistake.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", file.display()),
            (Some(line), None) => format!("{}:{line}", file.display()),
            (None, _) => file.display().to_string(),
        };
        text += &format!("\n  {place}: {}", mistake.message);
    }
    Failure::new(text)
}

async fn check(home: &Home, file: &Path, out: Output) -> Result<()> {
    let checked = Checked::read(file)?;
    let policy = &checked.policy;
    let rows = policy.reach(&known(home).await);
    let value = json!({
        "file": file,
        "rules": policy.rules().len(),
        "bytes": checked.compiled.len(),
        "reach": rows.iter().map(reach_json).collect::<Vec<_>>(),
    });
    out.result(&value, |out| {
        out.say(format!(
            "{} is good: {} rules, {} bytes as receivers get it.",
            file.display(),
            policy.rules().len(),
            checked.compiled.len()
        ));
        if rows.is_empty() {
            return out.say("By it, nobody reaches anything.");
        }
        out.say("Who reaches what by it; whoever is not listed reaches nothing:");
        out.say("");
        let head = ["FROM", "TO", "MAY", "METHOD", "IF", "RULE"];
        out.table(&head, rows.iter().map(reach_row).collect());
    })
}

/// The component types of the deployment, if there is one.
async fn known(home: &Home) -> Vec<Peer> {
    if !home.is_initialised() {
        return Vec::new();
    }
    let Ok(keystore) = open_keystore(home).await else { return Vec::new() };
    let found = keystore.list_components().await.unwrap_or_default();
    keystore.close().await;
    let named = |name: &str| Peer::Named(bulla_policy::EntityKind::Component, name.to_owned());
    found.iter().map(|component| named(component.party.principal.name())).collect()
}

fn reach_json(row: &Reach<'_>) -> Value {
    json!({
        "from": row.sender.to_string(),
        "to": row.receiver.to_string(),
        "effect": row.rule.effect().name(),
        "actions": row.actions.iter().map(|action| action.name()).collect::<Vec<_>>(),
        "method": row.method,
        "conditions": row.conditions,
        "rule": row.rule.id(),
    })
}

fn reach_row(row: &Reach<'_>) -> Vec<String> {
    let actions: Vec<_> = row.actions.iter().map(|action| action.name()).collect();
    let actions = match actions.len() {
        4 => "anything".to_owned(),
        _ => actions.join(", "),
    };
    let permits = row.rule.effect() == bulla_policy::Effect::Permit;
    vec![
        row.sender.to_string(),
        row.receiver.to_string(),
        if permits { actions } else { format!("not {actions}") },
        row.method.clone().unwrap_or_else(|| "any".to_owned()),
        if row.conditions.is_empty() { "-".to_owned() } else { row.conditions.join("\nand ") },
        row.rule.id().to_owned(),
    ]
}

async fn activate(home: &Home, file: &Path, out: Output) -> Result<()> {
    let checked = Checked::read(file)?;
    let keystore = open_keystore(home).await?;
    let journal = CommandJournal::open(home).await?;
    let signed = keystore.activate_policy(checked.text(), PolicyOrigin::Command).await;
    keystore.close().await;
    let signed = signed?;
    journal_change(journal, "activated", &signed)?;
    let value = json!({ "version": signed.version, "sequence": signed.sequence });
    out.result(&value, |out| {
        out.say(format!("Version {} of the policy is active.", signed.version));
        say_when(out);
        out.say("Take it back with: bulla policy rollback");
    })
}

fn journal_change(journal: CommandJournal, how: &'static str, signed: &SignedPolicy) -> Result<()> {
    let (version, sequence) = (signed.version, signed.sequence);
    journal.record(events::PolicyChanged { how, version, sequence });
    journal.finish()
}

fn say_when(out: Output) {
    out.say(
        "Control-plane processes go by it within a second, agents that run as soon as they hear of \
         it, and others when they start.",
    );
}

async fn roll_back(home: &Home, version: Option<u32>, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let journal = CommandJournal::open(home).await?;
    let signed = keystore.roll_back_policy(version).await;
    let records = keystore.policies().await;
    keystore.close().await;
    let signed = signed?;
    journal_change(journal, "rolled-back", &signed)?;
    let record = records?.into_iter().find(|record| record.version == signed.version);
    let to = record.and_then(|record| record.again_of).unwrap_or_default();
    let value = json!({ "version": signed.version, "sequence": signed.sequence, "again": to });
    out.result(&value, |out| {
        out.say(match to {
            0 => format!("Version {} of the policy is active: the built-in rule.", signed.version),
            to => format!(
                "Version {} of the policy is active: it says what version {to} said.",
                signed.version
            ),
        });
        say_when(out);
    })
}

async fn list(home: &Home, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let (records, document) = (keystore.policies().await, keystore.policy_document().await);
    keystore.close().await;
    let (records, document) = (records?, document?);
    let active = document.as_ref().map_or(0, |document| document.version);
    let shadow = document.as_ref().is_some_and(|document| document.shadow.is_some());
    let row = |record: &PolicyRecord| {
        json!({
            "version": record.version,
            "active": record.version == active,
            "origin": record.origin.as_str(),
            "again": record.again_of,
            "created": record.created.secs(),
            "source": record.source,
        })
    };
    let value = json!({
        "active": active,
        "shadow": shadow,
        "versions": records.iter().map(row).collect::<Vec<_>>(),
    });
    out.result(&value, |out| {
        if records.is_empty() {
            out.say("No policy was activated: the built-in rule decides.");
        } else {
            let rows = records.iter().map(|record| record_row(record, active)).collect();
            out.table(&["VERSION", "", "FROM", "ACTIVATED"], rows);
        }
        if shadow {
            out.say("Another judges in the shadow: bulla policy shadow");
        }
    })
}

fn record_row(record: &PolicyRecord, active: u32) -> Vec<String> {
    let from = match (record.origin, record.again_of) {
        (PolicyOrigin::RollBack, Some(0)) => "back to the built-in rule".to_owned(),
        (PolicyOrigin::RollBack, again) => {
            format!("back to version {}", again.unwrap_or_default())
        }
        (PolicyOrigin::File, _) => "the file of the settings".to_owned(),
        (PolicyOrigin::Command, _) => "bulla policy activate".to_owned(),
    };
    vec![
        record.version.to_string(),
        if record.version == active { "active".to_owned() } else { String::new() },
        from,
        date(record.created.secs()),
    ]
}

async fn shadow(home: &Home, file: &Path, out: Output) -> Result<()> {
    let checked = Checked::read(file)?;
    let keystore = open_keystore(home).await?;
    let journal = CommandJournal::open(home).await?;
    let signed = keystore.shadow_policy(Some(checked.text())).await;
    keystore.close().await;
    let signed = signed?;
    journal_change(journal, "shadowed", &signed)?;
    let value = json!({ "sequence": signed.sequence, "shadow": true });
    out.result(&value, |out| {
        out.say(format!(
            "{} judges in the shadow: it decides nothing, and what it would decide otherwise is \
             counted.",
            file.display()
        ));
        out.say("See what it would change with: bulla policy shadow");
    })
}

async fn stop_shadow(home: &Home, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let held = keystore.policy_document().await?;
    if held.is_none_or(|held| held.shadow.is_none()) {
        keystore.close().await;
        return Err(no_shadow());
    }
    let journal = CommandJournal::open(home).await?;
    let signed = keystore.shadow_policy(None).await;
    keystore.close().await;
    let signed = signed?;
    journal_change(journal, "shadow-ended", &signed)?;
    let value = json!({ "sequence": signed.sequence, "shadow": false });
    out.result(&value, |out| out.say("No policy judges in the shadow any more."))
}

fn no_shadow() -> Failure {
    Failure::new("no policy judges in the shadow; let one do so with `bulla policy shadow FILE`")
}

async fn differences(home: &Home, out: Output) -> Result<()> {
    let keystore = open_keystore(home).await?;
    let found: Result<_, KeystoreError> = async {
        let held = keystore.policy_document().await?;
        let shadowed = held.is_some_and(|held| held.shadow.is_some());
        Ok((shadowed, keystore.policy_differences().await?))
    }
    .await;
    keystore.close().await;
    let (shadowed, found) = found?;
    if !shadowed {
        return Err(no_shadow());
    }
    let value: Vec<_> = found.iter().map(difference_json).collect();
    out.result(&value, |out| {
        if found.is_empty() {
            return out.say("Nothing yet that the policy in the shadow would decide otherwise.");
        }
        let head = ["COUNT", "SENDER", "METHOD", "AT", "NOW", "BY", "THEN", "BY", "LAST"];
        out.table(&head, found.iter().map(difference_row).collect());
    })
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

fn difference_json(found: &PolicyDifference) -> Value {
    json!({
        "count": found.count,
        "sender": found.sender,
        "method": found.method,
        "receiver": found.receiver,
        "active": word(found.allowed),
        "rule": found.rule,
        "candidate": word(!found.allowed),
        "candidate_rule": found.shadow_rule,
        "last": found.last,
    })
}

fn difference_row(found: &PolicyDifference) -> Vec<String> {
    let many = |name: &str| if name.is_empty() { "others".to_owned() } else { name.to_owned() };
    vec![
        found.count.to_string(),
        many(&found.sender),
        many(&found.method),
        found.receiver.clone(),
        word(found.allowed).to_owned(),
        found.rule.clone(),
        word(!found.allowed).to_owned(),
        found.shadow_rule.clone(),
        date(found.last),
    ]
}
