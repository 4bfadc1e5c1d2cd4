//! The one schema of events. What is declared in [`events`] is the source of the types, the log
//! lines, the names of metrics, the page `docs/events.md`, and what tests record.

mod declare;
pub mod events;
mod field;

pub use events::{Event, SCHEMA};
pub use field::{Field, MAX_TEXT, Text};

pub(crate) use field::{decimal, quoted};

/// What sort of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A message or a request was not accepted.
    Refusal,
    /// A proven sender may not do what it asked for.
    Denial,
    /// A key, a credential, a group or a root came, changed or went.
    Key,
    /// Who may do what was changed.
    Policy,
    /// The level that a peer must keep was changed, or an exemption from it given or used.
    Floor,
    /// A method that changes something was called.
    Call,
    /// Something that should not happen at all.
    Alarm,
    /// The journal itself.
    Journal,
}

impl Class {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Refusal,
        Self::Denial,
        Self::Key,
        Self::Policy,
        Self::Floor,
        Self::Call,
        Self::Alarm,
        Self::Journal,
    ];

    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::Denial => "denial",
            Self::Key => "key",
            Self::Policy => "policy",
            Self::Floor => "floor",
            Self::Call => "call",
            Self::Alarm => "alarm",
            Self::Journal => "journal",
        }
    }
}

/// How loud an event is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Of use when one looks for something.
    Debug,
    /// In the course of things.
    Info,
    /// Somebody should look at it some day.
    Warn,
    /// Somebody should look at it now.
    Error,
}

impl Severity {
    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One event's declaration.
#[derive(Debug, Clone, Copy)]
pub struct EventInfo {
    /// Its stable name: `message-refused`.
    pub name: &'static str,
    /// What sort of thing it is.
    pub class: Class,
    /// How loud it is.
    pub severity: Severity,
    /// What it means.
    pub meaning: &'static str,
    /// The words of its log line.
    pub message: &'static str,
    /// The counter that it adds to.
    pub metric: &'static str,
    /// The field that is the counter's label.
    pub label: Option<&'static str>,
    /// Its fields.
    pub fields: &'static [FieldInfo],
}

/// One field's declaration.
#[derive(Debug, Clone, Copy)]
pub struct FieldInfo {
    /// Its name in the record and in the log.
    pub name: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_in_one_style() {
        let names: BTreeSet<_> = SCHEMA.iter().map(|info| info.name).collect();
        assert_eq!(names.len(), SCHEMA.len());
        for info in SCHEMA {
            assert!(
                info.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{}",
                info.name
            );
            assert!(info.metric.starts_with("bulla_") && info.metric.ends_with("_total"));
            assert!(!info.meaning.trim().is_empty(), "{} says nothing", info.name);
            let fields: BTreeSet<_> = info.fields.iter().map(|field| field.name).collect();
            assert_eq!(fields.len(), info.fields.len(), "{}", info.name);
            for field in info.fields {
                // These stand in every record.
                assert!(!["seq", "time", "event", "class", "chain"].contains(&field.name));
                assert!(!field.meaning.trim().is_empty(), "{}.{}", info.name, field.name);
            }
        }
    }

    #[test]
    fn no_field_is_for_a_secret() {
        // A text could hold anything, so none has a name under which one would put a secret.
        let secret = ["secret", "password", "token", "private", "args", "body", "result", "value"];
        // A number of tokens is none.
        let texts = |field: &&FieldInfo| field.kind != "number";
        for field in SCHEMA.iter().flat_map(|info| info.fields).filter(texts) {
            assert!(!secret.iter().any(|word| field.name.contains(word)), "{}", field.name);
            assert!(field.name != "key", "{}", field.name);
        }
    }
}
