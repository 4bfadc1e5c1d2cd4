//! What an inbox of this server means.

use bulla_guard::Scope;
use bulla_seal::{Audience, GroupName, Party, Refusal, Route};
use bulla_transport::Inbox;

/// What an inbox means: the route that messages taken from it must have been sealed for.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) route: Route,
    pub(super) scope: Scope,
    pub(super) group: Option<GroupName>,
}

impl Place {
    /// What this receiver believes of an inbox of its own.
    pub(super) fn of(inbox: &Inbox, me: &Party) -> Result<Self, Refusal> {
        let (exchange, topic) = match inbox {
            Inbox::Topic { exchange, topic }
            | Inbox::Server { exchange, topic, .. }
            | Inbox::Fanout { exchange, topic, .. } => (exchange, topic),
            Inbox::Reply { .. } => return Err(Refusal::KindNotAllowed),
        };
        let (server, group) = match inbox {
            // The bus writes `~` for the `.` of a name; the message was sealed for the name.
            Inbox::Server { server, .. } => (Some(server.replace('~', ".")), None),
            Inbox::Fanout { topic, .. } => {
                let name = topic.strip_prefix("group.").unwrap_or(topic).replace('~', ".");
                (None, Some(GroupName::new(&name).map_err(|_| Refusal::GroupUnknown)?))
            }
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
