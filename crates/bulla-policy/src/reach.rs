//! What a policy lets whom reach, without a request: for people who read it.

use std::collections::BTreeSet;
use std::fmt;

use crate::expr::{Expr, Field, Op, Pattern, Piece, Subject, Written};
use crate::policy::Policy;
use crate::request::{Action, EntityKind, EntityRef, Value, Who, WhoKind};
use crate::rule::{Effect, Rule, Scope};

/// Somebody whom a policy names, or everybody of a kind whom it does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// One component type, one agent, a group, or one user of the API.
    Named(WhoKind, String),
    /// All others of the kind.
    Others(WhoKind),
}

/// Kinds in the order in which they are shown.
const SENDERS: [WhoKind; 5] =
    [WhoKind::Component, WhoKind::Agent, WhoKind::Operator, WhoKind::Program, WhoKind::User];
const RECEIVERS: [WhoKind; 3] = [WhoKind::Component, WhoKind::Agent, WhoKind::Group];

impl Peer {
    fn kind(&self) -> WhoKind {
        match self {
            Self::Named(kind, _) | Self::Others(kind) => *kind,
        }
    }

    fn id(&self) -> Option<&str> {
        match self {
            Self::Named(_, id) => Some(id),
            Self::Others(_) => None,
        }
    }

    /// `agent/`, `component/` and so on, with the name if it has one.
    fn short(&self) -> String {
        format!("{}/{}", self.kind().as_str(), self.id().unwrap_or_default())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(..) => f.write_str(&self.short()),
            Self::Others(_) => write!(f, "{}*", self.short()),
        }
    }
}

/// What one rule says of one way from a sender to a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach<'p> {
    /// Who asks.
    pub sender: Peer,
    /// Who is asked.
    pub receiver: Peer,
    /// What it does.
    pub actions: Vec<Action>,
    /// By which rule.
    pub rule: &'p Rule,
    /// What the rule says of the method: its name, or its namespace; `None` is any.
    pub method: Option<String>,
    /// What has to hold beside.
    pub conditions: Vec<String>,
}

impl Policy {
    /// What every sender reaches, and what is taken from it by a `forbid`: for each that the policy
    /// names, and for those that it does not name together. Of `known` senders and receivers those
    /// are shown too that differ from the others. Whoever is in no row reaches nothing.
    pub fn reach(&self, known: &[Peer]) -> Vec<Reach<'_>> {
        let mut named: BTreeSet<Peer> = known.iter().cloned().collect();
        self.rules().iter().for_each(|rule| named_in_rule(rule, &mut named));
        let mut peers: Vec<Peer> = named.into_iter().collect();
        let place = |peer: &Peer| SENDERS.iter().position(|kind| *kind == peer.kind());
        peers.sort_by_key(|peer| place(peer).unwrap_or(usize::MAX));
        let others = SENDERS.map(|kind| (kind, self.of_sender(&Peer::Others(kind), &peers)));
        let mut rows = Vec::new();
        for sender in &peers {
            let Some((_, others)) = others.iter().find(|(kind, _)| *kind == sender.kind()) else {
                continue;
            };
            let own = self.of_sender(sender, &peers);
            if !same(&own, others, |row| row.receiver.clone()) {
                rows.extend(own);
            }
        }
        rows.extend(others.into_iter().flat_map(|(_, others)| others));
        rows
    }

    /// The ways of one sender. Receivers that are reached as all others of their kind are not told
    /// apart.
    fn of_sender(&self, sender: &Peer, peers: &[Peer]) -> Vec<Reach<'_>> {
        let mut rows = Vec::new();
        for kind in RECEIVERS {
            let others = self.between(sender, &Peer::Others(kind));
            for receiver in peers.iter().filter(|peer| peer.kind() == kind) {
                let own = self.between(sender, receiver);
                if !same(&own, &others, |row| row.sender.clone()) {
                    rows.extend(own);
                }
            }
            rows.extend(others);
        }
        rows
    }

    fn between(&self, sender: &Peer, receiver: &Peer) -> Vec<Reach<'_>> {
        let mut rows: Vec<Reach<'_>> = Vec::new();
        for action in actions(sender.kind(), receiver.kind()) {
            let way = Way { sender, receiver, action };
            let found: Vec<_> = self.rules().iter().filter_map(|r| self.on_way(&way, r)).collect();
            let permitted = found.iter().any(|row| row.rule.effect() == Effect::Permit);
            let closed = found.iter().any(Reach::is_closed);
            if !permitted || closed {
                continue;
            }
            for row in found {
                // The same for another action is one row.
                match rows.iter_mut().find(|known| alike(known, &row)) {
                    Some(known) => known.actions.push(action),
                    None => rows.push(row),
                }
            }
        }
        rows
    }

    fn on_way<'p>(&'p self, way: &Way<'_>, rule: &'p Rule) -> Option<Reach<'p>> {
        let mut row = Reach {
            sender: way.sender.clone(),
            receiver: way.receiver.clone(),
            actions: vec![way.action],
            rule,
            method: None,
            conditions: Vec::new(),
        };
        if rule.actions & way.action.bit() == 0 {
            return None;
        }
        for (scope, subject) in
            [(&rule.principal, Subject::Principal), (&rule.resource, Subject::Resource)]
        {
            match way.scope(scope, subject) {
                Some(false) => return None,
                Some(true) => {}
                None => match scope.named() {
                    Some(method) if method.kind == EntityKind::Method => {
                        row.method = Some(method.id.to_string());
                    }
                    Some(place) if place.kind == EntityKind::Namespace => {
                        row.method = Some(format!("{}.*", place.id));
                    }
                    _ => row.conditions.push(scope.written(subject)),
                },
            }
        }
        for condition in &rule.conditions {
            match way.truth(condition) {
                Some(false) => return None,
                Some(true) => {}
                None => row.conditions.push(Written(condition, self.declared()).to_string()),
            }
        }
        Some(row)
    }
}

/// What somebody of a kind can ask for at somebody of a kind at all.
fn actions(sender: WhoKind, receiver: WhoKind) -> impl Iterator<Item = Action> {
    Action::ALL.into_iter().filter(move |action| match action {
        _ if action.is_api() != sender.is_api() => false,
        Action::ApiCall | Action::ApiCast => receiver != WhoKind::Group,
        Action::ApiFanout => receiver == WhoKind::Group,
        Action::ApiRead | Action::ApiManage | Action::ApiWatch => receiver == WhoKind::Component,
        _ => receiver != WhoKind::Group,
    })
}

impl Reach<'_> {
    /// Whether it is everything that there is on this way.
    pub fn is_anything(&self) -> bool {
        self.actions.len() == actions(self.sender.kind(), self.receiver.kind()).count()
    }

    /// Whether nothing gets past it.
    fn is_closed(&self) -> bool {
        self.rule.effect() == Effect::Forbid && self.method.is_none() && self.conditions.is_empty()
    }
}

fn alike(a: &Reach<'_>, b: &Reach<'_>) -> bool {
    std::ptr::eq(a.rule, b.rule) && a.method == b.method && a.conditions == b.conditions
}

/// Whether two lists differ in their senders, or in their receivers, alone.
fn same(a: &[Reach<'_>], b: &[Reach<'_>], other_end: fn(&Reach<'_>) -> Peer) -> bool {
    let one = |(a, b): (&Reach<'_>, &Reach<'_>)| {
        alike(a, b) && a.actions == b.actions && other_end(a) == other_end(b)
    };
    a.len() == b.len() && a.iter().zip(b).all(one)
}

/// A sender, a receiver and an action; nothing else of a request is known.
struct Way<'w> {
    sender: &'w Peer,
    receiver: &'w Peer,
    action: Action,
}

impl Way<'_> {
    fn scope(&self, scope: &Scope, subject: Subject) -> Option<bool> {
        match scope {
            Scope::Any => Some(true),
            Scope::Is(kind) => Some(self.is(subject, *kind)),
            Scope::Within(place) => self.within(subject, place),
            Scope::IsWithin(kind, _) if !self.is(subject, *kind) => Some(false),
            Scope::IsWithin(_, place) => self.within(subject, place),
        }
    }

    fn is(&self, subject: Subject, kind: EntityKind) -> bool {
        kind == match subject {
            Subject::Principal => EntityKind::of(self.sender.kind()),
            Subject::Resource => EntityKind::Method,
            Subject::Action => EntityKind::Action,
        }
    }

    fn within(&self, subject: Subject, place: &EntityRef<'_>) -> Option<bool> {
        // Everybody who is named has a row of their own: the others are nobody of them.
        let is = |peer: &Peer| {
            EntityKind::of(peer.kind()) == place.kind && peer.id() == Some(place.id.as_ref())
        };
        match (subject, place.kind) {
            (Subject::Action, _) => Some(self.action.name() == place.id),
            (
                Subject::Principal,
                EntityKind::Agent
                | EntityKind::Component
                | EntityKind::Operator
                | EntityKind::Program
                | EntityKind::User,
            ) => Some(is(self.sender)),
            (Subject::Resource, EntityKind::Agent | EntityKind::Component | EntityKind::Fanout) => {
                Some(is(self.receiver))
            }
            _ => None,
        }
    }

    /// Whether a condition holds; `None` if that depends on what is not known.
    fn truth(&self, expr: &Expr) -> Option<bool> {
        match expr {
            Expr::Literal(Value::Bool(value)) => Some(*value),
            Expr::Not(inner) => Some(!self.truth(inner)?),
            Expr::Two(Op::And, two) => match (self.truth(&two.0), self.truth(&two.1)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Expr::Two(Op::Or, two) => match (self.truth(&two.0), self.truth(&two.1)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Expr::Two(Op::Equal, two) => self.equal(&two.0, &two.1),
            Expr::Two(Op::Unequal, two) => Some(!self.equal(&two.0, &two.1)?),
            Expr::Two(Op::Contains, two) => {
                let Some(Value::Set(values)) = self.value(&two.0) else { return None };
                if self.is_stranger(&two.1) {
                    return Some(false);
                }
                self.value(&two.1).map(|value| values.contains(&value))
            }
            Expr::If(three) => {
                let (condition, then, otherwise) = three.as_ref();
                match self.truth(condition) {
                    Some(true) => self.truth(then),
                    Some(false) => self.truth(otherwise),
                    None => {
                        let then = self.truth(then)?;
                        (self.truth(otherwise)? == then).then_some(then)
                    }
                }
            }
            Expr::Like(text, pattern) => self.like(text, pattern),
            Expr::Is(subject, kind) => Some(self.is(*subject, *kind)),
            Expr::Within(subject, places) => match self.value(places)? {
                Value::Entity(place) => self.within(*subject, &place),
                Value::Set(places) => {
                    let mut any = Some(false);
                    for place in &places {
                        let Value::Entity(place) = place else { return None };
                        any = match (any, self.within(*subject, place)) {
                            (Some(true), _) | (_, Some(true)) => Some(true),
                            (Some(false), Some(false)) => Some(false),
                            _ => None,
                        };
                    }
                    any
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn equal(&self, left: &Expr, right: &Expr) -> Option<bool> {
        let literal = |expr: &Expr| matches!(expr, Expr::Literal(_));
        if self.is_stranger(left) && literal(right) || self.is_stranger(right) && literal(left) {
            return Some(false);
        }
        Some(self.value(left)? == self.value(right)?)
    }

    /// Whether it is the name of somebody whom the policy does not name.
    fn is_stranger(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Field(Field::Principal | Field::SenderId) => self.sender.id().is_none(),
            Expr::Field(Field::Receiver) => self.receiver.id().is_none(),
            _ => false,
        }
    }

    fn value(&self, expr: &Expr) -> Option<Value<'static>> {
        let text = |text: &str| Value::Text(text.to_owned().into());
        match expr {
            Expr::Literal(value) => Some(value.clone()),
            Expr::Set(items) => {
                items.iter().map(|item| self.value(item)).collect::<Option<_>>().map(Value::set)
            }
            Expr::Field(Field::SenderId) => self.sender.id().map(text),
            Expr::Field(Field::Receiver) => {
                self.receiver.id().map(|_| text(&self.receiver.short()))
            }
            Expr::Field(Field::Principal) => {
                let id = self.sender.id()?.to_owned();
                let kind = EntityKind::of(self.sender.kind());
                Some(Value::Entity(EntityRef { kind, id: id.into() }))
            }
            Expr::Field(Field::Action) => Some(Value::Entity(EntityRef {
                kind: EntityKind::Action,
                id: self.action.name().into(),
            })),
            _ => None,
        }
    }

    /// Of a receiver whose name is not known, what its name begins with is.
    fn like(&self, text: &Expr, pattern: &Pattern) -> Option<bool> {
        if let Some(Value::Text(text)) = self.value(text) {
            return Some(pattern.matches(&text));
        }
        if !matches!(text, Expr::Field(Field::Receiver)) {
            return None;
        }
        let begins = self.receiver.short();
        match pattern.0.as_slice() {
            [Piece::Text(start), Piece::Anything] if begins.starts_with(start.as_str()) => {
                Some(true)
            }
            [Piece::Text(start), ..]
                if !begins.starts_with(start.as_str()) && !start.starts_with(&begins) =>
            {
                Some(false)
            }
            _ => None,
        }
    }
}

/// Everybody whom a rule names.
fn named_in_rule(rule: &Rule, out: &mut BTreeSet<Peer>) {
    for place in [&rule.principal, &rule.resource].into_iter().filter_map(|scope| scope.named()) {
        add(place, out);
    }
    rule.conditions.iter().for_each(|condition| named(condition, out));
}

fn add(place: &EntityRef<'_>, out: &mut BTreeSet<Peer>) {
    let kind = WhoKind::ALL.into_iter().find(|kind| EntityKind::of(*kind) == place.kind);
    if let Some(kind) = kind {
        out.insert(Peer::Named(kind, place.id.to_string()));
    }
}

fn named(expr: &Expr, out: &mut BTreeSet<Peer>) {
    match expr {
        Expr::Literal(value) => named_in_value(value, out),
        Expr::Set(items) => items.iter().for_each(|item| named(item, out)),
        Expr::Not(inner) | Expr::Negative(inner) | Expr::IsEmpty(inner) | Expr::Like(inner, _) => {
            named(inner, out);
        }
        Expr::Within(_, places) => named(places, out),
        Expr::If(three) => [&three.0, &three.1, &three.2].into_iter().for_each(|e| named(e, out)),
        Expr::Two(_, two) => {
            for (one, other) in [(&two.0, &two.1), (&two.1, &two.0)] {
                named(one, out);
                match (one, other) {
                    (Expr::Field(Field::SenderId), other) => texts(other, &mut |text| {
                        for kind in SENDERS {
                            out.insert(Peer::Named(kind, text.to_owned()));
                        }
                    }),
                    (Expr::Field(Field::Receiver), other) => texts(other, &mut |text| {
                        if let Some(who) = Who::parse(text) {
                            out.insert(Peer::Named(who.kind, who.id.to_owned()));
                        }
                    }),
                    _ => {}
                }
            }
        }
        Expr::Field(_) | Expr::Arg(_) | Expr::HasArg(_) | Expr::Is(..) => {}
    }
}

fn named_in_value(value: &Value<'_>, out: &mut BTreeSet<Peer>) {
    match value {
        Value::Entity(place) => add(place, out),
        Value::Set(values) => values.iter().for_each(|value| named_in_value(value, out)),
        _ => {}
    }
}

/// Every text of a literal, or of a set of them.
fn texts(expr: &Expr, each: &mut impl FnMut(&str)) {
    match expr {
        Expr::Literal(Value::Text(text)) => each(text),
        Expr::Literal(Value::Set(values)) => {
            for value in values {
                if let Value::Text(text) = value {
                    each(text);
                }
            }
        }
        Expr::Set(items) => items.iter().for_each(|item| texts(item, each)),
        _ => {}
    }
}

#[cfg(feature = "author")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, starter};

    fn rows(text: &str) -> Vec<String> {
        let policy = Source::parse(text).unwrap().compile().unwrap();
        let row = |row: &Reach<'_>| {
            let actions: Vec<_> = row.actions.iter().map(|action| action.name()).collect();
            let method = row.method.as_deref().unwrap_or("*");
            let (effect, rule) = (row.rule.effect().name(), row.rule.id());
            let conditions = row.conditions.join(" and ");
            format!(
                "{} -> {} {effect} {} {method} [{conditions}] {rule}",
                row.sender,
                row.receiver,
                actions.join(",")
            )
        };
        policy.reach(&[]).iter().map(row).collect()
    }

    #[test]
    fn the_fleet_is_as_the_built_in_rule() {
        let all = "call,cast,fanout,reply-progress";
        assert_eq!(
            rows(starter::FLEET),
            [
                format!(
                    "component/* -> component/* permit {all} * [resource.open_to_components] components-call-what-is-open-to-them"
                ),
                format!("component/* -> agent/* permit {all} * [] components-drive-agents"),
                format!(
                    "agent/* -> component/* permit {all} * [resource.open_to_agents] agents-call-what-is-open-to-them"
                ),
            ]
        );
    }

    #[test]
    fn trove_is_a_chain() {
        let rows = rows(starter::TROVE);
        println!("{rows:#?}");
        let has = |row: &str| assert!(rows.iter().any(|r| r.starts_with(row)), "{row}");
        has("component/api -> component/taskmanager permit call,cast * [] api-asks");
        has("component/taskmanager -> agent/* permit");
        has("agent/* -> component/conductor permit call,cast * [] agents-report-to");
        has("agent/* -> component/conductor forbid");
        // Others have no business with anybody.
        assert!(!rows.iter().any(|row| row.starts_with("component/*")));
        assert!(!rows.iter().any(|row| row.starts_with("component/conductor")));
        assert!(!rows.iter().any(|row| row.contains("-> component/api")));
    }

    #[test]
    fn what_is_forbidden_whole_is_not_reached() {
        let text = "@id(\"a\") permit (principal, action, resource);\n\
                    @id(\"b\") forbid (principal == Component::\"old\", action, resource);\n\
                    @id(\"c\") forbid (principal, action == Action::\"fanout\", resource);\n\
                    @id(\"d\") forbid (principal is Agent, action, resource in Namespace::\"admin\");";
        let rows = rows(text);
        println!("{rows:#?}");
        assert!(!rows.iter().any(|row| row.contains("component/old ->")));
        assert!(!rows.iter().any(|row| row.contains(",fanout")));
        assert!(rows.contains(
            &"agent/* -> agent/* forbid call,cast,reply-progress admin.* [] d".to_owned()
        ));
    }
}
