//! Medians, percentiles and how far to believe them.

use serde::Serialize;

/// A median with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Estimate {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Estimate {
    /// Of one figure a round. The interval is that of the sign test, which assumes nothing about
    /// how the figures are spread: the k-th smallest to the k-th largest, k such that the median
    /// lies outside with a chance of 5 % at the most. Fewer than six figures show no such
    /// interval; then it is their whole range.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|x| x.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let cut = outside(sorted.len());
        Some(Self {
            median: median(&sorted)?,
            low: *sorted.get(cut)?,
            high: *sorted.get(sorted.len().checked_sub(cut + 1)?)?,
        })
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some((sorted.get(low)? + sorted.get(high)?) / 2.0)
}

/// How many of `n` sorted figures lie outside the interval at each end: the most for which
/// P(Binomial(n, 1/2) <= that many) is at most 2.5 %.
fn outside(n: usize) -> usize {
    let (mut term, mut sum, mut cut) = (0.5f64.powi(i32::try_from(n).unwrap_or(i32::MAX)), 0.0, 0);
    loop {
        sum += term;
        if sum > 0.025 || cut >= n {
            return cut.saturating_sub(1);
        }
        term *= (n - cut) as f64 / (cut + 1) as f64;
        cut += 1;
    }
}

/// The value at or below which the share `p` of `values` lies; sorts them.
pub(super) fn percentile(values: &mut [u64], p: f64) -> Option<u64> {
    values.sort_unstable();
    let rank = (values.len() as f64 * p).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_sign_test() {
        // From tables of the binomial distribution.
        for (n, cut) in [(1, 0), (5, 0), (6, 0), (9, 1), (20, 5), (25, 7), (61, 22)] {
            assert_eq!(outside(n), cut, "{n}");
        }
        let figures = (1..=20).map(f64::from);
        let estimate = Estimate::of(figures).unwrap();
        assert_eq!(estimate, Estimate { median: 10.5, low: 6.0, high: 15.0 });
        assert_eq!(Estimate::of([]), None);
        let one = Estimate::of([2.0, f64::NAN]).unwrap();
        assert_eq!(one, Estimate { median: 2.0, low: 2.0, high: 2.0 });
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut values = [5, 1, 4, 2, 3];
        assert_eq!(percentile(&mut values, 0.5), Some(3));
        assert_eq!(percentile(&mut values, 0.99), Some(5));
        assert_eq!(percentile(&mut [], 0.5), None);
    }
}
