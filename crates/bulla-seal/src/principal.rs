//! Who a message is from and for: principals, incarnations and trust domains (protocol section 2).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Longest name of an agent, a component type or a group, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest trust domain, in bytes (a DNS name's limit is 255; sizes on the wire count here).
pub const MAX_TRUST_DOMAIN: usize = 128;

/// A name that can't be used for a principal, a group or a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{given}` is not a usable {what}: {why}")]
pub struct NameError {
    given: String,
    what: &'static str,
    why: &'static str,
}

/// Checks `name` against the characters that a SPIFFE path segment may have
/// (letters, digits, `-`, `_`, `.`), at most [`MAX_NAME`] bytes and neither `.` nor `..`.
pub fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    let fail = |why| Err(NameError { given: name.chars().take(80).collect(), what, why });
    if name.is_empty() {
        return fail("it is empty");
    }
    if name.len() > MAX_NAME {
        return fail("it is longer than 64 bytes");
    }
    if name == "." || name == ".." {
        return fail("a path segment may not be `.` or `..`");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return fail("only letters, digits, `-`, `_` and `.` are allowed");
    }
    Ok(())
}

/// What sort of principal a name belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrincipalKind {
    /// One managed machine or guest.
    Agent,
    /// A type of control-plane service; all hosts of the type share the name.
    Component,
}

impl PrincipalKind {
    /// `agent` or `component`, as in the SPIFFE path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Component => "component",
        }
    }
}

/// A principal inside its trust domain: `agent/<id>` or `component/<type>`.
///
/// Cheap to clone: the text is shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal {
    kind: PrincipalKind,
    short: Arc<str>,
}

impl Principal {
    /// The agent named `id`.
    pub fn agent(id: &str) -> Result<Self, NameError> {
        Self::new(PrincipalKind::Agent, id)
    }

    /// The component type named `name`.
    pub fn component(name: &str) -> Result<Self, NameError> {
        Self::new(PrincipalKind::Component, name)
    }

    /// A principal from its parts.
    pub fn new(kind: PrincipalKind, name: &str) -> Result<Self, NameError> {
        let what = match kind {
            PrincipalKind::Agent => "agent id",
            PrincipalKind::Component => "component type",
        };
        check_name(what, name)?;
        Ok(Self { kind, short: format!("{}/{name}", kind.as_str()).into() })
    }

    /// Agent or component.
    pub fn kind(&self) -> PrincipalKind {
        self.kind
    }

    /// Whether this is an agent.
    pub fn is_agent(&self) -> bool {
        self.kind == PrincipalKind::Agent
    }

    /// Whether this is a component type.
    pub fn is_component(&self) -> bool {
        self.kind == PrincipalKind::Component
    }

    /// The short form, `agent/<id>` or `component/<type>`.
    pub fn as_str(&self) -> &str {
        &self.short
    }

    /// The name without its kind.
    pub fn name(&self) -> &str {
        self.short.split_once('/').map_or("", |(_, name)| name)
    }

    /// The SPIFFE ID in `domain`.
    pub fn spiffe_id(&self, domain: &TrustDomain) -> String {
        format!("spiffe://{domain}/{}", self.short)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short)
    }
}

impl FromStr for Principal {
    type Err = NameError;

    /// Parses the short form.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some(("agent", id)) => Self::agent(id),
            Some(("component", name)) => Self::component(name),
            _ => Err(NameError {
                given: text.chars().take(80).collect(),
                what: "principal",
                why: "write agent/<id> or component/<type>",
            }),
        }
    }
}

/// A principal together with its incarnation: a name that is used again gets a higher one and
/// shares nothing with the old (protocol section 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Party {
    /// The name.
    pub principal: Principal,
    /// Counts from 1.
    pub incarnation: u32,
}

impl Party {
    /// `principal` in its `incarnation`.
    pub fn new(principal: Principal, incarnation: u32) -> Self {
        Self { principal, incarnation }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.principal, self.incarnation)
    }
}

/// The SPIFFE trust domain that a root key speaks for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Lower-case letters, digits, `-`, `_` and `.` (SPIFFE ID standard, section 2.1).
    pub fn new(name: &str) -> Result<Self, NameError> {
        let fail = |why| {
            Err(NameError { given: name.chars().take(80).collect(), what: "trust domain", why })
        };
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN {
            return fail("it must have 1 to 128 bytes");
        }
        let ok =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if !name.bytes().all(ok) {
            return fail("only lower-case letters, digits, `-`, `_` and `.` are allowed");
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a group of principals, `group/<name>` in its long form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// A group from its bare name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check_name("group name", name)?;
        Ok(Self(name.into()))
    }

    /// The bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group/{}", self.0)
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_form_round_trips() {
        for text in ["agent/db-1", "component/control", "agent/a.b_c-9"] {
            let parsed: Principal = text.parse().unwrap();
            assert_eq!(parsed.as_str(), text);
        }
        assert_eq!("agent/db-1".parse::<Principal>().unwrap().name(), "db-1");
    }

    #[test]
    fn unusable_names_are_refused() {
        for text in
            ["", "db-1", "agent/", "agent/a/b", "agent/..", "host/x", "agent/a b", "agent/é"]
        {
            assert!(text.parse::<Principal>().is_err(), "{text}");
        }
        assert!(Principal::agent(&"x".repeat(65)).is_err());
        assert!(TrustDomain::new("Upper.Case").is_err());
    }

    #[test]
    fn spiffe_id_has_the_trust_domain() {
        let domain = TrustDomain::new("cloud.example").unwrap();
        let agent = Principal::agent("db-1").unwrap();
        assert_eq!(agent.spiffe_id(&domain), "spiffe://cloud.example/agent/db-1");
    }
}
