//! Who asks, for which project, and what that allows.
//!
//! By one thing alone, decided before anything else: a grant if the request shows one, whatever else
//! it says; otherwise what the listener found out; otherwise, on an open service, the project's header.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use bulla_http::{Identity, IdentityKind};

use crate::fault::Fault;
use crate::grant::{self, Grant};
use crate::limits::Limits;
use crate::name::{ClientId, Place};
use crate::service::{Service, now};

/// Paths that anybody may get, for discovery: which versions there are, and the description.
pub const PUBLIC: &[&str] = &["/", "/v2/openapi.json"];

/// The role of users of Keystone's and of programs, as the listener's settings name it, who administer the
/// service.
const ADMINISTRATES: &str = "queue-admin";

/// Who asks.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) project: Arc<str>,
    pub(crate) client: ClientId,
    pub(crate) rights: Rights,
}

/// What an agent may do in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentMay {
    /// Take messages from it: it is its own.
    Take,
    /// Post messages to it.
    Post,
    /// Both, for whoever knows its name.
    Share,
    /// Nothing.
    Nothing,
}

/// What an agent (`agent/db-1`) may do in a queue, by its name.
pub type AgentRule = fn(queue: &str, agent: &str) -> AgentMay;

impl AgentMay {
    /// Whether it may do this: a method on a queue, or on what belongs to one.
    fn allows(self, method: &str, resource: &str) -> bool {
        match self {
            Self::Take => {
                let all = ["queue", "claims", "claim", "message", "stats"].contains(&resource);
                all && method != "PATCH"
                    || resource == "claim"
                    || resource == "messages" && method != "POST"
            }
            Self::Post => resource == "messages" && method == "POST",
            Self::Share => {
                matches!((method, resource), ("POST", "messages") | ("GET", "message"))
                    || resource == "queue" && method == "DELETE"
            }
            Self::Nothing => false,
        }
    }
}

/// What a caller may do.
#[derive(Debug)]
pub(crate) enum Rights {
    /// Everything that a project's user may.
    Project,
    /// That, and what is everybody's.
    Operator,
    /// What an agent may in this queue.
    Agent(AgentMay),
    /// What this says, once its signature was looked at.
    Grant { grant: Grant, signature: String },
}

impl Rights {
    /// Whoever has the role administers the service, beside its own project.
    fn of_user(identity: &Identity) -> Self {
        let administrates = identity.roles().iter().any(|role| role == ADMINISTRATES);
        if administrates { Self::Operator } else { Self::Project }
    }
}

impl Caller {
    /// Finds out.
    pub(crate) fn of(parts: &Parts, queue: Option<&str>, service: &Service) -> Result<Self, Fault> {
        let client = client(&parts.headers)?;
        let shows_grant = grant::HEADERS.iter().any(|name| parts.headers.contains_key(*name));
        let identity = parts.extensions.get::<Identity>();
        match (shows_grant, identity) {
            (true, Some(_)) => Err(Fault::request("The request shows several credentials.")),
            (true, None) => {
                let (grant, signature) = Grant::read(&parts.headers).ok_or_else(Fault::no_route)?;
                let project = project(&parts.headers, &service.limits)?;
                Ok(Self { project, client, rights: Rights::Grant { grant, signature } })
            }
            (false, Some(identity)) => Self::identified((parts, queue), service, client, identity),
            (false, None) if service.open => {
                let project = project(&parts.headers, &service.limits)?;
                Ok(Self { project, client, rights: Rights::Operator })
            }
            // A listener of ours lets none of these through.
            (false, None) => Err(Fault::forbidden("The request is not authenticated.")),
        }
    }

    fn identified(
        (parts, queue): (&Parts, Option<&str>),
        service: &Service,
        client: ClientId,
        identity: &Identity,
    ) -> Result<Self, Fault> {
        match identity.kind() {
            // What its token says; a header says nothing beside it.
            IdentityKind::User => {
                let project = identity.projects().first().filter(|id| !id.is_empty());
                let project = project.ok_or_else(|| {
                    Fault::forbidden("The token is for no project; ask for one that is.")
                })?;
                let fits = project.len() <= service.limits.max_project
                    && !project.contains(char::is_control);
                let project = fits.then(|| project.as_str().into()).ok_or_else(bad_place)?;
                Ok(Self { project, client, rights: Rights::of_user(identity) })
            }
            IdentityKind::Operator => {
                let project = project(&parts.headers, &service.limits)?;
                Ok(Self { project, client, rights: Rights::Operator })
            }
            IdentityKind::Agent => {
                let denied = || Fault::forbidden("Agents have no queues here.");
                let (project, rule) = service.agents.as_ref().ok_or_else(denied)?;
                let queue = queue.ok_or_else(|| {
                    Fault::forbidden("An agent may ask for its own queues and nothing else.")
                })?;
                let rights = Rights::Agent(rule(queue, &identity.to_string()));
                Ok(Self { project: Arc::clone(project), client, rights })
            }
            // Each has a project of its own.
            IdentityKind::Program => {
                let project = identity.to_string().into();
                Ok(Self { project, client, rights: Rights::of_user(identity) })
            }
        }
    }

    /// A queue or topic of the caller's project.
    pub(crate) fn place(
        &self,
        name: &str,
        is_topic: bool,
        service: &Service,
    ) -> Result<Place, Fault> {
        let place = Place::new(Arc::clone(&self.project), name, &service.limits);
        match place {
            Some(place) if is_topic => Ok(place.topic()),
            Some(place) => Ok(place),
            None if is_topic => Err(Fault::named(
                "Invalid topic identification",
                "The format of the submitted topic name or project id is not valid.",
            )),
            None => Err(bad_place()),
        }
    }

    /// Whether what it shows was made for this path alone, and sent to whom it concerns.
    pub(crate) fn was_asked(&self, path: &str) -> bool {
        matches!(&self.rights, Rights::Grant { grant, .. } if grant.paths == [path])
    }

    /// Whether a grant, if that is what is shown, allows this. What is refused is not found, so that
    /// nobody learns by trying what there is.
    pub(crate) async fn check(
        &self,
        parts: &Parts,
        (at, resource): (Option<&Place>, &str),
        service: &Service,
    ) -> Result<(), Fault> {
        if let Rights::Agent(may) = &self.rights {
            let allowed = may.allows(parts.method.as_str(), resource);
            let denied = || Fault::forbidden("This queue is not this agent's to do that in.");
            return if allowed { Ok(()) } else { Err(denied()) };
        }
        let Rights::Grant { grant, signature } = &self.rights else { return Ok(()) };
        let (Some(at), Some(grants)) = (at, &service.grants) else { return Err(Fault::no_route()) };
        let metadata = service.store.metadata(at).await?;
        let key_id = metadata.as_ref().and_then(|metadata| metadata.get(grant::KEY_ID));
        let key_id = key_id.and_then(|id| id.as_str()).unwrap_or_default();
        let ours = grants.is_ours(at, key_id, grant, signature) && !key_id.is_empty();
        let allowed = grant.allows(parts.method.as_str(), parts.uri.path(), now() / 1000);
        if ours && allowed { Ok(()) } else { Err(Fault::no_route()) }
    }

    pub(crate) fn is_operator(&self) -> bool {
        matches!(self.rights, Rights::Operator)
    }

    /// Whether it is somebody who may do single things in single queues.
    pub(crate) fn is_confined(&self) -> bool {
        matches!(self.rights, Rights::Grant { .. } | Rights::Agent(_))
    }
}

fn client(headers: &HeaderMap) -> Result<ClientId, Fault> {
    let value = headers.get("client-id").ok_or_else(|| {
        Fault::named("Missing header value", "The \"Client-Id\" header is required.")
    })?;
    let id = value.to_str().ok().and_then(ClientId::parse);
    id.ok_or_else(|| Fault::named("Wrong UUID value", "Malformed hexadecimal UUID."))
}

fn project(headers: &HeaderMap, limits: &Limits) -> Result<Arc<str>, Fault> {
    let value = headers
        .get("x-project-id")
        .ok_or_else(|| Fault::named("Project-Id Missing", "The header X-PROJECT-ID was missing"))?;
    let text = value.to_str().map_err(|_| bad_place())?;
    if text.is_empty() {
        return Err(Fault::named(
            "Empty project header not allowed",
            "X-PROJECT-ID cannot be an empty string. Specify the right header X-PROJECT-ID and \
             retry.",
        ));
    }
    if text.len() > limits.max_project { Err(bad_place()) } else { Ok(text.into()) }
}

fn bad_place() -> Fault {
    Fault::named(
        "Invalid queue identification",
        "The format of the submitted queue name or project id is not valid.",
    )
}

#[cfg(test)]
mod tests {
    use super::AgentMay::{Nothing, Post, Share, Take};

    #[test]
    fn an_agent_takes_from_its_own_and_posts_to_others() {
        for (method, resource, to_whom) in [
            ("PUT", "queue", [true, false, false]),
            ("DELETE", "queue", [true, false, true]),
            ("PATCH", "queue", [false, false, false]),
            ("POST", "messages", [false, true, true]),
            ("GET", "messages", [true, false, false]),
            ("GET", "message", [true, false, true]),
            ("DELETE", "messages", [true, false, false]),
            ("DELETE", "message", [true, false, false]),
            ("POST", "claims", [true, false, false]),
            ("PATCH", "claim", [true, false, false]),
            ("DELETE", "claim", [true, false, false]),
            ("GET", "stats", [true, false, false]),
            ("POST", "purge", [false, false, false]),
            ("POST", "share", [false, false, false]),
            ("DELETE", "share", [false, false, false]),
        ] {
            let may = [Take, Post, Share].map(|may| may.allows(method, resource));
            assert_eq!(may, to_whom, "{method} {resource}");
            assert!(!Nothing.allows(method, resource));
        }
    }
}
