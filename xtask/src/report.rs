//! The closing summary.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::console::{ci, paint, step, took};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

struct Row {
    suite: String,
    verdict: Verdict,
    note: String,
    time: Duration,
}

/// What ran, and how it ended.
pub(crate) struct Report {
    rows: Vec<Row>,
    begun: Instant,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new(), begun: Instant::now() }
    }

    /// Announces a suite, runs it and notes how it ended and how long it took.
    pub(crate) fn suite(
        &mut self,
        suite: &str,
        announce: &str,
        work: impl FnOnce() -> Result<String, String>,
    ) -> bool {
        step(announce);
        let begun = Instant::now();
        let ended = work();
        let passed = ended.is_ok();
        self.note(suite, ended, begun.elapsed());
        passed
    }

    /// Notes a suite that ran elsewhere.
    pub(crate) fn note(&mut self, suite: &str, ended: Result<String, String>, time: Duration) {
        let (verdict, note) = match ended {
            Ok(note) => (Verdict::Passed, note),
            Err(note) => (Verdict::Failed, note),
        };
        if verdict == Verdict::Failed {
            eprintln!("{} {suite}: {note}", paint("1;31", "FAILED"));
        }
        self.rows.push(Row { suite: suite.to_owned(), verdict, note, time });
    }

    /// Notes a suite that can't run here: a failure in CI, a loud skip elsewhere.
    pub(crate) fn cannot_run(&mut self, suite: &str, why: &str) {
        if ci() {
            return self.note(suite, Err(format!("can't run: {why}")), Duration::ZERO);
        }
        self.skip(suite, why);
    }

    /// Notes a suite that is skipped, loudly.
    pub(crate) fn skip(&mut self, suite: &str, why: &str) {
        eprintln!("\n{} {suite}: {why}", paint("1;33", "*** SKIPPED, NOT TESTED ***"));
        self.rows.push(Row {
            suite: suite.to_owned(),
            verdict: Verdict::Skipped,
            note: why.to_owned(),
            time: Duration::ZERO,
        });
    }

    /// Prints the summary; the exit code says whether anything failed.
    pub(crate) fn close(self, title: &str) -> ExitCode {
        step(&format!("Summary of {title}"));
        let width = self.rows.iter().map(|row| row.suite.len()).max().unwrap_or(0);
        for row in &self.rows {
            let (colour, word) = match row.verdict {
                Verdict::Passed => ("32", "passed "),
                Verdict::Failed => ("1;31", "FAILED "),
                Verdict::Skipped => ("1;33", "SKIPPED"),
            };
            let (suite, time) = (&row.suite, took(row.time));
            println!("  {} {suite:width$} {time:>12}  {}", paint(colour, word), row.note);
        }
        let count = |verdict| self.rows.iter().filter(|row| row.verdict == verdict).count();
        let failed = count(Verdict::Failed);
        println!(
            "{} passed, {failed} failed, {} skipped, in {}",
            count(Verdict::Passed),
            count(Verdict::Skipped),
            took(self.begun.elapsed())
        );
        if failed == 0 && !self.rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
