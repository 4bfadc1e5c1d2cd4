//! How long things took, counted without a lock.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in seconds; what took longer is in one more.
pub const BOUNDS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 5.0, 15.0, 60.0,
];

/// The same in nanoseconds.
const BOUNDS_NS: [u64; BOUNDS.len()] = {
    let mut out = [0; BOUNDS.len()];
    let mut at = 0;
    while at < BOUNDS.len() {
        #[expect(clippy::indexing_slicing, reason = "below the length; evaluated at compile time")]
        {
            out[at] = (BOUNDS[at] * 1e9) as u64;
        }
        at += 1;
    }
    out
};

/// Threads that count at the same time write to different lines of the cache.
const SHARDS: usize = 8;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A histogram of durations: two additions to a cache line that few share.
#[derive(Debug, Default)]
pub struct Histogram {
    shards: [Shard; SHARDS],
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// What a histogram had counted when it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Durations {
    /// How many there were in each bucket, each by itself; the last is for what took longer.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All of them together, in seconds.
    pub sum: f64,
}

impl Durations {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < nanos);
        let Some(shard) = self.shards.get(own_shard()) else { return };
        if let Some(count) = shard.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        shard.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Durations {
        let mut buckets = [0; BOUNDS.len() + 1];
        let mut nanos = 0u64;
        for shard in &self.shards {
            for (sum, count) in buckets.iter_mut().zip(&shard.buckets) {
                *sum += count.load(Ordering::Relaxed);
            }
            nanos = nanos.wrapping_add(shard.nanos.load(Ordering::Relaxed));
        }
        Durations { buckets, sum: Duration::from_nanos(nanos).as_secs_f64() }
    }
}

fn own_shard() -> usize {
    SHARD.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        own.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_of_its_bound() {
        let histogram = Histogram::default();
        for (micros, bucket) in [(0, 0), (50, 0), (51, 1), (1000, 4), (60_000_000, 16)] {
            let before = histogram.read().buckets[bucket];
            histogram.observe(Duration::from_micros(micros));
            assert_eq!(histogram.read().buckets[bucket], before + 1, "{micros}");
        }
        histogram.observe(Duration::from_secs(61));
        assert_eq!(histogram.read().buckets[17], 1);
        assert_eq!(histogram.read().count(), 6);
    }

    #[test]
    fn what_threads_count_is_one_sum() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| (0..100).for_each(|_| histogram.observe(Duration::from_millis(2))));
            }
        });
        let read = histogram.read();
        assert_eq!(read.count(), 200 * SHARDS as u64);
        assert!((read.sum - 0.4 * SHARDS as f64).abs() < 1e-6, "{}", read.sum);
    }
}
