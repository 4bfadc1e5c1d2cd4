//! The stable engine for hours: `bulla-fuzz [TARGET] [--seconds N] [--seed N]`, or
//! `bulla-fuzz --write-corpus` to make the corpus anew from the vectors.

use std::process::ExitCode;
use std::time::Duration;

use bulla_fuzz::{TARGETS, Target, corpus, engine, target};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let (mut chosen, mut seconds, mut seed) = (TARGETS.to_vec(), 60, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok());
        match arg.as_str() {
            "--write-corpus" => {
                let count = corpus::write_from_vectors().map_err(|error| error.to_string())?;
                println!("{count} inputs written");
                return Ok(true);
            }
            "--seconds" => seconds = number().ok_or("--seconds takes a number")?,
            "--seed" => seed = number().ok_or("--seed takes a number")?,
            name => {
                let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
                let unknown = || format!("no target `{name}`; there are {}", names.join(", "));
                chosen = vec![*target(name).ok_or_else(unknown)?];
            }
        }
    }
    let each = Duration::from_secs(seconds);
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            chosen.iter().map(|target| scope.spawn(move || one(target, seed, each))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(false)).collect()
    });
    Ok(found.into_iter().all(|good| good))
}

fn one(target: &Target, seed: u64, time: Duration) -> bool {
    let corpus = corpus::load(target.name).unwrap_or_default();
    let report = engine::run(target, &corpus, seed, time);
    println!("{}: {} runs, {} kinds of answers", target.name, report.runs, report.seen);
    let Some(input) = report.failure else { return true };
    println!("{} FAILED with {}", target.name, hex::encode(&input));
    false
}
