//! `bulla policy explain`: how one request is judged, and what would have to change.

use std::fs;
use std::io::Read;

use bulla_api::{ExplainRequest, RuleStanding};

use crate::cli::PolicyExplainArgs;
use crate::control::explain::{explain, judge, sentence};
use crate::control::open_keystore;
use crate::control::policy_text::Checked;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::{Home, Settings};

pub(crate) async fn run(home: &Home, args: &PolicyExplainArgs, out: Output) -> Result<()> {
    let asked = asked(args)?;
    let asks = sentence(&asked)?;
    let exchange = match &asked.exchange {
        Some(exchange) => exchange.clone(),
        None => Settings::load(home.dir())?.bus.exchange.unwrap_or_else(|| "bulla".to_owned()),
    };
    let shown = match &args.file {
        Some(file) => {
            let policy = Checked::read(file)?.policy;
            judge((&file.display().to_string(), &policy), &exchange, &asked)?
        }
        None => {
            let keystore = open_keystore(home).await?;
            let shown = explain(Some(&keystore), &exchange, asked).await;
            keystore.close().await;
            shown?
        }
    };
    out.result(&shown, |out| {
        let word = if shown.allowed { out.good("allowed") } else { out.bad("denied") };
        out.say(format!("{asks}: {word} by {} ({})", out.bold(&shown.rule), shown.policy));
        out.say("");
        out.table(&["RULE", "EFFECT", "STANDS"], shown.rules.iter().map(rule_row).collect());
        out.say("");
        out.say(if shown.allowed { "To deny it:" } else { "To allow it:" });
        shown.to_change.iter().for_each(|change| out.say(format!("  {change}")));
    })
}

/// The flags over the JSON.
fn asked(args: &PolicyExplainArgs) -> Result<ExplainRequest> {
    let mut asked = match &args.request {
        None => ExplainRequest::default(),
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
