//! Notices a wall clock that jumps.

/// Compares the wall clock with the monotonic one. A jump by more than the skew counts as a lost
/// store (protocol section 7): call [`ClaimStore::declare_lost`](crate::ClaimStore::declare_lost)
/// and drop all sessions. A virtual machine that was suspended or rolled back shows up so, too.
#[derive(Debug, Clone)]
pub struct ClockWatch {
    skew_ms: u64,
    wall_ms: u64,
    monotonic_ms: u64,
}

impl ClockWatch {
    /// Starts to watch with one reading of both clocks.
    pub fn new(skew_s: u64, wall_ms: u64, monotonic_ms: u64) -> Self {
        Self { skew_ms: skew_s.saturating_mul(1000), wall_ms, monotonic_ms }
    }

    /// Takes the next reading, every second or so. Returns by how many milliseconds the wall
    /// clock went ahead of the monotonic one (or fell back) since the last, if that is more than
    /// the skew.
    pub fn observe(&mut self, wall_ms: u64, monotonic_ms: u64) -> Option<i64> {
        let expected = self.wall_ms.saturating_add(monotonic_ms.saturating_sub(self.monotonic_ms));
        (self.wall_ms, self.monotonic_ms) = (wall_ms, monotonic_ms);
        if wall_ms.abs_diff(expected) <= self.skew_ms {
            return None;
        }
        Some(i64::try_from(i128::from(wall_ms) - i128::from(expected)).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jumps_beyond_the_skew_are_reported_and_once() {
        let mut watch = ClockWatch::new(120, 1_000_000, 5000);
        assert_eq!(watch.observe(1_060_000, 65_000), None, "time passes");
        assert_eq!(watch.observe(1_181_000, 66_000), None, "120 s is the skew itself");
        assert_eq!(watch.observe(1_302_001, 67_000), Some(120_001));
        assert_eq!(watch.observe(1_303_001, 68_000), None, "a jump is one jump");
        assert_eq!(watch.observe(1_000_000, 69_000), Some(-304_001));
    }
}
