//! Randomness and time are passed in: nothing in this crate asks the machine for them, which is
//! what makes vectors, fuzzing and models possible.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

use crate::kdf;
use crate::secret::Secret;

/// A source of unpredictable bytes.
pub trait Random {
    /// Fills `out`.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed>;
}

/// The random source gave nothing; the operation was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the random source failed")]
pub struct RandomFailed;

/// The operating system's source, for callers to pass in.
#[derive(Debug, Default, Clone)]
pub struct OsRandom(SystemRandom);

impl Random for OsRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
        self.0.fill(out).map_err(|_| RandomFailed)
    }
}

/// Bytes drawn at a time.
const POOL: usize = 1024;

/// Draws in pools, so that one draw serves many messages. Fine for message ids, because the
/// hedged rule (protocol section 3) does not rest on it; never used for keys.
pub struct Pooled<R> {
    source: R,
    pool: [u8; POOL],
    used: usize,
}

impl<R: Random> Pooled<R> {
    /// Draws from `source`, 1 KiB at a time.
    pub fn new(source: R) -> Self {
        Self { source, pool: [0; POOL], used: POOL }
    }

    /// The next 16 bytes.
    pub fn next16(&mut self) -> Result<[u8; 16], RandomFailed> {
        let mut out = [0; 16];
        self.fill(&mut out)?;
        Ok(out)
    }
}

impl<R: Random> Random for Pooled<R> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
        if out.len() > self.pool.len() {
            return self.source.fill(out);
        }
        if self.used + out.len() > self.pool.len() {
            self.source.fill(&mut self.pool)?;
            self.used = 0;
        }
        let end = self.used + out.len();
        let drawn = self.pool.get_mut(self.used..end).ok_or(RandomFailed)?;
        out.copy_from_slice(drawn);
        drawn.fill(0);
        self.used = end;
        Ok(())
    }
}

impl<R> fmt::Debug for Pooled<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pooled(..)")
    }
}

/// A generator seeded from several sources at once, so that it is unpredictable while any one of
/// them is: what protocol section 3 calls a hedged ephemeral. HKDF-SHA-256 in counter mode.
pub(crate) struct Hedged {
    key: Secret<32>,
    counter: u64,
}

impl Hedged {
    /// Seeds from `random`, a long-term secret of the caller and the time.
    pub(crate) fn new(
        random: &mut dyn Random,
        own_secret: &[u8],
        unix_ns: u64,
    ) -> Result<Self, RandomFailed> {
        let drawn = Secret::<32>::generate(random)?;
        let mut info = Vec::with_capacity(64);
        let mut w = crate::cbor::Writer::new(&mut info);
        w.array(2);
        w.text("bulla/1 hedge");
        w.uint(unix_ns);
        let prk = kdf::extract(drawn.expose(), own_secret);
        Ok(Self { key: kdf::expand(&prk, &info), counter: 0 })
    }
}

impl rand_core::TryRng for Hedged {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in out.chunks_mut(32) {
            let mut info = Vec::with_capacity(32);
            let mut w = crate::cbor::Writer::new(&mut info);
            w.array(2);
            w.text("bulla/1 hedge block");
            w.uint(self.counter);
            self.counter += 1;
            let block = kdf::expand(&self.key, &info);
            for (to, from) in chunk.iter_mut().zip(block.expose()) {
                *to = *from;
            }
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Hedged {}

/// The time at which something is done: given by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub ns: u64,
}

impl UnixTime {
    /// From nanoseconds.
    pub const fn from_ns(ns: u64) -> Self {
        Self { ns }
    }

    /// From whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self { ns: secs.saturating_mul(1_000_000_000) }
    }

    /// Whole seconds, rounded down.
    pub const fn secs(self) -> u64 {
        self.ns / 1_000_000_000
    }
}
