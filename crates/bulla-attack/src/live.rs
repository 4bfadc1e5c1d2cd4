//! Attacks on a deployment that is not the suite's own: what an intruder does on a bus that is in
//! use. The oracle is what the bus shows. The messages that are attacked are the suite's own bait,
//! calls of a method that does not exist, so that nothing of the user's runs even if one works.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bulla_seal::cbor::Writer;
use bulla_seal::{OsRandom, Random};
use bulla_transport::{Address, Outbound, ReplyName, Transport};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

use crate::bus::Bus;
use crate::report::{LiveReport, Verdict};
use crate::trouble::Trouble;
use crate::wire::{Parts, flip};

/// The method of the bait.
pub const BAIT: &str = "no-such-method-bulla-attack";

/// Makes one call of [`BAIT`]; an error only if the deployment did not answer it.
pub type Bait = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Trouble>> + Send>> + Send>;

/// One live row.
#[derive(Debug, Clone, Copy)]
pub struct LiveRow {
    /// Its stable id.
    pub id: &'static str,
    /// What is tried.
    pub tries: &'static str,
    /// What is expected.
    pub expected: &'static str,
    attack: Attack,
}

#[derive(Debug, Clone, Copy)]
enum Attack {
    Plaintext,
    BitFlips,
    Replay,
    OtherQueue,
    Properties,
    Garbage,
    UnknownKeys,
    Notice,
    Replies,
    Header,
}

/// The live rows.
pub static LIVE_ROWS: &[LiveRow] = &[
    LiveRow {
        id: "live-01-plaintext-injection",
        tries: "put messages in the clear into the agent's queue",
        expected: "no answer",
        attack: Attack::Plaintext,
    },
    LiveRow {
        id: "live-02-bit-flips",
        tries: "invert one bit of every byte of a captured call",
        expected: "no answer but the stored one",
        attack: Attack::BitFlips,
    },
    LiveRow {
        id: "live-03-replay-at-once",
        tries: "publish a captured call again",
        expected: "the stored answer, byte-identical",
        attack: Attack::Replay,
    },
    LiveRow {
        id: "live-04-other-queue",
        tries: "publish a captured call to the other queues that were seen",
        expected: "no answer",
        attack: Attack::OtherQueue,
    },
    LiveRow {
        id: "live-05-forged-properties",
        tries: "publish a captured call with a reply address of the intruder's",
        expected: "answered where the sealed request says",
        attack: Attack::Properties,
    },
    LiveRow {
        id: "live-06-garbage",
        tries: "publish garbage, heads that claim exabytes, and a frame larger than is taken",
        expected: "no answer",
        attack: Attack::Garbage,
    },
    LiveRow {
        id: "live-07-unknown-keys",
        tries: "publish calls that name key ids and sessions which nobody has",
        expected: "no answer but a few notices",
        attack: Attack::UnknownKeys,
    },
    LiveRow {
        id: "live-08-forged-offer-needed",
        tries: "tell the caller that its offer is needed",
        expected: "nothing is sent again",
        attack: Attack::Notice,
    },
    LiveRow {
        id: "live-09-forged-replies",
        tries: "give the caller its answer again, altered and from somebody else",
        expected: "nothing changes",
        attack: Attack::Replies,
    },
    LiveRow {
        id: "live-10-header",
        tries: "write another kind, suite, sender and expiry into the header of a captured call",
        expected: "no answer",
        attack: Attack::Header,
    },
];

/// A deployment that is in use.
pub struct Live {
    intruder: Arc<dyn Transport>,
    exchange: String,
    max_message: usize,
    seen: mpsc::UnboundedReceiver<Seen>,
    queues: Vec<String>,
    bait: Bait,
}

/// A message as the bus showed it.
#[derive(Debug, Clone)]
struct Seen {
    exchange: String,
    key: String,
    hint: Option<String>,
    payload: Bytes,
}

/// A call and its answer.
struct Captured {
    request: Seen,
    reply: Seen,
}

impl Live {
    /// Listens to `exchange`; `bait` makes calls there.
    pub async fn new(
        bus: &Bus,
        exchange: &str,
        max_message: usize,
        bait: Bait,
    ) -> Result<Self, Trouble> {
        let mut tap = bus.tap(exchange, &[], &[]).await?;
        let (tell, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(tapped) = tap.next().await {
                let message = Seen {
                    exchange: tapped.exchange,
                    key: tapped.routing_key,
                    hint: tapped.reply_to,
                    payload: tapped.payload,
                };
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let intruder = bus.intruder();
        let exchange = exchange.to_owned();
        Ok(Self { intruder, exchange, max_message, seen, queues: Vec::new(), bait })
    }

    /// Plays every live row.
    pub async fn run(&mut self, mut progress: impl FnMut(&LiveReport)) -> Vec<LiveReport> {
        let mut reports = Vec::new();
        for row in LIVE_ROWS {
            let begun = Instant::now();
            let (verdict, seen) = match self.play(row.attack).await {
                Ok((verdict, seen)) => (verdict, seen),
                Err(Trouble(why)) => (Verdict::Failed, why),
            };
            let report = LiveReport {
                id: row.id,
                tries: row.tries,
                expected: row.expected,
                verdict,
                seen,
                millis: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            };
            progress(&report);
            reports.push(report);
        }
        reports
    }

    async fn play(&mut self, attack: Attack) -> Result<(Verdict, String), Trouble> {
        let captured = self.capture().await?;
        let forged = self.forge(attack, &captured)?;
        let count = forged.len();
        let mut own = Vec::new();
        for (to, payload, hint) in forged {
            if matches!(to, Address::Reply { .. }) {
                own.push(payload.clone());
            }
            let outbound = Outbound { reply_hint: hint, ..Outbound::new(payload) };
            self.intruder.publish(&to, outbound).await?;
        }
        let judged = self.watch(attack, &captured, count, own).await;
        // Whatever was tried, an honest call still works.
        if let Err(Trouble(why)) = self.capture().await {
            return Ok((Verdict::GotThrough, format!("an honest call failed afterwards: {why}")));
        }
        Ok(judged)
    }

    /// One bait call with its answer, off the bus. Its first answer may have been quicker than the tap.
    async fn capture(&mut self) -> Result<Captured, Trouble> {
        for limit in [1, 5].map(Duration::from_secs) {
            while self.seen.try_recv().is_ok() {}
            (self.bait)().await?;
            if let Some(captured) = self.bitten(limit).await {
                return Ok(captured);
            }
        }
        Err(Trouble::new("the bait and its answer were not seen on the bus"))
    }

    async fn bitten(&mut self, limit: Duration) -> Option<Captured> {
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        while let Some(seen) = self.next(limit).await {
            let reply = seen.exchange.ends_with(".reply");
            let known = self.queues.contains(&seen.key);
            if !reply && !known {
                self.queues.push(seen.key.clone());
            }
            if reply {
                replies.push(seen)
            } else {
                requests.push(seen)
            }
            if let Some(captured) = pair(&requests, &replies) {
                return Some(captured);
            }
        }
        None
    }

    async fn next(&mut self, limit: Duration) -> Option<Seen> {
        tokio::time::timeout(limit, self.seen.recv()).await.ok().flatten()
    }

    fn forge(
        &self,
        attack: Attack,
        Captured { request, reply }: &Captured,
    ) -> Result<Vec<(Address, Bytes, Option<ReplyName>)>, Trouble> {
        let to = || Address::Topic { exchange: self.exchange.clone(), topic: request.key.clone() };
        let hint = request.hint.as_deref().and_then(ReplyName::parse);
        let caller = || {
            let to = hint.clone().ok_or_else(|| Trouble::new("the bait has no reply name"))?;
            let (exchange, from) = (self.exchange.clone(), "agent/attack".to_owned());
            Ok::<_, Trouble>(Address::Reply { exchange, to, from })
        };
        let parts = Parts::of(&request.payload)?;
        let mut random = [0; 16];
        Ok(match attack {
            Attack::Plaintext => ["{\"oslo.version\":\"2.0\",\"oslo.message\":\"{}\"}", "\u{7}x"]
                .map(|text| (to(), Bytes::from(text), hint.clone()))
                .into(),
            Attack::BitFlips => (0..request.payload.len())
                .map(|at| (to(), flip(&request.payload, at * 8 + at % 8), None))
                .collect(),
            Attack::Replay => vec![(to(), request.payload.clone(), hint.clone()); 3],
            Attack::OtherQueue => self
                .queues
                .iter()
                .filter(|queue| **queue != request.key)
                .map(|queue| {
                    let (exchange, topic) = (self.exchange.clone(), queue.clone());
                    (Address::Topic { exchange, topic }, request.payload.clone(), None)
                })
                .collect(),
            Attack::Properties => {
                let elsewhere = ReplyName::new("agent/attack", "ffffffffffffffff");
                vec![(to(), request.payload.clone(), elsewhere)]
            }
            Attack::Garbage => {
                let exabytes = [&[0x84, 1, 0xd0, 0x83, 0x5b][..], &[0xff; 8]].concat();
                let large = vec![0x84; self.max_message + 1];
                [vec![], vec![0x80, 4], vec![0x9f; 5000], exabytes, large]
                    .map(|bytes| (to(), Bytes::from(bytes), None))
                    .into()
            }
            Attack::UnknownKeys => {
                let mut forged = Vec::new();
                let mut head = parts.head()?;
                for n in 0..200 {
                    OsRandom::default().fill(&mut random)?;
                    head.handle = random.iter().take(8 + n % 2 * 8).copied().collect();
                    let stray = Parts { offer: None, ..parts.with_head(&head) };
                    forged.push((to(), stray.frame(), hint.clone()));
                }
                forged
            }
            Attack::Notice => {
                let mut notice = Vec::new();
                let mut w = Writer::new(&mut notice);
                w.array(2);
                w.uint(0);
                w.bytes(&parts.head()?.id);
                vec![(caller()?, notice.into(), None); 20]
            }
            Attack::Replies => {
                let end = reply.payload.len() * 8 - 24;
                vec![
                    (caller()?, reply.payload.clone(), None),
                    (caller()?, flip(&reply.payload, end), None),
                    (caller()?, request.payload.clone(), None),
                ]
            }
            Attack::Header => {
                let mut forged = Vec::new();
                for change in 0..4 {
                    let mut head = parts.head()?;
                    match change {
                        0 => head.set(1, 2),
                        1 => head.set(0, 2),
                        2 => head.iss = Some("component/attacker".to_owned()),
                        _ => head.exp = head.exp.map(|exp| exp + 1000),
                    }
                    forged.push((to(), parts.with_head(&head).frame(), None));
                }
                forged
            }
        })
    }

    /// What the bus shows after an attack: an answer to the captured call that is not the stored
    /// one is a run, and so is the call sent again. `own` are the answers that the intruder itself put there.
    async fn watch(
        &mut self,
        attack: Attack,
        Captured { request, reply }: &Captured,
        count: usize,
        mut own: Vec<Bytes>,
    ) -> (Verdict, String) {
        let (mut same, mut other, mut notices, mut again) = (0, 0, 0, 0);
        let id = Parts::of(&request.payload).and_then(|parts| parts.head()).map(|head| head.id);
        let id = id.unwrap_or_default();
        let until = Instant::now() + Duration::from_millis(1200);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Some(seen) = self.next(left).await else { break };
            let answer = seen.exchange.ends_with(".reply");
            if answer && let Some(at) = own.iter().position(|own| *own == seen.payload) {
                own.swap_remove(at);
                continue;
            }
            match answer {
                true if seen.payload == reply.payload => same += 1,
                true if seen.payload.len() < 40 => notices += 1,
                true if answers(&seen.payload, &id) => other += 1,
                false if matches!(attack, Attack::Notice) && names(&seen.payload, &id) => {
                    again += 1
                }
                _ => {}
            }
        }
        let text = format!(
            "{count} published: {same} stored answers, {other} other answers, {notices} notices, \
             {again} sent again"
        );
        let may = match attack {
            Attack::Replay => 3,
            Attack::Properties => 1,
            Attack::BitFlips => count,
            _ => 0,
        };
        let through = other > 0 || same > may || notices > 60 || again > 0;
        (if through { Verdict::GotThrough } else { Verdict::Held }, text)
    }
}

/// A call among `requests` with its answer among `replies`.
fn pair(requests: &[Seen], replies: &[Seen]) -> Option<Captured> {
    for request in requests {
        let id = Parts::of(&request.payload).ok()?.head().ok()?.id;
        if let Some(reply) = replies.iter().find(|reply| answers(&reply.payload, &id)) {
            return Some(Captured { request: request.clone(), reply: reply.clone() });
        }
    }
    None
}

/// Whether a frame is an answer to the message with this id.
fn answers(frame: &[u8], id: &[u8]) -> bool {
    let Ok(head) = Parts::of(frame).and_then(|parts| parts.head()) else { return false };
    let Some(to) = head.own.get(3).filter(|_| head.iss.is_none()) else { return false };
    to.get(1..).is_some_and(|to| to == id)
}

/// Whether a frame is the message with this id.
fn names(frame: &[u8], id: &[u8]) -> bool {
    Parts::of(frame).and_then(|parts| parts.head()).is_ok_and(|head| head.id == id)
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Live({})", self.exchange)
    }
}
