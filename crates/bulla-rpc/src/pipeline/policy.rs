//! The operators' policy as the rule of a server.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bulla_policy::{Action, MethodOf, Policy, Request, Who};
use bulla_seal::{MessageKind, Principal, SignedPolicy};
use parking_lot::{Mutex, RwLock};

use super::authorize::{Authorization, Decision, DefaultRule, Question};
use crate::router::Effect;

/// Differences between two policies that are told apart; what comes after is counted together.
const MAX_DIFFERENCES: usize = 1000;
/// The rule that a caller is told of while the policy can't be read: everything is denied.
pub const UNREADABLE: &str = "policy/can-not-be-read";

/// Judges by a policy, which can be replaced while messages are judged: each is judged by one or
/// the other, whole. Until there is one, and for the methods of the protocol itself always,
/// [`DefaultRule`] judges.
///
/// A second policy can judge beside it in the shadow: what it would decide otherwise is counted,
/// and nothing else comes of it.
#[derive(Debug, Default)]
pub struct PolicyRule {
    policies: RwLock<Policies>,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default, Clone)]
struct Policies {
    /// Counts the changes: what was judged by former ones is not counted as of these.
    generation: u64,
    sequence: u64,
    version: u32,
    active: Active,
    shadow: Option<Arc<Policy>>,
}

#[derive(Debug, Default, Clone)]
enum Active {
    #[default]
    BuiltIn,
    Policy(Arc<Policy>),
    /// There is one that this program can't read: nothing is judged by half a policy.
    Unreadable,
}

#[derive(Debug, Default)]
struct Counted {
    generation: u64,
    differences: HashMap<Difference, u64>,
}

/// What a policy in the shadow would decide otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Difference {
    /// Whose requests; empty for those that were too many to tell apart.
    pub sender: String,
    /// What they asked for.
    pub method: String,
    /// Whether they are allowed now.
    pub allowed: bool,
    /// The rule that decides now.
    pub rule: String,
    /// The rule of the shadow.
    pub shadow_rule: String,
}

/// What came of a signed document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It counts from now on.
    New,
    /// It is the one that is held.
    Same,
    /// It is older than the one that is held, and was refused.
    Older,
}

impl PolicyRule {
    /// Judges by `policy`.
    pub fn new(policy: Policy) -> Self {
        let rule = Self::default();
        rule.replace(policy);
        rule
    }

    /// Judges by `policy` from now on; the one in the shadow goes.
    pub fn replace(&self, policy: Policy) {
        self.set(|policies| {
            (policies.active, policies.shadow) = (Active::Policy(Arc::new(policy)), None);
            true
        });
    }

    /// Denies everything but the protocol itself until there is a policy: the one that is kept
    /// can't be read.
    pub fn deny_until_told(&self) {
        self.set(|policies| {
            (policies.active, policies.shadow) = (Active::Unreadable, None);
            true
        });
    }

    /// The control plane, which holds no document, was asked: what was kept is nothing to wait for any
    /// more, and the built-in rule judges. Whoever goes by a document keeps it.
    pub fn told_there_is_none(&self) {
        self.set(|policies| {
            let waits = policies.sequence == 0 && matches!(policies.active, Active::Unreadable);
            if waits {
                policies.active = Active::BuiltIn;
            }
            waits
        });
    }

    /// Lets `policy` judge in the shadow, or nobody any more. What was counted is forgotten.
    pub fn shadow(&self, policy: Option<Policy>) {
        self.set(|policies| {
            policies.shadow = policy.map(Arc::new);
            true
        });
    }

    /// Goes by what the operator's issuer signed, if it is newer than what is held. A policy that
    /// this program can't read denies everything: an older program has to be replaced, and not to
    /// guess.
    pub fn take(&self, document: &SignedPolicy) -> Taken {
        let read = |compiled: &Vec<u8>| Policy::from_bytes(compiled).map(Arc::new);
        let active = match document.active.as_ref().map(read) {
            None => Active::BuiltIn,
            Some(Ok(policy)) => Active::Policy(policy),
            Some(Err(_)) => {
                tracing::error!(
                    version = document.version,
                    "the policy is of a form that this program can't read: everything is denied; \
                     install a newer program"
                );
                Active::Unreadable
            }
        };
        // What only judges beside need not be read.
        let shadow = document.shadow.as_ref().and_then(|compiled| read(compiled).ok());
        let mut taken = Taken::New;
        self.set(|policies| {
            if document.sequence <= policies.sequence {
                let same = document.sequence == policies.sequence;
                taken = if same { Taken::Same } else { Taken::Older };
                return false;
            }
            (policies.sequence, policies.version) = (document.sequence, document.version);
            (policies.active, policies.shadow) = (active, shadow);
            true
        });
        taken
    }

    /// `change` says whether it changed anything; what was counted is then forgotten.
    fn set(&self, change: impl FnOnce(&mut Policies) -> bool) {
        let mut policies = self.policies.write();
        if !change(&mut policies) {
            return;
        }
        policies.generation += 1;
        let mut counted = self.counted.lock();
        counted.generation = policies.generation;
        counted.differences.clear();
    }

    /// The sequence of the document that is held; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.policies.read().sequence
    }

    /// The version of the policy that decides; 0 before the first.
    pub fn version(&self) -> u32 {
        self.policies.read().version
    }

    /// What the policy in the shadow would have decided otherwise, with how often, in order of
    /// their senders.
    pub fn differences(&self) -> Vec<(Difference, u64)> {
        let counted = self.counted.lock();
        sorted(counted.differences.iter().map(|(what, n)| (what.clone(), *n)).collect())
    }

    /// The same, once: what was given is counted anew. With it the sequence of the document that it
    /// is of.
    pub fn take_differences(&self) -> (u64, Vec<(Difference, u64)>) {
        let policies = self.policies.read();
        let found = std::mem::take(&mut self.counted.lock().differences);
        (policies.sequence, sorted(found.into_iter().collect()))
    }

    /// Counts again what could not be reported, unless it is of a former document.
    pub fn put_back(&self, sequence: u64, found: Vec<(Difference, u64)>) {
        let policies = self.policies.read();
        if policies.sequence != sequence {
            return;
        }
        let mut counted = self.counted.lock();
        for (difference, n) in found {
            counted.add(difference, n);
        }
    }

    fn compare(
        &self,
        request: &Request<'_>,
        (allowed, rule): (bool, &str),
        (generation, shadow): (u64, &Policy),
    ) {
        let theirs = shadow.decide(request);
        self.note(request, (allowed, rule), (generation, (theirs.allows(), theirs.rule())));
    }

    fn note(
        &self,
        request: &Request<'_>,
        (allowed, rule): (bool, &str),
        (generation, (theirs, shadow_rule)): (u64, (bool, &str)),
    ) {
        if theirs == allowed {
            return;
        }
        let difference = Difference {
            sender: request.sender.to_string(),
            method: request.method.full_name(),
            allowed,
            rule: rule.to_owned(),
            shadow_rule: shadow_rule.to_owned(),
        };
        let mut counted = self.counted.lock();
        if counted.generation == generation {
            counted.add(difference, 1);
        }
    }
}

impl Counted {
    fn add(&mut self, difference: Difference, n: u64) {
        let known =
            self.differences.len() < MAX_DIFFERENCES || self.differences.contains_key(&difference);
        let difference = if known {
            difference
        } else {
            Difference { sender: String::new(), method: String::new(), ..difference }
        };
        *self.differences.entry(difference).or_default() += n;
    }
}

fn sorted(mut found: Vec<(Difference, u64)>) -> Vec<(Difference, u64)> {
    found.sort_unstable();
    found
}

/// How a request of a user of the HTTPS API is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it may go on.
    pub allowed: bool,
    /// The id of the rule that decided.
    pub rule: Cow<'static, str>,
    /// The number of the policy that was gone by; 0 is the built-in rule.
    pub version: u32,
}

/// What allows a request of an operator's that no rule of a policy is about.
const OPERATORS: &str = "default/operators";
/// What denies others while there is no policy.
const API_NEEDS_A_RULE: &str = "default/api-needs-a-rule";

impl PolicyRule {
    /// Judges what a user of the HTTPS API asks for. To an operator, who proved to be one by a
    /// certificate or by the bearer token of this machine, is allowed what no rule forbids; to others
    /// what a rule permits.
    pub fn judge(&self, request: &Request<'_>, operator: bool) -> Judgement {
        let policies = self.policies.read().clone();
        let (allowed, rule) = match &policies.active {
            Active::BuiltIn if operator => (true, Cow::Borrowed(OPERATORS)),
            Active::BuiltIn => (false, Cow::Borrowed(API_NEEDS_A_RULE)),
            Active::Unreadable => (false, Cow::Borrowed(UNREADABLE)),
            Active::Policy(policy) => {
                let (allowed, rule) = by(policy, request, operator);
                (allowed, Cow::Owned(rule.to_owned()))
            }
        };
        if let Some(shadow) = &policies.shadow {
            let theirs = by(shadow, request, operator);
            self.note(request, (allowed, &rule), (policies.generation, theirs));
        }
        Judgement { allowed, rule, version: policies.version }
    }
}

fn by<'p>(policy: &'p Policy, request: &Request<'_>, operator: bool) -> (bool, &'p str) {
    match policy.decide(request) {
        bulla_policy::Decision::Deny { rule: bulla_policy::NO_RULE } if operator => {
            (true, OPERATORS)
        }
        bulla_policy::Decision::Deny { rule } => (false, rule),
        bulla_policy::Decision::Allow { rule } => (true, rule),
    }
}

impl Authorization for PolicyRule {
    fn version(&self) -> u32 {
        Self::version(self)
    }

    fn needs_groups(&self) -> bool {
        let policies = self.policies.read();
        let active = match &policies.active {
            Active::Policy(policy) => policy.needs_groups(),
            Active::BuiltIn | Active::Unreadable => false,
        };
        active || policies.shadow.as_ref().is_some_and(|shadow| shadow.needs_groups())
    }

    fn decide(&self, question: &Question<'_>) -> Decision {
        if question.method.access().protocol {
            return DefaultRule.decide(question);
        }
        let action = match question.kind {
            MessageKind::Call => Action::Call,
            MessageKind::Cast => Action::Cast,
            MessageKind::Fanout => Action::Fanout,
            // Nothing else runs a method.
            _ => return Decision::Deny { rule: Cow::Borrowed(bulla_policy::NO_RULE) },
        };
        let policies = self.policies.read().clone();
        let request = request(question, action);
        let (allowed, rule) = match &policies.active {
            Active::BuiltIn => match DefaultRule.decide(question) {
                Decision::Allow => (true, Cow::Borrowed(BUILT_IN)),
                Decision::Deny { rule } => (false, rule),
            },
            Active::Unreadable => (false, Cow::Borrowed(UNREADABLE)),
            Active::Policy(policy) => {
                let decided = policy.decide(&request);
                (decided.allows(), Cow::Owned(decided.rule().to_owned()))
            }
        };
        if let Some(shadow) = &policies.shadow {
            self.compare(&request, (allowed, &rule), (policies.generation, shadow));
        }
        if allowed { Decision::Allow } else { Decision::Deny { rule } }
    }
}

/// What is named as the rule where the built-in one allows.
const BUILT_IN: &str = "default";

fn request<'a>(question: &Question<'a>, action: Action) -> Request<'a> {
    let method = question.method;
    let access = method.access();
    Request {
        sender: who(&question.sender.principal),
        roles: question.roles,
        projects: &[],
        groups: question.groups,
        action,
        method: MethodOf {
            receiver: who(&question.me.principal),
            exchange: question.exchange,
            topic: question.topic,
            namespace: method.in_namespace().unwrap_or_default(),
            name: method.name(),
            version: (question.version.major, question.version.minor),
            open_to_agents: access.agents,
            open_to_components: access.components,
            read_only: method.effect() == Effect::ReadOnly,
        },
        args: question.args,
        now: question.now,
    }
}

fn who(principal: &Principal) -> Who<'_> {
    Who { kind: principal.kind().into(), id: principal.name() }
}
