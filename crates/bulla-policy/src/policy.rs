//! A policy as receivers hold it, and how it decides.

use std::collections::HashMap;

use crate::expr::{Expr, Fault, Field, Judged, Written};
use crate::request::{ArgType, EntityKind, Request};
use crate::rule::{Effect, Rule, Standing};

/// Rules, sorted by what they are about, so that a request meets few of them.
///
/// A request is allowed if a rule permits it and none forbids it. Nothing else is: a policy
/// without rules denies everything, and so does a condition that can't be judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    declared: Vec<(String, ArgType)>,
    /// By the method that a rule names.
    by_method: HashMap<String, Vec<usize>>,
    /// Of the others, by the sender or the role that a rule names.
    by_principal: HashMap<EntityKind, HashMap<String, Vec<usize>>>,
    /// Of the others, by the receiver or the namespace that a rule names.
    by_place: HashMap<EntityKind, HashMap<String, Vec<usize>>>,
    /// Of the others, by what their first condition demands of a field: it is judged first, so that
    /// a rule that is left out would have failed by it, and by nothing else.
    by_field: HashMap<Field, HashMap<String, Vec<usize>>>,
    /// The rest.
    general: Vec<usize>,
    needs_groups: bool,
}

/// Fields that rules are sorted by.
const INDEXED: [Field; 5] =
    [Field::Name, Field::SenderId, Field::Topic, Field::Namespace, Field::Exchange];

/// A judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'p> {
    /// By this rule.
    Allow {
        /// Its id.
        rule: &'p str,
    },
    /// By this rule, or for want of one.
    Deny {
        /// The id of the rule that forbids it, or one of [`NO_RULE`], [`FAULT`] and
        /// [`NO_GROUPS`].
        rule: &'p str,
    },
}

/// Why a request is denied that no rule permits.
pub const NO_RULE: &str = "policy/no-rule-permits";
/// Why a request is denied for which a rule can't be judged.
pub const FAULT: &str = "policy/argument-of-another-type";
/// Why a request is denied while it is not known which groups its sender is in.
pub const NO_GROUPS: &str = "policy/groups-not-known";

impl Decision<'_> {
    /// Whether it may go on.
    pub fn allows(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// The id of the rule that decided.
    pub fn rule(&self) -> &str {
        match self {
            Self::Allow { rule } | Self::Deny { rule } => rule,
        }
    }
}

/// A judgement at length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'p> {
    /// What was decided.
    pub decision: Decision<'p>,
    /// How each rule stands to the request, in the order of the policy.
    pub rules: Vec<(&'p Rule, Standing)>,
}

impl Policy {
    /// Of these rules, with the arguments that they may look at.
    pub(crate) fn new(rules: Vec<Rule>, declared: Vec<(String, ArgType)>) -> Self {
        let mut policy = Self { declared, ..Self::default() };
        for (at, rule) in rules.iter().enumerate() {
            match (rule.resource.named(), rule.principal.named()) {
                (Some(method), _) if method.kind == EntityKind::Method => {
                    policy.by_method.entry(method.id.to_string()).or_default().push(at);
                }
                (_, Some(who)) => {
                    let of_kind = policy.by_principal.entry(who.kind).or_default();
                    of_kind.entry(who.id.to_string()).or_default().push(at);
                }
                (Some(place), None) => {
                    let of_kind = policy.by_place.entry(place.kind).or_default();
                    of_kind.entry(place.id.to_string()).or_default().push(at);
                }
                (None, None) => match rule.conditions.first().and_then(Expr::demands) {
                    Some((field, text)) if INDEXED.contains(&field) => {
                        let of_field = policy.by_field.entry(field).or_default();
                        of_field.entry(text.to_owned()).or_default().push(at);
                    }
                    _ => policy.general.push(at),
                },
            }
        }
        policy.needs_groups = rules.iter().any(Rule::asks_for_groups);
        Self { rules, ..policy }
    }

    /// Whether a request can't be judged without knowing which groups its sender is in.
    pub fn needs_groups(&self) -> bool {
        self.needs_groups
    }

    /// Its rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The arguments that rules may look at.
    pub fn declared(&self) -> &[(String, ArgType)] {
        &self.declared
    }

    /// The conditions of a rule of this policy, as a person would write them; all must hold.
    pub fn conditions(&self, rule: &Rule) -> Vec<String> {
        let written = |condition| Written(condition, &self.declared).to_string();
        rule.conditions.iter().map(written).collect()
    }

    /// Judges a request.
    pub fn decide(&self, request: &Request<'_>) -> Decision<'_> {
        let judged = Judged::new(request, &self.declared);
        let (mut permits, mut forbids) = (None::<usize>, None::<usize>);
        for at in self.about(request) {
            let Some(rule) = self.rules.get(at) else { continue };
            let found = match rule.effect {
                Effect::Permit => &mut permits,
                Effect::Forbid => &mut forbids,
            };
            // Of several, the first of the policy is named.
            if found.is_some_and(|found| found < at) {
                continue;
            }
            match rule.holds(request.action, &judged) {
                Ok(true) => *found = Some(at),
                Ok(false) => {}
                Err(Fault::Unfit) => return Decision::Deny { rule: FAULT },
                Err(Fault::Groups) => return Decision::Deny { rule: NO_GROUPS },
            }
        }
        let id = |at: usize| self.rules.get(at).map_or(NO_RULE, Rule::id);
        match (permits, forbids) {
            (_, Some(at)) => Decision::Deny { rule: id(at) },
            (Some(at), None) => Decision::Allow { rule: id(at) },
            (None, None) => Decision::Deny { rule: NO_RULE },
        }
    }

    /// Judges a request and says how each rule stands to it.
    pub fn explain(&self, request: &Request<'_>) -> Explanation<'_> {
        let judged = Judged::new(request, &self.declared);
        let standing = |rule: &Rule| rule.standing(request.action, &judged, &self.declared);
        Explanation {
            decision: self.decide(request),
            rules: self.rules.iter().map(|rule| (rule, standing(rule))).collect(),
        }
    }

    /// The rules that may be about the request: no other can hold for it.
    fn about<'p>(&'p self, request: &Request<'p>) -> impl Iterator<Item = usize> {
        let by_method = |full: &str| self.by_method.get(full);
        let named = match request.method.namespace {
            "" => by_method(request.method.name),
            _ if self.by_method.is_empty() => None,
            _ => by_method(&request.method.full_name()),
        };
        let by_principal = |kind: EntityKind, id: &str| self.by_principal.get(&kind)?.get(id);
        let sender = by_principal(EntityKind::of(request.sender.kind), request.sender.id);
        let roles = request.roles.iter().filter_map(move |id| by_principal(EntityKind::Role, id));
        let projects =
            request.projects.iter().filter_map(move |id| by_principal(EntityKind::Project, id));
        let known = request.groups.into_iter().flatten();
        let groups = known.filter_map(move |id| by_principal(EntityKind::Group, id));
        // Of a sender whose groups are not known, any rule about a group may be.
        let all = self.by_principal.get(&EntityKind::Group).filter(|_| request.groups.is_none());
        let unknown = all.into_iter().flat_map(HashMap::values);
        let method = &request.method;
        let by_place = |kind: EntityKind, id: &str| self.by_place.get(&kind)?.get(id);
        let places = [
            by_place(EntityKind::of(method.receiver.kind), method.receiver.id),
            by_place(EntityKind::Namespace, method.namespace),
        ];
        let by_field = |field: Field| self.by_field.get(&field)?.get(field.text(request)?);
        let places = places.into_iter().chain(INDEXED.map(by_field)).flatten();
        let about = named
            .into_iter()
            .chain(sender)
            .chain(roles)
            .chain(projects)
            .chain(groups)
            .chain(unknown)
            .chain(places);
        about.chain([&self.general]).flatten().copied()
    }
}
