//! `cargo xtask attacks`: the page of the attack suite, and the build in which checks can be
//! switched off, so that every row is seen to fail.
//!
//! That build is no feature of Cargo, which another crate could turn on. Cargo compiles the
//! workspace's own crates through this program, which adds one `--cfg`; dependencies are not
//! built again.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::features::features;
use crate::report::Report;
use crate::run::Job;

/// Tells this program, called by Cargo, to be the compiler.
const WRAP: &str = "BULLA_XTASK_COMPILES";

/// Runs the compiler that Cargo names, with the mutants' `--cfg`, if that is what Cargo wants.
pub(crate) fn compile() -> Option<ExitCode> {
    std::env::var_os(WRAP)?;
    let mut args = std::env::args_os().skip(1);
    let compiler = args.next()?;
    let args: Vec<OsString> = args.chain(["--cfg".into(), "bulla_mutants".into()]).collect();
    let ended = Command::new(&compiler).args(args).status();
    Some(match ended {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            eprintln!("{}: {error}", compiler.to_string_lossy());
            ExitCode::FAILURE
        }
    })
}

/// Runs the tests that need the switches.
pub(crate) fn mutants() -> Result<String, String> {
    let own = std::env::current_exe().map_err(|error| format!("finding xtask itself: {error}"))?;
    Job::cargo()
        // As the other tests are built, or cargo would build what we depend on once more.
        .args(["test", "--workspace", "--features", &features(), "--test", "mutants"])
        .env("RUSTC_WORKSPACE_WRAPPER", own)
        .env(WRAP, "1")
        .run()?;
    Ok("every attack gets through when its checks are off".to_owned())
}

pub(crate) fn run(report: &mut Report) {
    report.suite("page", "Writing docs/attacks.md", || {
        let test = ["test", "--package", "bulla-attack", "--test", "page"];
        Job::cargo().args(test).env("BULLA_WRITE_ATTACKS", "1").run()?;
        Ok("git diff docs/attacks.md shows what changed".to_owned())
    });
    report.suite("mutants", "Showing that every attack's row can fail", mutants);
}
