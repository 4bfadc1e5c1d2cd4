//! Who is asking.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::problem::Problem;

/// Longest operator name, in bytes (RFC 5280's upper bound of a common name).
const MAX_NAME: usize = 64;

/// Who sent a request, as the listener authenticated it. Only the listener puts one into a
/// request; handlers take it as an extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: Arc<str>,
    authenticator: Authenticator,
}

/// How a request was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authenticator {
    /// A client certificate from the CA that the listener trusts.
    Certificate,
    /// The bearer token of the loopback door.
    Bearer,
}

impl Identity {
    /// An operator named by the subject's common name of a verified certificate; `None` if the
    /// name is empty, too long or holds what does not belong into a log line.
    #[must_use]
    pub fn certificate(common_name: &str) -> Option<Self> {
        let printable =
            common_name.chars().all(|c| c == ' ' || c.is_alphanumeric() || c.is_ascii_graphic());
        let fits = (1..=MAX_NAME).contains(&common_name.len()) && common_name.trim() == common_name;
        (fits && printable)
            .then(|| Self { name: common_name.into(), authenticator: Authenticator::Certificate })
    }

    /// Whoever holds the bearer token.
    #[must_use]
    pub fn bearer() -> Self {
        Self { name: "bearer".into(), authenticator: Authenticator::Bearer }
    }

    /// The operator's name, or `bearer`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the request was authenticated.
    #[must_use]
    pub fn authenticator(&self) -> Authenticator {
        self.authenticator
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
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
}
