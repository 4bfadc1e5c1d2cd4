//! A rate per sender.

use std::collections::HashMap;
use tokio::time::Instant;

use bulla_seal::Principal;
use parking_lot::Mutex;

/// Senders remembered at the most; past it, those whose allowance is full again are forgotten.
const MAX_SENDERS: usize = 50_000;

/// Token buckets, one a sender, each holding one second's worth.
#[derive(Debug)]
pub(crate) struct SenderRates {
    per_second: f64,
    buckets: Mutex<HashMap<Principal, (f64, Instant)>>,
}

impl SenderRates {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: per_second.into(), buckets: Mutex::default() }
    }

    /// Takes one from the sender's allowance, if there is one.
    pub(crate) fn take(&self, sender: &Principal) -> bool {
        let now = Instant::now();
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_SENDERS && !buckets.contains_key(sender) {
            buckets.retain(|_, (_, at)| now.duration_since(*at).as_secs_f64() < 1.0);
        }
        let (tokens, at) = match buckets.get_mut(sender) {
            Some(bucket) => bucket,
            None => buckets.entry(sender.clone()).or_insert((self.per_second, now)),
        };
        let passed = now.duration_since(*at).as_secs_f64();
        *tokens = (*tokens + passed * self.per_second).min(self.per_second);
        *at = now;
        let may = *tokens >= 1.0;
        if may {
            *tokens -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_over_its_rate_is_no_other_senders_trouble() {
        let rates = SenderRates::new(2);
        let (a, b) = (Principal::agent("a").unwrap(), Principal::agent("b").unwrap());
        let taken = (0..100).filter(|_| rates.take(&a)).count();
        assert!((2..100).contains(&taken), "{taken}");
        assert!(rates.take(&b));
    }
}
