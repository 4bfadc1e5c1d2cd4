//! The programs that cargo builds of the tests, and running several of them at once: most of
//! their time they wait, for servers to start and for clocks to pass.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::console::took;
use crate::run::Job;

/// A suite that has not ended by then hangs.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What takes longest is begun first, so that nothing long is left over at the end. A name that
/// is not here runs later, and nothing else.
const LONGEST: &[&str] = &[
    "bulla-chaos runs",
    "bulla-python pytest",
    "bulla-attack rabbit",
    "bulla-attack mutants",
    "bulla-cli life",
    "bulla-broker rabbit",
    "bulla-cli rotation",
    "bulla-cli broker_users",
    "bulla-services rabbitmq",
    "bulla-keystore postgres_control",
    "bulla-transport rabbit",
    "bulla-cli processes",
];

/// One program with tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    /// The crate's name.
    pub(crate) package: String,
    /// The name of the target.
    target: String,
    /// The crate's folder, where its tests run.
    folder: PathBuf,
    program: PathBuf,
}

/// How a program ended, and all that it wrote.
pub(crate) struct Ended {
    pub(crate) suite: Suite,
    pub(crate) output: String,
    pub(crate) result: Result<(), String>,
}

impl Suite {
    /// Reads cargo's messages.
    ///
    /// # Errors
    /// There is no program with tests, or one that is not understood: it would be left out, and
    /// nobody would miss it.
    pub(crate) fn read_all(messages: &str) -> Result<Vec<Self>, String> {
        let programs = messages.lines().filter(|line| is_program_of_tests(line));
        let understood = |line| {
            Self::read(line).ok_or_else(|| format!("cargo's message is not understood: {line}"))
        };
        let suites: Vec<_> = programs.map(understood).collect::<Result<_, _>>()?;
        if suites.is_empty() {
            return Err("cargo named no program with tests".to_owned());
        }
        Ok(suites)
    }

    fn read(line: &str) -> Option<Self> {
        let program = text(line, "executable")?;
        let manifest = PathBuf::from(text(line, "manifest_path")?);
        let folder = manifest.parent()?.to_owned();
        let id = text(line, "package_id")?.rsplit('#').next()?;
        let package = match id.split_once('@') {
            Some((name, _)) => name.to_owned(),
            None => folder.file_name()?.to_string_lossy().into_owned(),
        };
        let target = line.split_once(r#""target":"#)?.1;
        let target = text(target, "name")?.to_owned();
        Some(Self { package, target, folder, program: PathBuf::from(program) })
    }

    /// Crate and target.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.package, self.target)
    }

    fn rank(&self) -> usize {
        let name = self.name();
        LONGEST.iter().position(|long| *long == name).unwrap_or(LONGEST.len())
    }

    fn run(self, require: bool) -> Ended {
        println!("     begun {}", self.name());
        let output = Arc::<Mutex<String>>::default();
        let into = Arc::clone(&output);
        let mut job = Job::new(&self.program)
            .within(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .limit(LIMIT);
        if require {
            // A test that still finds no server must not pass for having been skipped.
            job = job.env("BULLA_TEST_REQUIRE", "1");
        }
        let begun = Instant::now();
        let result = job.lines(move |line| {
            let mut output = into.lock().unwrap_or_else(PoisonError::into_inner);
            output.push_str(line);
            output.push('\n');
        });
        let output = std::mem::take(&mut *output.lock().unwrap_or_else(PoisonError::into_inner));
        println!("\n     Ran {} in {}\n{output}", self.name(), took(begun.elapsed()));
        Ended { suite: self, output, result }
    }
}

/// Runs them all, as many at once as there are processors. `require`: a server that is missing is
/// a failure.
pub(crate) fn run(mut suites: Vec<Suite>, require: bool) -> Vec<Ended> {
    let lanes = thread::available_parallelism().map_or(2, NonZero::get).max(2);
    suites.sort_by_key(|suite| std::cmp::Reverse(suite.rank()));
    let due = Mutex::new(suites);
    let ended = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                let next = || due.lock().unwrap_or_else(PoisonError::into_inner).pop();
                while let Some(suite) = next() {
                    let done = suite.run(require);
                    ended.lock().unwrap_or_else(PoisonError::into_inner).push(done);
                }
            });
        }
    });
    ended.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a message is about a program whose profile, and not only its target, is one of tests.
fn is_program_of_tests(line: &str) -> bool {
    if !line.contains(r#""reason":"compiler-artifact""#) || line.contains(r#""executable":null"#) {
        return false;
    }
    let profile = line.split_once(r#""profile":{"#).map_or("", |(_, rest)| rest);
    profile.split('}').next().is_some_and(|profile| profile.contains(r#""test":true"#))
}

/// The text of a member. Cargo writes no spaces, and our paths have nothing to escape.
fn text<'a>(line: &'a str, member: &str) -> Option<&'a str> {
    let rest = line.split_once(&format!(r#""{member}":""#))?.1;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///b/crates/bulla-seal#0.1.0","manifest_path":"/b/crates/bulla-seal/Cargo.toml","target":{"kind":["lib"],"crate_types":["lib"],"name":"bulla_seal","src_path":"/b/x.rs","doctest":true,"test":true},"profile":{"opt_level":"0","test":true},"features":[],"filenames":["/b/t/bulla_seal-4"],"executable":"/b/t/bulla_seal-4","fresh":false}"#;

    #[test]
    fn programs_with_tests_are_told_from_others() {
        let suite = Suite::read(LIB).unwrap();
        assert_eq!(suite.name(), "bulla-seal bulla_seal");
        assert_eq!(suite.folder, PathBuf::from("/b/crates/bulla-seal"));
        assert_eq!(suite.program, PathBuf::from("/b/t/bulla_seal-4"));
        // A folder may have another name than its crate.
        let named = LIB.replace("crates/bulla-seal#0.1.0", "tests/services#bulla-services@0.1.0");
        assert_eq!(Suite::read(&named).unwrap().package, "bulla-services");
        // A program that is no test, though its target could be tested; a library.
        let program =
            LIB.replace(r#""opt_level":"0","test":true"#, r#""opt_level":"0","test":false"#);
        let library = LIB.replace(r#""/b/t/bulla_seal-4","fresh""#, r#"null,"fresh""#);
        let all = [&program, LIB, "{\"reason\":\"build-finished\"}", &library].join("\n");
        assert_eq!(Suite::read_all(&all).unwrap(), [suite]);
    }

    #[test]
    fn nothing_is_left_out_in_silence() {
        assert!(Suite::read_all("").is_err());
        assert!(Suite::read_all("warning: unused").is_err());
        let odd = LIB.replace("manifest_path", "manifest");
        assert!(Suite::read_all(&[LIB, &odd].join("\n")).is_err());
    }

    #[test]
    fn each_is_run_and_what_it_wrote_is_kept() {
        let suite = |target: &str| Suite {
            package: "p".to_owned(),
            target: target.to_owned(),
            folder: std::env::temp_dir(),
            program: PathBuf::from(target),
        };
        let mut ended = run(vec![suite("pwd"), suite("false"), suite("true")], true);
        ended.sort_by_key(|ended| ended.suite.name());
        let [no, pwd, yes] = &ended[..] else { panic!("three were to run") };
        assert!(no.result.is_err() && yes.result.is_ok() && pwd.result.is_ok());
        assert_eq!(pwd.output.trim_end(), std::env::temp_dir().to_string_lossy());
    }

    #[test]
    fn the_long_ones_are_there() {
        for long in LONGEST {
            let (package, target) = long.split_once(' ').unwrap();
            let crates = ["crates", "tests", "."].map(|folder| crate::console::root().join(folder));
            let found = crates.iter().any(|folder| {
                let short = package.strip_prefix("bulla-").unwrap_or(package);
                [package, short].iter().any(|name| {
                    folder.join(name).join("tests").join(format!("{target}.rs")).is_file()
                })
            });
            assert!(found, "{long}");
        }
    }
}
