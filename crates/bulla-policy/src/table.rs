//! A compiled policy as bytes: how it travels to receivers. One CBOR item of the protocol's closed
//! profile (shortest forms, known lengths), read strictly.
//!
//! ```text
//! policy = [1, [* argument], [* rule]]
//! argument = [name, type]                                ; type: 0..4, as in ArgType
//! rule = [id, effect, scope, actions, scope, [* expr]]   ; effect: 0 permit, 1 forbid
//! scope = [0] / [1, kind] / [2, kind, id] / [3, kind, kind, id]
//! expr = [operator, * operand]                           ; operators below
//! ```

use std::borrow::Cow;

use bulla_seal::Refusal;
use bulla_seal::cbor::{Reader, Writer};
use thiserror::Error;

use crate::expr::{Expr, FIELDS, OPS, Pattern, Piece, Subject};
use crate::policy::Policy;
use crate::request::{Action, ArgType, EntityKind, EntityRef, Value};
use crate::rule::{Effect, Rule, Scope};

const VERSION: u64 = 1;
/// Most rules of a policy.
const MAX_RULES: usize = 10_000;
/// Most items of any list in a rule.
const MAX_ITEMS: usize = 10_000;
/// How deep conditions may be nested.
const MAX_DEPTH: usize = 48;

const TYPES: [ArgType; 5] =
    [ArgType::Text, ArgType::Long, ArgType::Bool, ArgType::Texts, ArgType::Longs];
const SUBJECTS: [Subject; 3] = [Subject::Principal, Subject::Resource, Subject::Action];

/// Operators: the first item of an expression.
mod operator {
    pub(super) const LITERAL: u64 = 0;
    pub(super) const FIELD: u64 = 1;
    pub(super) const ARG: u64 = 2;
    pub(super) const HAS_ARG: u64 = 3;
    pub(super) const SET: u64 = 4;
    pub(super) const NOT: u64 = 5;
    pub(super) const NEGATIVE: u64 = 6;
    pub(super) const IS_EMPTY: u64 = 7;
    pub(super) const TWO: u64 = 8;
    pub(super) const IF: u64 = 9;
    pub(super) const LIKE: u64 = 10;
    pub(super) const IS: u64 = 11;
    pub(super) const WITHIN: u64 = 12;
}

/// Bytes that are no policy that this version can judge by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this is not a policy that this version can read")]
pub struct NotAPolicy;

impl From<Refusal> for NotAPolicy {
    fn from(_: Refusal) -> Self {
        Self
    }
}

type Read<T> = Result<T, NotAPolicy>;
type Out<'a> = Writer<'a, Vec<u8>>;

impl Policy {
    /// Its bytes; the same for equal policies.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.array(3);
        w.uint(VERSION);
        w.array(self.declared().len());
        for (name, of) in self.declared() {
            w.array(2);
            w.text(name);
            w.uint(index(&TYPES, of));
        }
        w.array(self.rules().len());
        for rule in self.rules() {
            put_rule(&mut w, rule);
        }
        out
    }

    /// Reads what [`Policy::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`NotAPolicy`] for anything else, be it a newer form: nothing is judged by half a policy.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotAPolicy> {
        let mut r = Reader::new(bytes);
        r.array(3)?;
        r.this_uint(VERSION)?;
        let arguments = r.array_up_to(MAX_ITEMS)?;
        let mut declared = Vec::new();
        for _ in 0..arguments {
            r.array(2)?;
            declared.push((r.text()?.to_owned(), pick(&TYPES, r.uint()?)?));
        }
        let count = r.array_up_to(MAX_RULES)?;
        let mut rules = Vec::new();
        for _ in 0..count {
            rules.push(rule(&mut r, declared.len())?);
        }
        r.end()?;
        Ok(Self::new(rules, declared))
    }
}

fn index<T: PartialEq>(all: &[T], one: &T) -> u64 {
    all.iter().position(|known| known == one).map_or(u64::MAX, |at| at as u64)
}

fn pick<T: Copy>(all: &[T], at: u64) -> Read<T> {
    usize::try_from(at).ok().and_then(|at| all.get(at)).copied().ok_or(NotAPolicy)
}

fn put_rule(w: &mut Out<'_>, rule: &Rule) {
    w.array(6);
    w.text(&rule.id);
    w.uint(u64::from(rule.effect == Effect::Forbid));
    put_scope(w, &rule.principal);
    w.uint(rule.actions.into());
    put_scope(w, &rule.resource);
    w.array(rule.conditions.len());
    for condition in &rule.conditions {
        put(w, condition);
    }
}

fn rule(r: &mut Reader<'_>, arguments: usize) -> Read<Rule> {
    r.array(6)?;
    let id = r.text()?.to_owned();
    let effect = pick(&[Effect::Permit, Effect::Forbid], r.uint()?)?;
    let principal = scope(r)?;
    let actions = u16::try_from(r.uint()?).map_err(|_| NotAPolicy)?;
    let known = Action::ALL.iter().fold(0, |bits, action| bits | action.bit());
    if actions & !known != 0 {
        return Err(NotAPolicy);
    }
    let resource = scope(r)?;
    let count = r.array_up_to(MAX_ITEMS)?;
    let mut conditions = Vec::new();
    for _ in 0..count {
        conditions.push(get(r, arguments, MAX_DEPTH)?);
    }
    Ok(Rule { id, effect, principal, actions, resource, conditions })
}

fn put_scope(w: &mut Out<'_>, scope: &Scope) {
    match scope {
        Scope::Any => {
            w.array(1);
            w.uint(0);
        }
        Scope::Is(kind) => {
            w.array(2);
            w.uint(1);
            put_kind(w, *kind);
        }
        Scope::Within(place) => {
            w.array(3);
            w.uint(2);
            put_entity(w, place);
        }
        Scope::IsWithin(kind, place) => {
            w.array(4);
            w.uint(3);
            put_kind(w, *kind);
            put_entity(w, place);
        }
    }
}

fn scope(r: &mut Reader<'_>) -> Read<Scope> {
    let len = r.array_up_to(4)?;
    match (r.uint()?, len) {
        (0, 1) => Ok(Scope::Any),
        (1, 2) => Ok(Scope::Is(kind(r)?)),
        (2, 3) => Ok(Scope::Within(entity(r)?)),
        (3, 4) => Ok(Scope::IsWithin(kind(r)?, entity(r)?)),
        _ => Err(NotAPolicy),
    }
}

fn put_kind(w: &mut Out<'_>, kind: EntityKind) {
    w.uint(index(&EntityKind::ALL, &kind));
}

fn kind(r: &mut Reader<'_>) -> Read<EntityKind> {
    pick(&EntityKind::ALL, r.uint()?)
}

/// Two items.
fn put_entity(w: &mut Out<'_>, entity: &EntityRef<'_>) {
    put_kind(w, entity.kind);
    w.text(&entity.id);
}

fn entity(r: &mut Reader<'_>) -> Read<EntityRef<'static>> {
    Ok(EntityRef { kind: kind(r)?, id: Cow::Owned(r.text()?.to_owned()) })
}

fn head(w: &mut Out<'_>, operator: u64, operands: usize) {
    w.array(1 + operands);
    w.uint(operator);
}

fn put(w: &mut Out<'_>, expr: &Expr) {
    use operator::*;
    match expr {
        Expr::Literal(value) => {
            head(w, LITERAL, 1);
            put_value(w, value);
        }
        Expr::Field(field) => {
            head(w, FIELD, 1);
            let at = FIELDS.iter().position(|(known, ..)| known == field);
            w.uint(at.map_or(u64::MAX, |at| at as u64));
        }
        Expr::Arg(at) => {
            head(w, ARG, 1);
            w.uint(*at as u64);
        }
        Expr::HasArg(at) => {
            head(w, HAS_ARG, 1);
            w.uint(*at as u64);
        }
        Expr::Set(items) => {
            head(w, SET, items.len());
            items.iter().for_each(|item| put(w, item));
        }
        Expr::Not(inner) => {
            head(w, NOT, 1);
            put(w, inner);
        }
        Expr::Negative(inner) => {
            head(w, NEGATIVE, 1);
            put(w, inner);
        }
        Expr::IsEmpty(inner) => {
            head(w, IS_EMPTY, 1);
            put(w, inner);
        }
        Expr::Two(op, two) => {
            head(w, TWO, 3);
            let at = OPS.iter().position(|(known, _)| known == op);
            w.uint(at.map_or(u64::MAX, |at| at as u64));
            put(w, &two.0);
            put(w, &two.1);
        }
        Expr::If(three) => {
            head(w, IF, 3);
            put(w, &three.0);
            put(w, &three.1);
            put(w, &three.2);
        }
        Expr::Like(inner, pattern) => {
            head(w, LIKE, 1 + pattern.0.len());
            put(w, inner);
            for piece in &pattern.0 {
                match piece {
                    Piece::Anything => w.null(),
                    Piece::Text(text) => w.text(text),
                }
            }
        }
        Expr::Is(subject, kind) => {
            head(w, IS, 2);
            w.uint(index(&SUBJECTS, subject));
            put_kind(w, *kind);
        }
        Expr::Within(subject, places) => {
            head(w, WITHIN, 2);
            w.uint(index(&SUBJECTS, subject));
            put(w, places);
        }
    }
}

fn get(r: &mut Reader<'_>, arguments: usize, depth: usize) -> Read<Expr> {
    use operator::*;
    let depth = depth.checked_sub(1).ok_or(NotAPolicy)?;
    let operands = r.array_up_to(MAX_ITEMS)?.checked_sub(1).ok_or(NotAPolicy)?;
    let operator = r.uint()?;
    let inner = |r: &mut Reader<'_>| get(r, arguments, depth);
    let arg = |r: &mut Reader<'_>| {
        let at = usize::try_from(r.uint()?).map_err(|_| NotAPolicy)?;
        if at < arguments { Ok(at) } else { Err(NotAPolicy) }
    };
    match (operator, operands) {
        (LITERAL, 1) => value(r, 2).map(Expr::Literal),
        (FIELD, 1) => pick(&FIELDS, r.uint()?).map(|(field, ..)| Expr::Field(field)),
        (ARG, 1) => arg(r).map(Expr::Arg),
        (HAS_ARG, 1) => arg(r).map(Expr::HasArg),
        (SET, _) => (0..operands).map(|_| inner(r)).collect::<Read<_>>().map(Expr::Set),
        (NOT, 1) => Ok(Expr::Not(Box::new(inner(r)?))),
        (NEGATIVE, 1) => Ok(Expr::Negative(Box::new(inner(r)?))),
        (IS_EMPTY, 1) => Ok(Expr::IsEmpty(Box::new(inner(r)?))),
        (TWO, 3) => {
            let (op, _) = pick(&OPS, r.uint()?)?;
            Ok(Expr::Two(op, Box::new((inner(r)?, inner(r)?))))
        }
        (IF, 3) => Ok(Expr::If(Box::new((inner(r)?, inner(r)?, inner(r)?)))),
        (LIKE, 1..) => {
            let of = Box::new(inner(r)?);
            let mut pieces = Vec::new();
            for _ in 1..operands {
                let text = r.text_or_null()?;
                pieces.push(text.map_or(Piece::Anything, |text| Piece::Text(text.to_owned())));
            }
            Ok(Expr::Like(of, Pattern(pieces)))
        }
        (IS, 2) => Ok(Expr::Is(pick(&SUBJECTS, r.uint()?)?, kind(r)?)),
        (WITHIN, 2) => Ok(Expr::Within(pick(&SUBJECTS, r.uint()?)?, Box::new(inner(r)?))),
        _ => Err(NotAPolicy),
    }
}

/// `[0, bool]`, `[1, number]`, `[2, text]`, `[3, * value]` or `[4, kind, id]`.
fn put_value(w: &mut Out<'_>, value: &Value<'_>) {
    match value {
        Value::Bool(value) => {
            head(w, 0, 1);
            w.uint((*value).into());
        }
        Value::Long(value) => {
            head(w, 1, 1);
            w.int(*value);
        }
        Value::Text(text) => {
            head(w, 2, 1);
            w.text(text);
        }
        Value::Set(values) => {
            head(w, 3, values.len());
            values.iter().for_each(|value| put_value(w, value));
        }
        Value::Entity(entity) => {
            head(w, 4, 2);
            put_entity(w, entity);
        }
    }
}

fn value(r: &mut Reader<'_>, depth: usize) -> Read<Value<'static>> {
    let depth = depth.checked_sub(1).ok_or(NotAPolicy)?;
    let len = r.array_up_to(MAX_ITEMS)?.checked_sub(1).ok_or(NotAPolicy)?;
    match (r.uint()?, len) {
        (0, 1) => Ok(Value::Bool(pick(&[false, true], r.uint()?)?)),
        (1, 1) => Ok(Value::Long(r.int()?)),
        (2, 1) => Ok(Value::Text(Cow::Owned(r.text()?.to_owned()))),
        (3, _) => {
            let values = (0..len).map(|_| value(r, depth)).collect::<Read<Vec<_>>>()?;
            // In order, each once.
            let written = Value::Set(values);
            let Value::Set(values) = written.clone() else { return Err(NotAPolicy) };
            if Value::set(values) == written { Ok(written) } else { Err(NotAPolicy) }
        }
        (4, 2) => Ok(Value::Entity(entity(r)?)),
        _ => Err(NotAPolicy),
    }
}
