//! Which pool has a queue: rendezvous hashing under a key that nobody else has.

use std::fmt;

use siphasher::sip::SipHasher24;
use std::hash::Hasher as _;
use zeroize::Zeroizing;

use crate::name::Place;

/// Bytes of a key.
pub const SPREAD_KEY: usize = 16;

/// The secret of one deployment. Whoever knows it can put queues where he likes.
#[derive(Clone)]
pub struct SpreadKey(Zeroizing<[u8; SPREAD_KEY]>);

impl SpreadKey {
    /// From its bytes.
    #[must_use]
    pub fn new(bytes: [u8; SPREAD_KEY]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From a slice; `None` unless it is as long as a key.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::new)
    }

    /// SipHash-2-4 of project, queue and pool, each after its length.
    fn hash(&self, at: &Place, pool: &str) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        for part in [at.project(), at.name(), pool] {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part.as_bytes());
        }
        hasher.finish()
    }

    /// Each pool draws for the queue, the heavier ones better, and the best has it: a pool more takes
    /// from the others what it wins, and nothing else moves. A pool of weight 0 has none.
    pub fn draw<'p>(
        &self,
        at: &Place,
        pools: impl IntoIterator<Item = (&'p str, u32)>,
    ) -> Option<&'p str> {
        let mut best: Option<(f64, &str)> = None;
        for (name, weight) in pools {
            // In the middle of its step, so that it is neither 0 nor 1.
            let drawn = ((self.hash(at, name) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            let score = -f64::from(weight) / drawn.ln();
            if weight > 0 && best.is_none_or(|(other, _)| score > other) {
                best = Some((score, name));
            }
        }
        best.map(|(_, name)| name)
    }
}

impl fmt::Debug for SpreadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpreadKey(redacted)")
    }
}
