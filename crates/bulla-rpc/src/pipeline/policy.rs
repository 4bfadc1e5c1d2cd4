//! The operators' policy as the rule of a server.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bulla_policy::{Action, MethodOf, Policy, Request, Who};
use bulla_seal::{MessageKind, Principal};
use parking_lot::{Mutex, RwLock};

use super::authorize::{Authorization, Decision, DefaultRule, Question};
use crate::router::Effect;

/// Differences between two policies that are told apart; what comes after is counted together.
const MAX_DIFFERENCES: usize = 1000;

/// Judges by a policy, which can be replaced while messages are judged: each is judged by one or
/// the other, whole. The methods of the protocol itself are judged by [`DefaultRule`] as ever.
///
/// A second policy can judge beside it in the shadow: what it would decide otherwise is counted,
/// and nothing else comes of it.
#[derive(Debug, Default)]
pub struct PolicyRule {
    policies: RwLock<Policies>,
    differences: Mutex<HashMap<Difference, u64>>,
}

#[derive(Debug, Default, Clone)]
struct Policies {
    active: Arc<Policy>,
    shadow: Option<Arc<Policy>>,
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

impl PolicyRule {
    /// Judges by `policy`.
    pub fn new(policy: Policy) -> Self {
        let policies = Policies { active: Arc::new(policy), shadow: None };
        Self { policies: RwLock::new(policies), differences: Mutex::default() }
    }

    /// Judges by `policy` from now on; the one in the shadow goes.
    pub fn replace(&self, policy: Policy) {
        *self.policies.write() = Policies { active: Arc::new(policy), shadow: None };
        self.differences.lock().clear();
    }

    /// Lets `policy` judge in the shadow, or nobody any more. What was counted is forgotten.
    pub fn shadow(&self, policy: Option<Policy>) {
        self.policies.write().shadow = policy.map(Arc::new);
        self.differences.lock().clear();
    }

    /// What the policy in the shadow would have decided otherwise, with how often, in order of
    /// their senders.
    pub fn differences(&self) -> Vec<(Difference, u64)> {
        let found = self.differences.lock().iter().map(|(what, n)| (what.clone(), *n)).collect();
        let mut found: Vec<_> = found;
        found.sort_unstable();
        found
    }

    fn compare(&self, request: &Request<'_>, allowed: bool, rule: &str, shadow: &Policy) {
        let theirs = shadow.decide(request);
        if theirs.allows() == allowed {
            return;
        }
        let difference = Difference {
            sender: request.sender.to_string(),
            method: request.method.full_name(),
            allowed,
            rule: rule.to_owned(),
            shadow_rule: theirs.rule().to_owned(),
        };
        let mut differences = self.differences.lock();
        let known = differences.len() < MAX_DIFFERENCES || differences.contains_key(&difference);
        let difference = if known {
            difference
        } else {
            Difference { sender: String::new(), method: String::new(), ..difference }
        };
        *differences.entry(difference).or_default() += 1;
    }
}

impl Authorization for PolicyRule {
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
        let request = request(question, action);
        let policies = self.policies.read().clone();
        let decided = policies.active.decide(&request);
        if let Some(shadow) = &policies.shadow {
            self.compare(&request, decided.allows(), decided.rule(), shadow);
        }
        if decided.allows() {
            return Decision::Allow;
        }
        Decision::Deny { rule: Cow::Owned(decided.rule().to_owned()) }
    }
}

fn request<'a>(question: &Question<'a>, action: Action) -> Request<'a> {
    let method = question.method;
    let access = method.access();
    Request {
        sender: who(&question.sender.principal),
        roles: question.roles,
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
    Who { kind: principal.kind(), id: principal.name() }
}
