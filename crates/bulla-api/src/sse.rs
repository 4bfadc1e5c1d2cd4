//! Server-sent events: a call's progress, and the tap. Written here, read here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bulla_http::{Identity, Stopping};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::admin::JournalStream;
use crate::failure::CallFailure;
use crate::model::{CallAnswer, CallRequest, TapItem};
use crate::plane::{ControlPlane, PROGRESS_BUFFER, TapStream};

/// Names of events.
pub(crate) const PROGRESS: &str = "progress";
pub(crate) const VALUE: &str = "value";
pub(crate) const PROBLEM: &str = "problem";
pub(crate) const SEEN: &str = "seen";
pub(crate) const MISSED: &str = "missed";
pub(crate) const ENTRY: &str = "entry";

/// How often a silent stream shows that it is alive. The client gives up after
/// [`SILENCE`].
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a client waits for anything at all.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);

/// The longest event that is read, in bytes: a value of 16 MiB as JSON, and room.
const MAX_EVENT: usize = 64 << 20;

/// A call whose progress is reported as it comes.
pub(crate) fn call(plane: Arc<dyn ControlPlane>, by: Identity, request: CallRequest) -> Response {
    let (sender, progress) = mpsc::channel(PROGRESS_BUFFER);
    let running = async move { plane.call(&by, request, sender).await }.boxed();
    let state = Running { call: Some(running), progress, ended: None };
    respond(stream::unfold(state, Running::step))
}

/// What the bus sees, until the listener stops.
pub(crate) fn tap(items: TapStream, stopping: Stopping) -> Response {
    let events = items.map(|item| match item {
        TapItem::Seen(seen) => event(SEEN, &seen),
        TapItem::Missed(count) => event(MISSED, &json!({ "count": count })),
    });
    respond(events.take_until(stopping.begun().boxed()))
}

/// What is written into the journals, until the listener stops.
pub(crate) fn journal(items: JournalStream, stopping: Stopping) -> Response {
    let events = items.map(|item| event(ENTRY, &item.entry).id(URL_SAFE_NO_PAD.encode(item.place)));
    respond(events.take_until(stopping.begun().boxed()))
}

/// A call under way; dropping it drops the waiting.
struct Running {
    call: Option<BoxFuture<'static, Result<Value, CallFailure>>>,
    progress: mpsc::Receiver<Value>,
    ended: Option<Result<Value, CallFailure>>,
}

impl Running {
    async fn step(mut self) -> Option<(Event, Self)> {
        if let Some(call) = &mut self.call {
            let ended = tokio::select! {
                biased;
                Some(progress) = self.progress.recv() => {
                    return Some((event(PROGRESS, &progress), self));
                }
                ended = call => ended,
            };
            self.call = None;
            self.ended = Some(ended);
        }
        // What the call reported in its last moment comes before its end.
        if let Ok(progress) = self.progress.try_recv()
            && self.ended.is_some()
        {
            return Some((event(PROGRESS, &progress), self));
        }
        let last = match self.ended.take()? {
            Ok(value) => event(VALUE, &CallAnswer { value }),
            Err(failure) => event(PROBLEM, &failure.to_problem()),
        };
        Some((last, self))
    }
}

fn respond(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    Sse::new(events.map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response()
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).json_data(data).unwrap_or_else(|e| {
        let failure = CallFailure::Internal { why: format!("the event has no JSON form: {e}") };
        let problem = serde_json::to_string(&failure.to_problem()).unwrap_or_default();
        Event::default().event(PROBLEM).data(problem)
    })
}

/// An event as the client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// Cuts a byte stream into events (WHATWG HTML, "parsing an event stream"), as far as our own
/// server writes them: `event`, `data` and comment lines.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
    name: String,
    data: Option<String>,
}

/// The stream is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Garbled(pub(crate) &'static str);

impl Parser {
    pub(crate) fn push(&mut self, chunk: &Bytes) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole event, if it is there already.
    pub(crate) fn next(&mut self) -> Result<Option<Received>, Garbled> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                let name = std::mem::take(&mut self.name);
                if let Some(data) = self.data.take() {
                    return Ok(Some(Received { name, data }));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.name),
                "data" => self.add_data(value)?,
                _ => {}
            }
        }
        Ok(None)
    }

    fn add_data(&mut self, line: &str) -> Result<(), Garbled> {
        match &mut self.data {
            None => self.data = Some(line.to_owned()),
            Some(data) if data.len() + line.len() > MAX_EVENT => {
                return Err(Garbled("an event is too long"));
            }
            Some(data) => {
                data.push('\n');
                data.push_str(line);
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<Option<String>, Garbled> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = unsearched.iter().position(|b| *b == b'\n') else {
            self.searched = self.buffer.len();
            return if self.searched > MAX_EVENT {
                Err(Garbled("a line is too long"))
            } else {
                Ok(None)
            };
        };
        let line = self.buffer.split_to(self.searched + at);
        self.buffer.advance(1);
        self.searched = 0;
        let line = std::str::from_utf8(&line).map_err(|_| Garbled("a line is not UTF-8"))?;
        Ok(Some(line.strip_suffix('\r').unwrap_or(line).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_wherever_the_stream_is_cut() {
        let stream = b": hello\n\nevent: progress\ndata: {\"a\":\ndata: 1}\n\r\nevent:value\r\ndata:2\r\n\r\ndata: 3\n";
        for cut in 0..stream.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                parser.push(&Bytes::copy_from_slice(part));
                while let Some(event) = parser.next().unwrap() {
                    events.push((event.name, event.data));
                }
            }
            let wanted = [("progress", "{\"a\":\n1}"), ("value", "2")];
            assert_eq!(events, wanted.map(|(n, d)| (n.to_owned(), d.to_owned())), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_text_is_refused() {
        let mut parser = Parser::default();
        parser.push(&Bytes::from_static(b"data: \xff\n\n"));
        assert!(parser.next().is_err());
    }
}
