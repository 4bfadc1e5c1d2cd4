//! A bus that misbehaves: it drops, doubles, delays, reorders, alters, cuts and re-routes what is
//! published, by a plan. A seeded plan prints its seed; `BULLA_SEED` runs it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bulla_transport::memory::MemoryTransport;
use bulla_transport::*;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// What becomes of one published message: nothing, or any number of messages.
pub type Plan = Box<dyn Fn(u64, &Address, &[Sent]) -> Vec<Act> + Send + Sync>;

/// What was published, as it was published.
#[derive(Clone)]
pub struct Sent {
    pub to: Address,
    pub message: Outbound,
}

impl Sent {
    pub fn is_reply(&self) -> bool {
        matches!(self.to, Address::Reply { .. })
    }
}

/// One thing to do with a message.
#[derive(Debug, Clone)]
pub enum Act {
    Pass,
    Delay(Duration),
    /// Inverts one bit, anywhere.
    Flip(u64),
    /// Keeps a part.
    Cut(u64),
    /// To where another message went.
    Reroute(Address),
    /// Puts this into the frame's last place, which is empty.
    Last(Bytes),
}

pub struct Bus {
    inner: Arc<MemoryTransport>,
    plan: Plan,
    count: AtomicU64,
    sent: Mutex<Vec<Sent>>,
    events: broadcast::Sender<TransportEvent>,
}

impl Bus {
    pub fn new(inner: MemoryTransport, plan: Plan) -> Self {
        Self {
            inner: Arc::new(inner),
            plan,
            count: AtomicU64::new(0),
            sent: Mutex::default(),
            events: broadcast::Sender::new(16),
        }
    }

    /// Everything that was published so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.sent.lock().clone()
    }

    /// The requests among them.
    pub fn requests(&self) -> Vec<Sent> {
        self.sent().into_iter().filter(|sent| !sent.is_reply()).collect()
    }

    /// The replies among them.
    pub fn replies(&self) -> Vec<Sent> {
        self.sent().into_iter().filter(Sent::is_reply).collect()
    }

    /// Publishes as the broker: no plan, no record.
    pub async fn inject(&self, to: &Address, payload: Bytes) {
        self.inner.publish(to, plain(payload)).await.unwrap();
    }

    pub fn tell(&self, event: TransportEvent) {
        self.events.send(event).unwrap();
    }
}

pub fn plain(payload: Bytes) -> Outbound {
    Outbound {
        payload,
        ttl: None,
        reply_hint: None,
        persistent: false,
        mandatory: false,
        confirm: false,
    }
}

/// An honest bus that remembers.
pub fn honest() -> Plan {
    Box::new(|_, _, _| vec![Act::Pass])
}

/// Misbehaves at random; `BULLA_SEED` instead of `seed` if it is set.
pub fn seeded(seed: u64) -> Plan {
    let seed = std::env::var("BULLA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
    println!("BULLA_SEED={seed}");
    Box::new(move |n, _, sent| {
        let mut random = SplitMix(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let acts = match random.below(16) {
            0..=6 => 1,
            7..=9 => 2,
            10 => 4,
            11 => 0,
            _ => {
                let mut acts = vec![Act::Pass];
                acts.extend((0..=random.below(2)).map(|_| act(&mut random, sent)));
                return acts;
            }
        };
        (0..acts).map(|_| act(&mut random, sent)).collect()
    })
}

fn act(random: &mut SplitMix, sent: &[Sent]) -> Act {
    match random.below(10) {
        0..=4 => Act::Pass,
        5..=6 => Act::Delay(Duration::from_millis(random.below(80))),
        7 => Act::Flip(random.next()),
        8 => Act::Cut(random.next()),
        _ => {
            let other = usize::try_from(random.below(sent.len() as u64)).unwrap();
            Act::Reroute(sent[other].to.clone())
        }
    }
}

struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

pub fn flip(payload: &[u8], at: u64) -> Bytes {
    let mut bytes = payload.to_vec();
    let bit = usize::try_from(at % (bytes.len() as u64 * 8)).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes.into()
}

#[async_trait]
impl Transport for Bus {
    fn name(&self) -> &'static str {
        "hostile"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn declare(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<(), TransportError> {
        self.inner.declare(inbox, options).await
    }

    async fn publish(&self, to: &Address, message: Outbound) -> Result<(), PublishError> {
        let acts = {
            let mut sent = self.sent.lock();
            sent.push(Sent { to: to.clone(), message: message.clone() });
            (self.plan)(self.count.fetch_add(1, Ordering::SeqCst), to, &sent)
        };
        for act in acts {
            let mut changed = plain(message.payload.clone());
            changed.reply_hint.clone_from(&message.reply_hint);
            match act {
                Act::Pass => self.inner.publish(to, message.clone()).await?,
                Act::Delay(pause) => {
                    let (inner, to, message) = (self.inner.clone(), to.clone(), message.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(pause).await;
                        inner.publish(&to, message).await.ok();
                    });
                }
                Act::Flip(at) => {
                    changed.payload = flip(&message.payload, at);
                    self.inner.publish(to, changed).await?;
                }
                Act::Cut(at) => {
                    let keep = usize::try_from(at % message.payload.len() as u64).unwrap();
                    changed.payload = message.payload.slice(..keep);
                    self.inner.publish(to, changed).await?;
                }
                Act::Last(item) => {
                    let (null, rest) = message.payload.split_last().unwrap();
                    assert_eq!(*null, 0xf6);
                    changed.payload = [rest, &item[..]].concat().into();
                    self.inner.publish(to, changed).await?;
                }
                Act::Reroute(elsewhere) => self.inner.publish(&elsewhere, changed).await?,
            }
        }
        Ok(())
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        self.inner.consume(inbox, options).await
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        self.inner.delete(inbox).await
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        self.events.subscribe()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
