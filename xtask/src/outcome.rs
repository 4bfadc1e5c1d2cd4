//! Reads what `cargo test` writes: which crate, how many tests, how they ended.

use std::time::Duration;

/// The tests of one crate.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tests {
    pub(crate) of: String,
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) ignored: u32,
    pub(crate) time: Duration,
}

/// How the last line of a program with tests begins.
const RESULT: &str = "test result: ";

/// What has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) crates: Vec<Tests>,
    /// What failed: a test's name, or a program and how it ended.
    pub(crate) failures: Vec<String>,
}

impl Outcome {
    /// Takes in all that one program of a crate's tests wrote, and how it ended.
    pub(crate) fn program(
        &mut self,
        of: &str,
        name: &str,
        output: &str,
        ended: &Result<(), String>,
    ) {
        let before = self.failures.len();
        self.begin(of);
        for line in output.lines() {
            self.line(name, line);
        }
        if self.failures.len() > before {
            return;
        }
        match ended {
            // One that was killed names no test.
            Err(why) => self.failures.push(format!("{name}: {why}")),
            Ok(()) if !output.lines().any(|line| without_colour(line).starts_with(RESULT)) => {
                self.failures.push(format!("{name}: it ended without saying how its tests did"));
            }
            Ok(()) => {}
        }
    }

    /// Takes in what `cargo test --doc` wrote.
    pub(crate) fn doc_tests(&mut self, output: &str, ended: &Result<(), String>) {
        let before = self.failures.len();
        for line in output.lines() {
            let plain = without_colour(line);
            match plain.trim_start().strip_prefix("Doc-tests ") {
                Some(name) => self.begin(&name.replace('_', "-")),
                None => self.line("examples in the documentation", line),
            }
        }
        if let Err(why) = ended
            && self.failures.len() == before
        {
            self.failures.push(why.clone());
        }
    }

    fn line(&mut self, of: &str, line: &str) {
        let plain = without_colour(line);
        let text = plain.trim_start();
        if let Some(rest) = text.strip_prefix(RESULT) {
            self.count(rest);
        } else if let Some(name) = text.strip_prefix("test ").and_then(failed) {
            self.failures.push(format!("{of}: {name}"));
        }
    }

    /// How many tests passed and failed.
    pub(crate) fn totals(&self) -> (u32, u32) {
        let passed = self.crates.iter().map(|tests| tests.passed).sum();
        (passed, self.crates.iter().map(|tests| tests.failed).sum())
    }

    /// The lines that follow are about this crate.
    fn begin(&mut self, of: &str) {
        if let Some(at) = self.crates.iter().position(|tests| tests.of == of) {
            let tests = self.crates.remove(at);
            self.crates.push(tests);
        } else {
            self.crates.push(Tests { of: of.to_owned(), ..Tests::default() });
        }
    }

    fn count(&mut self, result: &str) {
        let Some(tests) = self.crates.last_mut() else { return };
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            match what {
                "passed" => tests.passed += number,
                "failed" => tests.failed += number,
                "ignored" => tests.ignored += number,
                _ => {}
            }
        }
        let time = result.rsplit("finished in ").next().and_then(|rest| rest.strip_suffix('s'));
        if let Some(Ok(seconds)) = time.map(str::parse::<f64>) {
            tests.time += Duration::try_from_secs_f64(seconds).unwrap_or_default();
        }
    }
}

fn failed(rest: &str) -> Option<&str> {
    rest.strip_suffix(" ... FAILED")
}

fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain += before;
        rest = after.find('m').and_then(|end| after.get(end + 1..)).unwrap_or_default();
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "\
test cbor::tests::one ... ok
test cbor::tests::two ... FAILED
test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.50s
";
    const WALK: &str = "\
test result: \x1b[32mok\x1b[0m. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s
";
    const DOC: &str = "\
   Doc-tests bulla_seal
test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.25s
";

    #[test]
    fn counts_by_crate() {
        let mut outcome = Outcome::default();
        let failed = Err("exit code 101".to_owned());
        outcome.program("bulla-seal", "bulla-seal unit", UNIT, &failed);
        outcome.program("xtask", "xtask xtask", &UNIT.replace("FAILED\n", "ok\n"), &Ok(()));
        outcome.program("bulla-seal", "bulla-seal walk", WALK, &Ok(()));
        outcome.doc_tests(DOC, &Ok(()));
        assert_eq!(outcome.totals(), (10, 2));
        assert_eq!(outcome.failures, ["bulla-seal unit: cbor::tests::two"]);
        let seal = outcome.crates.iter().find(|tests| tests.of == "bulla-seal").unwrap();
        assert_eq!((seal.passed, seal.failed, seal.ignored), (9, 1, 2));
        assert_eq!(seal.time, Duration::from_secs(2));
    }

    #[test]
    fn a_program_that_was_killed_is_a_failure() {
        let mut outcome = Outcome::default();
        outcome.program("a", "a life", "test it ...", &Err("was stopped".to_owned()));
        outcome.doc_tests("", &Err("did not compile".to_owned()));
        assert_eq!(outcome.failures, ["a life: was stopped", "did not compile"]);
        // And one that leaves in the middle, however well.
        outcome.program("a", "a walk", "test it ... ok", &Ok(()));
        assert!(outcome.failures.last().unwrap().starts_with("a walk: it ended without"));
    }
}
