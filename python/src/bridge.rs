//! The oslo carrier's end in Rust: a transport whose messages are carried by oslo.messaging's own
//! driver in Python. What goes to the exchange of the deployment itself goes natively.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bulla_oslo::Ids;
use bulla_oslo::wire::{Call, Monitor, ReplyQueue};
use bulla_rpc::Server;
use bulla_seal::{Detail, MAX_FRAME, MessageId, Outcome, Parsed};
use bulla_transport::{
    Acker, Address, Capabilities, ConsumeOptions, Consumer, Delivery, Inbox, Logins, Outbound,
    PublishError, ReplyName, Settle, Transport, TransportError, TransportEvent,
};
use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::driven::{Driven, Parked};
use crate::errors::Usage;
use crate::job::Work;
use crate::wait::{Cell, Queue};

/// Messages that were taken from the bus and wait for their turn, of one inbox.
const BACKLOG: usize = 1024;
/// Requests whose way back is remembered.
const WAYS: usize = 16_384;

tokio::task_local! {
    /// Where the frame of the request that is being made goes.
    pub(crate) static SEALED: Arc<Cell<Option<Bytes>>>;
}

/// Something for Python's driver to publish that no thread of its waits to publish.
#[derive(Debug)]
pub(crate) enum Errand {
    /// A reply, or what stands in its place.
    Reply { way: Call, frame: Bytes, ending: bool },
    /// A request, sent again or made by the protocol itself.
    Request {
        to: Address,
        frame: Bytes,
        reply_queue: Option<String>,
        sent: oneshot::Sender<Result<(), String>>,
    },
}

#[derive(Default)]
pub(crate) struct Bridge {
    /// For what is published: no two messages have the same.
    pub(crate) ids: Ids,
    inboxes: Mutex<HashMap<Inbox, mpsc::Sender<Delivery>>>,
    /// For what Python's driver is to publish by itself.
    pub(crate) errands: Queue<Errand>,
    ways: Mutex<Ways>,
    /// Requests that were handed over, and of which it is not known yet what becomes of them.
    unjudged: Mutex<HashSet<MessageId>>,
    /// What takes requests on the thread that brings them.
    server: Mutex<Option<Weak<Server>>>,
    pub(crate) parked: Parked,
    /// Replies that a thread of Python's waits for.
    awaited: Mutex<HashMap<MessageId, Arc<Cell<Option<Bytes>>>>>,
}

/// The newest requests' ways back.
#[derive(Default)]
struct Ways {
    by_request: HashMap<MessageId, Known>,
    order: VecDeque<MessageId>,
}

/// What became of a message that was handed over.
pub(crate) enum Handed {
    /// It is on its way.
    On,
    /// It runs: this is the work, and what is left to do after it.
    Work(Box<Work>),
}

thread_local! {
    /// The work that comes out while this thread hands a message over.
    static OUT: RefCell<Option<Vec<Work>>> = const { RefCell::new(None) };
}

/// Keeps the work if this thread waits for it, or gives it back.
pub(crate) fn kept(work: Work) -> Option<Work> {
    OUT.with_borrow_mut(|out| match out {
        Some(out) if out.is_empty() => {
            out.push(work);
            None
        }
        _ => Some(work),
    })
}

/// What is known of a request beside itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) way: Option<Call>,
    /// Which listener of Python's took it.
    pub(crate) listener: u32,
}

/// A message could not be handed over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Nobody consumes from there.
    NoInbox,
    /// Too many wait.
    Full,
}

impl Bridge {
    /// How a call is answered that has its replies come to this queue.
    pub(crate) fn call(&self, reply_queue: &str, monitor: Option<f64>) -> PyResult<Call> {
        let queue = ReplyQueue::parse(reply_queue)
            .ok_or_else(|| Usage::new_err(format!("`{reply_queue}` is no reply queue's name")))?;
        let monitor = monitor.filter(|seconds| *seconds != 0.0).map(|seconds| {
            Monitor::from_secs(seconds).ok_or_else(|| {
                Usage::new_err("the time between two signs of life is more than 0 s, at most a day")
            })
        });
        Ok(Call { id: self.ids.next(), reply_queue: queue, monitor: monitor.transpose()? })
    }

    /// Requests are taken by this server from now on.
    pub(crate) fn serve(&self, server: &Arc<Server>) {
        *self.server.lock() = Some(Arc::downgrade(server));
    }

    /// Hands a frame over that was taken from `inbox`: on this thread, unless as many run as may.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        inbox: &Inbox,
        frame: Bytes,
        known: Known,
        runtime: &Handle,
    ) -> Result<Handed, NotTaken> {
        let taker = self.inboxes.lock().get(inbox).cloned().ok_or(NotTaken::NoInbox)?;
        let place = taker.clone().try_reserve_owned().map_err(|_| NotTaken::Full)?;
        let request = id_of(&frame);
        let hint = known.way.as_ref().and_then(|way| ReplyName::queue(way.reply_queue.as_str()));
        if let Some(request) = request {
            self.unjudged.lock().insert(request);
            self.ways.lock().insert(request, known);
        }
        let taken = Taken {
            bridge: self.clone(),
            request,
            again: Some((taker, frame.clone(), hint.clone())),
            inbox: Arc::new(inbox.clone()),
        };
        let delivery = Delivery {
            payload: frame,
            inbox: taken.inbox.clone(),
            redelivered: false,
            reply_hint: hint,
            acker: Acker::new(taken),
        };
        let server = self.server.lock().as_ref().and_then(Weak::upgrade);
        let Some(server) = server.filter(|server| server.has_room()) else {
            place.send(delivery);
            return Ok(Handed::On);
        };
        drop(place);
        let run = Driven::new(server.take(delivery), runtime);
        OUT.set(Some(Vec::new()));
        let ended = run.poll();
        let out = OUT.take().and_then(|mut out| out.pop());
        let Some(mut work) = out else {
            if !ended {
                run.spawn();
            }
            return Ok(Handed::On);
        };
        self.parked.push(&run);
        work.rest = Some(run);
        Ok(Handed::Work(Box::new(work)))
    }

    /// A request passed, or went away.
    pub(crate) fn judged(&self, request: MessageId) {
        self.unjudged.lock().remove(&request);
    }

    /// How many requests are not judged yet.
    pub(crate) fn unjudged(&self) -> usize {
        self.unjudged.lock().len()
    }

    /// What is known of a request that came over this carrier.
    pub(crate) fn known_of(&self, request: MessageId) -> Known {
        self.ways.lock().by_request.get(&request).cloned().unwrap_or_default()
    }

    /// The reply to `request` goes into the cell instead of becoming an errand.
    pub(crate) fn await_reply(&self, request: MessageId) -> Arc<Cell<Option<Bytes>>> {
        let cell = Arc::<Cell<Option<Bytes>>>::default();
        self.awaited.lock().insert(request, cell.clone());
        cell
    }

    fn reply(&self, frame: Bytes) {
        let Some((request, ending)) = answered(&frame) else { return };
        if ending && let Some(cell) = self.awaited.lock().remove(&request) {
            return cell.set(Some(frame));
        }
        if let Some(way) = self.known_of(request).way {
            self.errands.push(Errand::Reply { way, frame, ending });
        }
    }

    async fn request(&self, to: &Address, message: Outbound) -> Result<(), PublishError> {
        if let Ok(cell) = SEALED.try_with(Arc::clone) {
            cell.set(Some(message.payload));
            return Ok(());
        }
        let (sent, done) = oneshot::channel();
        self.errands.push(Errand::Request {
            to: to.clone(),
            frame: message.payload,
            reply_queue: message.reply_hint.map(|name| name.as_str().to_owned()),
            sent,
        });
        match done.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => {
                Err(TransportError::Unreachable { address: "the broker".into(), why }.into())
            }
            Err(_) => Err(TransportError::Closed.into()),
        }
    }

    fn consume(&self, inbox: &Inbox) -> Taker {
        let (tx, rx) = mpsc::channel(BACKLOG);
        self.inboxes.lock().insert(inbox.clone(), tx);
        Taker(rx)
    }

    /// Nothing comes or goes any more.
    pub(crate) fn close(&self) {
        self.inboxes.lock().clear();
        self.errands.close();
        for (_, cell) in self.awaited.lock().drain() {
            cell.set(None);
        }
    }
}

impl Ways {
    fn insert(&mut self, request: MessageId, known: Known) {
        if self.by_request.insert(request, known).is_none() {
            self.order.push_back(request);
        }
        while self.order.len() > WAYS {
            if let Some(oldest) = self.order.pop_front() {
                self.by_request.remove(&oldest);
            }
        }
    }
}

fn id_of(frame: &Bytes) -> Option<MessageId> {
    Parsed::parse(frame.clone(), MAX_FRAME).ok().map(|parsed| parsed.header().id)
}

/// Which request a reply, or `offer-needed`, answers, and whether that ends it.
fn answered(frame: &Bytes) -> Option<(MessageId, bool)> {
    if let Some(request) = bulla_rpc::offer_needed(frame) {
        return Some((request, false));
    }
    let parsed = Parsed::parse(frame.clone(), MAX_FRAME).ok()?;
    match &parsed.header().detail {
        Detail::Reply { in_reply_to, outcome, .. } => {
            Some((*in_reply_to, *outcome != Outcome::Progress))
        }
        _ => None,
    }
}

/// A delivery in hand. The broker was told already: oslo.messaging acknowledges before it runs.
struct Taken {
    bridge: Arc<Bridge>,
    request: Option<MessageId>,
    again: Option<(mpsc::Sender<Delivery>, Bytes, Option<ReplyName>)>,
    inbox: Arc<Inbox>,
}

impl Settle for Taken {
    fn ack(mut self: Box<Self>) {
        self.again = None;
        if let Some(request) = self.request {
            self.bridge.judged(request);
        }
        // Who waits for a reply that was not sent waits in vain.
        if let Some(request) = self.request
            && let Some(cell) = self.bridge.awaited.lock().remove(&request)
        {
            cell.set(None);
        }
    }

    fn put_back(self: Box<Self>) {
        // Dropping it does.
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some((taker, frame, hint)) = self.again.take() else { return };
        let (bridge, request, inbox) = (self.bridge.clone(), self.request, self.inbox.clone());
        let Ok(place) = taker.clone().try_reserve_owned() else { return };
        let again = Some((taker, frame.clone(), hint.clone()));
        let taken = Self { bridge, request, again, inbox: inbox.clone() };
        place.send(Delivery {
            payload: frame,
            inbox,
            redelivered: true,
            reply_hint: hint,
            acker: Acker::new(taken),
        });
    }
}

struct Taker(mpsc::Receiver<Delivery>);

#[async_trait]
impl Consumer for Taker {
    async fn next(&mut self) -> Option<Delivery> {
        self.0.recv().await
    }

    async fn stop(&mut self) {
        self.0.close();
    }
}

/// Both carriers as one transport: by exchange, and by the kind of a reply's name.
pub(crate) struct Carriers {
    pub(crate) native: Arc<dyn Transport>,
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) exchange: String,
}

impl Carriers {
    fn is_native(&self, inbox: &Inbox) -> bool {
        match inbox {
            Inbox::Topic { exchange, .. }
            | Inbox::Server { exchange, .. }
            | Inbox::Fanout { exchange, .. } => *exchange == self.exchange,
            Inbox::Reply { name, .. } => !name.is_queue(),
            Inbox::Foreign(_) => true,
        }
    }
}

#[async_trait]
impl Transport for Carriers {
    fn name(&self) -> &'static str {
        "oslo"
    }

    fn capabilities(&self) -> Capabilities {
        self.native.capabilities()
    }

    async fn declare(&self, inbox: &Inbox, options: &ConsumeOptions) -> Result<(), TransportError> {
        match self.is_native(inbox) {
            true => self.native.declare(inbox, options).await,
            // Python's driver declares what it consumes from and sends to.
            false => Ok(()),
        }
    }

    async fn publish(&self, to: &Address, message: Outbound) -> Result<(), PublishError> {
        match to {
            Address::Reply { to, .. } if to.is_queue() => {
                self.bridge.reply(message.payload);
                Ok(())
            }
            Address::Topic { exchange, .. }
            | Address::Server { exchange, .. }
            | Address::Fanout { exchange, .. }
                if *exchange != self.exchange =>
            {
                self.bridge.request(to, message).await
            }
            _ => self.native.publish(to, message).await,
        }
    }

    async fn consume(
        &self,
        inbox: &Inbox,
        options: &ConsumeOptions,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        match self.is_native(inbox) {
            true => self.native.consume(inbox, options).await,
            false => Ok(Box::new(self.bridge.consume(inbox))),
        }
    }

    async fn delete(&self, inbox: &Inbox) -> Result<(), TransportError> {
        match self.is_native(inbox) {
            true => self.native.delete(inbox).await,
            false => Ok(()),
        }
    }

    async fn consumers(&self, inbox: &Inbox) -> Result<u32, TransportError> {
        match self.is_native(inbox) {
            true => self.native.consumers(inbox).await,
            false => Err(TransportError::Unsupported { what: "count of a queue's consumers" }),
        }
    }

    async fn waiting(&self, inbox: &Inbox) -> Result<u64, TransportError> {
        match self.is_native(inbox) {
            true => self.native.waiting(inbox).await,
            false => Err(TransportError::Unsupported { what: "count of a queue's messages" }),
        }
    }

    fn logins(&self) -> Option<&Logins> {
        self.native.logins()
    }

    fn events(&self) -> broadcast::Receiver<TransportEvent> {
        self.native.events()
    }

    async fn close(&self) {
        self.bridge.close();
        self.native.close().await;
    }
}
