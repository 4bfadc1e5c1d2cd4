//! `cargo xtask bench peers`: Bulla beside what else one could take, in one run on this machine.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::console::{root, target};
use crate::report::Report;
use crate::run::Job;
use crate::{debian, python};

const REQUIREMENTS: &str = "benches/peers/python/requirements-celery.txt";
/// Where the table goes.
const PAGE: &str = "docs/benchmarks.md";

/// `more` is for the benchmark itself: its own words, after what is said here.
pub(crate) fn run(report: &mut Report, more: &[String]) {
    if let Err(why) = debian::install() {
        return report.cannot_run("peers", &why);
    }
    if let Err(why) = debian::install_one("nats-server", nats) {
        return report.cannot_run("peers", &why);
    }
    report.suite("peers", "Measuring Bulla and its peers in turn (release build)", || {
        let oslo = python::oslo_debian()?;
        let celery = python::environment("celery", REQUIREMENTS)?;
        let mut args: Vec<OsString> = ["run", "--release", "--quiet", "--manifest-path"]
            .into_iter()
            .chain(["benches/peers/Cargo.toml", "--", "compare", "--oslo"])
            .map(OsString::from)
            .collect();
        args.extend([oslo.into(), "--celery".into(), celery.into()]);
        args.extend(["--write".into(), root().join(PAGE).into()]);
        args.extend(more.iter().map(OsString::from));
        let job = Job::cargo().args(args).env("CARGO_TARGET_DIR", target());
        job.limit(Duration::from_secs(3600)).run().map(|()| format!("the table is in {PAGE}"))
    });
}

fn nats() -> bool {
    Path::new("/usr/sbin/nats-server").exists()
}
