//! What was told, compared with what ran.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::caller::Told;

/// The count of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Calls made.
    pub calls: u64,
    /// Callers who got the value.
    pub values: u64,
    /// Callers who were told of a failure.
    pub told_of_failure: u64,
    /// Of what failure they were told.
    pub failures: BTreeMap<String, u64>,
    /// Calls that ran, once or more.
    pub executed: u64,
    /// Calls that ran more than once.
    pub executed_twice: u64,
    /// Callers who were told nothing, or had a value of a call that did not run or of another.
    pub lost_silently: u64,
    /// Executions of calls that nobody made.
    pub strange: u64,
}

impl Tally {
    pub(crate) fn count(told: &[Told], executions: &[u64]) -> Self {
        let mut runs = vec![0u64; told.len()];
        let mut tally = Self { calls: told.len() as u64, ..Self::default() };
        for n in executions {
            match usize::try_from(*n).ok().and_then(|n| runs.get_mut(n)) {
                Some(runs) => *runs += 1,
                None => tally.strange += 1,
            }
        }
        for ((n, told), runs) in (0..).zip(told).zip(runs) {
            tally.one(n, told, runs);
        }
        tally
    }

    fn one(&mut self, n: u64, told: &Told, runs: u64) {
        self.executed += u64::from(runs > 0);
        self.executed_twice += u64::from(runs > 1);
        match told {
            Told::Value(value) => {
                self.values += 1;
                self.lost_silently += u64::from(*value != n || runs == 0);
            }
            Told::Failure(name) => {
                self.told_of_failure += 1;
                *self.failures.entry(name.clone()).or_default() += 1;
            }
            Told::Nothing => self.lost_silently += 1,
        }
    }

    /// Whether nothing ran twice and nobody was left in the dark, and most calls came through:
    /// a run in which nothing works shows nothing.
    pub fn passed(&self) -> bool {
        self.executed_twice == 0
            && self.lost_silently == 0
            && self.strange == 0
            && self.values > self.calls / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Told {
        Told::Failure("Timeout".to_owned())
    }

    #[test]
    fn every_way_to_fail_is_counted() {
        let good = Tally::count(&[Told::Value(0), Told::Value(1), failure()], &[1, 0, 2]);
        assert!(good.passed(), "{good:?}");
        assert_eq!((good.values, good.told_of_failure, good.executed), (2, 1, 3));
        assert_eq!(good.failures["Timeout"], 1);
        let bad = |told: &[Told], executions: &[u64]| Tally::count(told, executions);
        let values = [Told::Value(0), Told::Value(1)];
        assert_eq!(bad(&values, &[0, 1, 1]).executed_twice, 1);
        assert_eq!(bad(&[Told::Value(0), failure()], &[0, 1, 1]).executed_twice, 1);
        assert_eq!(bad(&values, &[0]).lost_silently, 1, "a value of what did not run");
        assert_eq!(bad(&[Told::Value(0), Told::Value(0)], &[0, 1]).lost_silently, 1);
        assert_eq!(bad(&[Told::Value(0), Told::Nothing], &[0]).lost_silently, 1);
        assert_eq!(bad(&values, &[0, 1, 2]).strange, 1);
        assert!(!bad(&[failure(), failure()], &[]).passed(), "nothing worked");
    }
}
