//! `cargo xtask test`: sets up, then runs every test.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::console::step;
use crate::features::features;
use crate::outcome::{Outcome, Tests};
use crate::report::Report;
use crate::run::Job;
use crate::suites::{self, Suite};
use crate::{api, attacks, debian, models, python, queue};

pub(crate) fn run(report: &mut Report) {
    step("Looking for what the tests need");
    if let Err(why) = debian::install() {
        report.cannot_run("Debian packages", &why);
    }
    for server in debian::missing_servers() {
        report.cannot_run(&format!("tests on {server}"), &format!("{server} is not installed"));
    }
    if debian::python() {
        report.suite("Python environments", "Making Python environments", python::oslo);
    } else {
        report.cannot_run("the Python package", "Python can't make environments here");
    }
    let built = build(report);
    // Running tests mostly wait; this is one long compilation.
    let tool = models::prepare();
    if let Some(suites) = built {
        cargo_test(report, suites);
    }
    step("Showing that every attack's row can fail, in a build of its own, beside the models");
    let begun = Instant::now();
    thread::scope(|scope| {
        let mutants = scope.spawn(|| (attacks::mutants(), begun.elapsed()));
        models::symbolic(report, false, tool);
        vectors(report);
        api::suite(report);
        queue::suite(report);
        let panicked = |_| (Err("it panicked".to_owned()), begun.elapsed());
        let (ended, time) = mutants.join().unwrap_or_else(panicked);
        report.note("mutants", ended, time);
    });
}

fn vectors(report: &mut Report) {
    if !debian::python() {
        return report.cannot_run("vectors", "Python can't make environments here");
    }
    report.suite("vectors", "Checking docs/vectors with Python", python::check_vectors);
}

/// Builds every test, and finds out where they are.
fn build(report: &mut Report) -> Option<Vec<Suite>> {
    let mut suites = Vec::new();
    let doing = "Building all Rust tests (a first build takes several minutes)";
    report.suite("building the tests", doing, || {
        let messages = Job::cargo()
            .args(["test", "--workspace", "--no-run", "--features", &features()])
            .args(["--message-format", "json-render-diagnostics"])
            .output()?;
        suites = Suite::read_all(&messages)?;
        Ok(format!("{} programs", suites.len()))
    });
    (!suites.is_empty()).then_some(suites)
}

fn cargo_test(report: &mut Report, suites: Vec<Suite>) {
    step("Running all Rust tests, several programs at once");
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    for ended in suites::run(suites, debian::missing_servers().is_empty()) {
        outcome.program(&ended.suite.package, &ended.suite.name(), &ended.output, &ended.result);
    }
    doc_tests(&mut outcome);
    outcome.crates.sort_by(|a, b| a.of.cmp(&b.of));
    for tests in outcome.crates.iter().filter(|tests| tests.ran()) {
        report.note(&tests.of, tests.verdict(), tests.time);
    }
    report.note("all Rust tests", verdict(&outcome), begun.elapsed());
}

/// The examples in the documentation, which cargo builds and runs in one.
fn doc_tests(outcome: &mut Outcome) {
    let output = Arc::<Mutex<String>>::default();
    let into = Arc::clone(&output);
    let args = ["test", "--workspace", "--no-fail-fast", "--doc", "--features", &features()];
    let ended = Job::cargo().args(args).lines(move |line| {
        println!("{line}");
        let mut output = into.lock().unwrap_or_else(PoisonError::into_inner);
        output.push_str(line);
        output.push('\n');
    });
    let output = output.lock().unwrap_or_else(PoisonError::into_inner);
    outcome.doc_tests(&output, &ended);
}

fn verdict(outcome: &Outcome) -> Result<String, String> {
    let (passed, failed) = outcome.totals();
    let counted = format!("{passed} passed, {failed} failed");
    if outcome.failures.is_empty() {
        return if passed == 0 { Err("no test ran".to_owned()) } else { Ok(counted) };
    }
    Err([&[counted], &outcome.failures[..]].concat().join("\n            "))
}

impl Tests {
    fn ran(&self) -> bool {
        self.passed + self.failed + self.ignored > 0
    }

    fn verdict(&self) -> Result<String, String> {
        let mut text = format!("{} passed", self.passed);
        if self.ignored > 0 {
            text += &format!(", {} ignored", self.ignored);
        }
        if self.failed == 0 { Ok(text) } else { Err(format!("{text}, {} failed", self.failed)) }
    }
}
