//! What a row of the suite is.

use std::future::Future;
use std::pin::Pin;

use bulla_seal::mutants::Check;
use serde::Serialize;

use crate::cell::{Cell, KeyType, Kind};
use crate::trouble::Trouble;
use crate::world::Stage;

/// What an attack's trial gives.
pub type Trial = Pin<Box<dyn Future<Output = Result<Seen, Trouble>> + Send>>;

/// One attack.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its stable id.
    pub id: &'static str,
    /// What is tried.
    pub tries: &'static str,
    /// The incident or documented weakness that it reproduces.
    pub incident: &'static str,
    /// What is expected.
    pub expected: &'static str,
    /// Kinds of message that it is tried on.
    pub kinds: &'static [Kind],
    /// Why not on the others.
    pub other_kinds: &'static str,
    /// Key types that it is tried with.
    pub keys: &'static [KeyType],
    /// Why not with the other.
    pub other_key: &'static str,
    /// Sets of checks; with any of them off as a whole the attack gets through somewhere, and
    /// everywhere with one or another.
    pub red: &'static [&'static [Check]],
    /// Tries it.
    pub run: fn(Stage) -> Trial,
}

impl Row {
    /// Its group: the part of the id before the number.
    pub fn group(&self) -> Group {
        Group::of(self.id)
    }

    /// Why it is not tried in `cell`, if it is not.
    pub fn not_applicable(&self, cell: Cell) -> Option<&'static str> {
        if !self.kinds.contains(&cell.kind) {
            Some(self.other_kinds)
        } else if !self.keys.contains(&cell.key) {
            Some(self.other_key)
        } else {
            None
        }
    }
}

/// Rows that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Reading what passes.
    Reading,
    /// Altering it, or putting something else in its place.
    Altering,
    /// Moving it elsewhere.
    Moving,
    /// Posing as somebody else.
    Posing,
    /// Answers.
    Replies,
    /// Repeating.
    Replaying,
    /// Lowering the protection.
    Lowering,
    /// Keeping others from working.
    Denying,
    /// Revoked and re-used keys.
    Revoking,
    /// Joining as an agent.
    Enrolling,
    /// Methods and what they may do.
    Methods,
}

impl Group {
    /// All, as they are shown.
    pub const ALL: [Self; 11] = [
        Self::Reading,
        Self::Altering,
        Self::Moving,
        Self::Posing,
        Self::Replies,
        Self::Replaying,
        Self::Lowering,
        Self::Denying,
        Self::Revoking,
        Self::Enrolling,
        Self::Methods,
    ];

    fn of(id: &str) -> Self {
        match id.chars().next() {
            Some('E') => Self::Reading,
            Some('A') => Self::Altering,
            Some('M') => Self::Moving,
            Some('R') => Self::Replies,
            Some('P') => Self::Replaying,
            Some('L') => Self::Lowering,
            Some('D') => Self::Denying,
            Some('V') => Self::Revoking,
            Some('N') => Self::Enrolling,
            Some('X') => Self::Methods,
            _ => Self::Posing,
        }
    }

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Reading => "Reading what passes",
            Self::Altering => "Altering it, or putting something else in its place",
            Self::Moving => "Moving it elsewhere",
            Self::Posing => "Posing as somebody else",
            Self::Replies => "Answers",
            Self::Replaying => "Repeating what was said",
            Self::Lowering => "Lowering the protection",
            Self::Denying => "Keeping others from working",
            Self::Revoking => "Revoked and re-used keys",
            Self::Enrolling => "Joining",
            Self::Methods => "Methods, and who may run them",
        }
    }
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "seen")]
pub enum Seen {
    /// It had no effect, and what was expected was seen.
    Held(String),
    /// It had an effect.
    GotThrough(String),
    /// It had no effect, but something else was seen than what was expected.
    Unexpected(String),
}

impl Seen {
    /// Whether it held.
    pub fn held(&self) -> bool {
        matches!(self, Self::Held(_))
    }

    /// The words.
    pub fn text(&self) -> &str {
        match self {
            Self::Held(text) | Self::GotThrough(text) | Self::Unexpected(text) => text,
        }
    }
}
