//! `cargo xtask bench check`: how many instructions the hot path takes, against what is checked in for
//! this compiler. Instructions are counted, not time: a loaded machine counts the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::console::root;
use crate::debian;
use crate::report::Report;
use crate::run::{Job, says_yes};

/// The benchmarks that count, by crate.
const BENCHES: [&str; 2] = ["bulla-seal", "bulla-rpc"];
/// What is held to its figure.
const HELD: [&str; 7] =
    ["seal_request", "open_request", "seal_reply", "open_reply", "authorize", "claim", "call"];
/// Percent by which a figure may rise.
const TOLERANCE: u64 = 5;

/// Figures by compiler version and operation.
type Figures = BTreeMap<(String, String), u64>;

/// Counts and compares; `write` keeps what was counted instead.
pub(crate) fn run(report: &mut Report, write: bool) {
    if !there()
        && let Err(why) = debian::install_one("valgrind", there)
    {
        return report.cannot_run("instructions", &why);
    }
    let counted = match count() {
        Ok(counted) => counted,
        Err(why) => return report.note("instructions", Err(why), Duration::ZERO),
    };
    let known = match read() {
        Ok(known) => known,
        Err(why) => return report.note("instructions", Err(why), Duration::ZERO),
    };
    if write {
        let mut all = known;
        all.extend(counted);
        let kept = fs::write(file(), text(&all)).map_err(|error| error.to_string());
        return report.note("instructions", kept.map(|()| "kept".to_owned()), Duration::ZERO);
    }
    for ((compiler, operation), now) in &counted {
        match known.get(&(compiler.clone(), operation.clone())) {
            Some(was) => report.note(operation, judge(*was, *now), Duration::ZERO),
            None => report.cannot_run(
                operation,
                &format!("{now} instructions, and no figure for {compiler}: keep it with --write"),
            ),
        }
    }
}

fn there() -> bool {
    says_yes("valgrind", &["--version"])
}

fn judge(was: u64, now: u64) -> Result<String, String> {
    let change = format!("{now} instructions, {was} are checked in");
    if now * 100 > was * (100 + TOLERANCE) {
        return Err(format!("{change}: more than {TOLERANCE} % above"));
    }
    if now * 100 < was * (100 - TOLERANCE) {
        return Ok(format!("{change}: keep the gain with --write"));
    }
    Ok(change)
}

fn count() -> Result<Figures, String> {
    let version = Job::new("rustc").args(["--version"]).output()?;
    let compiler = version.split(' ').nth(1).ok_or("rustc does not tell its version")?.to_owned();
    let mut figures = Figures::new();
    for package in BENCHES {
        let args = ["bench", "--quiet", "--package", package, "--bench", "instructions"];
        let output = Job::cargo().args(args).output()?;
        for (operation, count) in output.lines().filter_map(figure) {
            if HELD.contains(&operation) {
                figures.insert((compiler.clone(), operation.to_owned()), count);
            }
        }
    }
    let missing = HELD
        .iter()
        .find(|operation| !figures.contains_key(&(compiler.clone(), (**operation).to_owned())));
    missing.map_or(Ok(figures), |operation| Err(format!("nothing was counted for {operation}")))
}

/// An operation and its figure, of a line that a benchmark prints.
fn figure(line: &str) -> Option<(&str, u64)> {
    let (left, _) = line.split_once(" instructions")?;
    let (operation, count) = left.trim_end().rsplit_once(' ')?;
    Some((operation.trim(), count.parse().ok()?))
}

fn file() -> PathBuf {
    root().join("xtask/instructions.txt")
}

fn read() -> Result<Figures, String> {
    let text =
        fs::read_to_string(file()).map_err(|error| format!("{}: {error}", file().display()))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Figures, String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let figure = |line: &str| {
        let mut words = line.split_whitespace();
        let (compiler, operation) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(((compiler, operation), words.next()?.parse().ok()?))
    };
    lines.map(|line| figure(line).ok_or(format!("not a figure: {line}"))).collect()
}

fn text(figures: &Figures) -> String {
    let mut out =
        "# Instructions under callgrind, by compiler: `cargo xtask bench check [--write]`.\n"
            .to_owned();
    for ((compiler, operation), count) in figures {
        out += &format!("{compiler} {operation} {count}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_benchmarks_print_and_what_is_kept() {
        let line = "seal_request         2412 instructions   4.90 x";
        assert_eq!(figure(line), Some(("seal_request", 2412)));
        assert_eq!(figure("bare seal             492 instructions"), Some(("bare seal", 492)));
        assert_eq!(figure("running 3 tests"), None);
        let figures = parse("# about\n1.95.0 call 100000\n").unwrap();
        assert_eq!(parse(&text(&figures)), Ok(figures));
        assert!(parse("1.95.0 call many").is_err());
    }

    #[test]
    fn a_rise_fails_and_a_gain_is_to_be_kept() {
        assert!(judge(1000, 1051).is_err());
        assert!(judge(1000, 1050).is_ok());
        assert!(judge(1000, 940).unwrap().contains("--write"));
    }
}
