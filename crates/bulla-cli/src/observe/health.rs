//! Whether this process can do its work.

use serde::Serialize;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) what: &'static str,
    pub(crate) ok: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    pub(crate) checks: Vec<Check>,
}

impl Readiness {
    pub(crate) fn new(checks: Vec<Check>) -> Self {
        Self { ready: checks.iter().all(|check| check.ok), checks }
    }

    /// 200, or 503 so that who asks sends its work elsewhere.
    pub(crate) fn status(&self) -> u16 {
        if self.ready { 200 } else { 503 }
    }

    /// As JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// In one line, for the service manager.
    pub(crate) fn line(&self) -> String {
        let wrong: Vec<_> = self.checks.iter().filter(|check| !check.ok).collect();
        if wrong.is_empty() {
            return "ready".to_owned();
        }
        let text = wrong.iter().map(|check| match &check.why {
            Some(why) => format!("{}: {why}", check.what),
            None => check.what.to_owned(),
        });
        format!("not ready: {}", text.collect::<Vec<_>>().join("; "))
    }
}

/// A look at one thing.
pub(crate) fn check(what: &'static str, result: Result<(), String>) -> Check {
    let why = result.err();
    Check { what, ok: why.is_none(), why }
}
