//! `bulla policy explain`: how one request is judged, and what would have to change.

use std::fs;
use std::io::Read;

use bulla_api::{ExplainRequest, RuleStanding};
use serde_json::Value;

use super::audit;
use crate::cli::PolicyExplainArgs;
use crate::control::explain::{explain, judge, of_version, sentence};
use crate::control::open_keystore;
use crate::control::policy_text::Checked;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::{Home, Settings};

pub(crate) async fn run(home: &Home, args: &PolicyExplainArgs, out: Output) -> Result<()> {
    let denied = args.entry.as_deref().map(|place| Denied::find(home, args, place)).transpose()?;
    let asked = asked(args, denied.as_ref())?;
    let asks = sentence(&asked)?;
    let exchange = match &asked.exchange {
        Some(exchange) => exchange.clone(),
        None => Settings::load(home.dir())?.bus.exchange.unwrap_or_else(|| "bulla".to_owned()),
    };
    let shown = match &args.file {
        Some(file) => {
            let policy = Checked::read(file)?.policy;
            let rule = denied.as_ref().map(|denied| denied.rule.as_str());
            judge((&file.display().to_string(), &policy), &exchange, &asked, rule)?
        }
        None => {
            let keystore = open_keystore(home).await?;
            let shown = match &denied {
                None => explain(Some(&keystore), &exchange, asked).await,
                Some(denied) => {
                    let policy = of_version(&keystore, denied.policy).await;
                    policy.and_then(|(name, policy)| {
                        judge((&name, &policy), &exchange, &asked, Some(&denied.rule))
                    })
                }
            };
            keystore.close().await;
            shown?
        }
    };
    out.result(&shown, |out| {
        let word = if shown.allowed { out.good("allowed") } else { out.bad("denied") };
        if let Some(denied) = &denied {
            out.say(out.dim(&format!("{} at {}", denied.place, denied.time)));
        }
        out.say(format!("{asks}: {word} by {} ({})", out.bold(&shown.rule), shown.policy));
        out.say("");
        out.table(&["RULE", "EFFECT", "STANDS"], shown.rules.iter().map(rule_row).collect());
        out.say("");
        out.say(if shown.allowed { "To deny it:" } else { "To allow it:" });
        shown.to_change.iter().for_each(|change| out.say(format!("  {change}")));
    })
}

/// A denial as a journal tells it.
struct Denied {
    place: String,
    time: String,
    rule: String,
    policy: u32,
    asked: ExplainRequest,
}

impl Denied {
    fn find(home: &Home, args: &PolicyExplainArgs, place: &str) -> Result<Self> {
        let entry = audit::entry(home, args.journal.as_ref(), place)?;
        let of = |field: &str| entry.fields.get(field).and_then(Value::as_str).map(str::to_owned);
        let list = |field: &str| -> Vec<String> {
            let text = of(field).unwrap_or_default();
            text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        // A sender's incarnation is no part of its name in rules.
        let sender = || Some(of("sender")?.split_once('#')?.0.to_owned());
        let from = match entry.event.as_str() {
            "call-denied" => sender(),
            "api-denied" => of("identity"),
            other => {
                return Err(Failure::usage(format!(
                    "{place} is `{other}`, and no denial; `bulla audit show --kind denial` lists them"
                )));
            }
        };
        let policy = entry.fields.get("policy").and_then(Value::as_u64);
        let (Some(rule), Some(policy)) = (of("rule"), policy.and_then(|n| u32::try_from(n).ok()))
        else {
            return Err(Failure::new(format!(
                "{place} was written by an older version, which did not note the policy"
            )));
        };
        let asked = ExplainRequest {
            from,
            roles: list("roles"),
            projects: list("projects"),
            to: of("receiver"),
            action: of("action"),
            method: of("method"),
            ..ExplainRequest::default()
        };
        Ok(Self { place: place.to_owned(), time: entry.time, rule, policy, asked })
    }
}

/// The flags over the journal's entry, or over the JSON.
fn asked(args: &PolicyExplainArgs, denied: Option<&Denied>) -> Result<ExplainRequest> {
    let mut asked = match &args.request {
        None => denied.map(|denied| denied.asked.clone()).unwrap_or_default(),
        Some(path) => {
            let text = if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                text
            } else {
                fs::read_to_string(path).map_err(|error| {
                    Failure::new(format!("can't read the request {}: {error}", path.display()))
                })?
            };
            serde_json::from_str(&text).map_err(|error| {
                Failure::usage(format!("the request {} is not one: {error}", path.display()))
            })?
        }
    };
    let over = |to: &mut Option<String>, from: &Option<String>| {
        if from.is_some() {
            to.clone_from(from);
        }
    };
    over(&mut asked.from, &args.from);
    over(&mut asked.to, &args.to);
    over(&mut asked.action, &args.action);
    over(&mut asked.method, &args.method);
    over(&mut asked.version, &args.version);
    over(&mut asked.exchange, &args.exchange);
    over(&mut asked.topic, &args.topic);
    asked.roles.extend(args.roles.iter().cloned());
    asked.projects.extend(args.projects.iter().cloned());
    asked.groups.extend(args.groups.iter().cloned());
    asked.open_to_agents |= args.open_to_agents;
    asked.open_to_components |= args.open_to_components;
    asked.read_only |= args.read_only;
    if let Some(text) = &args.args {
        let given = serde_json::from_str(text);
        asked.args = Some(given.map_err(|error| {
            Failure::usage(format!(
                "the arguments are not JSON: {error}; for example '{{\"size\": 3}}'"
            ))
        })?);
    }
    Ok(asked)
}

fn rule_row(standing: &RuleStanding) -> Vec<String> {
    vec![standing.rule.clone(), standing.effect.clone(), standing.why.clone()]
}
