//! `cargo xtask vectors`: writes the known-answer vectors anew and checks them.

use crate::report::Report;
use crate::run::Job;
use crate::{debian, python};

pub(crate) fn run(report: &mut Report) {
    let written = report.suite("write", "Writing docs/vectors", || {
        let test = ["test", "--package", "bulla-seal", "--test", "vectors"];
        Job::cargo().args(test).env("BULLA_WRITE_VECTORS", "1").run()?;
        Ok("git diff docs/vectors shows what changed".to_owned())
    });
    if !written {
        return;
    }
    if let Err(why) = debian::install() {
        report.cannot_run("Debian packages", &why);
    }
    report.suite("check", "Checking docs/vectors with Python", python::check_vectors);
}
