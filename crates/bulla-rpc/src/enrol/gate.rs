//! What strangers may cost: look-ups of tokens that anybody may have made up.

use std::collections::HashMap;
use std::time::Duration;

use bulla_seal::{Refusal, TokenId};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Tokens looked up per second at the most.
const LOOKUPS_PER_SECOND: f64 = 200.0;
/// Of those, for one token: its holder needs one, and asks again now and then.
const PER_TOKEN_PER_SECOND: f64 = 4.0;
/// How long a token stays unknown before it is looked up again.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// Tokens remembered at the most, of each sort.
const MAX_TOKENS: usize = 10_000;

/// Decides which requests are worth a look-up.
#[derive(Debug)]
pub(super) struct Gate(Mutex<State>);

#[derive(Debug)]
struct State {
    all: Bucket,
    tokens: HashMap<TokenId, Bucket>,
    unknown: HashMap<TokenId, Instant>,
}

/// One second's worth at the most.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: f64) -> Self {
        Self { rate, left: rate, at: Instant::now() }
    }

    fn take(&mut self) -> Result<(), Refusal> {
        let passed = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        self.left = (self.left + passed * self.rate).min(self.rate);
        if self.left < 1.0 {
            return Err(Refusal::RateLimited);
        }
        self.left -= 1.0;
        Ok(())
    }
}

impl Gate {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            all: Bucket::new(LOOKUPS_PER_SECOND),
            tokens: HashMap::new(),
            unknown: HashMap::new(),
        }))
    }

    /// Charges a look-up, or refuses it.
    pub(super) fn enter(&self, token: TokenId) -> Result<(), Refusal> {
        let mut state = self.0.lock();
        if let Some(since) = state.unknown.get(&token) {
            if since.elapsed() < UNKNOWN_FOR {
                return Err(Refusal::SessionUnknown);
            }
            state.unknown.remove(&token);
        }
        make_room(&mut state.tokens, |bucket| bucket.at.elapsed() < Duration::from_secs(1));
        let own = state.tokens.entry(token);
        own.or_insert_with(|| Bucket::new(PER_TOKEN_PER_SECOND)).take()?;
        state.all.take()
    }

    /// Nobody gave out that token.
    pub(super) fn unknown(&self, token: TokenId) {
        let mut state = self.0.lock();
        state.tokens.remove(&token);
        make_room(&mut state.unknown, |since| since.elapsed() < UNKNOWN_FOR);
        state.unknown.insert(token, Instant::now());
    }
}

/// Room for one more: first what is too old goes, then everything.
fn make_room<T>(map: &mut HashMap<TokenId, T>, fresh: impl Fn(&T) -> bool) {
    if map.len() < MAX_TOKENS {
        return;
    }
    map.retain(|_, entry| fresh(entry));
    if map.len() >= MAX_TOKENS {
        map.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u32) -> TokenId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        TokenId(id)
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_cost_a_bounded_number_of_look_ups() {
        let gate = Gate::new();
        let let_in = |from: u32| (from..from + 50_000).filter(|n| gate.enter(token(*n)).is_ok());
        assert_eq!(let_in(0).count(), 200);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(let_in(50_000).count(), 100);
        assert!(gate.0.lock().tokens.len() <= MAX_TOKENS);
    }

    #[tokio::test(start_paused = true)]
    async fn one_token_leaves_the_others_alone() {
        let gate = Gate::new();
        assert_eq!((0..1_000).filter(|_| gate.enter(token(1)).is_ok()).count(), 4);
        assert_eq!(gate.enter(token(2)), Ok(()));
        gate.unknown(token(2));
        assert_eq!(gate.enter(token(2)), Err(Refusal::SessionUnknown));
        tokio::time::advance(UNKNOWN_FOR).await;
        assert_eq!(gate.enter(token(2)), Ok(()));
        (0..100_000).for_each(|n| gate.unknown(token(n)));
        assert!(gate.0.lock().unknown.len() <= MAX_TOKENS);
    }
}
