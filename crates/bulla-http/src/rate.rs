//! Token buckets: how often somebody may ask.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Buckets that are kept at the most; whoever comes beyond them shares one.
const MAX_BUCKETS: usize = 16_384;

/// How often: `rate` a second over time, and `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests a second, over time.
    pub rate: f64,
    /// Requests at once.
    pub burst: u32,
}

impl Rate {
    /// How long an empty bucket takes to be full.
    pub(crate) fn window(self) -> Duration {
        Duration::from_secs_f64((f64::from(self.burst) / self.rate).clamp(0.001, 86_400.0))
    }
}

/// What came of asking a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drawn {
    /// It may go on; so many are left.
    Yes(u32),
    /// It has to wait so long.
    No(Duration),
}

/// A bucket for each of many.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    of: HashMap<K, Bucket>,
    shared: Bucket,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn filled(self, rate: Rate, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * rate.rate).min(rate.burst.into())
    }

    fn draw(&mut self, rate: Rate, now: Instant, amount: f64) -> Drawn {
        let left = self.filled(rate, now);
        let enough = left >= 1.0;
        let left = if enough { left - amount } else { left };
        (self.left, self.at) = (left, now);
        if enough {
            return Drawn::Yes(left as u32);
        }
        Drawn::No(Duration::from_secs_f64(((1.0 - left) / rate.rate).clamp(0.001, 86_400.0)))
    }
}

impl<K: Eq + Hash> Buckets<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        let shared = Bucket { left: rate.burst.into(), at: Instant::now() };
        Self { rate, held: Mutex::new(Held { of: HashMap::new(), shared }) }
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one out.
    pub(crate) fn draw(&self, key: K, now: Instant) -> Drawn {
        self.with(key, now, 1.0)
    }

    /// Whether there is one left.
    pub(crate) fn look(&self, key: K, now: Instant) -> Drawn {
        self.with(key, now, 0.0)
    }

    fn with(&self, key: K, now: Instant, amount: f64) -> Drawn {
        let rate = self.rate;
        let mut held = match self.held.lock() {
            Ok(held) => held,
            Err(broken) => broken.into_inner(),
        };
        let full = f64::from(rate.burst);
        if !held.of.contains_key(&key) {
            if amount == 0.0 {
                return Drawn::Yes(rate.burst);
            }
            if held.of.len() >= MAX_BUCKETS {
                // A full bucket says no more than none.
                held.of.retain(|_, bucket| bucket.filled(rate, now) < full);
            }
            if held.of.len() >= MAX_BUCKETS {
                return held.shared.draw(rate, now, amount);
            }
        }
        held.of.entry(key).or_insert(Bucket { left: full, at: now }).draw(rate, now, amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { rate: 2.0, burst: 3 };

    #[test]
    fn a_bucket_empties_and_fills() {
        let buckets = Buckets::new(RATE);
        let start = Instant::now();
        for left in [2, 1, 0] {
            assert_eq!(buckets.draw("a", start), Drawn::Yes(left));
        }
        assert_eq!(buckets.draw("a", start), Drawn::No(Duration::from_millis(500)));
        assert_eq!(buckets.look("a", start), Drawn::No(Duration::from_millis(500)));
        assert_eq!(buckets.draw("b", start), Drawn::Yes(2));
        let later = start + Duration::from_millis(500);
        assert_eq!(buckets.look("a", later), Drawn::Yes(1));
        assert_eq!(buckets.draw("a", later), Drawn::Yes(0));
        assert!(matches!(buckets.draw("a", later), Drawn::No(_)));
        // Never more than the burst.
        assert_eq!(buckets.draw("a", start + Duration::from_secs(3600)), Drawn::Yes(2));
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let buckets = Buckets::new(RATE);
        let start = Instant::now();
        for n in 0..MAX_BUCKETS {
            assert_eq!(buckets.draw(n, start), Drawn::Yes(2));
        }
        // All others together.
        for n in 0..3 {
            assert!(matches!(buckets.draw(MAX_BUCKETS + n, start), Drawn::Yes(_)));
        }
        assert!(matches!(buckets.draw(MAX_BUCKETS + 9, start), Drawn::No(_)));
        assert_eq!(buckets.held.lock().unwrap().of.len(), MAX_BUCKETS);
        // Those that are full again make room.
        let later = start + Duration::from_secs(60);
        assert_eq!(buckets.draw(MAX_BUCKETS + 9, later), Drawn::Yes(2));
        assert_eq!(buckets.held.lock().unwrap().of.len(), 1);
    }
}
