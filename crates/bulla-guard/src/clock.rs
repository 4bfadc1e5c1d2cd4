//! Notices a wall clock that jumps.

/// Compares the wall clock with the monotonic one. When they went apart by more than the skew, in
/// one jump or in several smaller ones, that counts as a lost store (protocol section 7): call
/// [`ClaimStore::declare_lost`](crate::ClaimStore::declare_lost) and drop all sessions. A virtual
/// machine that was suspended or rolled back shows up so, too.
///
/// Slewing by a time service moves both clocks alike and is no jump.
#[derive(Debug, Clone)]
pub struct ClockWatch {
    skew_ms: u64,
    /// What the wall clock was ahead of the monotonic one.
    ahead_ms: i128,
}

impl ClockWatch {
    /// Starts to watch with one reading of both clocks.
    pub fn new(skew_s: u64, wall_ms: u64, monotonic_ms: u64) -> Self {
        let ahead_ms = i128::from(wall_ms) - i128::from(monotonic_ms);
        Self { skew_ms: skew_s.saturating_mul(1000), ahead_ms }
    }

    /// Takes the next reading, every second or so. Returns by how many milliseconds the wall
    /// clock went ahead of the monotonic one (or fell back) since the start or the last report,
    /// if that is more than the skew.
    pub fn observe(&mut self, wall_ms: u64, monotonic_ms: u64) -> Option<i64> {
        let ahead_ms = i128::from(wall_ms) - i128::from(monotonic_ms);
        let jump = ahead_ms - self.ahead_ms;
        if jump.unsigned_abs() <= u128::from(self.skew_ms) {
            return None;
        }
        self.ahead_ms = ahead_ms;
        Some(i64::try_from(jump).unwrap_or(i64::MAX))
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
        assert_eq!(watch.observe(1_182_001, 67_000), Some(120_001));
        assert_eq!(watch.observe(1_183_001, 68_000), None, "a jump is one jump");
        assert_eq!(watch.observe(1_000_000, 69_000), Some(-184_001));
    }

    #[test]
    fn small_jumps_add_up() {
        let mut watch = ClockWatch::new(120, 1_000_000, 0);
        assert_eq!(watch.observe(1_000_000 + 61_000, 1_000), None);
        assert_eq!(watch.observe(1_000_000 + 122_000, 2_000), None);
        assert_eq!(watch.observe(1_000_000 + 183_000, 3_000), Some(180_000));
    }
}
