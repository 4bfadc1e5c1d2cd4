//! From Cedar's JSON form of a rule to ours.

use std::borrow::Cow;
use std::collections::HashMap;

use cedar_policy::PolicySet;
use serde_json::Value as Json;

use super::{Mistake, line_of};
use crate::expr::{Expr, Field, Op, Pattern, Piece, Subject};
use crate::request::{Action, ArgType, EntityKind, EntityRef, Value};
use crate::rule::{Effect, Rule, Scope};

/// Longest id of a rule: it goes into every denial.
const MAX_ID: usize = 128;

/// All rules of a set, in the order of their text.
pub(super) fn rules(
    text: &str,
    set: &PolicySet,
    declared: &[(String, ArgType)],
) -> Result<Vec<Rule>, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    if let Some(template) = set.templates().next() {
        mistakes.push(Mistake {
            line: None,
            column: None,
            message: format!(
                "`{}` has a slot (`?principal`); slots are not filled here",
                template.id()
            ),
        });
    }
    let mut numbered: Vec<_> = set.policies().map(|policy| (number(policy), policy)).collect();
    numbered.sort_by_key(|(number, _)| *number);
    let (mut rules, mut ids) = (Vec::with_capacity(numbered.len()), HashMap::new());
    // Rules are found again in the text by the `@id` that they begin with.
    for (number, policy) in numbered {
        let line = policy
            .annotation("id")
            .and_then(|id| text.rfind(&format!("@id({id:?})")).map(|at| line_of(text, at)));
        let mut wrong = |message| mistakes.push(Mistake { line, column: None, message });
        let id = match policy.annotation("id").map(str::trim) {
            None | Some("") => {
                wrong(format!("rule {} has no id: put `@id(\"…\")` before it", number + 1));
                continue;
            }
            Some(id) if id.len() > MAX_ID || id.chars().any(char::is_control) => {
                wrong(format!("an id has at most {MAX_ID} bytes, and none to control a terminal"));
                continue;
            }
            Some(id) => id.to_owned(),
        };
        if ids.insert(id.clone(), ()).is_some() {
            wrong(format!("two rules have the id `{id}`"));
            continue;
        }
        let json = match policy.to_json() {
            Ok(json) => json,
            Err(error) => {
                wrong(error.to_string());
                continue;
            }
        };
        match rule(&id, &json, declared) {
            Ok(rule) => rules.push(rule),
            Err(Foreign(what)) => wrong(format!("rule `{id}`: {what} is not judged by receivers")),
        }
    }
    if mistakes.is_empty() { Ok(rules) } else { Err(mistakes) }
}

/// Cedar numbers rules as they stand: `policy0`, `policy1`.
fn number(policy: &cedar_policy::Policy) -> usize {
    policy.id().to_string().trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

/// A part of Cedar that is not in ours.
struct Foreign(String);

type Compiled<T> = Result<T, Foreign>;

fn foreign<T>(what: impl Into<String>) -> Compiled<T> {
    Err(Foreign(what.into()))
}

fn rule(id: &str, json: &Json, declared: &[(String, ArgType)]) -> Compiled<Rule> {
    let effect = match text(json, "effect")? {
        "permit" => Effect::Permit,
        "forbid" => Effect::Forbid,
        other => return foreign(format!("the effect `{other}`")),
    };
    let mut conditions = Vec::new();
    for clause in list(json, "conditions")? {
        let body = expr(at(clause, "body")?, declared)?;
        match text(clause, "kind")? {
            "when" => parts(body, &mut conditions),
            "unless" => conditions.push(Expr::Not(Box::new(body))),
            other => return foreign(format!("a clause `{other}`")),
        }
    }
    Ok(Rule {
        id: id.to_owned(),
        effect,
        principal: scope(at(json, "principal")?)?,
        actions: actions(at(json, "action")?)?,
        resource: scope(at(json, "resource")?)?,
        conditions,
    })
}

/// What is joined by `&&`, one by one.
fn parts(expr: Expr, out: &mut Vec<Expr>) {
    match expr {
        Expr::Two(Op::And, two) => {
            parts(two.0, out);
            parts(two.1, out);
        }
        Expr::Literal(Value::Bool(true)) => {}
        expr => out.push(expr),
    }
}

fn scope(json: &Json) -> Compiled<Scope> {
    let place = |json: &Json| entity(at(json, "entity")?);
    match text(json, "op")? {
        "All" => Ok(Scope::Any),
        // Nothing is in a principal or a method, so that to be in one is to be it.
        "==" | "in" => Ok(Scope::Within(place(json)?)),
        "is" => {
            let kind = kind(text(json, "entity_type")?)?;
            match json.get("in") {
                Some(inner) => Ok(Scope::IsWithin(kind, place(inner)?)),
                None => Ok(Scope::Is(kind)),
            }
        }
        other => foreign(format!("`{other}` in a scope")),
    }
}

fn actions(json: &Json) -> Compiled<u16> {
    let bit = |json: &Json| {
        let id = entity(json)?.id;
        Action::from_name(&id).map(Action::bit).ok_or_else(|| Foreign(format!("the action `{id}`")))
    };
    match text(json, "op")? {
        "All" => Ok(Action::ALL.iter().fold(0, |bits, action| bits | action.bit())),
        _ => match json.get("entities").and_then(Json::as_array) {
            Some(several) => several.iter().try_fold(0, |bits, one| Ok(bits | bit(one)?)),
            None => bit(at(json, "entity")?),
        },
    }
}

fn expr(json: &Json, declared: &[(String, ArgType)]) -> Compiled<Expr> {
    let Some((name, body)) = json.as_object().and_then(|map| map.iter().next()) else {
        return foreign("an expression of another form");
    };
    let of = |json: &Json| expr(json, declared);
    let boxed = |key: &str| of(at(body, key)?).map(Box::new);
    let two = |op| Ok(Expr::Two(op, Box::new((of(at(body, "left")?)?, of(at(body, "right")?)?))));
    match name.as_str() {
        "Value" => literal(body).map(Expr::Literal),
        "Var" => field(body.as_str().unwrap_or_default(), ""),
        "Set" => {
            let items = body.as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().map(of).collect::<Compiled<_>>().map(Expr::Set)
        }
        "!" => boxed("arg").map(Expr::Not),
        "neg" => boxed("arg").map(Expr::Negative),
        "isEmpty" => boxed("arg").map(Expr::IsEmpty),
        "if-then-else" => Ok(Expr::If(Box::new((
            of(at(body, "if")?)?,
            of(at(body, "then")?)?,
            of(at(body, "else")?)?,
        )))),
        "." => attribute(body, declared),
        "has" => has(body, declared),
        "like" => Ok(Expr::Like(boxed("left")?, pattern(at(body, "pattern")?)?)),
        "is" => {
            let subject = subject(at(body, "left")?)?;
            let is = Expr::Is(subject, kind(text(body, "entity_type")?)?);
            match body.get("in") {
                None => Ok(is),
                Some(places) => {
                    let within = Expr::Within(subject, Box::new(of(places)?));
                    Ok(Expr::Two(Op::And, Box::new((is, within))))
                }
            }
        }
        "in" => Ok(Expr::Within(subject(at(body, "left")?)?, boxed("right")?)),
        other => match Op::named(other) {
            Some(op) => two(op),
            None => foreign(format!("`{other}`")),
        },
    }
}

fn field(variable: &str, attribute: &str) -> Compiled<Expr> {
    match Field::named(variable, attribute) {
        Some(field) => Ok(Expr::Field(field)),
        None if attribute.is_empty() => foreign(format!("`{variable}` as a whole")),
        None => foreign(format!("`{variable}.{attribute}`")),
    }
}

/// The variable that something is an attribute of, with the path to it.
fn path(json: &Json) -> Option<(&str, Vec<&str>)> {
    if let Some(variable) = json.get("Var").and_then(Json::as_str) {
        return Some((variable, Vec::new()));
    }
    let dot = json.get(".")?;
    let (variable, mut path) = path(dot.get("left")?)?;
    path.push(dot.get("attr")?.as_str()?);
    Some((variable, path))
}

fn argument(name: &str, declared: &[(String, ArgType)]) -> Compiled<usize> {
    declared
        .iter()
        .position(|(known, _)| known == name)
        .ok_or_else(|| Foreign(format!("the argument `{name}`, which is not declared,")))
}

fn attribute(body: &Json, declared: &[(String, ArgType)]) -> Compiled<Expr> {
    let attr = text(body, "attr")?;
    match path(at(body, "left")?) {
        Some((variable, path)) if path.is_empty() => field(variable, attr),
        Some(("context", path)) if path == ["args"] => argument(attr, declared).map(Expr::Arg),
        _ => foreign(format!("the attribute `{attr}` of something else than a variable")),
    }
}

fn has(body: &Json, declared: &[(String, ArgType)]) -> Compiled<Expr> {
    let attr = text(body, "attr")?;
    let known = |yes| Ok(Expr::Literal(Value::Bool(yes)));
    match path(at(body, "left")?) {
        Some(("context", path)) if path == ["args"] => argument(attr, declared).map(Expr::HasArg),
        Some(("context", path)) if path.is_empty() => known(attr == "args" || attr == "now"),
        Some((variable, path)) if path.is_empty() => known(Field::named(variable, attr).is_some()),
        _ => foreign("`has` on something else than a variable"),
    }
}

fn subject(json: &Json) -> Compiled<Subject> {
    match json.get("Var").and_then(Json::as_str) {
        Some("principal") => Ok(Subject::Principal),
        Some("resource") => Ok(Subject::Resource),
        Some("action") => Ok(Subject::Action),
        _ => foreign("`is` or `in` on something else than principal, action and resource"),
    }
}

fn pattern(json: &Json) -> Compiled<Pattern> {
    let pieces = json.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (piece.as_str(), piece.get("Literal").and_then(Json::as_str), out.last_mut()) {
            (Some("Wildcard"), _, Some(Piece::Anything)) => {}
            (Some("Wildcard"), ..) => out.push(Piece::Anything),
            (_, Some(text), Some(Piece::Text(before))) => before.push_str(text),
            (_, Some(text), _) => out.push(Piece::Text(text.to_owned())),
            _ => return foreign("this pattern"),
        }
    }
    Ok(Pattern(out))
}

fn literal(json: &Json) -> Compiled<Value<'static>> {
    match json {
        Json::Bool(value) => Ok(Value::Bool(*value)),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Ok(Value::Long(value)),
            None => foreign(format!("the number {number}")),
        },
        Json::String(text) => Ok(Value::Text(Cow::Owned(text.clone()))),
        Json::Array(items) => items.iter().map(literal).collect::<Compiled<_>>().map(Value::set),
        Json::Object(map) => match map.get("__entity") {
            Some(named) => entity(named).map(Value::Entity),
            None => foreign("a record, or a call of a function,"),
        },
        Json::Null => foreign("null"),
    }
}

fn entity(json: &Json) -> Compiled<EntityRef<'static>> {
    let json = json.get("__entity").unwrap_or(json);
    Ok(EntityRef { kind: kind(text(json, "type")?)?, id: Cow::Owned(text(json, "id")?.to_owned()) })
}

fn kind(name: &str) -> Compiled<EntityKind> {
    EntityKind::from_name(name).ok_or_else(|| Foreign(format!("the type `{name}`")))
}

fn at<'j>(json: &'j Json, key: &str) -> Compiled<&'j Json> {
    json.get(key).ok_or_else(|| Foreign(format!("something without `{key}`")))
}

fn text<'j>(json: &'j Json, key: &str) -> Compiled<&'j str> {
    at(json, key)?.as_str().ok_or_else(|| Foreign(format!("a `{key}` of another form")))
}

fn list<'j>(json: &'j Json, key: &str) -> Compiled<&'j [Json]> {
    Ok(at(json, key)?.as_array().map(Vec::as_slice).unwrap_or_default())
}
