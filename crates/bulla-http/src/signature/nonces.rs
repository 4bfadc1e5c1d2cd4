//! Which signatures were seen: each counts once.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;
use thiserror::Error;

/// Most signatures that are remembered of all access keys, and of one.
const MAX: usize = 400_000;
const MAX_OF_ONE: usize = 200_000;

/// Remembers nonces until their signatures are too old to be taken anyway.
#[async_trait]
pub trait Nonces: Send + Sync + 'static {
    /// Whether this is the first time that a nonce of an access key is seen. `created` is when its
    /// signature says that it was made, and `until` when it is refused for its age; both in Unix
    /// seconds.
    ///
    /// # Errors
    ///
    /// It can't be told: the request is refused.
    async fn first(&self, seen: Seen<'_>, now: u64) -> Result<bool, NonceError>;

    /// Whether what was seen is still known after a restart. Where it is not, the listener takes no
    /// signature from before it began.
    fn outlives(&self) -> bool {
        true
    }
}

/// A nonce of an access key.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The access key's id.
    pub key: &'a str,
    /// The nonce.
    pub nonce: &'a str,
    /// When the signature was made, in Unix seconds, by the client's clock.
    pub created: u64,
    /// From when on it is refused for its age, in Unix seconds.
    pub until: u64,
}

/// It can't be told whether a signature was seen before.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("it can't be told whether a signature was used before: {0}")]
pub struct NonceError(pub String);

/// Remembers in this process alone, within bounds: what comes beyond them is refused, and nothing is
/// forgotten early. Several processes behind one address each remember their own.
#[derive(Default)]
pub struct MemoryNonces {
    held: Mutex<Held>,
}

impl fmt::Debug for MemoryNonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryNonces")
    }
}

#[derive(Default)]
struct Held {
    /// By access key, and how many there are of all.
    keys: HashMap<String, Of>,
    count: usize,
}

#[derive(Default)]
struct Of {
    nonces: HashMap<Box<str>, u64>,
    /// In the order in which they came; their ends differ by seconds.
    order: VecDeque<(u64, Box<str>)>,
}

impl Held {
    fn forget(&mut self, key: &str, now: u64) {
        let Some(of) = self.keys.get_mut(key) else { return };
        while of.order.front().is_some_and(|(until, _)| *until < now) {
            if let Some((_, nonce)) = of.order.pop_front() {
                of.nonces.remove(&nonce);
                self.count -= 1;
            }
        }
        if of.nonces.is_empty() {
            self.keys.remove(key);
        }
    }
}

#[async_trait]
impl Nonces for MemoryNonces {
    async fn first(&self, seen: Seen<'_>, now: u64) -> Result<bool, NonceError> {
        let mut held = self.held.lock().map_err(|_| NonceError("a lock is broken".into()))?;
        held.forget(seen.key, now);
        if held.count >= MAX {
            let keys: Vec<_> = held.keys.keys().cloned().collect();
            keys.iter().for_each(|key| held.forget(key, now));
        }
        let of_one = held.keys.get(seen.key).map_or(0, |of| of.nonces.len());
        let known = held.keys.get(seen.key).is_some_and(|of| of.nonces.contains_key(seen.nonce));
        if known {
            return Ok(false);
        }
        if held.count >= MAX || of_one >= MAX_OF_ONE {
            return Err(NonceError("too many requests were signed within a minute".into()));
        }
        let of = held.keys.entry(seen.key.to_owned()).or_default();
        of.nonces.insert(seen.nonce.into(), seen.until);
        of.order.push_back((seen.until, seen.nonce.into()));
        held.count += 1;
        Ok(true)
    }

    fn outlives(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_nonce_counts_once_for_a_key_and_is_forgotten_after_its_time() {
        let nonces = MemoryNonces::default();
        let seen = |key, nonce| Seen { key, nonce, created: 10, until: 100 };
        assert_eq!(nonces.first(seen("a", "1"), 20).await, Ok(true));
        assert_eq!(nonces.first(seen("a", "1"), 100).await, Ok(false));
        assert_eq!(nonces.first(seen("b", "1"), 100).await, Ok(true));
        assert_eq!(nonces.first(seen("a", "2"), 101).await, Ok(true));
        let held = nonces.held.lock().unwrap();
        assert_eq!((held.count, held.keys["a"].nonces.len()), (2, 1));
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused_and_nothing_forgotten() {
        let nonces = MemoryNonces::default();
        for n in 0..MAX_OF_ONE {
            let nonce = n.to_string();
            let seen = Seen { key: "a", nonce: &nonce, created: 0, until: 100 };
            assert_eq!(nonces.first(seen, 1).await, Ok(true));
        }
        let seen = |key, nonce| Seen { key, nonce, created: 0, until: 100 };
        assert!(nonces.first(seen("a", "one more"), 1).await.is_err());
        assert_eq!(nonces.first(seen("a", "0"), 1).await, Ok(false));
        assert_eq!(nonces.first(seen("b", "0"), 1).await, Ok(true));
    }
}
