//! Mutations over a corpus, from a seed. There is no coverage to follow, so an input is kept when
//! the target says something of it that it has said of no other.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use bulla_transport::hostile::Random;

use crate::Target;

/// Inputs kept at the most.
const KEPT: usize = 4000;
/// No input gets longer.
const LONGEST: usize = 8192;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Inputs tried.
    pub runs: u64,
    /// Different things that the target said.
    pub seen: usize,
    /// The input that made the target panic.
    pub failure: Option<Vec<u8>>,
}

/// Runs the corpus, then mutations of it, for so long. Stops at the first failure.
pub fn run(target: &Target, corpus: &[Vec<u8>], seed: u64, time: Duration) -> Report {
    let mut report = Report { runs: 0, seen: 0, failure: None };
    let mut kept = corpus.to_vec();
    let mut seen = HashSet::new();
    for input in corpus.iter().chain([&vec![]]) {
        if !judge(target, input, &mut seen, &mut report) {
            return report;
        }
    }
    if kept.is_empty() {
        kept.push(vec![0]);
    }
    let mut random = Random::new(seed, 0);
    let end = Instant::now() + time;
    while Instant::now() < end {
        for _ in 0..64 {
            let mut input = kept[random.index(kept.len())].clone();
            for _ in 0..=random.below(4) {
                mutate(&mut input, &kept, &mut random);
            }
            input.truncate(LONGEST);
            let before = seen.len();
            if !judge(target, &input, &mut seen, &mut report) {
                return report;
            }
            if seen.len() > before && kept.len() < KEPT {
                kept.push(input);
            }
        }
    }
    report
}

fn judge(target: &Target, input: &[u8], seen: &mut HashSet<String>, report: &mut Report) -> bool {
    report.runs += 1;
    match std::panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        Ok(saw) => {
            seen.insert(saw);
            report.seen = seen.len();
            true
        }
        Err(_) => {
            report.failure = Some(input.to_vec());
            false
        }
    }
}

/// Heads, counts and lengths at their edges.
const EDGES: [u8; 24] = [
    0x00, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1f, 0x20, 0x40, 0x58, 0x5b, 0x5f, 0x60, 0x78, 0x7f, 0x80,
    0x98, 0x9f, 0xa0, 0xbf, 0xd0, 0xf6, 0xf9, 0xff,
];

fn mutate(input: &mut Vec<u8>, kept: &[Vec<u8>], random: &mut Random) {
    let at = random.index(input.len());
    match random.below(10) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.next() as u8,
        2 if !input.is_empty() => input[at] = EDGES[random.index(EDGES.len())],
        3 if !input.is_empty() => input[at] = input[at].wrapping_add(1),
        4 => input.truncate(at),
        5 => input.insert(at.min(input.len()), EDGES[random.index(EDGES.len())]),
        6 if !input.is_empty() => {
            let end = (at + 1 + random.index(32)).min(input.len());
            input.drain(at..end);
        }
        7 if !input.is_empty() => {
            let end = (at + 1 + random.index(64)).min(input.len());
            let part = input[at..end].to_vec();
            let to = random.index(input.len());
            input.splice(to..to, part);
        }
        8 => {
            let other = &kept[random.index(kept.len())];
            let from = random.index(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => lengthen(input, at),
    }
}

/// Writes a head with one byte more than it needs.
fn lengthen(input: &mut Vec<u8>, at: usize) {
    let Some(first) = input.get_mut(at) else { return };
    let (major, info) = (*first & 0xe0, *first & 0x1f);
    if info < 24 {
        *first = major | 24;
        input.insert(at + 1, info);
    } else if info == 24 {
        *first = major | 25;
        input.insert(at + 1, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn careless(input: &[u8]) -> String {
        assert!(!(input.len() > 3 && input[0] == 0x9f && input[2] == 7), "found");
        format!("{:?}", input.first())
    }

    #[test]
    fn finds_what_is_to_be_found_and_the_same_with_the_same_seed() {
        let target = Target { name: "careless", run: careless };
        let corpus = [vec![1, 2, 3, 4, 5]];
        let found = || run(&target, &corpus, 9, Duration::from_secs(60));
        let (one, other) = (found(), found());
        assert!(one.failure.is_some(), "{one:?}");
        assert_eq!(one, other);
    }
}
