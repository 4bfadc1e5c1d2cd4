//! Who is asking.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::problem::Problem;

/// Longest name, in bytes (of a certificate's: RFC 5280's upper bound of a common name).
const MAX_NAME: usize = 64;
const MAX_USER: usize = 320;

/// Who sent a request, as the listener authenticated it. Only the listener puts one into a
/// request; handlers take it as an extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    kind: IdentityKind,
    name: Arc<str>,
    authenticator: Authenticator,
    roles: Arc<[String]>,
    projects: Arc<[String]>,
}

/// What sort of user somebody is. The name of one kind says nothing about the same name of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentityKind {
    /// A person who operates the deployment: by certificate, bearer token or access key.
    Operator,
    /// A program, by access key.
    Program,
    /// A user of Keystone's: `NAME@DOMAIN`.
    User,
    /// An agent, by its own key.
    Agent,
}

/// How a request was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Authenticator {
    /// A client certificate from the CA that the listener trusts.
    Certificate,
    /// The bearer token of the loopback door.
    Bearer,
    /// A signature with an access key's secret.
    AccessKey,
    /// A token of Keystone's.
    Keystone,
    /// A signature with the agent's own key.
    AgentKey,
}

impl IdentityKind {
    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Program => "program",
            Self::User => "user",
            Self::Agent => "agent",
        }
    }
}

impl Authenticator {
    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Bearer => "bearer",
            Self::AccessKey => "access-key",
            Self::Keystone => "keystone",
            Self::AgentKey => "agent-key",
        }
    }
}

impl Identity {
    /// An operator named by the subject's common name of a verified certificate; `None` if the
    /// name is empty, too long or holds what does not belong into a log line.
    #[must_use]
    pub fn certificate(common_name: &str) -> Option<Self> {
        let fits = is_printable(common_name, MAX_NAME);
        fits.then(|| Self::new(IdentityKind::Operator, common_name, Authenticator::Certificate))
    }

    /// Whoever holds the bearer token.
    #[must_use]
    pub fn bearer() -> Self {
        Self::new(IdentityKind::Operator, "bearer", Authenticator::Bearer)
    }

    /// The user of an access key: `operator/NAME` or `program/NAME`; `None` for anything else.
    #[must_use]
    pub fn access_key(user: &str) -> Option<Self> {
        let (kind, name) = user.split_once('/')?;
        let kind = match kind {
            "operator" => IdentityKind::Operator,
            "program" => IdentityKind::Program,
            _ => return None,
        };
        is_printable(name, MAX_NAME).then(|| Self::new(kind, name, Authenticator::AccessKey))
    }

    /// An agent with the name `id`; `None` if that can't be one.
    pub(crate) fn agent(id: &str) -> Option<Self> {
        let fits = is_printable(id, MAX_NAME);
        fits.then(|| Self::new(IdentityKind::Agent, id, Authenticator::AgentKey))
    }

    /// A user of Keystone's; `None` if the names can't be shown, or not told apart from others.
    pub(crate) fn keystone(name: &str, domain: &str) -> Option<Self> {
        let name = format!("{name}@{domain}");
        // The last `@` divides.
        let fits = is_printable(&name, MAX_USER) && !domain.contains('@') && !domain.is_empty();
        fits.then(|| Self::new(IdentityKind::User, &name, Authenticator::Keystone))
    }

    fn new(kind: IdentityKind, name: &str, authenticator: Authenticator) -> Self {
        let (roles, projects) = (Arc::default(), Arc::default());
        Self { kind, name: name.into(), authenticator, roles, projects }
    }

    /// With these roles beside those that it has.
    #[must_use]
    pub(crate) fn with_roles<'r>(mut self, roles: impl IntoIterator<Item = &'r String>) -> Self {
        let mut all: Vec<String> = self.roles.to_vec();
        for role in roles {
            if !all.contains(role) {
                all.push(role.clone());
            }
        }
        self.roles = all.into();
        self
    }

    pub(crate) fn with_projects(mut self, projects: Vec<String>) -> Self {
        self.projects = projects.into();
        self
    }

    /// What sort of user it is.
    #[must_use]
    pub fn kind(&self) -> IdentityKind {
        self.kind
    }

    /// Its name, which is unique among those of its kind.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the request was authenticated.
    #[must_use]
    pub fn authenticator(&self) -> Authenticator {
        self.authenticator
    }

    /// What it may be in rules, as the settings say.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// The project that its token is for, by id and as `NAME@DOMAIN`.
    #[must_use]
    pub fn projects(&self) -> &[String] {
        &self.projects
    }
}

fn is_printable(name: &str, longest: usize) -> bool {
    let printable = |c: char| c == ' ' || c.is_alphanumeric() || c.is_ascii_graphic();
    let fits = (1..=longest).contains(&name.len()) && name.trim() == name;
    fits && name.chars().all(printable)
}

/// `operator/ada`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl<S: Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_printable() {
        assert_eq!(Identity::certificate("Ada L.").unwrap().name(), "Ada L.");
        for bad in ["", " ada", "ada\n", "a\u{202e}b", &"a".repeat(65)] {
            assert_eq!(Identity::certificate(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn kinds_do_not_mix() {
        let names = [
            Identity::certificate("program/x").unwrap(),
            Identity::access_key("operator/ada").unwrap(),
            Identity::access_key("program/x").unwrap(),
            Identity::keystone("a@b", "c").unwrap(),
        ];
        let shown = names.map(|identity| identity.to_string());
        assert_eq!(shown, ["operator/program/x", "operator/ada", "program/x", "user/a@b@c"]);
        assert_eq!(Identity::keystone("a", "b@c"), None);
        for bad in ["ada", "user/ada", "agent/x", "operator/", "program/a\n"] {
            assert_eq!(Identity::access_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn roles_are_added_once() {
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let identity = Identity::bearer().with_roles([&a, &b]).with_roles([&b]);
        assert_eq!(identity.roles(), ["a", "b"]);
    }
}
