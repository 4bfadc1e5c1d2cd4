//! The project's own chores: `cargo xtask test`, `lint`, `bench`, `vectors`, `attacks`.

mod attacks;
mod bench;
mod console;
mod debian;
mod deps;
mod lint;
mod outcome;
mod python;
mod report;
mod run;
mod spdx;
mod test;
mod vectors;

use std::process::ExitCode;

use report::Report;

const USAGE: &str = "\
cargo xtask test      set up what is missing and run every test
cargo xtask lint      format, bans and licences of dependencies, clippy, rustdoc
cargo xtask bench     the benchmarks, small
cargo xtask vectors   write docs/vectors anew and check them
cargo xtask attacks   write docs/attacks.md anew, and show that every attack's row can fail
";

fn main() -> ExitCode {
    if let Some(ended) = attacks::compile() {
        return ended;
    }
    let mut args = std::env::args().skip(1);
    let chore = args.next().unwrap_or_default();
    if let Some(more) = args.next() {
        eprintln!("unexpected argument `{more}`\n\n{USAGE}");
        return ExitCode::from(2);
    }
    let mut report = Report::new();
    match chore.as_str() {
        "test" => test::run(&mut report),
        "lint" => lint::run(&mut report),
        "bench" => bench::run(&mut report),
        "vectors" => vectors::run(&mut report),
        "attacks" => attacks::run(&mut report),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("unknown chore `{other}`\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    report.close(&format!("cargo xtask {chore}"))
}
