//! The event streams, typed.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::task::{Context, Poll};

use bulla_http::Problem;

use super::error::ClientError;
use super::http::Answer;
use crate::model::{CallAnswer, TapEvent, TapItem};
use crate::sse::{MISSED, PROBLEM, PROGRESS, Parser, Received, SEEN, SILENCE, VALUE};

/// What a call reports.
#[derive(Debug, Clone, PartialEq)]
pub enum CallEvent {
    /// It is under way.
    Progress(Value),
    /// It is done; nothing comes after.
    Value(Value),
}

/// The events of a call: any number of progress events, then exactly one value or error.
pub struct CallEvents(Events<CallEvent>);

/// What the bus sees. Ends when the control plane stops.
pub struct TapItems(Events<TapItem>);

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, ClientError>> + Send>>;

#[derive(Deserialize)]
struct Missed {
    count: u64,
}

impl CallEvents {
    pub(super) fn new(answer: Answer) -> Self {
        let truncated = || ClientError::Broken { why: "the stream ended without a value".into() };
        let events = typed(answer, call_event).chain(stream::once(async move { Err(truncated()) }));
        // Whatever comes first of value, error and end is the last item.
        let events = events.scan(false, |ended, event| {
            let over = std::mem::replace(ended, !matches!(event, Ok(CallEvent::Progress(_))));
            std::future::ready((!over).then_some(event))
        });
        Self(Box::pin(events))
    }
}

impl TapItems {
    pub(super) fn new(answer: Answer) -> Self {
        Self(Box::pin(typed(answer, tap_item)))
    }
}

impl Stream for CallEvents {
    type Item = Result<CallEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl Stream for TapItems {
    type Item = Result<TapItem, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// Reads events and makes something of each; ends after the first error.
fn typed<T: Send + 'static>(
    answer: Answer,
    make: fn(&Received) -> Result<Option<T>, ClientError>,
) -> impl Stream<Item = Result<T, ClientError>> + Send {
    stream::unfold(Some((answer, Parser::default())), move |state| async move {
        let (mut answer, mut parser) = state?;
        match step(&mut answer, &mut parser, make).await {
            Ok(Some(item)) => Some((Ok(item), Some((answer, parser)))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}

async fn step<T>(
    answer: &mut Answer,
    parser: &mut Parser,
    make: fn(&Received) -> Result<Option<T>, ClientError>,
) -> Result<Option<T>, ClientError> {
    loop {
        while let Some(event) = parser.next().map_err(|e| not_us(e.0))? {
            if event.name == PROBLEM {
                return Err(ClientError::of_problem(parse::<Problem>(&event)?));
            }
            // An event of a later version is passed over.
            if let Some(item) = make(&event)? {
                return Ok(Some(item));
            }
        }
        let chunk = tokio::time::timeout(SILENCE, answer.next()).await;
        match chunk.map_err(|_| ClientError::Silent { limit: SILENCE })? {
            Some(chunk) => parser.push(&chunk?),
            None => return Ok(None),
        }
    }
}

fn call_event(event: &Received) -> Result<Option<CallEvent>, ClientError> {
    Ok(match event.name.as_str() {
        PROGRESS => Some(CallEvent::Progress(parse(event)?)),
        VALUE => Some(CallEvent::Value(parse::<CallAnswer>(event)?.value)),
        _ => None,
    })
}

fn tap_item(event: &Received) -> Result<Option<TapItem>, ClientError> {
    Ok(match event.name.as_str() {
        SEEN => Some(TapItem::Seen(parse::<TapEvent>(event)?)),
        MISSED => Some(TapItem::Missed(parse::<Missed>(event)?.count)),
        _ => None,
    })
}

fn parse<T: DeserializeOwned>(event: &Received) -> Result<T, ClientError> {
    serde_json::from_str(&event.data)
        .map_err(|e| not_us(&format!("its event {:?} holds something else: {e}", event.name)))
}

fn not_us(why: &str) -> ClientError {
    ClientError::NotUs { why: why.to_owned() }
}
