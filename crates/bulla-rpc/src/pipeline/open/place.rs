//! What an inbox of this server means.

use bulla_guard::Scope;
use bulla_seal::{Audience, GroupName, Party, Refusal, Route};
use bulla_transport::Inbox;

use crate::endpoint::{EndpointOptions, NamedGroup};
use crate::target::topic_of;

/// What an inbox means: the route that messages taken from it must have been sealed for.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) route: Route,
    pub(super) scope: Scope,
    pub(super) group: Option<GroupName>,
}

impl Place {
    /// What this receiver believes of an inbox of its own.
    pub(super) fn of(
        inbox: &Inbox,
        me: &Party,
        options: &EndpointOptions,
    ) -> Result<Self, Refusal> {
        let (exchange, topic) = match inbox {
            Inbox::Topic { exchange, topic }
            | Inbox::Server { exchange, topic, .. }
            | Inbox::Fanout { exchange, topic, .. } => (exchange, topic),
            Inbox::Reply { .. } | Inbox::Foreign(_) => return Err(Refusal::KindNotAllowed),
        };
        let (server, group) = match inbox {
            // The bus writes `~` for the `.` of a name; the message was sealed for the name.
            Inbox::Server { server, .. } if *topic == topic_of(&me.principal) => {
                (Some(server.replace('~', ".")), None)
            }
            Inbox::Server { server, .. } => (Some(server.clone()), None),
            Inbox::Fanout { topic, .. } => (None, Some(group_of(exchange, topic, options)?)),
            _ => (None, None),
        };
        let audience = match &group {
            Some(group) => Audience::Group(group.clone()),
            None => Audience::Party(me.clone()),
        };
        let route = Route::new(exchange, topic, server.as_deref(), audience)
            .map_err(|_| Refusal::Malformed)?;
        let scope = match (inbox, &group) {
            (Inbox::Fanout { member, .. }, Some(group)) => Scope::fanout(me, topic, member, group),
            (Inbox::Server { server, .. }, _) => Scope::server(me, topic, server),
            _ => Scope::shared(me, topic),
        };
        Ok(Self { route, scope, group })
    }
}

/// The group that a topic stands for: by the settings, or by its name.
fn group_of(exchange: &str, topic: &str, options: &EndpointOptions) -> Result<GroupName, Refusal> {
    let set = |named: &&NamedGroup| named.exchange == exchange && named.topic == topic;
    if let Some(named) = options.groups.iter().find(set) {
        return Ok(named.group.clone());
    }
    let name = topic.strip_prefix("group.").unwrap_or(topic).replace('~', ".");
    GroupName::new(&name).map_err(|_| Refusal::GroupUnknown)
}
