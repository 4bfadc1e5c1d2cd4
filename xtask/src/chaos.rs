//! `cargo xtask chaos`: calls over real servers that fail meanwhile, at full size.

use std::process::ExitCode;
use std::time::Duration;

use crate::report::Report;
use crate::run::Job;

/// All runs at full size take the better part of an hour on a small machine.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// `more` goes to the program, which knows what it takes.
pub(crate) fn run(mut report: Report, more: &[String]) -> ExitCode {
    let program = ["run", "--quiet", "--package", "bulla-chaos", "--", "run"];
    let job = Job::cargo().args(program).args(more).limit(LIMIT);
    if more.iter().any(|word| word == "--json") {
        // Nothing but JSON on standard output.
        return match job.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        };
    }
    report.suite("chaos", "Counting calls while workers, servers and networks fail", || {
        job.run().map(|()| "no call ran twice, no caller was left in the dark".to_owned())
    });
    if more.is_empty() {
        report.suite("queue", "Killing the queue service under load, 50 times a store", || {
            let job = Job::cargo().args(["test", "--package", "bulla-cli"]);
            let job = job.args(["--features", "redis,postgres", "--test", "queue_kill"]);
            job.env("BULLA_KILLS", "50").limit(LIMIT).run()?;
            Ok("no acknowledged message was lost, none was in two hands".to_owned())
        });
    }
    report.close("cargo xtask chaos")
}
