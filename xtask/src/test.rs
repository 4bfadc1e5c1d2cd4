//! `cargo xtask test`: sets up, then runs every test.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::console::step;
use crate::features::features;
use crate::outcome::{Outcome, Tests};
use crate::report::Report;
use crate::run::Job;
use crate::{attacks, debian, models, python};

pub(crate) fn run(report: &mut Report) {
    step("Looking for what the tests need");
    if let Err(why) = debian::install() {
        report.cannot_run("Debian packages", &why);
    }
    for server in debian::missing_servers() {
        report.cannot_run(&format!("tests on {server}"), &format!("{server} is not installed"));
    }
    cargo_test(report);
    let doing = "Showing that every attack's row can fail, in a build of its own";
    report.suite("mutants", doing, attacks::mutants);
    models::symbolic(report, false);
    if !debian::python() {
        return report.cannot_run("vectors", "Python can't make environments here");
    }
    report.suite("vectors", "Checking docs/vectors with Python", python::check_vectors);
}

fn cargo_test(report: &mut Report) {
    step("Building and running all Rust tests (a first build takes several minutes)");
    let begun = Instant::now();
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let seen = Arc::clone(&outcome);
    let mut job = Job::cargo()
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(["--features", &features()]);
    if debian::missing_servers().is_empty() {
        // A test that still finds no server must not pass for having been skipped.
        job = job.env("BULLA_TEST_REQUIRE", "1");
    }
    let ended = job.lines(move |line| {
        println!("{line}");
        seen.lock().unwrap_or_else(PoisonError::into_inner).line(line);
    });
    let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    for tests in outcome.crates.iter().filter(|tests| tests.ran()) {
        report.note(&tests.of, tests.verdict(), tests.time);
    }
    report.note("all Rust tests", verdict(&outcome, ended), begun.elapsed());
}

fn verdict(outcome: &Outcome, ended: Result<(), String>) -> Result<String, String> {
    let (passed, failed) = outcome.totals();
    let counted = format!("{passed} passed, {failed} failed");
    match ended {
        Ok(()) if passed == 0 => Err("no test ran".to_owned()),
        Ok(()) => Ok(counted),
        Err(error) => {
            let mut text = format!("{counted}; {error}");
            for name in outcome.failures.iter().chain(&outcome.again) {
                text += "\n            ";
                text += name;
            }
            Err(text)
        }
    }
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
