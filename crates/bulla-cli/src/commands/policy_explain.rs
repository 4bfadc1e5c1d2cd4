//! `bulla policy explain`: how one request is judged, and what would have to change.

use std::fs;
use std::io::Read;

use bulla_policy::{
    Action, Decision, Effect, Explanation, MethodOf, Policy, Request, Rule, Source, Standing, Who,
    starter,
};
use bulla_rpc::{Clock, SystemClock, Version, target, value};
use bulla_seal::Principal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::policy::Checked;
use crate::cli::PolicyExplainArgs;
use crate::control::open_keystore;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::{Home, Settings};

/// A request, as people write it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    from: Option<String>,
    roles: Vec<String>,
    groups: Vec<String>,
    to: Option<String>,
    action: Option<String>,
    method: Option<String>,
    version: Option<String>,
    args: Option<Value>,
    exchange: Option<String>,
    topic: Option<String>,
    open_to_agents: bool,
    open_to_components: bool,
    read_only: bool,
    now: Option<u64>,
}

pub(crate) async fn run(home: &Home, args: &PolicyExplainArgs, out: Output) -> Result<()> {
    let asked = asked(args)?;
    let (name, policy) = policy(home, args).await?;
    let from = principal("from", asked.from.as_deref())?;
    let to = principal("to", asked.to.as_deref())?;
    let action = asked.action.as_deref().unwrap_or("call");
    let action = Action::from_name(action).ok_or_else(|| {
        Failure::usage(format!("`{action}` is no action: call, cast, fanout, reply-progress"))
    })?;
    let full = asked.method.as_deref().filter(|method| !method.is_empty());
    let full = full.ok_or_else(|| Failure::usage("say which method: --method guest.resize"))?;
    let (namespace, method) = full.rsplit_once('.').unwrap_or(("", full));
    let version = asked.version.as_deref().unwrap_or("1.0");
    let version = Version::parse(version)
        .ok_or_else(|| Failure::usage(format!("`{version}` is no version; write 1.0")))?;
    let exchange = match &asked.exchange {
        Some(exchange) => exchange.clone(),
        None => Settings::load(home.dir())?.bus.exchange.unwrap_or_else(|| "bulla".to_owned()),
    };
    let topic = asked.topic.clone().unwrap_or_else(|| target::topic_of(&to));
    let given = asked.args.clone().unwrap_or_else(|| json!({}));
    let arguments = value::to_vec(&given)?;
    let request = Request {
        sender: Who { kind: from.kind(), id: from.name() },
        roles: &asked.roles,
        groups: Some(&asked.groups),
        action,
        method: MethodOf {
            receiver: Who { kind: to.kind(), id: to.name() },
            exchange: &exchange,
            topic: &topic,
            namespace,
            name: method,
            version: (version.major, version.minor),
            open_to_agents: asked.open_to_agents,
            open_to_components: asked.open_to_components,
            read_only: asked.read_only,
        },
        args: &arguments,
        now: asked.now.unwrap_or_else(|| SystemClock.now().secs()),
    };
    let explained = policy.explain(&request);
    let changes = changes(&policy, &explained);
    let allowed = explained.decision.allows();
    let rules: Vec<_> = explained.rules.iter().map(|(rule, how)| rule_json(rule, how)).collect();
    let shown = json!({
        "policy": name,
        "allowed": allowed,
        "rule": explained.decision.rule(),
        "to_change": changes,
        "rules": rules,
    });
    let asks = format!("{from} {action} {full} at {to}");
    out.result(&shown, |out| {
        let word = if allowed { out.good("allowed") } else { out.bad("denied") };
        out.say(format!("{asks}: {word} by {} ({name})", out.bold(explained.decision.rule())));
        out.say("");
        let rows = explained.rules.iter().map(|(rule, how)| rule_row(rule, how));
        out.table(&["RULE", "EFFECT", "STANDS"], rows.collect());
        out.say("");
        out.say(if allowed { "To deny it:" } else { "To allow it:" });
        changes.iter().for_each(|change| out.say(format!("  {change}")));
    })
}

/// The flags over the JSON.
fn asked(args: &PolicyExplainArgs) -> Result<Asked> {
    let mut asked = match &args.request {
        None => Asked::default(),
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

fn principal(flag: &str, given: Option<&str>) -> Result<Principal> {
    let given = given.ok_or_else(|| {
        Failure::usage(format!("say who: --{flag} agent/ID or --{flag} component/TYPE"))
    })?;
    given.parse().map_err(|error| Failure::usage(format!("--{flag} {given}: {error}")))
}

/// The policy of the file, or the active one.
async fn policy(home: &Home, args: &PolicyExplainArgs) -> Result<(String, Policy)> {
    if let Some(file) = &args.file {
        return Ok((file.display().to_string(), Checked::read(file)?.policy));
    }
    let keystore = open_keystore(home).await?;
    let held = keystore.policy_document().await;
    keystore.close().await;
    let held = held?;
    let version = held.as_ref().map_or(0, |held| held.version);
    match held.as_ref().and_then(|held| held.active.as_ref()) {
        Some(compiled) => {
            let policy = Policy::from_bytes(compiled)?;
            Ok((format!("version {version} of the policy"), policy))
        }
        // The same as the built-in rule, in rules.
        None => {
            let fleet = Source::parse(starter::FLEET).and_then(|source| source.compile());
            let fleet = fleet.map_err(|_| Failure::new("the built-in rule can't be compiled"))?;
            Ok(("the built-in rule".to_owned(), fleet))
        }
    }
}

/// What to change, each a way of its own.
fn changes(policy: &Policy, explained: &Explanation<'_>) -> Vec<String> {
    let of =
        |effect: Effect| explained.rules.iter().filter(move |(rule, _)| rule.effect() == effect);
    let holding = |effect: Effect| {
        of(effect).filter(|(_, how)| *how == Standing::Holds).map(|(rule, _)| rule.id())
    };
    match explained.decision {
        Decision::Allow { .. } => {
            let rules: Vec<_> = holding(Effect::Permit).map(|id| format!("`{id}`")).collect();
            vec![format!("take away or narrow {}, or add a `forbid` for it", rules.join(" and "))]
        }
        Decision::Deny { .. } => {
            let mut out: Vec<String> = of(Effect::Forbid)
                .chain(of(Effect::Permit))
                .filter_map(|(rule, how)| match how {
                    Standing::Faulty(condition) => Some(format!(
                        "give the argument the type that the policy declares: `{condition}` of `{}` can't be judged",
                        rule.id()
                    )),
                    _ => None,
                })
                .collect();
            let forbidding = of(Effect::Forbid).filter(|(_, how)| *how == Standing::Holds);
            out.extend(forbidding.map(|(rule, _)| {
                let conditions = policy.conditions(rule);
                let while_they_hold = match conditions.is_empty() {
                    true => String::new(),
                    false => format!(" while {}", conditions.join(" and ")),
                };
                format!("narrow `{}`, which forbids it{while_they_hold}", rule.id())
            }));
            if holding(Effect::Permit).next().is_none() {
                out.extend(of(Effect::Permit).filter_map(|(rule, how)| match how {
                    Standing::Fails(conditions) => Some(format!(
                        "`{}` permits it once {}",
                        rule.id(),
                        conditions.join(" and ")
                    )),
                    _ => None,
                }));
                out.push("add a `permit` for it".to_owned());
            }
            out
        }
    }
}

fn standing(how: &Standing) -> (&'static str, String) {
    match how {
        Standing::Elsewhere(scope) => ("elsewhere", format!("it is about {scope}")),
        Standing::Fails(conditions) => ("fails", format!("fails: {}", conditions.join(" and "))),
        Standing::Holds => ("holds", "holds".to_owned()),
        Standing::Faulty(condition) => ("faulty", format!("can't be judged: {condition}")),
    }
}

fn rule_json(rule: &Rule, how: &Standing) -> Value {
    let (stands, why) = standing(how);
    json!({ "rule": rule.id(), "effect": rule.effect().name(), "stands": stands, "why": why })
}

fn rule_row(rule: &Rule, how: &Standing) -> Vec<String> {
    vec![rule.id().to_owned(), rule.effect().name().to_owned(), standing(how).1]
}
