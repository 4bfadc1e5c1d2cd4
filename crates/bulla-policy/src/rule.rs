//! One rule of a policy, in the form that receivers judge by.

use crate::expr::{Expr, Fault, Judged, Subject, Written};
use crate::request::{Action, ArgType, EntityKind, EntityRef};

/// What a rule does where it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Lets the request through, unless another rule forbids it.
    Permit,
    /// Denies it, whatever permits it.
    Forbid,
}

impl Effect {
    /// As rules begin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Forbid => "forbid",
        }
    }
}

/// A rule: whom and what it is about, and under which conditions it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(crate) id: String,
    pub(crate) effect: Effect,
    pub(crate) principal: Scope,
    /// A bit for each action.
    pub(crate) actions: u16,
    pub(crate) resource: Scope,
    /// All must hold; each is a part that stands for itself when a rule is explained.
    pub(crate) conditions: Vec<Expr>,
}

/// Whom, or what, a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    Any,
    Is(EntityKind),
    /// It, or what is in it.
    Within(EntityRef<'static>),
    IsWithin(EntityKind, EntityRef<'static>),
}

impl Scope {
    fn covers(&self, judged: &Judged<'_, '_>, subject: Subject) -> Result<bool, Fault> {
        match self {
            Self::Any => Ok(true),
            Self::Is(kind) => Ok(judged.is(subject, *kind)),
            Self::Within(place) => judged.within(subject, place),
            Self::IsWithin(kind, _) if !judged.is(subject, *kind) => Ok(false),
            Self::IsWithin(_, place) => judged.within(subject, place),
        }
    }

    /// The one thing that it names.
    pub(crate) fn named(&self) -> Option<&EntityRef<'static>> {
        match self {
            Self::Within(place) | Self::IsWithin(_, place) => Some(place),
            Self::Any | Self::Is(_) => None,
        }
    }

    pub(crate) fn written(&self, subject: Subject) -> String {
        match self {
            Self::Any => subject.to_string(),
            Self::Is(kind) => format!("{subject} is {}", kind.name()),
            Self::Within(place) => format!("{subject} in {place}"),
            Self::IsWithin(kind, place) => format!("{subject} is {} in {place}", kind.name()),
        }
    }
}

/// How a rule stands to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is about somebody or something else: this part of it says so.
    Elsewhere(String),
    /// It is about this, but these conditions do not hold.
    Fails(Vec<String>),
    /// It holds.
    Holds,
    /// This condition can't be judged: an argument has another type than the policy declares, a
    /// number is too large, or it is not known which groups the sender is in.
    Faulty(String),
}

impl Rule {
    /// Its `@id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it does where it holds.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The actions that it is about.
    pub fn actions(&self) -> impl Iterator<Item = Action> + use<> {
        let actions = self.actions;
        Action::ALL.into_iter().filter(move |action| actions & action.bit() != 0)
    }

    /// Whether it asks which groups a sender is in.
    pub(crate) fn asks_for_groups(&self) -> bool {
        self.principal.named().is_some_and(|place| place.kind == EntityKind::Group)
            || self.conditions.iter().any(|condition| condition.names(EntityKind::Group))
    }

    /// Whether a condition of it looks at the arguments.
    pub fn looks_at_arguments(&self) -> bool {
        self.conditions.iter().any(Expr::looks_at_arguments)
    }

    pub(crate) fn holds(&self, action: Action, judged: &Judged<'_, '_>) -> Result<bool, Fault> {
        // The receiver's end first: it is known, always.
        if self.actions & action.bit() == 0
            || !self.resource.covers(judged, Subject::Resource)?
            || !self.principal.covers(judged, Subject::Principal)?
        {
            return Ok(false);
        }
        for condition in &self.conditions {
            if !judged.holds(condition)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same at length, for people.
    pub(crate) fn standing(
        &self,
        action: Action,
        judged: &Judged<'_, '_>,
        declared: &[(String, ArgType)],
    ) -> Standing {
        if self.actions & action.bit() == 0 {
            let actions: Vec<_> = self.actions().map(Action::name).collect();
            return Standing::Elsewhere(format!("action in [{}]", actions.join(", ")));
        }
        for (scope, subject) in
            [(&self.resource, Subject::Resource), (&self.principal, Subject::Principal)]
        {
            match scope.covers(judged, subject) {
                Ok(true) => {}
                Ok(false) => return Standing::Elsewhere(scope.written(subject)),
                Err(_) => return Standing::Faulty(scope.written(subject)),
            }
        }
        let mut fails = Vec::new();
        for condition in &self.conditions {
            match judged.holds(condition) {
                Ok(true) => {}
                Ok(false) => fails.push(Written(condition, declared).to_string()),
                // What comes after a condition that fails may be guarded by it.
                Err(_) if !fails.is_empty() => break,
                Err(_) => return Standing::Faulty(Written(condition, declared).to_string()),
            }
        }
        if fails.is_empty() { Standing::Holds } else { Standing::Fails(fails) }
    }

    /// Whom it is about, and what, as a person would write it.
    pub fn scope(&self) -> [String; 2] {
        [self.principal.written(Subject::Principal), self.resource.written(Subject::Resource)]
    }
}
