//! How one request is judged by a policy, and what would have to change.

use bulla_api::{ExplainRequest, RuleStanding};
use bulla_keystore::Keystore;
use bulla_policy::{
    Action, Decision, Effect, Explanation, MethodOf, Policy, Request, Rule, Source, Standing, Who,
    starter,
};
use bulla_rpc::{Clock, SystemClock, Version, target, value};
use bulla_seal::Principal;
use serde_json::json;

use super::policy_text::Checked;
use crate::failure::{Failure, Result};

/// Judges a request, by the policy that comes with it or the one that counts.
pub(crate) async fn explain(
    keystore: Option<&Keystore>,
    exchange: &str,
    asked: ExplainRequest,
) -> Result<bulla_api::Explanation> {
    let (name, policy) = match (&asked.source, keystore) {
        (Some(source), _) => {
            ("the given policy".to_owned(), Checked::compile(source.clone(), "given")?.policy)
        }
        (None, Some(keystore)) => active(keystore).await?,
        (None, None) => return Err(Failure::usage("there is no policy to judge by")),
    };
    judge((&name, &policy), exchange, &asked)
}

/// Who asks for what, in one line.
pub(crate) fn sentence(asked: &ExplainRequest) -> Result<String> {
    let from = principal("from", asked.from.as_deref())?;
    let to = principal("to", asked.to.as_deref())?;
    let action = asked.action.as_deref().unwrap_or("call");
    Ok(format!("{from} {action} {} at {to}", asked.method.as_deref().unwrap_or_default()))
}

/// Judges a request by one policy.
pub(crate) fn judge(
    (name, policy): (&str, &Policy),
    exchange: &str,
    asked: &ExplainRequest,
) -> Result<bulla_api::Explanation> {
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
    let exchange = asked.exchange.as_deref().unwrap_or(exchange);
    let topic = asked.topic.clone().unwrap_or_else(|| target::topic_of(&to));
    let given = asked.args.clone().unwrap_or_else(|| json!({}));
    let arguments = value::to_vec(&given)
        .map_err(|error| Failure::usage(format!("the arguments can't be sent: {error}")))?;
    let request = Request {
        sender: Who { kind: from.kind(), id: from.name() },
        roles: &asked.roles,
        groups: Some(&asked.groups),
        action,
        method: MethodOf {
            receiver: Who { kind: to.kind(), id: to.name() },
            exchange,
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
    Ok(bulla_api::Explanation {
        policy: name.to_owned(),
        allowed: explained.decision.allows(),
        rule: explained.decision.rule().to_owned(),
        to_change: changes(policy, &explained),
        rules: explained.rules.iter().map(|(rule, how)| rule_standing(rule, how)).collect(),
    })
}

fn principal(flag: &str, given: Option<&str>) -> Result<Principal> {
    let given = given.ok_or_else(|| {
        Failure::usage(format!("say who: --{flag} agent/ID or --{flag} component/TYPE"))
    })?;
    given.parse().map_err(|error| Failure::usage(format!("--{flag} {given}: {error}")))
}

/// The policy that counts.
async fn active(keystore: &Keystore) -> Result<(String, Policy)> {
    let held = keystore.policy_document().await?;
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

fn rule_standing(rule: &Rule, how: &Standing) -> RuleStanding {
    let (stands, why) = standing(how);
    RuleStanding {
        rule: rule.id().to_owned(),
        effect: rule.effect().name().to_owned(),
        stands: stands.to_owned(),
        why,
    }
}
