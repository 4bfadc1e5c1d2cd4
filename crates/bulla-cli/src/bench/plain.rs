//! RPC without a seal, to measure against. It exists for the bench alone and no setting reaches
//! it; but for the seal and the claims it does what the sealed client and server do: one reply
//! inbox, correlation by message id, the same properties, prefetch, confirmations and
//! acknowledgements, the same time-out and limit of concurrency, arguments and results through
//! the same codec.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_rpc::client::{DEFAULT_TIMEOUT, DEFAULT_TTL};
use bulla_rpc::value;
use bulla_seal::RequestBody;
use bulla_seal::cbor::{Reader, Writer};
use bulla_transport::{
    Address, ConsumeOptions, Consumer, Delivery, Inbox, Outbound, ReplyName, Transport,
};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::lane::{Echo, METHOD};
use super::world::EXCHANGE;
use super::{BenchError, CONCURRENT_METHODS, REPLY_PREFETCH};

const SHARDS: usize = 16;
/// Room for the body around the arguments.
const ROOM: usize = 1024;

type Id = [u8; 8];
type Shard = Mutex<HashMap<Id, oneshot::Sender<Bytes>>>;

/// Calls that wait, by id.
#[derive(Default)]
struct Pending {
    shards: [Shard; SHARDS],
}

impl Pending {
    fn shard(&self, id: Id) -> &Shard {
        let [first, ..] = self.shards.each_ref();
        let index = usize::from(id.last().copied().unwrap_or_default()) % SHARDS;
        self.shards.get(index).unwrap_or(first)
    }
}

/// Takes its call out when it is dropped.
struct Waiting<'a> {
    pending: &'a Pending,
    id: Id,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pending.shard(self.id).lock().remove(&self.id);
    }
}

pub(super) struct PlainClient {
    transport: Arc<dyn Transport>,
    to: Address,
    name: ReplyName,
    pending: Arc<Pending>,
    next: AtomicU64,
    closed: CancellationToken,
}

impl PlainClient {
    pub(super) async fn start(
        transport: Arc<dyn Transport>,
        topic: &str,
        principal: &str,
        process: &str,
    ) -> Result<Self, BenchError> {
        let name = ReplyName::new(principal, process)
            .ok_or(BenchError::Broken("a reply name that is too long"))?;
        let inbox = Inbox::Reply { exchange: EXCHANGE.to_owned(), name: name.clone() };
        let options = ConsumeOptions { prefetch: REPLY_PREFETCH, ..ConsumeOptions::default() };
        let consumer = transport.consume(&inbox, &options).await?;
        let (pending, closed) = (Arc::new(Pending::default()), CancellationToken::new());
        tokio::spawn(listen(consumer, pending.clone(), closed.clone()));
        let to = Address::Topic { exchange: EXCHANGE.to_owned(), topic: topic.to_owned() };
        Ok(Self { transport, to, name, pending, next: AtomicU64::new(0), closed })
    }

    pub(super) async fn call(&self, args: &Echo) -> Result<Echo, BenchError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let payload = request(id, args, Some(self.name.as_str()))?;
        let (tx, reply) = oneshot::channel();
        self.pending.shard(id).lock().insert(id, tx);
        let _waiting = Waiting { pending: &self.pending, id };
        let outbound = Outbound {
            ttl: Some(DEFAULT_TIMEOUT),
            reply_hint: Some(self.name.clone()),
            mandatory: true,
            ..Outbound::new(payload)
        };
        self.transport.publish(&self.to, outbound).await?;
        let reply = tokio::time::timeout(DEFAULT_TIMEOUT, reply)
            .await
            .map_err(|_| BenchError::Broken("a plain call timed out"))?
            .map_err(|_| BenchError::Broken("the plain client was closed"))?;
        Ok(value::decode(result(&reply).ok_or(BenchError::Broken("a malformed reply"))?)?)
    }

    pub(super) async fn cast(&self, args: &Echo) -> Result<(), BenchError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let outbound = Outbound {
            ttl: Some(DEFAULT_TTL),
            persistent: true,
            mandatory: true,
            confirm: true,
            ..Outbound::new(request(id, args, None)?)
        };
        Ok(self.transport.publish(&self.to, outbound).await?)
    }
}

impl Drop for PlainClient {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

async fn listen(mut consumer: Box<dyn Consumer>, pending: Arc<Pending>, closed: CancellationToken) {
    loop {
        let delivery = match consumer.next_now() {
            Some(delivery) => {
                tokio::task::coop::consume_budget().await;
                Some(delivery)
            }
            None => tokio::select! {
                delivery = consumer.next() => delivery,
                () = closed.cancelled() => None,
            },
        };
        let Some(delivery) = delivery else { break };
        delivery.acker.ack();
        let id = reply_id(&delivery.payload);
        let waiting = id.and_then(|id| pending.shard(id).lock().remove(&id));
        if let Some(waiting) = waiting {
            // The caller may have given up.
            let _ = waiting.send(delivery.payload);
        }
    }
    consumer.stop().await;
}

/// Takes requests and answers them.
pub(super) struct PlainServer {
    stop: CancellationToken,
    taking: JoinHandle<()>,
}

impl PlainServer {
    pub(super) async fn start(
        transport: Arc<dyn Transport>,
        topic: &str,
        me: &str,
        executed: Arc<AtomicU64>,
    ) -> Result<Self, BenchError> {
        let inbox = Inbox::Topic { exchange: EXCHANGE.to_owned(), topic: topic.to_owned() };
        let consumer = transport.consume(&inbox, &ConsumeOptions::default()).await?;
        let stop = CancellationToken::new();
        let work = Arc::new(Work { transport, me: me.to_owned(), executed });
        let taking = tokio::spawn(work.take(consumer, stop.clone()));
        Ok(Self { stop, taking })
    }

    /// Takes nothing more.
    pub(super) async fn close(self) {
        self.stop.cancel();
        // A task that panicked took its consumer with it.
        let _ = self.taking.await;
    }
}

struct Work {
    transport: Arc<dyn Transport>,
    me: String,
    executed: Arc<AtomicU64>,
}

impl Work {
    async fn take(self: Arc<Self>, mut consumer: Box<dyn Consumer>, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONCURRENT_METHODS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { break };
            let delivery = match consumer.next_now() {
                Some(delivery) => Some(delivery),
                None => tokio::select! {
                    delivery = consumer.next() => delivery,
                    () = stop.cancelled() => None,
                },
            };
            let Some(delivery) = delivery else { break };
            let work = self.clone();
            tokio::spawn(async move {
                work.run(delivery).await;
                drop(permit);
            });
        }
        consumer.stop().await;
    }

    async fn run(&self, delivery: Delivery) {
        match self.answer(&delivery.payload).await {
            Some(Some((to, payload))) => {
                let to =
                    Address::Reply { exchange: EXCHANGE.to_owned(), to, from: self.me.clone() };
                let outbound = Outbound::new(payload);
                if let Err(error) = self.transport.publish(&to, outbound).await {
                    tracing::warn!(%error, "a plain reply could not be sent");
                }
            }
            Some(None) => {}
            None => tracing::warn!("a plain request is malformed"),
        }
        delivery.acker.ack();
    }

    /// Runs a request; `None` if it can't be read. A call has somebody to answer to.
    async fn answer(&self, payload: &[u8]) -> Option<Option<(ReplyName, Bytes)>> {
        let mut r = Reader::new(payload);
        r.array(2).ok()?;
        let id = r.fixed::<8>().ok()?;
        let body = RequestBody::parse(payload.get(r.position()..)?).ok()?;
        if body.method != METHOD {
            return None;
        }
        let args: Echo = value::decode(body.args).ok()?;
        self.executed.fetch_add(1, Ordering::Relaxed);
        let Some(to) = body.reply_to else { return Some(None) };
        let mut out = BytesMut::with_capacity(ROOM + args.text.len());
        let mut w = Writer::new(&mut out);
        w.array(2);
        w.bytes(&id);
        value::encode(&args, &mut out).ok()?;
        Some(Some((ReplyName::parse(to)?, out.freeze())))
    }
}

fn request(id: Id, args: &Echo, reply_to: Option<&str>) -> Result<Bytes, BenchError> {
    let body = RequestBody {
        namespace: None,
        method: METHOD,
        version: "1.0",
        args: &[],
        context: None,
        trace_parent: None,
        reply_to,
    };
    let mut out = BytesMut::with_capacity(ROOM + args.text.len());
    let mut w = Writer::new(&mut out);
    w.array(2);
    w.bytes(&id);
    body.write_before_args(&mut out);
    value::encode(args, &mut out)?;
    body.write_after_args(&mut out);
    Ok(out.freeze())
}

fn result(reply: &[u8]) -> Option<&[u8]> {
    let mut r = Reader::new(reply);
    r.array(2).ok()?;
    r.fixed::<8>().ok()?;
    reply.get(r.position()..)
}

fn reply_id(reply: &[u8]) -> Option<Id> {
    let mut r = Reader::new(reply);
    r.array(2).ok()?;
    r.fixed().ok()
}
