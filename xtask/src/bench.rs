//! `cargo xtask bench`: the benchmarks, small.

use crate::report::Report;
use crate::run::Job;

pub(crate) fn run(report: &mut Report) {
    report.suite("benches", "The crates' own benchmarks (release build)", || {
        Job::cargo().args(["bench", "--workspace", "--benches"]).run()?;
        Ok(String::new())
    });
}
