//! The project's own chores: `cargo xtask test`, `lint`, `bench`, `vectors`, `api`, `queue`,
//! `attacks`, `models`, `fuzz`, `chaos`, `deb`.

mod api;
mod attacks;
mod bench;
mod chaos;
mod console;
mod deb;
mod debian;
mod deps;
mod features;
mod fuzz;
mod instructions;
mod lint;
mod models;
mod outcome;
mod package;
mod peers;
mod python;
mod queue;
mod report;
mod run;
mod spdx;
mod suites;
mod test;
mod vectors;

use std::process::ExitCode;

use report::Report;

const USAGE: &str = "\
cargo xtask test      set up what is missing and run every test
cargo xtask lint      format, bans and licences of dependencies, clippy, rustdoc
cargo xtask bench     the benchmarks, small
cargo xtask bench check [--write]        instructions of the hot path against those that are kept; --write: keep them
cargo xtask bench peers [OPTIONS]        Bulla, sealed, beside lapin, gRPC, NATS, oslo.messaging, Celery: ratios into docs/benchmarks.md
cargo xtask vectors   write docs/vectors anew and check them
cargo xtask api       try the HTTPS API of a control plane by its own description
cargo xtask queue     try the queue service with Zaqar's clients, and by its own description
cargo xtask attacks   write docs/attacks.md anew, and show that every attack's row can fail
cargo xtask models [--full]              the symbolic and the state models; --full: the slow ones too
cargo xtask fuzz [TARGET] [--hours N]    libFuzzer where there is a nightly compiler, else the stable engine
cargo xtask chaos [RUN]... [--calls N] [--json]  20,000 calls each while workers, servers and networks fail
cargo xtask deb [--profile NAME | --no-build BINARY]  the Debian package, in target/deb
";

fn main() -> ExitCode {
    if let Some(ended) = attacks::compile() {
        return ended;
    }
    let mut args = std::env::args().skip(1);
    let chore = args.next().unwrap_or_default();
    let more: Vec<_> = args.collect();
    let mut report = Report::new();
    if chore == "fuzz" {
        match fuzz::Wish::parse(&more) {
            Ok(wish) => fuzz::run(&mut report, &wish),
            Err(why) => return usage(&why),
        }
        return report.close("cargo xtask fuzz");
    }
    if chore == "chaos" {
        return chaos::run(report, &more);
    }
    if chore == "deb" {
        match package::Wish::parse(&more) {
            Ok(wish) => package::run(&mut report, &wish),
            Err(why) => return usage(&why),
        }
        return report.close("cargo xtask deb");
    }
    if chore == "bench" && more.first().is_some_and(|word| word == "check") {
        match more.get(1..).unwrap_or_default() {
            [] => instructions::run(&mut report, false),
            [write] if write == "--write" => instructions::run(&mut report, true),
            _ => return usage("bench check takes nothing but --write"),
        }
        return report.close("cargo xtask bench check");
    }
    if chore == "bench" && more.first().is_some_and(|word| word == "peers") {
        peers::run(&mut report, more.get(1..).unwrap_or_default());
        return report.close("cargo xtask bench peers");
    }
    let full = chore == "models" && more == ["--full"];
    if let Some(more) = more.first().filter(|_| !full) {
        return usage(&format!("unexpected argument `{more}`"));
    }
    match chore.as_str() {
        "test" => test::run(&mut report),
        "lint" => lint::run(&mut report),
        "bench" => bench::run(&mut report),
        "vectors" => vectors::run(&mut report),
        "api" => api::run(&mut report),
        "queue" => queue::run(&mut report),
        "attacks" => attacks::run(&mut report),
        "models" => models::run(&mut report, full),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => return usage(&format!("unknown chore `{other}`")),
    }
    report.close(&format!("cargo xtask {chore}"))
}

fn usage(why: &str) -> ExitCode {
    eprintln!("{why}\n\n{USAGE}");
    ExitCode::from(2)
}
