//! What people write, and how it becomes a [`Policy`].

mod compile;
mod schema;

use std::fmt;
use std::str::FromStr;

use cedar_policy::{PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;
use thiserror::Error;

use crate::policy::Policy;
use crate::request::ArgType;

/// Policies to begin with.
pub mod starter {
    /// For a fleet of agents that a control plane calls: what is allowed when there is no policy.
    pub const FLEET: &str = include_str!("../starter/fleet.cedar");
    /// In the shape of OpenStack Trove: api to task manager to guest agent to conductor.
    pub const TROVE: &str = include_str!("../starter/trove.cedar");
}

/// Rules as a person wrote them, parsed.
///
/// Each rule has an annotation `@id("…")`, which is what a denied caller is told. The arguments
/// that rules look at are declared in comments, one a line: `// @argument instance_id: String`,
/// with `String`, `Long`, `Bool`, `Set<String>` or `Set<Long>`.
#[derive(Debug, Clone)]
pub struct Source {
    text: String,
    rules: PolicySet,
    declared: Vec<(String, ArgType)>,
}

/// Why a policy can't be used: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Mistake {
    /// Line of the text, from 1; `None` if it is about the whole.
    pub line: Option<usize>,
    /// Column of that line in characters, from 1; `None` if it is about the whole line.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, "line {line}, column {column}: ")?,
            (Some(line), None) => write!(f, "line {line}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.message)
    }
}

impl Source {
    /// Reads rules and declarations.
    ///
    /// # Errors
    /// Every mistake of syntax, with its line.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let declared = schema::declared(text)?;
        let rules = PolicySet::from_str(text).map_err(|errors| {
            errors.iter().map(|error| mistake(text, error)).collect::<Vec<_>>()
        })?;
        Ok(Self { text: text.to_owned(), rules, declared })
    }

    /// The text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The Cedar schema that its rules are held against, for editors and other tools.
    pub fn schema(&self) -> String {
        schema::schema(&self.declared)
    }

    /// Validates the rules against the schema and compiles them.
    ///
    /// # Errors
    /// Every mistake that Cedar's strict validation finds; rules without an id or with one that
    /// another has; what receivers can't judge.
    pub fn compile(&self) -> Result<Policy, Vec<Mistake>> {
        let schema = self.cedar_schema().map_err(|mistake| vec![mistake])?;
        let validated = Validator::new(schema).validate(&self.rules, ValidationMode::Strict);
        let mut mistakes: Vec<_> =
            validated.validation_errors().map(|error| mistake(&self.text, error)).collect();
        // Cedar tells some once for each action, and in no order.
        mistakes.sort_by(|a, b| place(a).cmp(&place(b)));
        mistakes.dedup();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let rules = compile::rules(&self.text, &self.rules, &self.declared)?;
        Ok(Policy::new(rules, self.declared.clone()))
    }

    fn cedar_schema(&self) -> Result<Schema, Mistake> {
        Schema::from_str(&self.schema()).map_err(|error| Mistake {
            line: None,
            column: None,
            message: error.to_string(),
        })
    }
}

fn place(mistake: &Mistake) -> (usize, usize, &str) {
    let (line, column) = (mistake.line, mistake.column);
    (line.unwrap_or_default(), column.unwrap_or_default(), &mistake.message)
}

/// Without the action that Cedar looked at when it found it.
fn of_any_action(message: String) -> String {
    const BEFORE: &str = " in context for Action::\"";
    let Some((before, rest)) = message.split_once(BEFORE) else { return message };
    match rest.split_once('"') {
        Some((_, after)) => format!("{before}{after}"),
        None => message,
    }
}

/// An error of Cedar's with the line that it points at, and its advice.
fn mistake(text: &str, error: &dyn Diagnostic) -> Mistake {
    let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    // Cedar numbers rules; the line says which one it is.
    let message = error.to_string();
    let mut message = match message.strip_prefix("for policy `").and_then(|m| m.split_once("`, ")) {
        Some((_, rest)) => rest.to_owned(),
        None => message,
    };
    for more in error.labels().into_iter().flatten() {
        if let Some(label) = more.label() {
            message += &format!(" ({label})");
        }
    }
    if let Some(help) = error.help() {
        message += &format!("; {help}");
    }
    let (line, column) = match offset {
        Some(at) => (Some(line_of(text, at)), Some(column_of(text, at))),
        None => (None, None),
    };
    Mistake { line, column, message: of_any_action(message) }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn column_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    1 + line.chars().count()
}

#[cfg(test)]
mod tests;
