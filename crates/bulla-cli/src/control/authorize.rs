//! Whether a user of the API may do what it asks for: by the same policy as messages.

use bulla_api::{CallFailure, Operation};
use bulla_http::{Authenticator, Identity, IdentityKind};
use bulla_journal::{Text, events};
use bulla_policy::{Action, MethodOf, Request, Who, WhoKind};
use bulla_rpc::{Clock, SystemClock, Target, Version, value};
use serde_json::{Map, Value};

use super::CONTROL;
use super::plane::Plane;

/// The namespace that operations of the API are in.
pub(crate) const NAMESPACE: &str = "api";

/// What is asked for.
struct Asked<'a> {
    action: Action,
    receiver: Who<'a>,
    topic: &'a str,
    namespace: &'a str,
    name: &'a str,
    version: Option<&'a str>,
    args: &'a Value,
}

impl Plane {
    /// An operation that sends nothing.
    pub(super) fn may_do(
        &self,
        by: &Identity,
        operation: &Operation,
        named: &[(&str, &str)],
    ) -> Result<(), CallFailure> {
        let action = match operation {
            _ if operation.watches() => Action::ApiWatch,
            _ if operation.changes => Action::ApiManage,
            _ => Action::ApiRead,
        };
        let named = named.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
        self.judge(
            by,
            &Asked {
                action,
                receiver: Who { kind: WhoKind::Component, id: CONTROL },
                topic: CONTROL,
                namespace: NAMESPACE,
                name: &operation.id,
                version: None,
                args: &Value::Object(named.collect::<Map<_, _>>()),
            },
        )
    }

    /// A message.
    pub(super) fn may_send(
        &self,
        by: &Identity,
        action: Action,
        to: &Target,
        (namespace, name, version): (Option<&str>, &str, Option<&str>),
        args: &Value,
    ) -> Result<(), CallFailure> {
        let (receiver, topic) = match to {
            Target::Principal(principal)
            | Target::Server(principal, _)
            | Target::Named { principal, .. } => {
                let who = Who { kind: principal.kind().into(), id: principal.name() };
                (who, to.topic())
            }
            Target::Group(group) | Target::NamedGroup { group, .. } => {
                let who = Who { kind: WhoKind::Group, id: group.as_str() };
                (who, to.topic())
            }
        };
        // As the receiver takes it apart.
        let (namespace, name) = match namespace {
            Some(namespace) => (namespace, name),
            None => ("", name),
        };
        self.judge(by, &Asked { action, receiver, topic: &topic, namespace, name, version, args })
    }

    fn judge(&self, by: &Identity, asked: &Asked<'_>) -> Result<(), CallFailure> {
        let args = value::to_vec(asked.args)
            .map_err(|error| CallFailure::BadRequest { why: error.to_string() })?;
        let version = asked.version.and_then(Version::parse).unwrap_or(Version::new(1, 0));
        let exchange = &self.0.client.endpoint().options().exchange;
        let method = MethodOf {
            receiver: asked.receiver,
            exchange,
            topic: asked.topic,
            namespace: asked.namespace,
            name: asked.name,
            version: (version.major, version.minor),
            // Its receiver knows, and judges by itself.
            open_to_agents: false,
            open_to_components: false,
            read_only: false,
        };
        let Some(sender) = who(by) else {
            return Err(CallFailure::Denied { rule: "agents-call-over-the-bus".to_owned() });
        };
        let request = Request {
            sender,
            roles: by.roles(),
            projects: by.projects(),
            groups: Some(&[]),
            action: asked.action,
            method,
            args: &args,
            now: SystemClock.now().secs(),
        };
        let operator =
            matches!(by.authenticator(), Authenticator::Certificate | Authenticator::Bearer);
        let judged = self.0.rule.judge(&request, operator);
        if judged.allowed {
            return Ok(());
        }
        self.0.events().emit(events::ApiDenied {
            identity: Text::of(by),
            action: asked.action.name(),
            method: Text::new(&method.full_name()),
            receiver: Text::of(&asked.receiver),
            rule: Text::new(&judged.rule),
            roles: Text::new(&by.roles().join(",")),
            projects: Text::new(&by.projects().join(",")),
            policy: judged.version,
        });
        Err(CallFailure::Denied { rule: judged.rule.into_owned() })
    }
}

fn who(by: &Identity) -> Option<Who<'_>> {
    let kind = match by.kind() {
        IdentityKind::Operator => WhoKind::Operator,
        IdentityKind::Program => WhoKind::Program,
        IdentityKind::User => WhoKind::User,
        // The door of the API takes no agent's key.
        IdentityKind::Agent => return None,
    };
    Some(Who { kind, id: by.name() })
}
