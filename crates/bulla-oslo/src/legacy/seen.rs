//! Which encrypted values were in which message: none is taken in a second one.

use std::collections::HashMap;

use parking_lot::Mutex;

/// How long a value is remembered, in seconds: as long as a message's claim.
const REMEMBERED: u64 = 24 * 3600;
/// Values remembered at the most. When there are more, nothing is taken until some are old.
const MOST: usize = 500_000;

type Mark = [u8; 16];

/// The values of a day.
#[derive(Default)]
pub(super) struct Seen {
    values: Mutex<HashMap<Mark, (Mark, u64)>>,
}

impl Seen {
    /// Notes that the message `of` has these values; whether none of them was in another one. The same
    /// message again is for its claim to see.
    pub(super) fn note(&self, values: &[Mark], of: Mark, now: u64) -> bool {
        let mut seen = self.values.lock();
        if seen.len().saturating_add(values.len()) > MOST {
            seen.retain(|_, (_, until)| *until > now);
        }
        let room = seen.len().saturating_add(values.len()) <= MOST;
        let another = |mark: &Mark| {
            seen.get(mark).is_some_and(|(message, until)| *until > now && *message != of)
        };
        if !room || values.iter().any(another) {
            return false;
        }
        for mark in values {
            seen.insert(*mark, (of, now.saturating_add(REMEMBERED)));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_belongs_to_one_message() {
        let seen = Seen::default();
        let (a, b, first, second) = ([1; 16], [2; 16], [9; 16], [8; 16]);
        assert!(seen.note(&[a, b], first, 100));
        assert!(seen.note(&[a, b], first, 101));
        assert!(!seen.note(&[[3; 16], b], second, 102));
        assert!(seen.note(&[[3; 16]], second, 102));
        assert!(seen.note(&[b], second, 101 + REMEMBERED));
    }
}
