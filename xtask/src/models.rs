//! `cargo xtask models`: the symbolic models, verdict by verdict as `models/symbolic/expected.txt`
//! has them, and the state models at their full size. `--full` adds the slow symbolic runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::console::{root, step, target};
use crate::report::Report;
use crate::run::Job;

/// A tool, never a dependency: it is built apart, and cached.
const TOOL: &str = "verifpal";
const VERSION: &str = "1.6.7";

pub(crate) fn run(report: &mut Report, full: bool) {
    report.suite("state models", "State models, full size (release build)", || {
        let args = ["run", "--release", "--quiet", "--package", "bulla-models", "--", "--full"];
        Job::cargo().args(args).run().map(|()| String::new())
    });
    step(&format!("Building {TOOL} {VERSION} (once)"));
    symbolic(report, full, prepare());
}

/// The tool, being built beside whatever else is done.
pub(crate) struct Tool(JoinHandle<Result<PathBuf, String>>);

/// Builds the tool unless it is there, and gives way to everything else.
pub(crate) fn prepare() -> Tool {
    Tool(thread::spawn(tool))
}

/// Every verdict of every symbolic model; the slow runs too if `full`.
pub(crate) fn symbolic(report: &mut Report, full: bool, tool: Tool) {
    let built = tool.0.join().unwrap_or_else(|_| Err(format!("building {TOOL} panicked")));
    let tool = match built {
        Ok(tool) => tool,
        Err(why) => return report.cannot_run("symbolic models", &why),
    };
    let expected = match expected() {
        Ok(expected) => expected,
        Err(why) => return report.note("symbolic models", Err(why), Duration::ZERO),
    };
    step("Symbolic models");
    let due: Vec<_> = expected.iter().filter(|case| full || !case.slow).collect();
    for case in &due {
        let name = format!("{}, {}", case.model, sessions(case.sessions));
        let begun = std::time::Instant::now();
        report.note(&name, check(&tool, case), begun.elapsed());
    }
    report.note("every model is expected", complete(&expected), Duration::ZERO);
}

fn sessions(count: u32) -> String {
    if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") }
}

fn tool() -> Result<PathBuf, String> {
    let home = target().join("tools").join(format!("{TOOL}-{VERSION}"));
    let program = home.join("bin").join(TOOL);
    if program.is_file() {
        return Ok(program);
    }
    let output = Arc::<Mutex<String>>::default();
    let into = Arc::clone(&output);
    let built = Job::patient_cargo()
        // It asks for a newer compiler than ours and does not need it.
        .args(["install", TOOL, "--version", &format!("={VERSION}"), "--locked"])
        .args(["--ignore-rust-version", "--root", &home.to_string_lossy()])
        .env("CARGO_TARGET_DIR", target().join("tools").join("build"))
        // Its own profile takes minutes more to build than it saves in running here.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .lines(move |line| {
            let mut output = into.lock().unwrap_or_else(PoisonError::into_inner);
            output.push('\n');
            output.push_str(line);
        });
    built.map_err(|why| why + &output.lock().unwrap_or_else(PoisonError::into_inner))?;
    Ok(program)
}

/// One run of one model, and the verdict of each of its queries.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    model: String,
    sessions: u32,
    /// Only with `--full`.
    slow: bool,
    verdicts: BTreeMap<String, String>,
}

fn folder() -> PathBuf {
    root().join("models").join("symbolic")
}

fn expected() -> Result<Vec<Case>, String> {
    let file = folder().join("expected.txt");
    let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    parse(&text)
}

/// `model NAME SESSIONS [slow]`, then a line `VERDICT QUERY` for each query.
fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let wrong = || format!("expected.txt: can't read `{line}`");
        let (word, rest) = line.split_once(' ').ok_or_else(wrong)?;
        if word != "model" {
            let case = cases.last_mut().ok_or_else(wrong)?;
            case.verdicts.insert(rest.to_owned(), word.to_owned());
            continue;
        }
        let mut words = rest.split(' ');
        let (model, sessions) = (words.next(), words.next().and_then(|n| n.parse().ok()));
        let (model, sessions) = model.zip(sessions).ok_or_else(wrong)?;
        let slow = words.next() == Some("slow");
        let (model, verdicts) = (model.to_owned(), BTreeMap::new());
        cases.push(Case { model, sessions, slow, verdicts });
    }
    Ok(cases)
}

/// A model that nobody expects anything of would be checked by nobody.
fn complete(expected: &[Case]) -> Result<String, String> {
    let files = fs::read_dir(folder()).map_err(|error| error.to_string())?;
    for file in files {
        let name = file.map_err(|error| error.to_string())?.file_name();
        let Some(model) = name.to_string_lossy().strip_suffix(".vp").map(str::to_owned) else {
            continue;
        };
        if !expected.iter().any(|case| case.model == model) {
            return Err(format!("expected.txt says nothing of `{model}`"));
        }
    }
    Ok(String::new())
}

fn check(tool: &PathBuf, case: &Case) -> Result<String, String> {
    let file = folder().join(format!("{}.vp", case.model));
    let args = ["verify".to_owned(), file.display().to_string(), "--sessions".to_owned()];
    let output = Job::new(tool)
        .args(args)
        .args([case.sessions.to_string()])
        .limit(Duration::from_secs(20 * 60))
        .output()?;
    compare(&verdicts(&output), &case.verdicts)
}

fn compare(
    found: &BTreeMap<String, String>,
    expected: &BTreeMap<String, String>,
) -> Result<String, String> {
    if found == expected {
        let count = |verdict| found.values().filter(|found| *found == verdict).count();
        return Ok(format!(
            "{} hold, {} broken as expected, {} duplicates",
            count("holds"),
            count("broken"),
            count("duplicate")
        ));
    }
    let mut wrong = String::from("verdicts differ");
    for query in found.keys().chain(expected.keys()) {
        let (is, was) = (found.get(query), expected.get(query));
        if is != was && !wrong.contains(query.as_str()) {
            wrong += &format!("\n    {query}: expected {was:?}, found {is:?}");
        }
    }
    Err(wrong)
}

/// `PASS + QUERY  [..]` and `FAIL x QUERY  [..]` of the report; what is found on the way has a
/// number in round brackets and is repeated at the end.
fn verdicts(output: &str) -> BTreeMap<String, String> {
    let mut verdicts = BTreeMap::new();
    for line in output.lines().map(str::trim) {
        let (passed, rest) = match (line.strip_prefix("PASS + "), line.strip_prefix("FAIL x ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => continue,
        };
        let (query, note) = rest.split_once("  [").unwrap_or((rest, ""));
        if !query.contains("? ") || query.contains("(Analysis") {
            continue;
        }
        let verdict = match (passed, note.starts_with("duplicate")) {
            (true, _) => "holds",
            (false, true) => "duplicate",
            (false, false) => "broken",
        };
        verdicts.insert(query.trim().to_owned(), verdict.to_owned());
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "
     FAIL x authentication? A -> B: e1 (Analysis 4)
     PASS + confidentiality? q  [search exhausted at 2 sessions]
     FAIL x authentication? A -> B: e1  [duplicate acceptance: no recipient-generated context]
     FAIL x confidentiality? r
     FAIL x 2 of 3 queries failed.
     PASS + All 5 queries pass.
";

    #[test]
    fn verdicts_are_read_from_the_report_and_compared() {
        let expected = "# why\nmodel x 2 slow\nholds confidentiality? q\nbroken confidentiality? r\n\
                        duplicate authentication? A -> B: e1\n\nmodel y 1\nholds freshness? q\n";
        let cases = parse(expected).unwrap();
        assert_eq!(cases[0].verdicts, verdicts(REPORT));
        assert!(compare(&verdicts(REPORT), &cases[0].verdicts).is_ok());
        // A query that holds where it should not, one that is missing, a tool that says nothing.
        let mut other = cases[0].verdicts.clone();
        other.insert("confidentiality? r".to_owned(), "holds".to_owned());
        assert!(compare(&verdicts(REPORT), &other).unwrap_err().contains("confidentiality? r"));
        assert!(compare(&verdicts(REPORT), &cases[1].verdicts).is_err());
        assert!(compare(&verdicts(""), &cases[0].verdicts).is_err());
        assert_eq!((cases[0].sessions, cases[0].slow, cases[1].slow), (2, true, false));
        assert_eq!(cases.len(), 2);
        assert!(parse("holds x").is_err());
        assert!(parse("model x many").is_err());
    }

    #[test]
    fn what_is_checked_in_can_be_read_and_names_every_model() {
        let expected = expected().unwrap();
        assert!(complete(&expected).is_ok(), "{:?}", complete(&expected));
        // Each broken twin must be there with something broken.
        let broken = |case: &&Case| case.verdicts.values().any(|verdict| verdict == "broken");
        assert!(expected.iter().filter(broken).count() >= 10);
    }
}
