//! What a hostile broker has in mind: scripted, or drawn from a seed.

use std::fmt;
use std::time::Duration;

use super::act::{Act, Sent, Splice, Strip};

/// The environment variable that runs one seed again.
pub const SEED_VARIABLE: &str = "BULLA_SEED";

/// What becomes of each message. Nothing of it depends on anything but the seed, the script and
/// what was published before, so a plan that is run again does the same again.
pub struct Plan(Kind);

enum Kind {
    Honest,
    Script(Box<Script>),
    Weighted { seed: u64, weights: Weights },
}

type Script = dyn Fn(&Sent, &[Sent]) -> Vec<Act> + Send + Sync;

impl Plan {
    /// A broker that does its work, and remembers.
    pub fn honest() -> Self {
        Self(Kind::Honest)
    }

    /// Decided by a function of the message and all that were published before it.
    pub fn script(script: impl Fn(&Sent, &[Sent]) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self(Kind::Script(Box::new(script)))
    }

    /// Drawn from `seed`.
    pub fn weighted(seed: u64, weights: Weights) -> Self {
        Self(Kind::Weighted { seed, weights })
    }

    /// The seed, if it has one.
    pub fn seed(&self) -> Option<u64> {
        match &self.0 {
            Kind::Weighted { seed, .. } => Some(*seed),
            _ => None,
        }
    }

    pub(super) fn decide(&self, sent: &Sent, before: &[Sent]) -> Vec<Act> {
        match &self.0 {
            Kind::Honest => vec![Act::Pass],
            Kind::Script(script) => script(sent, before),
            Kind::Weighted { seed, weights } => {
                Draw { random: Random::new(*seed, sent.n as u64), weights, sent, before }.acts()
            }
        }
    }

    /// What the `n`th delivery says of itself: whether the flag "redelivered" is a lie, and
    /// whether the reply hint is taken away.
    pub(super) fn lies(&self, n: u64) -> (bool, bool) {
        let Kind::Weighted { seed, weights } = &self.0 else { return (false, false) };
        let mut random = Random::new(!*seed, n);
        (random.percent(weights.lies_percent), random.percent(weights.lies_percent / 4))
    }

    /// Whether message `n` is replayed to a receiver that starts anew, for the `start`th time
    /// that one does.
    pub(super) fn replays_at_start(&self, start: u64, n: usize) -> bool {
        let Kind::Weighted { seed, weights } = &self.0 else { return false };
        let mut random = Random::new(seed.rotate_left(32) ^ start, n as u64);
        random.percent(weights.replay_at_start_percent)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Honest => f.write_str("honest"),
            Kind::Script(_) => f.write_str("scripted"),
            Kind::Weighted { seed, .. } => write!(f, "{SEED_VARIABLE}={seed}"),
        }
    }
}

/// The seeds to run: those given, or the one in `BULLA_SEED` alone.
pub fn seeds(given: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let one = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    one.map_or_else(|| given.into_iter().collect(), |seed| vec![seed])
}

/// How often a broker does what to a message, relative to each other. What alters a message is
/// done to a copy beside the original half of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is an act, described there")]
pub struct Weights {
    pub pass: u32,
    pub drop: u32,
    pub delay: u32,
    pub hold: u32,
    /// Two to four copies, some of them late.
    pub duplicate: u32,
    pub flip: u32,
    pub cut: u32,
    pub reroute: u32,
    pub splice: u32,
    pub strip: u32,
    pub hint: u32,
    pub replay: u32,
    pub in_place: u32,
    pub swap: u32,
    pub noise: u32,
    /// The longest delay, in milliseconds.
    pub delay_ms: u64,
    /// Deliveries in a hundred with a false flag.
    pub lies_percent: u64,
    /// Earlier messages in a hundred that a receiver gets again when it starts anew.
    pub replay_at_start_percent: u64,
}

impl Default for Weights {
    /// Everything, and about half of the messages get through.
    fn default() -> Self {
        Self {
            pass: 40,
            drop: 5,
            delay: 8,
            hold: 5,
            duplicate: 10,
            flip: 5,
            cut: 4,
            reroute: 5,
            splice: 5,
            strip: 4,
            hint: 3,
            replay: 5,
            in_place: 3,
            swap: 3,
            noise: 2,
            delay_ms: 80,
            lies_percent: 30,
            replay_at_start_percent: 60,
        }
    }
}

impl Weights {
    /// Passes everything on once, unaltered and in order.
    pub const NONE: Self = Self {
        pass: 1,
        drop: 0,
        delay: 0,
        hold: 0,
        duplicate: 0,
        flip: 0,
        cut: 0,
        reroute: 0,
        splice: 0,
        strip: 0,
        hint: 0,
        replay: 0,
        in_place: 0,
        swap: 0,
        noise: 0,
        delay_ms: 80,
        lies_percent: 0,
        replay_at_start_percent: 0,
    };

    /// Much more harm than service: a quarter of the messages gets through.
    pub fn storm() -> Self {
        Self { pass: 10, duplicate: 20, replay: 15, lies_percent: 50, ..Self::default() }
    }

    fn table(&self) -> [(u32, What); 15] {
        [
            (self.pass, What::Pass),
            (self.drop, What::Drop),
            (self.delay, What::Delay),
            (self.hold, What::Hold),
            (self.duplicate, What::Duplicate),
            (self.flip, What::Flip),
            (self.cut, What::Cut),
            (self.reroute, What::Reroute),
            (self.splice, What::Splice),
            (self.strip, What::Strip),
            (self.hint, What::Hint),
            (self.replay, What::Replay),
            (self.in_place, What::InPlace),
            (self.swap, What::Swap),
            (self.noise, What::Noise),
        ]
    }
}

#[derive(Clone, Copy)]
enum What {
    Pass,
    Drop,
    Delay,
    Hold,
    Duplicate,
    Flip,
    Cut,
    Reroute,
    Splice,
    Strip,
    Hint,
    Replay,
    InPlace,
    Swap,
    Noise,
}

/// One message's fate.
struct Draw<'a> {
    random: Random,
    weights: &'a Weights,
    sent: &'a Sent,
    before: &'a [Sent],
}

impl Draw<'_> {
    fn acts(mut self) -> Vec<Act> {
        match self.what() {
            What::Pass => vec![Act::Pass],
            What::Drop => vec![],
            What::Delay => vec![self.late()],
            What::Hold => vec![Act::Hold(1 + self.random.index(4))],
            What::Duplicate => {
                let mut acts = vec![Act::Pass];
                for _ in 0..=self.random.below(3) {
                    let late = self.random.percent(50);
                    acts.push(if late { self.late() } else { Act::Pass });
                }
                acts
            }
            What::Strip | What::Hint => {
                // What is stripped is still the message: it takes the original's place.
                let act = if self.random.percent(60) { self.strip() } else { self.hint() };
                vec![act]
            }
            what => self.beside(what),
        }
    }

    fn what(&mut self) -> What {
        let table = self.weights.table();
        let sum: u64 = table.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut drawn = self.random.below(sum);
        for (weight, what) in table {
            match drawn.checked_sub(weight.into()) {
                Some(rest) => drawn = rest,
                None => return what,
            }
        }
        What::Pass
    }

    /// An act that alters, alone, before or after the original.
    fn beside(&mut self, what: What) -> Vec<Act> {
        let Some(act) = self.altering(what) else { return vec![Act::Pass] };
        match self.random.below(4) {
            0 | 1 => vec![act],
            2 => vec![Act::Pass, act],
            _ => vec![act, Act::Pass],
        }
    }

    fn altering(&mut self, what: What) -> Option<Act> {
        Some(match what {
            What::Flip => Act::Flip(self.random.below(self.len() * 8)),
            What::Cut => Act::Cut(self.random.below(self.len())),
            What::Noise => Act::Noise(1 + self.random.index(600), self.random.next()),
            What::Reroute => Act::Reroute(self.other()?.to.clone()),
            What::Splice => Act::Splice(self.part(), self.other()?.n),
            What::Replay => Act::Replay(self.other()?.n),
            What::InPlace => Act::InPlace(self.other()?.n),
            What::Swap => Act::Swap(self.alike()?),
            _ => return None,
        })
    }

    fn len(&self) -> u64 {
        self.sent.message.payload.len() as u64
    }

    fn other(&mut self) -> Option<&Sent> {
        let index = self.random.index(self.before.len());
        self.before.get(index)
    }

    /// A late message of the same kind that went elsewhere.
    fn alike(&mut self) -> Option<usize> {
        let (reply, to) = (self.sent.is_reply(), &self.sent.to);
        let recent = self.before.iter().rev().take(32);
        recent.filter(|sent| sent.is_reply() == reply && sent.to != *to).map(|sent| sent.n).next()
    }

    fn part(&mut self) -> Splice {
        match self.random.below(4) {
            0 => Splice::Offer,
            1 => Splice::Statement,
            2 => Splice::Body,
            _ => Splice::Tail(self.random.below(self.len())),
        }
    }

    fn strip(&mut self) -> Act {
        Act::Strip(match self.random.below(3) {
            0 => Strip::Offer,
            1 => Strip::Statement,
            _ => Strip::Properties,
        })
    }

    fn hint(&mut self) -> Act {
        let hint = self.other().and_then(|sent| sent.message.reply_hint.clone());
        Act::Hint(hint)
    }

    fn late(&mut self) -> Act {
        Act::Delay(Duration::from_millis(1 + self.random.below(self.weights.delay_ms)))
    }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The `stream`th stream of `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    /// Any number.
    #[allow(clippy::should_implement_trait, reason = "it is no iterator: it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if that is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// An index into something of that length; 0 if it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or_default()
    }

    /// True so often in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
