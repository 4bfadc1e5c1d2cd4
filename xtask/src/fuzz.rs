//! `cargo xtask fuzz [TARGET] [--hours N]`: libFuzzer through cargo-fuzz where there is a nightly
//! compiler, else the engine of `fuzz/` itself, which follows no coverage; the report says which.

use std::path::PathBuf;
use std::time::Duration;

use crate::console::{root, step, target};
use crate::report::Report;
use crate::run::{Job, says_yes};

/// A tool, never a dependency: it is built apart, and cached.
const VERSION: &str = "0.13.2";

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct Wish {
    target: Option<String>,
    hours: f64,
}

impl Wish {
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let mut wish = Self { target: None, hours: 1.0 };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--hours" {
                let hours = args.next().and_then(|hours| hours.parse().ok());
                let fits = |hours: &f64| *hours > 0.0 && *hours <= 10_000.0;
                wish.hours = hours.filter(fits).ok_or("--hours takes a number above 0")?;
            } else if arg.starts_with('-') || wish.target.is_some() {
                return Err(format!("unexpected argument `{arg}`"));
            } else {
                wish.target = Some(arg.clone());
            }
        }
        Ok(wish)
    }

    fn seconds(&self) -> u64 {
        ((self.hours * 3600.0) as u64).max(1)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds() + 3600)
    }
}

pub(crate) fn run(report: &mut Report, wish: &Wish) {
    let targets = match targets(wish) {
        Ok(targets) => targets,
        Err(why) => return report.note("fuzz", Err(why), Duration::ZERO),
    };
    if !says_yes("cargo", &["+nightly", "--version"]) {
        let why = "no nightly compiler: the stable engine, which follows no coverage";
        report.suite("fuzz", why, || stable(wish));
        return;
    }
    let tool = match tool() {
        Ok(tool) => tool,
        Err(why) => {
            step(&format!("no cargo-fuzz ({why}): the stable engine, which follows no coverage"));
            report.suite("fuzz", "Fuzzing", || stable(wish));
            return;
        }
    };
    // One after the other; each has its share of the time.
    let each = (wish.seconds() / targets.len().max(1) as u64).max(1);
    for target in targets {
        let name = format!("fuzz {target}");
        report.suite(&name, &format!("{name}, libFuzzer, {each} s"), || {
            libfuzzer(&tool, &target, each).map(|()| "libFuzzer, address sanitizer".to_owned())
        });
    }
}

/// The targets are the folders of the corpus.
fn targets(wish: &Wish) -> Result<Vec<String>, String> {
    let folder = root().join("fuzz").join("corpus");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut all: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    match &wish.target {
        None => Ok(all),
        Some(target) if all.contains(target) => Ok(vec![target.clone()]),
        Some(target) => Err(format!("no target `{target}`; there are {}", all.join(", "))),
    }
}

fn stable(wish: &Wish) -> Result<String, String> {
    let args = ["run", "--release", "--quiet", "--package", "bulla-fuzz", "--"];
    let seconds = wish.seconds().to_string();
    Job::cargo()
        .args(args)
        .args(wish.target.iter())
        .args(["--seconds", &seconds])
        .limit(wish.limit())
        .run()?;
    Ok("stable engine, no coverage".to_owned())
}

fn tool() -> Result<PathBuf, String> {
    let home = target().join("tools").join(format!("cargo-fuzz-{VERSION}"));
    let program = home.join("bin").join("cargo-fuzz");
    if program.is_file() {
        return Ok(program);
    }
    step(&format!("Building cargo-fuzz {VERSION} (once)"));
    let version = format!("={VERSION}");
    let args = ["install", "cargo-fuzz", "--version", &version, "--locked"];
    Job::cargo()
        .args(args)
        .args(["--root", &home.to_string_lossy()])
        .env("CARGO_TARGET_DIR", target().join("tools").join("build"))
        .run()?;
    Ok(program)
}

/// What it finds goes to a folder of its own, not into the corpus that is checked in.
fn libfuzzer(tool: &PathBuf, name: &str, seconds: u64) -> Result<(), String> {
    let found = target().join("fuzz").join(name);
    std::fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let corpus = root().join("fuzz").join("corpus").join(name);
    let (found, corpus) = (found.display().to_string(), corpus.display().to_string());
    let time = format!("-max_total_time={seconds}");
    Job::new(tool)
        .args(["run", "--fuzz-dir", "fuzz/libfuzzer", "any", &found, &corpus, "--"])
        .args([time.as_str(), "-max_len=8192", "-rss_limit_mb=2048", "-malloc_limit_mb=64"])
        .env("RUSTUP_TOOLCHAIN", "nightly")
        .env("CARGO_TARGET_DIR", target().join("libfuzzer"))
        .env("BULLA_FUZZ_TARGET", name)
        .limit(Duration::from_secs(seconds + 3600))
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Wish, String> {
        Wish::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn wishes_are_understood() {
        assert_eq!(parse(&[]), Ok(Wish { target: None, hours: 1.0 }));
        let wish = parse(&["frame", "--hours", "0.5"]).unwrap();
        assert_eq!((wish.target.as_deref(), wish.seconds()), (Some("frame"), 1800));
        assert!(parse(&["--hours"]).is_err() && parse(&["--hours", "-1"]).is_err());
        assert!(parse(&["a", "b"]).is_err() && parse(&["--what"]).is_err());
    }

    #[test]
    fn targets_are_those_of_the_corpus() {
        assert!(targets(&parse(&[]).unwrap()).unwrap().len() >= 8);
        assert!(targets(&parse(&["nothing"]).unwrap()).is_err());
    }
}
