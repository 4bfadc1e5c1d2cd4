//! How one request is judged by a policy, and what would have to change.

use bulla_api::{ExplainRequest, RuleStanding};
use bulla_keystore::Keystore;
use bulla_policy::{
    Action, Decision, Effect, Explanation, MethodOf, NO_RULE, Policy, Request, Rule, Source,
    Standing, Who, WhoKind, starter,
};
use bulla_rpc::{Clock, SystemClock, Version, target, value};
use bulla_seal::{GroupName, Principal};
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
    judge((&name, &policy), exchange, &asked, None)
}

/// Who asks for what, in one line.
pub(crate) fn sentence(asked: &ExplainRequest) -> Result<String> {
    let from = who("from", asked.from.as_deref())?;
    let to = who("to", asked.to.as_deref())?;
    let action = action(asked, from)?;
    Ok(format!("{from} {action} {} at {to}", asked.method.as_deref().unwrap_or_default()))
}

/// Judges a request by one policy. Of one that was denied, with arguments that nobody knows any more,
/// it is said by which rule, and how others stand to it.
pub(crate) fn judge(
    (name, policy): (&str, &Policy),
    exchange: &str,
    asked: &ExplainRequest,
    denied: Option<&str>,
) -> Result<bulla_api::Explanation> {
    let from = who("from", asked.from.as_deref())?;
    let to = who("to", asked.to.as_deref())?;
    let action = action(asked, from)?;
    let full = asked.method.as_deref().filter(|method| !method.is_empty());
    let full = full.ok_or_else(|| Failure::usage("say which method: --method guest.resize"))?;
    let (namespace, method) = full.rsplit_once('.').unwrap_or(("", full));
    let version = asked.version.as_deref().unwrap_or("1.0");
    let version = Version::parse(version)
        .ok_or_else(|| Failure::usage(format!("`{version}` is no version; write 1.0")))?;
    let exchange = asked.exchange.as_deref().unwrap_or(exchange);
    let topic = asked.topic.clone().unwrap_or_else(|| topic_of(to));
    let given = asked.args.clone().unwrap_or_else(|| json!({}));
    let arguments = value::to_vec(&given)
        .map_err(|error| Failure::usage(format!("the arguments can't be sent: {error}")))?;
    let request = Request {
        sender: from,
        roles: &asked.roles,
        projects: &asked.projects,
        groups: Some(&asked.groups),
        action,
        method: MethodOf {
            receiver: to,
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
    let denied = denied.filter(|_| asked.args.is_none());
    let depends = |rule: &Rule, how: &Standing| {
        denied.is_some() && rule.looks_at_arguments() && !matches!(how, Standing::Elsewhere(_))
    };
    let mut to_change = changes(policy, &explained);
    if explained.rules.iter().any(|(rule, how)| depends(rule, how)) {
        to_change = vec!["give the arguments with --args: rules look at them".to_owned()];
    }
    let decided = denied.unwrap_or_else(|| explained.decision.rule());
    if from.kind == WhoKind::Operator && decided == NO_RULE && denied.is_none() {
        to_change.push(
            "nothing, if it shows a certificate, or the bearer token of its machine: such an \
             operator may do what no rule forbids (default/operators)"
                .to_owned(),
        );
    }
    let stands = |rule: &Rule, how: &Standing| match depends(rule, how) {
        true => {
            let conditions = policy.conditions(rule).join(" and ");
            rule_standing(rule, ("unknown", format!("depends on the arguments: {conditions}")))
        }
        false => rule_standing(rule, standing(how)),
    };
    Ok(bulla_api::Explanation {
        policy: name.to_owned(),
        allowed: denied.is_none() && explained.decision.allows(),
        rule: decided.to_owned(),
        to_change,
        rules: explained.rules.iter().map(|(rule, how)| stands(rule, how)).collect(),
    })
}

fn action(asked: &ExplainRequest, from: Who<'_>) -> Result<Action> {
    let unless_said = if from.kind.is_api() { "api:call" } else { "call" };
    let name = asked.action.as_deref().unwrap_or(unless_said);
    let action = Action::from_name(name).ok_or_else(|| {
        let known = Action::ALL.map(Action::name).join(", ");
        Failure::usage(format!("`{name}` is no action: {known}"))
    })?;
    if action.is_api() == from.kind.is_api() {
        Ok(action)
    } else {
        Err(Failure::usage(format!("{from} does no `{name}`")))
    }
}

fn who<'a>(flag: &str, given: Option<&'a str>) -> Result<Who<'a>> {
    let given = given.ok_or_else(|| {
        Failure::usage(format!("say who: --{flag} agent/ID or --{flag} component/TYPE"))
    })?;
    let bad = |why: &str| Failure::usage(format!("--{flag} {given}: {why}"));
    let Some(who) = Who::parse(given).filter(|who| match flag {
        "to" => !who.kind.is_api(),
        _ => who.kind != WhoKind::Group,
    }) else {
        // What it says of agents and components is of use for others, too.
        let error = given.parse::<Principal>().err().map(|error| error.to_string());
        return Err(bad(error.as_deref().unwrap_or("nobody of that kind does that")));
    };
    if matches!(who.kind, WhoKind::Agent | WhoKind::Component) {
        given.parse::<Principal>().map_err(|error| bad(&error.to_string()))?;
    }
    Ok(who)
}

fn topic_of(to: Who<'_>) -> String {
    let group = || GroupName::new(to.id).map(|group| target::group_topic(&group));
    match to.kind {
        WhoKind::Group => group().unwrap_or_default(),
        _ => to.to_string().parse().map(|to| target::topic_of(&to)).unwrap_or_default(),
    }
}

/// The policy of an activation; 0 is the built-in rule.
pub(crate) async fn of_version(keystore: &Keystore, version: u32) -> Result<(String, Policy)> {
    if version == 0 {
        return built_in();
    }
    let record = keystore.policies().await?.into_iter().find(|record| record.version == version);
    let record = record.ok_or_else(|| {
        Failure::new(format!("there is no version {version} of the policy in the keystore"))
    })?;
    match record.source {
        Some(source) => {
            let name = format!("version {version} of the policy");
            Ok((name.clone(), Checked::compile(source, &name)?.policy))
        }
        None => built_in(),
    }
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
        None => built_in(),
    }
}

/// The same as the built-in rule, in rules.
fn built_in() -> Result<(String, Policy)> {
    let fleet = Source::parse(starter::FLEET).and_then(|source| source.compile());
    let fleet = fleet.map_err(|_| Failure::new("the built-in rule can't be compiled"))?;
    Ok(("the built-in rule".to_owned(), fleet))
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

fn rule_standing(rule: &Rule, (stands, why): (&'static str, String)) -> RuleStanding {
    RuleStanding {
        rule: rule.id().to_owned(),
        effect: rule.effect().name().to_owned(),
        stands: stands.to_owned(),
        why,
    }
}
