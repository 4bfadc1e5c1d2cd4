//! What came of a run.

use serde::Serialize;

use crate::cell::{Cell, KeyType, Kind};
use crate::row::{Group, Row};

/// What came of one trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The attack had no effect, and what was expected was seen.
    Held,
    /// The attack had an effect.
    GotThrough,
    /// The attack had no effect, but something else was seen than was expected.
    Unexpected,
    /// It could not be tried.
    Failed,
    /// It has no meaning here.
    NotApplicable,
}

/// One cell of a row.
#[derive(Debug, Clone, Serialize)]
pub struct CellReport {
    /// The agents' key type.
    pub key: KeyType,
    /// The kind of message.
    pub kind: Kind,
    /// What came of it.
    pub verdict: Verdict,
    /// In words: refusals counted, or why it is not tried.
    pub seen: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

impl CellReport {
    pub(crate) fn new(cell: Cell, verdict: Verdict, seen: &str) -> Self {
        Self { key: cell.key, kind: cell.kind, verdict, seen: seen.to_owned(), millis: 0 }
    }

    /// Whether it is as it should be.
    pub fn is_good(&self) -> bool {
        matches!(self.verdict, Verdict::Held | Verdict::NotApplicable)
    }
}

/// One row.
#[derive(Debug, Clone, Serialize)]
pub struct RowReport {
    /// Its id.
    pub id: &'static str,
    /// Its group.
    pub group: Group,
    /// What was tried.
    pub tries: &'static str,
    /// The incident that it reproduces.
    pub incident: &'static str,
    /// What was expected.
    pub expected: &'static str,
    /// Every cell of the matrix.
    pub cells: Vec<CellReport>,
}

impl RowReport {
    pub(crate) fn new(row: &'static Row, first: CellReport) -> Self {
        Self {
            id: row.id,
            group: row.group(),
            tries: row.tries,
            incident: row.incident,
            expected: row.expected,
            cells: vec![first],
        }
    }

    /// Whether every cell is as it should be.
    pub fn is_good(&self) -> bool {
        self.cells.iter().all(CellReport::is_good)
    }

    /// Whether the attack had an effect anywhere.
    pub fn got_through(&self) -> bool {
        self.cells.iter().any(|cell| cell.verdict == Verdict::GotThrough)
    }
}

/// What came of one live row.
#[derive(Debug, Clone, Serialize)]
pub struct LiveReport {
    /// Its id.
    pub id: &'static str,
    /// What was tried.
    pub tries: &'static str,
    /// What was expected.
    pub expected: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// What the bus showed.
    pub seen: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// A run on one transport.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The transport.
    pub transport: String,
    /// Its address, without credentials.
    pub address: String,
    /// How long it took.
    pub seconds: f64,
    /// Every row.
    pub rows: Vec<RowReport>,
}

impl Report {
    /// Whether every row is as it should be.
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(RowReport::is_good)
    }

    /// How many trials there were, and how many were as they should be.
    pub fn trials(&self) -> (usize, usize) {
        let tried = |cell: &&CellReport| cell.verdict != Verdict::NotApplicable;
        let cells: Vec<_> =
            self.rows.iter().flat_map(|row| row.cells.iter().filter(tried)).collect();
        (cells.len(), cells.iter().filter(|cell| cell.is_good()).count())
    }
}
