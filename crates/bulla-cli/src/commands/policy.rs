//! `bulla policy`: who may call what.

use std::path::Path;

use bulla_keystore::{KeystoreError, PolicyDifference, PolicyOrigin, PolicyRecord};
use bulla_policy::{Peer, Reach, starter};
use serde_json::{Value, json};

use super::policy_explain;
use crate::cli::{PolicyCommand, StarterArg};
use crate::control::desk::Desk;
use crate::control::open_keystore;
use crate::control::policy_text::{self, Checked, no_shadow};
use crate::failure::Result;
use crate::output::{Output, date};
use crate::settings::Home;

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

async fn check(home: &Home, file: &Path, out: Output) -> Result<()> {
    let checked = Checked::read(file)?;
    let policy = &checked.policy;
    let rows = policy.reach(&known(home).await);
    let value = json!({
        "file": file,
        "rules": policy.rules().len(),
        "bytes": checked.compiled.len(),
        "reach": rows.iter().map(policy_text::reach).collect::<Vec<_>>(),
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
    let found = policy_text::known(&keystore).await;
    keystore.close().await;
    found
}

fn reach_row(row: &Reach<'_>) -> Vec<String> {
    let actions: Vec<_> = row.actions.iter().map(|action| action.name()).collect();
    let actions = if row.is_anything() { "anything".to_owned() } else { actions.join(", ") };
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
    let desk = Desk::open(home).await?;
    let signed = desk.activate_policy(&checked).await;
    let closed = desk.close().await;
    let signed = signed?;
    closed?;
    let value = json!({ "version": signed.version, "sequence": signed.sequence });
    out.result(&value, |out| {
        out.say(format!("Version {} of the policy is active.", signed.version));
        say_when(out);
        out.say("Take it back with: bulla policy rollback");
    })
}

fn say_when(out: Output) {
    out.say(
        "Control-plane processes go by it within a second, agents that run as soon as they hear of \
         it, and others when they start.",
    );
}

async fn roll_back(home: &Home, version: Option<u32>, out: Output) -> Result<()> {
    let desk = Desk::open(home).await?;
    let rolled = desk.roll_back(version).await;
    let closed = desk.close().await;
    let (signed, to) = rolled?;
    closed?;
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
    let desk = Desk::open(home).await?;
    let signed = desk.begin_shadow(&checked).await;
    let closed = desk.close().await;
    let signed = signed?;
    closed?;
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
    let desk = Desk::open(home).await?;
    let signed = desk.end_shadow().await;
    let closed = desk.close().await;
    let signed = signed?;
    closed?;
    let value = json!({ "sequence": signed.sequence, "shadow": false });
    out.result(&value, |out| out.say("No policy judges in the shadow any more."))
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
