//! The task that takes what the broker sends apart.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::connection::Event;
use super::content::{Header, Message, Route};
use super::error::{AmqpError, Malformed};
use super::frame::{self, Frame, Parsed};
use super::method::{CANCEL_OK, CHANNEL_CLOSE_OK, CHANNEL_FLOW_OK, CLOSE_OK, Incoming, REJECT};
use super::state::{Chan, Core};
use super::write::method;

/// Room that is made for the next read.
const READ: usize = 64 << 10;
/// Room that is made for a body before any of it is there.
const FIRST: usize = 256 << 10;

/// Whether to read on.
enum Next {
    On,
    /// The connection is over; the cause was told.
    Over,
}

/// A message on its way in.
struct Content {
    channel: Arc<Chan>,
    kind: Kind,
    header: Option<Header>,
    body: BytesMut,
    /// Bytes that are missing.
    left: u64,
    /// It is larger than we take: what comes of it is not kept.
    too_large: bool,
}

enum Kind {
    Delivery { tag: u64, redelivered: bool, route: Option<Box<Route>> },
    Return(Route),
}

pub(super) struct Reader {
    core: Arc<Core>,
    max_body: usize,
    /// What has begun on each channel.
    contents: Vec<Option<Content>>,
}

impl Reader {
    pub(super) fn new(core: Arc<Core>, max_body: usize) -> Self {
        Self { core, max_body, contents: Vec::new() }
    }

    /// Reads until the end, and tells it.
    pub(super) async fn run(mut self, mut source: impl AsyncRead + Unpin, mut read: BytesMut) {
        let why = loop {
            let wanted = match self.frames(&mut read) {
                Ok((Next::Over, _)) => return,
                Ok((Next::On, wanted)) => wanted,
                Err(error) => break format!("the broker sent what it may not: {error}"),
            };
            if read.capacity() - read.len() < wanted.max(READ / 4) {
                read.reserve(wanted.max(READ));
            }
            match source.read_buf(&mut read).await {
                Ok(0) => break "the broker ended the connection".to_owned(),
                Ok(_) => self.core.reads.fetch_add(1, Ordering::Relaxed),
                Err(error) => break error.to_string(),
            };
        };
        self.core.end(&why.into(), true);
    }

    /// Takes all whole frames; how many bytes the next one lacks.
    fn frames(&mut self, read: &mut BytesMut) -> Result<(Next, usize), Malformed> {
        let (mut bytes, limit) = (&read[..], self.core.tuned.frame_max);
        let (next, wanted) = loop {
            match frame::parse(bytes, limit)? {
                Parsed::Incomplete(size) => break (Next::On, size.saturating_sub(bytes.len())),
                Parsed::Frame(frame, rest) => {
                    bytes = rest;
                    if let Next::Over = self.frame(frame)? {
                        break (Next::Over, 0);
                    }
                }
            }
        };
        let used = read.len() - bytes.len();
        read.advance(used);
        Ok((next, wanted))
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<Next, Malformed> {
        match frame.kind {
            frame::METHOD => return self.method(frame.channel, Incoming::parse(frame.payload)?),
            frame::HEADER => self.header(frame.channel, frame.payload)?,
            frame::BODY => self.body(frame.channel, frame.payload)?,
            frame::HEARTBEAT => {}
            _ => return Err(Malformed("a frame of no known kind")),
        }
        Ok(Next::On)
    }

    fn method(&mut self, id: u16, incoming: Incoming<'_>) -> Result<Next, Malformed> {
        if id == 0 {
            return self.connection(incoming);
        }
        let channel = self.core.channel(id)?;
        if self.content(id).is_some_and(|content| content.is_some()) {
            // A channel may be closed in the middle of a message; nothing else comes there.
            match incoming {
                Incoming::ChannelClose { .. } | Incoming::Answer(CHANNEL_CLOSE_OK, _) => {}
                _ => return Err(Malformed("a method in the middle of a message")),
            }
        }
        match incoming {
            Incoming::Deliver { tag, redelivered, exchange, routing_key } => {
                let state = channel.state.lock();
                let routed = state.consumer.as_ref().is_some_and(|consumer| consumer.with_route);
                drop(state);
                let route = routed.then(|| Box::new(Route::new(exchange, routing_key)));
                self.begin(channel, Kind::Delivery { tag, redelivered, route });
            }
            Incoming::Return { exchange, routing_key } => {
                self.begin(channel, Kind::Return(Route::new(exchange, routing_key)));
            }
            Incoming::Confirm { tag, multiple, taken } => {
                let mut state = channel.state.lock();
                let ended = state.ended.is_some();
                match &mut state.confirms {
                    Some(confirms) => confirms.settle(tag, multiple, taken)?,
                    None if ended => {}
                    None => return Err(Malformed("a confirmation that nobody asked for")),
                }
            }
            Incoming::Cancelled { tag, nowait } => {
                let mut state = channel.state.lock();
                state.consumer = None;
                if !nowait && state.ended.is_none() {
                    self.put(|out| {
                        method(out, id, CANCEL_OK, |out| {
                            out.push(u8::try_from(tag.len()).unwrap_or(0));
                            out.extend_from_slice(tag);
                            Ok(())
                        })
                    });
                }
            }
            Incoming::Flow { active } => {
                self.put(|out| {
                    method(out, id, CHANNEL_FLOW_OK, |out| {
                        out.push(active.into());
                        Ok(())
                    })
                });
            }
            Incoming::ChannelClose { code, text } => self.channel_close(&channel, code, text),
            Incoming::Answer(CHANNEL_CLOSE_OK, answer) => {
                let mut state = channel.state.lock();
                if state.ended.is_none() {
                    return Err(Malformed("a channel that was not to be closed"));
                }
                state.answered(CHANNEL_CLOSE_OK, answer)?;
                drop(state);
                self.forget(id);
                self.core.remove_channel(id);
            }
            Incoming::Answer(method, answer) => {
                let mut state = channel.state.lock();
                if method == CANCEL_OK {
                    // Nothing more comes.
                    state.consumer = None;
                }
                state.answered(method, answer)?;
            }
            _ => return Err(Malformed("a method of the connection on a channel")),
        }
        Ok(Next::On)
    }

    /// The broker closes a channel: somebody did there what they may not.
    fn channel_close(&mut self, channel: &Arc<Chan>, code: u16, text: Arc<str>) {
        let closing = channel.state.lock().ended.is_some();
        self.forget(channel.id);
        if !closing {
            channel.end(&AmqpError::Refused { code, text });
        }
        self.put(|out| method(out, channel.id, CHANNEL_CLOSE_OK, |_| Ok(())));
        // If we are closing it too, its number is free when the broker has answered that.
        if !closing {
            self.core.remove_channel(channel.id);
        }
    }

    fn connection(&mut self, incoming: Incoming<'_>) -> Result<Next, Malformed> {
        let event = match incoming {
            Incoming::Blocked { why } => Event::Blocked(why),
            Incoming::Unblocked => Event::Unblocked,
            Incoming::Close { text, .. } => {
                self.put(|out| method(out, 0, CLOSE_OK, |_| Ok(())));
                self.core.end(&text, false);
                return Ok(Next::Over);
            }
            Incoming::CloseOk => {
                self.core.end(&"the connection was closed".into(), false);
                return Ok(Next::Over);
            }
            _ => return Err(Malformed("a method of a channel on the connection")),
        };
        self.tell(event);
        Ok(Next::On)
    }

    fn begin(&mut self, channel: Arc<Chan>, kind: Kind) {
        let index = usize::from(channel.id);
        if self.contents.len() <= index {
            self.contents.resize_with(index + 1, || None);
        }
        let content = Content {
            channel,
            kind,
            header: None,
            body: BytesMut::new(),
            left: 0,
            too_large: false,
        };
        if let Some(place) = self.contents.get_mut(index) {
            *place = Some(content);
        }
    }

    fn content(&mut self, id: u16) -> Option<&mut Option<Content>> {
        self.contents.get_mut(usize::from(id))
    }

    fn forget(&mut self, id: u16) {
        if let Some(content) = self.content(id) {
            *content = None;
        }
    }

    fn header(&mut self, id: u16, payload: &[u8]) -> Result<(), Malformed> {
        let max = self.max_body;
        let content = self.content(id).and_then(Option::as_mut);
        let content = content.ok_or(Malformed("a header without a message"))?;
        if content.header.is_some() {
            return Err(Malformed("a second header"));
        }
        let header = Header::parse(payload)?;
        content.left = header.size;
        content.too_large = usize::try_from(header.size).map_or(true, |size| size > max);
        if !content.too_large {
            content.body.reserve(usize::try_from(header.size).unwrap_or(FIRST).min(FIRST));
        }
        content.header = Some(header);
        if content.left == 0 { self.complete(id) } else { Ok(()) }
    }

    fn body(&mut self, id: u16, payload: &[u8]) -> Result<(), Malformed> {
        let content = self.content(id).and_then(Option::as_mut);
        let content = content.filter(|content| content.header.is_some());
        let content = content.ok_or(Malformed("a body without a header"))?;
        let longer = Malformed("a body that is longer than its header says");
        content.left = content.left.checked_sub(payload.len() as u64).ok_or(longer)?;
        if !content.too_large {
            content.body.extend_from_slice(payload);
        }
        if content.left == 0 { self.complete(id) } else { Ok(()) }
    }

    fn complete(&mut self, id: u16) -> Result<(), Malformed> {
        let Some(content) = self.content(id).and_then(Option::take) else { return Ok(()) };
        let Content { channel, kind, header, body, too_large, .. } = content;
        let body = body.freeze();
        match kind {
            Kind::Delivery { tag, .. } if too_large => self.reject(&channel, tag),
            Kind::Delivery { tag, redelivered, route } => {
                let state = channel.state.lock();
                // One that was cancelled may still get what was on its way: the broker has it again
                // when the channel closes.
                if let Some(consumer) = &state.consumer {
                    consumer.backlog.add(body.len())?;
                    let reply_to = header.and_then(|header| header.reply_to);
                    let message = Message { tag, redelivered, reply_to, body, route };
                    // A consumer that is gone takes its channel with it.
                    let _ = consumer.messages.send(message);
                }
            }
            Kind::Return(route) => self.returned(&channel, &route, body),
        }
        Ok(())
    }

    /// It would come again for ever.
    fn reject(&self, channel: &Chan, tag: u64) {
        let state = channel.state.lock();
        let limit = self.max_body;
        tracing::warn!(limit, "a message that is larger than the limit is thrown away");
        let acks = state.consumer.as_ref().is_some_and(|consumer| consumer.acks);
        if acks && state.ended.is_none() {
            self.put(|out| {
                method(out, channel.id, REJECT, |out| {
                    out.extend_from_slice(&tag.to_be_bytes());
                    out.push(0);
                    Ok(())
                })
            });
        }
    }

    fn returned(&self, channel: &Chan, route: &Route, body: Bytes) {
        let mut state = channel.state.lock();
        let waited_for = state
            .confirms
            .as_mut()
            .is_some_and(|confirms| confirms.returned(&route.exchange, &route.routing_key, &body));
        drop(state);
        if !waited_for {
            self.tell(Event::Returned { routing_key: route.routing_key.clone(), body });
        }
    }

    fn tell(&self, event: Event) {
        // Nobody may be listening, or they are far behind.
        let _ = self.core.events.try_send(event);
    }

    fn put(&self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), AmqpError>) {
        // A connection that takes nothing more is at its end.
        let _ = self.core.outbox.put(write);
    }
}

impl Route {
    fn new(exchange: &[u8], routing_key: &[u8]) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { exchange: text(exchange), routing_key: text(routing_key) }
    }
}
