//! Step two: which method, and may this sender run it (step 9 of protocol section 9).

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bulla_journal::{Text, events};
use bulla_seal::mutants::{Check, off};
use bulla_seal::{MessageKind, Party, PrincipalKind, RequestBody};
use tower::{Layer, Service};

use super::open::{Opened, full_name};
use super::{MaybeReady, Settlement};
use crate::endpoint::Endpoint;
use crate::error::{RemoteError, kinds};
use crate::router::{Effect, Method, NoRoute, Router, Version};
use crate::server::ServerOptions;

/// Longest life of a `read_only` request, in seconds: it makes no claim (protocol section 7).
const READ_ONLY_LIFE: u64 = 120;

/// Judges whether a sender may run a method.
pub trait Authorization: Send + Sync + 'static {
    /// Everything in the question is proven, or the receiver's own.
    fn decide(&self, question: &Question<'_>) -> Decision;

    /// The number of the policy that it goes by; 0 is none.
    fn version(&self) -> u32 {
        0
    }

    /// Whether questions are to say which groups the sender is in: that may have to be asked for.
    fn needs_groups(&self) -> bool {
        false
    }
}

/// What is judged: who sent what, and where it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub sender: &'a Party,
    /// The roles in the sender's credential; none for a shared key.
    pub roles: &'a [String],
    /// The groups that the sender is a member of, by the directory, if that is
    /// [needed](Authorization::needs_groups) and known.
    pub groups: Option<&'a [String]>,
    /// This server's principal.
    pub me: &'a Party,
    /// The method as it is registered here.
    pub method: &'a Method,
    /// Call, cast or fanout.
    pub kind: MessageKind,
    /// The exchange that the message was addressed to.
    pub exchange: &'a str,
    /// The topic that it was addressed to.
    pub topic: &'a str,
    /// The version that is asked for.
    pub version: Version,
    /// The arguments, one CBOR item.
    pub args: &'a [u8],
    /// This server's clock, in seconds since 1970.
    pub now: u64,
}

/// A judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not; the name of the rule is told to the sender, under seal.
    Deny {
        /// The rule's stable name.
        rule: Cow<'static, str>,
    },
}

/// The rule until there is a policy. Everything that it does not name is denied: components may
/// call agents; agents and components may call those methods of a component that were registered
/// as open to them; agents never call agents.
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultRule;

impl Authorization for DefaultRule {
    fn decide(&self, question: &Question<'_>) -> Decision {
        use PrincipalKind::{Agent, Component};
        let open = question.method.access();
        let deny = |rule| Decision::Deny { rule: Cow::Borrowed(rule) };
        match (question.sender.principal.kind(), question.me.principal.kind()) {
            (Component, Agent) => Decision::Allow,
            (Agent, Component) if open.agents => Decision::Allow,
            (Component, Component) if open.components => Decision::Allow,
            (Agent, Component) => deny("default/not-open-to-agents"),
            (Component, Component) => deny("default/not-open-to-components"),
            (Agent, Agent) => deny("default/agents-call-no-agents"),
        }
    }
}

/// A message with a proven sender that may run a method. Only [`Authorize`] makes one.
#[derive(Debug)]
pub(crate) struct Authorized {
    opened: Opened,
    verdict: Verdict,
}

/// What comes of it.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Run the method.
    Run(Arc<Method>),
    /// Stop another message's run.
    Cancel,
    /// Nothing: what it brought was taken when it was opened.
    Noted,
    /// Answer with this, and remember that it was answered.
    Deny(RemoteError),
}

impl Authorized {
    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    pub(crate) fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// It is not run after all.
    pub(crate) fn deny(&mut self, error: RemoteError) {
        self.verdict = Verdict::Deny(error);
    }

    /// How careful to be with it. Stopping a run twice is the same as once. A request for a
    /// `read_only` method that lives longer than such requests may makes a claim like any other.
    pub(crate) fn effect(&self) -> Effect {
        let life = self.opened.expires().saturating_sub(self.opened.issued_at());
        match &self.verdict {
            Verdict::Run(method)
                if method.effect() == Effect::ReadOnly && life > READ_ONLY_LIFE =>
            {
                Effect::Idempotent
            }
            Verdict::Run(method) => method.effect(),
            Verdict::Cancel | Verdict::Noted => Effect::ReadOnly,
            Verdict::Deny(_) => Effect::Once,
        }
    }
}

#[derive(Clone)]
pub(crate) struct AuthorizeLayer {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    router: Arc<Router>,
    rule: Arc<dyn Authorization>,
}

impl AuthorizeLayer {
    pub(crate) fn new(endpoint: Endpoint, router: Arc<Router>, options: &ServerOptions) -> Self {
        Self { shared: Arc::new(Shared { endpoint, router, rule: options.authorization.clone() }) }
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { shared: self.shared.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Authorize<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Service<Opened> for Authorize<S>
where
    S: Service<
            Authorized,
            Response = Settlement,
            Error = Infallible,
            Future = MaybeReady<Settlement>,
        > + Clone
        + Send
        + 'static,
{
    type Response = Settlement;
    type Error = Infallible;
    type Future = MaybeReady<Settlement>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, opened: Opened) -> Self::Future {
        if !self.shared.rule.needs_groups() {
            let verdict = self.shared.judge(&opened, None);
            return self.inner.call(Authorized { opened, verdict });
        }
        let (shared, mut inner) = (self.shared.clone(), self.inner.clone());
        MaybeReady::later(async move {
            let groups = shared.groups_of(&opened).await;
            let verdict = shared.judge(&opened, groups.as_deref());
            inner.call(Authorized { opened, verdict }).await
        })
    }
}

impl Shared {
    /// The groups that the sender is in; `None` while nobody can tell.
    async fn groups_of(&self, opened: &Opened) -> Option<Vec<String>> {
        let sender = &opened.sender().principal;
        // What the directory itself is asked must not ask it.
        if self.is_of_the_protocol(opened) {
            return None;
        }
        match self.endpoint.directory.groups_of(sender).await {
            Ok(groups) => Some(groups.iter().map(|group| group.as_str().to_owned()).collect()),
            Err(error) => {
                tracing::warn!(%sender, %error, "it is not known which groups a sender is in");
                None
            }
        }
    }

    fn is_of_the_protocol(&self, opened: &Opened) -> bool {
        let Ok(body) = opened.body() else { return true };
        let found = self.router.find(body.namespace, body.method, body.version);
        body.namespace == Some(crate::builtin::NAMESPACE)
            || found.is_ok_and(|method| method.access().protocol)
    }

    fn judge(&self, opened: &Opened, groups: Option<&[String]>) -> Verdict {
        let Ok(body) = opened.body() else {
            return Verdict::Deny(RemoteError::new(kinds::MALFORMED, "the request can't be read"));
        };
        if body.namespace == Some(crate::builtin::NAMESPACE) {
            match body.method {
                // Every sender may stop what it started, and nothing else.
                crate::builtin::CANCEL => return Verdict::Cancel,
                crate::builtin::STATEMENT => return Verdict::Noted,
                _ => {}
            }
        }
        let name = || full_name(body.namespace, body.method);
        let (sender, me) = (opened.sender(), self.endpoint.identity.party());
        let method = match self.router.find(body.namespace, body.method, body.version) {
            Ok(method) => method,
            // Whether a method exists is told only to senders that may call here at all.
            Err(_) if sender.principal.is_agent() && me.principal.is_agent() => {
                return self.deny("default/agents-call-no-agents", opened, &name());
            }
            Err(NoRoute::Unknown) => {
                let message = format!("{} has no method `{}`", me.principal, name());
                return Verdict::Deny(RemoteError::new(kinds::NO_SUCH_METHOD, message));
            }
            Err(NoRoute::Version) => {
                let message =
                    format!("{} has `{}`, but not version {}", me.principal, name(), body.version);
                return Verdict::Deny(RemoteError::new(kinds::UNSUPPORTED_VERSION, message));
            }
        };
        match self.decide(opened, (&body, groups), &method) {
            Decision::Deny { rule } if !off(Check::Policy) => self.deny(&rule, opened, &name()),
            _ => {
                opened.note(method.full_name());
                Verdict::Run(method.into_owned())
            }
        }
    }

    fn decide(
        &self,
        opened: &Opened,
        (body, groups): (&RequestBody<'_>, Option<&[String]>),
        method: &Method,
    ) -> Decision {
        let (exchange, topic) = opened.place();
        self.rule.decide(&Question {
            sender: opened.sender(),
            roles: opened.roles(),
            groups,
            me: self.endpoint.identity.party(),
            method,
            kind: opened.kind(),
            exchange,
            topic,
            // What was not of this form was of no version that is served.
            version: Version::parse(body.version).unwrap_or(Version::new(0, 0)),
            args: body.args,
            now: opened.opened_at(),
        })
    }

    fn deny(&self, rule: &str, opened: &Opened, method: &str) -> Verdict {
        self.endpoint.counters.denied.add(1);
        let denied = events::CallDenied {
            sender: opened.sender().clone(),
            method: Text::new(method),
            rule: Text::new(rule),
            message: opened.id(),
            receiver: self.endpoint.identity.party().principal.clone(),
            action: opened.kind().as_str(),
            roles: Text::new(&opened.roles().join(",")),
            policy: self.rule.version(),
        };
        self.endpoint.tell(&opened.sender().principal, denied);
        let message = format!("the caller may not call `{method}` here (rule {rule})");
        Verdict::Deny(RemoteError::new(kinds::NOT_PERMITTED, message))
    }
}
