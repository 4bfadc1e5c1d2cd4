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

/// What has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) crates: Vec<Tests>,
    /// The names of the tests that failed.
    pub(crate) failures: Vec<String>,
    /// What cargo says to run again.
    pub(crate) again: Vec<String>,
}

impl Outcome {
    /// Takes in one line.
    pub(crate) fn line(&mut self, line: &str) {
        let plain = without_colour(line);
        let text = plain.trim_start();
        if let Some(rest) = text.strip_prefix("Running unittests ") {
            self.begin(binary(rest));
        } else if let Some(name) = text.strip_prefix("Doc-tests ") {
            self.begin(name);
        } else if let Some(rest) = text.strip_prefix("test result: ") {
            self.count(rest);
        } else if let Some(name) = text.strip_prefix("test ").and_then(failed) {
            self.failures.push(name.to_owned());
        } else if text.starts_with("`-p ") {
            self.again.push(text.trim_matches('`').to_owned());
        }
    }

    /// How many tests passed and failed.
    pub(crate) fn totals(&self) -> (u32, u32) {
        let passed = self.crates.iter().map(|tests| tests.passed).sum();
        (passed, self.crates.iter().map(|tests| tests.failed).sum())
    }

    fn begin(&mut self, name: &str) {
        let of = name.replace('_', "-");
        // Doc tests come last, when every crate has been seen.
        if let Some(at) = self.crates.iter().position(|tests| tests.of == of) {
            let tests = self.crates.remove(at);
            self.crates.push(tests);
        } else {
            self.crates.push(Tests { of, ..Tests::default() });
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

/// `src/lib.rs (target/debug/deps/bulla_seal-0f1e…)` is about `bulla_seal`.
fn binary(rest: &str) -> &str {
    let file = rest.rsplit('/').next().unwrap_or(rest);
    file.rsplit_once('-').map_or(file, |(name, _)| name)
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

    const OUTPUT: &str = "\
     Running unittests src/lib.rs (target/debug/deps/bulla_seal-0f1e2d)
test cbor::tests::one ... ok
test cbor::tests::two ... FAILED
test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.50s
     \x1b[1m\x1b[32mRunning\x1b[0m tests/walk.rs (target/debug/deps/walk-0f1e2d)
test result: \x1b[32mok\x1b[0m. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s
     Running unittests src/main.rs (target/debug/deps/xtask-77)
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests bulla_seal
test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.25s
error: 1 target failed:
    `-p bulla-seal --lib`
";

    #[test]
    fn counts_by_crate() {
        let mut outcome = Outcome::default();
        OUTPUT.lines().for_each(|line| outcome.line(line));
        assert_eq!(outcome.totals(), (13, 1));
        assert_eq!(outcome.failures, ["cbor::tests::two"]);
        assert_eq!(outcome.again, ["-p bulla-seal --lib"]);
        let seal = outcome.crates.iter().find(|tests| tests.of == "bulla-seal").unwrap();
        assert_eq!((seal.passed, seal.failed, seal.ignored), (9, 1, 2));
        assert_eq!(seal.time, Duration::from_secs(2));
    }
}
