//! Judging a trial: what ran, what was counted, what was said, and whether honest calls still work.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::peer::result;
use super::{Peer, Pending, Taken, World};
use crate::bus::Bus;
use crate::row::Seen;
use crate::trouble::Trouble;

/// How things stood before a trial, at one victim.
#[derive(Debug, Clone)]
pub struct Mark {
    ran: usize,
    refusals: BTreeMap<&'static str, u64>,
    sent: usize,
}

impl Mark {
    /// How many runs there had been.
    pub fn ran(&self) -> usize {
        self.ran
    }

    /// How often a refusal was counted before.
    pub fn refused(&self, name: &str) -> u64 {
        self.refusals.get(name).copied().unwrap_or_default()
    }

    /// How many messages the victim had sent.
    pub fn sent(&self) -> usize {
        self.sent
    }
}

/// What a trial should have come to.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    named: Vec<(&'static str, u64)>,
    any: Option<u64>,
    runs: usize,
    answers: usize,
}

impl Expected {
    /// This refusal, so often, and no other.
    pub fn refused(name: &'static str, count: u64) -> Self {
        Self { named: vec![(name, count)], ..Self::default() }
    }

    /// Refusals of whatever name, so many in all.
    pub fn any(count: u64) -> Self {
        Self { any: Some(count), ..Self::default() }
    }

    /// No refusal.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// And this one.
    #[must_use]
    pub fn and(mut self, name: &'static str, count: u64) -> Self {
        self.named.push((name, count));
        self
    }

    /// So many runs are no harm.
    #[must_use]
    pub fn runs(mut self, runs: usize) -> Self {
        self.runs = runs;
        self
    }

    /// So many answers are what the protocol allows.
    #[must_use]
    pub fn answers(mut self, answers: usize) -> Self {
        self.answers = answers;
        self
    }

    fn is_met(&self, counted: &BTreeMap<&'static str, u64>) -> bool {
        match self.any {
            Some(count) => counted.values().sum::<u64>() >= count,
            None => self
                .named
                .iter()
                .all(|(name, count)| counted.get(name).copied().unwrap_or_default() >= *count),
        }
    }

    fn is_exact(&self, counted: &BTreeMap<&'static str, u64>) -> bool {
        let named: u64 = self.named.iter().map(|(_, count)| count).sum();
        let total: u64 = counted.values().sum();
        self.is_met(counted) && total == self.any.unwrap_or(named)
    }
}

impl World {
    /// How things stand at `victim`.
    pub fn mark(&self, victim: &Peer) -> Mark {
        Mark { ran: self.ledger.count(), refusals: victim.refusals(), sent: victim.hand.count() }
    }

    /// How long the bus may take to carry a message that nobody answers.
    pub fn moment(&self) -> Duration {
        match self.bus {
            Bus::Memory(_) => Duration::from_millis(4),
            Bus::Rabbit(_) => Duration::from_millis(40),
        }
    }

    /// Waits until `so`, or so long that it will not be.
    pub async fn until(&self, so: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        let limit = match self.bus {
            Bus::Memory(_) => Duration::from_secs(3),
            Bus::Rabbit(_) => Duration::from_secs(30),
        };
        while !so() {
            if begun.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Whether anything ran, or `victim` refused so many, since `mark`.
    pub fn were_dealt_with(&self, mark: &Mark, victim: &Peer, count: u64) -> bool {
        self.ledger.count() > mark.ran || counted(mark, victim).values().sum::<u64>() >= count
    }

    /// Waits for what is expected at `victim` since `mark`, and judges.
    pub async fn judge(
        &self,
        mark: &Mark,
        victim: &Peer,
        expected: Expected,
    ) -> Result<Seen, Trouble> {
        self.weigh(mark, victim, expected, true).await
    }

    /// The same for a victim that takes other calls than those that health is tried with.
    pub async fn judge_without_health(
        &self,
        mark: &Mark,
        victim: &Peer,
        expected: Expected,
    ) -> Result<Seen, Trouble> {
        self.weigh(mark, victim, expected, false).await
    }

    async fn weigh(
        &self,
        mark: &Mark,
        victim: &Peer,
        expected: Expected,
        health: bool,
    ) -> Result<Seen, Trouble> {
        self.until(|| {
            let over = self.ledger.count() - mark.ran > expected.runs;
            let ran = self.ledger.count() - mark.ran >= expected.runs;
            over || (ran && expected.is_met(&counted(mark, victim)))
        })
        .await;
        tokio::time::sleep(self.moment()).await;
        let answers: Vec<_> = victim.hand.since(mark.sent);
        let answers = answers.iter().filter(|sent| sent.is_reply()).count();
        // Before honest calls, which may be asked for their offer anew.
        let counted = counted(mark, victim);
        let healthy = if health { self.health().await } else { Ok(()) };
        let ran = self.ledger.since(mark.ran);
        let text = match expected.any {
            Some(_) => in_all(&counted),
            None => words(&counted),
        };
        if ran.len() > expected.runs {
            let runs: Vec<_> = ran
                .iter()
                .map(|ran| format!("{}({}) as {}", ran.method, ran.n, ran.sender))
                .collect();
            return Ok(Seen::GotThrough(format!("ran {}", runs.join(", "))));
        }
        if let Err(broken) = healthy {
            let [at_agent, at_control] = [&self.agent, &self.control].map(Peer::refusals);
            return Ok(Seen::GotThrough(format!(
                "{}; refused so far: {} by the agent, {} by the component",
                broken.0,
                words(&at_agent),
                words(&at_control)
            )));
        }
        if answers > expected.answers {
            return Ok(Seen::GotThrough(format!("{answers} answers; {text}")));
        }
        if ran.len() < expected.runs {
            return Ok(Seen::GotThrough("an honest message was suppressed".to_owned()));
        }
        Ok(if expected.is_exact(&counted) { Seen::Held(text) } else { Seen::Unexpected(text) })
    }

    /// Waits for the runs that are expected; tells if they did not come or were too many.
    pub async fn judge_quietly(&self, mark: &Mark, expected: Expected) -> Option<Seen> {
        let came = self.until(|| self.ledger.count() - mark.ran >= expected.runs).await;
        tokio::time::sleep(self.moment()).await;
        match self.ledger.count() - mark.ran {
            _ if !came => Some(Seen::GotThrough("an honest message was suppressed".to_owned())),
            ran if ran > expected.runs => Some(Seen::GotThrough(format!("ran {ran} times"))),
            _ => None,
        }
    }

    /// Judges what was done to the answer of a call: waits for what is expected at the caller,
    /// then lets the genuine answer pass, which must be what the caller gets.
    pub async fn judge_reply(
        &self,
        mark: &Mark,
        taken: Taken,
        expected: Expected,
    ) -> Result<Seen, Trouble> {
        let Taken { sent, n, call } = taken;
        let call = call.ok_or_else(|| Trouble::new("nobody waits for this answer"))?;
        self.until(|| call.is_finished() || expected.is_met(&counted(mark, &self.control))).await;
        tokio::time::sleep(self.moment()).await;
        if call.is_finished() {
            // Nothing genuine was there to believe.
            return Ok(match believed(call, n).await? {
                Seen::Held(_) => Seen::GotThrough("the caller believed what was altered".into()),
                other => other,
            });
        }
        self.inject(&sent.to, sent.payload).await?;
        if !self.until(|| call.is_finished()).await {
            call.abort();
            return Ok(Seen::GotThrough("the genuine answer was not taken any more".to_owned()));
        }
        match believed(call, n).await? {
            Seen::Held(_) => self.judge(mark, &self.control, expected).await,
            other => Ok(other),
        }
    }
}

/// What a caller got in the end.
async fn believed(call: Pending, n: u64) -> Result<Seen, Trouble> {
    Ok(match call.await? {
        Ok(value) if value == result(n) => Seen::Held("the genuine answer".to_owned()),
        Ok(value) => Seen::GotThrough(format!("the caller believed {}", short(&value))),
        Err(error) => Seen::GotThrough(format!("the caller believed an error: {error}")),
    })
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    text.truncate(text.char_indices().nth(60).map_or(text.len(), |(at, _)| at));
    text
}

fn counted(mark: &Mark, victim: &Peer) -> BTreeMap<&'static str, u64> {
    let mut counted = victim.refusals();
    for (name, before) in &mark.refusals {
        if let Some(count) = counted.get_mut(name) {
            *count -= before;
        }
    }
    counted.retain(|_, count| *count > 0);
    counted
}

/// How many, by which names.
fn in_all(counted: &BTreeMap<&'static str, u64>) -> String {
    let names: Vec<_> = counted.keys().copied().collect();
    match names.len() {
        0..=3 => words(counted),
        many => format!("{} refused, by {many} names", counted.values().sum::<u64>()),
    }
}

fn words(counted: &BTreeMap<&'static str, u64>) -> String {
    if counted.is_empty() {
        return "nothing refused".to_owned();
    }
    let words: Vec<_> = counted
        .iter()
        .map(
            |(name, count)| {
                if *count == 1 { (*name).to_owned() } else { format!("{name} ×{count}") }
            },
        )
        .collect();
    words.join(", ")
}
