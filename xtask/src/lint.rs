//! `cargo xtask lint`: everything that is checked without running the code.

use crate::deps;
use crate::features::features;
use crate::report::Report;
use crate::run::{Job, says_yes};

pub(crate) fn run(report: &mut Report) {
    report.suite("format", "cargo fmt --check", || cargo(&["fmt", "--all", "--check"]));
    report.suite("dependencies", "Bans and licences of deny.toml", deps::check);
    if says_yes("cargo", &["deny", "--version"]) {
        report.suite("cargo deny", "cargo deny check", || cargo(&["deny", "check"]));
    } else {
        let why = "cargo-deny is not installed: known advisories were not looked up";
        report.skip("cargo deny", why);
    }
    report.suite("clippy", "cargo clippy, warnings denied", || {
        let all = ["clippy", "--workspace", "--all-targets", "--features", &features()];
        cargo(&[&all[..], &["--", "-D", "warnings"]].concat())
    });
    report.suite("rustdoc", "cargo doc, warnings denied", || {
        // The library last: the program of the same name documents itself in the same place.
        rustdoc("--bins")?;
        rustdoc("--lib")
    });
}

fn rustdoc(which: &str) -> Result<String, String> {
    let job = Job::cargo().args(["doc", "--workspace", "--no-deps", which]);
    job.env("RUSTDOCFLAGS", "-D warnings").run().map(|()| String::new())
}

fn cargo(args: &[&str]) -> Result<String, String> {
    Job::cargo().args(args).run().map(|()| String::new())
}
