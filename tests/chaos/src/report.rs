//! How runs went, for people and for machines.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::Failed;
use crate::run::{Events, Run};
use crate::tally::Tally;

/// How one run went.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which.
    pub run: Run,
    /// What was counted.
    #[serde(flatten)]
    pub tally: Tally,
    /// What befell workers, servers and networks, and how often.
    pub events: Events,
    /// How long it took, servers and all, in seconds.
    pub seconds: f64,
}

impl Report {
    /// Whether nothing ran twice and nobody was left in the dark, in spite of what befell them.
    pub fn passed(&self) -> bool {
        self.tally.passed() && self.events.values().any(|times| *times > 0)
    }
}

/// As a table.
pub fn table(reports: &[Report]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "run",
        "calls",
        "values",
        "told of failure",
        "executed",
        "executed twice",
        "lost silently",
        "time",
        "what befell them",
        "",
    ]);
    for report in reports {
        let tally = &report.tally;
        table.add_row([
            name(report.run),
            tally.calls.to_string(),
            tally.values.to_string(),
            told(tally),
            tally.executed.to_string(),
            tally.executed_twice.to_string(),
            (tally.lost_silently + tally.strange).to_string(),
            format!("{:.0} s", report.seconds),
            list(&report.events),
            if report.passed() { "passed" } else { "FAILED" }.to_owned(),
        ]);
    }
    table.to_string()
}

/// As JSON.
///
/// # Errors
/// It can't be written.
pub fn json(reports: &[Report]) -> Result<String, Failed> {
    Ok(serde_json::to_string_pretty(reports)?)
}

fn name(run: Run) -> String {
    clap::ValueEnum::to_possible_value(&run).map_or_else(String::new, |v| v.get_name().to_owned())
}

fn told(tally: &Tally) -> String {
    if tally.failures.is_empty() {
        return tally.told_of_failure.to_string();
    }
    format!("{} ({})", tally.told_of_failure, list(&tally.failures))
}

fn list(counts: &Events) -> String {
    let words: Vec<_> = counts.iter().map(|(what, times)| format!("{what} {times}")).collect();
    words.join(", ")
}
