//! Why an attack could not be tried.

use std::error::Error;
use std::fmt;

/// An attack could not be tried or judged: the bus failed, or the deployment that is attacked did
/// not do what it does when nobody attacks it. Says nothing about whether the attack would work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble(pub String);

impl Trouble {
    /// In these words.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}
