//! What Keystone said of tokens, for a short while.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::identity::Identity;

/// Answers that are kept at the most.
const MAX: usize = 16_384;

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    Good(Identity),
    Invalid,
    OtherProject,
    Unnameable,
}

pub(super) struct Cache {
    longest: Duration,
    held: Mutex<HashMap<[u8; 32], (Instant, Known)>>,
}

impl Cache {
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, held: Mutex::default() }
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    pub(super) fn get(&self, key: &[u8; 32], now: Instant) -> Option<Known> {
        let held = self.held.lock().ok()?;
        held.get(key).filter(|(until, _)| now < *until).map(|(_, known)| known.clone())
    }

    /// Keeps an answer for `holds`, and never longer than the cache does.
    pub(super) fn put(&self, key: [u8; 32], known: Known, from: Instant, holds: Duration) {
        let Ok(mut held) = self.held.lock() else { return };
        if held.len() >= MAX {
            let now = Instant::now();
            held.retain(|_, (until, _)| now < *until);
        }
        // More than that are asked for each time.
        if held.len() < MAX {
            held.insert(key, (from + holds.min(self.longest), known));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_no_longer_than_they_may() {
        let cache = Cache::new(Duration::from_secs(10));
        let now = Instant::now();
        cache.put([1; 32], Known::Good(Identity::bearer()), now, Duration::from_secs(3));
        cache.put([2; 32], Known::Invalid, now, Duration::from_secs(99));
        let later = |s| now + Duration::from_secs(s);
        assert!(cache.get(&[1; 32], later(2)).is_some());
        assert!(cache.get(&[1; 32], later(3)).is_none());
        assert!(cache.get(&[2; 32], later(9)).is_some());
        assert!(cache.get(&[2; 32], later(10)).is_none());
    }

    #[test]
    fn memory_is_bounded_and_without_a_while_nothing_holds() {
        let cache = Cache::new(Duration::from_secs(1000));
        let now = Instant::now();
        for n in 0..MAX + 10 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            cache.put(key, Known::Invalid, now, Duration::from_secs(1000));
        }
        assert_eq!(cache.held.lock().unwrap().len(), MAX);
        let none = Cache::new(Duration::ZERO);
        none.put([1; 32], Known::Invalid, now, Duration::from_secs(9));
        assert!(none.get(&[1; 32], now).is_none());
    }
}
