//! Traces: which call belongs to which, across processes.
//!
//! A [`TraceContext`] travels inside the seal (W3C trace context, version 00), so the bus can't tell which
//! messages belong together by it. Inside a handler it is the [current] one, and calls made
//! there carry it on. Spans are made only if the endpoint has a [`Tracer`]; without one a context is
//! passed on as it came.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bulla_seal::Party;

use crate::endpoint::Endpoint;

/// Longest text in a span, in bytes: names of methods and errors may be a peer's.
const MAX_TEXT: usize = 128;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Which trace something belongs to, and which span of it is its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not all zeros.
    pub trace_id: [u8; 16],
    /// The span; not all zeros.
    pub span_id: [u8; 8],
    /// Whether it is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent` of version 00, and what later versions have in common with it. `None` if it is
    /// not one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let (version, flags) = (byte(version)?, byte(parts.next()?)?);
        if version == 255 || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id) = (fixed::<16>(trace)?, fixed::<8>(span)?);
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    /// The trace's id in hexadecimal.
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    /// The span's id in hexadecimal.
    pub fn span_id_hex(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.span_id))
    }
}

/// As a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(self.sampled))
    }
}

fn byte(text: &str) -> Option<u8> {
    fixed::<1>(text).map(|[byte]| byte)
}

/// Lower case only, as the recommendation has it.
fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut out = [0; N];
    for (to, [high, low]) in out.iter_mut().zip(pairs) {
        *to = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

/// The trace that what runs here belongs to.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

/// Runs `inner` as part of a trace.
pub fn within<F: Future>(context: TraceContext, inner: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, inner)
}

/// The same for what is no future.
pub fn enter<R>(context: TraceContext, inner: impl FnOnce() -> R) -> R {
    CURRENT.sync_scope(context, inner)
}

/// What part a span has in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Waits for an answer.
    Client,
    /// Answers.
    Server,
    /// Sends what nobody answers.
    Producer,
    /// Takes what nobody answers.
    Consumer,
    /// Neither.
    Internal,
}

/// A span that ended. Names and times only: nothing of what a message carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What was done.
    pub name: String,
    /// Its part.
    pub kind: SpanKind,
    /// Its trace and its id.
    pub context: TraceContext,
    /// The span that it is part of.
    pub parent: Option<[u8; 8]>,
    /// Whether that one is another process's.
    pub remote_parent: bool,
    /// When it began, in Unix nanoseconds.
    pub start: u64,
    /// When it ended, in Unix nanoseconds.
    pub end: u64,
    /// The stable name of what went wrong.
    pub error: Option<String>,
    /// More about it.
    pub attributes: Vec<(&'static str, String)>,
}

/// Takes spans that ended. It must not wait for anything.
pub trait Tracer: Send + Sync + fmt::Debug + 'static {
    /// Whether a trace is recorded of which nobody said so before.
    fn samples(&self, trace_id: &[u8; 16]) -> bool;

    /// Takes a span.
    fn record(&self, span: Span);
}

/// A span that has not ended; it ends when it is dropped.
pub struct OpenSpan {
    context: TraceContext,
    /// Boxed: nearly always there is none.
    recording: Option<Box<(Arc<dyn Tracer>, Span)>>,
}

impl OpenSpan {
    /// What its children are to be told.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Says more about it.
    pub fn set(&mut self, name: &'static str, value: impl fmt::Display) {
        if let Some(recording) = &mut self.recording {
            recording.1.attributes.push((name, bounded(&value.to_string())));
        }
    }

    /// Says what went wrong, by a stable name.
    pub fn fail(&mut self, error: &str) {
        if let Some(recording) = &mut self.recording {
            recording.1.error = Some(bounded(error));
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            let (tracer, mut span) = *recording;
            span.end = unix_nanos();
            tracer.record(span);
        }
    }
}

impl fmt::Debug for OpenSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenSpan({})", self.context)
    }
}

/// Whose word a span's parent is.
#[derive(Debug, Clone, Copy)]
pub enum Parent {
    /// There is none: a trace begins.
    None,
    /// This process's own.
    Own(TraceContext),
    /// Another's that is believed when it says that the trace is recorded.
    Trusted(TraceContext),
    /// Another's that is not: an agent could have everything recorded.
    Foreign(TraceContext),
}

impl Parent {
    fn context(&self) -> Option<TraceContext> {
        match self {
            Self::None => None,
            Self::Own(context) | Self::Trusted(context) | Self::Foreign(context) => Some(*context),
        }
    }

    /// A sender's: components are believed.
    pub(crate) fn of_sender(sender: &Party, context: Option<TraceContext>) -> Self {
        match context {
            None => Self::None,
            Some(context) if sender.principal.is_component() => Self::Trusted(context),
            Some(context) => Self::Foreign(context),
        }
    }
}

impl From<Option<TraceContext>> for Parent {
    fn from(own: Option<TraceContext>) -> Self {
        own.map_or(Self::None, Self::Own)
    }
}

impl Endpoint {
    /// Begins a span; `None` without a [`Tracer`]. `name` is asked for only if it is recorded.
    pub fn span<'a>(
        &self,
        kind: SpanKind,
        parent: Parent,
        name: impl FnOnce() -> Cow<'a, str>,
    ) -> Option<OpenSpan> {
        let tracer = self.options.tracer.as_ref()?;
        let own = parent.context();
        let trace_id = match own {
            Some(context) => context.trace_id,
            None => self.random_ids()?,
        };
        let sampled = match parent {
            Parent::Own(context) | Parent::Trusted(context) => context.sampled,
            Parent::None | Parent::Foreign(_) => tracer.samples(&trace_id),
        };
        let ids = self.random_ids()?;
        let span_id = *ids.first_chunk()?;
        let context = TraceContext { trace_id, span_id, sampled };
        let recording = sampled.then(|| {
            let start = unix_nanos();
            let span = Span {
                name: bounded(&name()),
                kind,
                context,
                parent: own.map(|context| context.span_id),
                remote_parent: matches!(parent, Parent::Trusted(_) | Parent::Foreign(_)),
                start,
                end: start,
                error: None,
                attributes: Vec::new(),
            };
            Box::new((tracer.clone(), span))
        });
        Some(OpenSpan { context, recording })
    }

    /// A random id, not all zeros in either half. Without one there is no span, and all goes on.
    fn random_ids(&self) -> Option<[u8; 16]> {
        let ids = self.next_random().ok()?;
        (ids.first_chunk::<8>() != Some(&[0; 8])).then_some(ids)
    }
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn unix_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id_hex(), "00f067aa0ba902b7");
        // Flags that are not known, and later versions with more.
        assert!(!TraceContext::parse(&GOOD.replace("-01", "-02")).unwrap().sampled);
        let later = format!("01{}-more", &GOOD[2..]);
        assert_eq!(TraceContext::parse(&later), Some(context));
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-\u{e9}bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_runs_within_a_trace_knows_it() {
        assert_eq!(current(), None);
        let context = TraceContext::parse(GOOD).unwrap();
        within(context, async {
            tokio::task::yield_now().await;
            assert_eq!(current(), Some(context));
        })
        .await;
        assert_eq!(current(), None);
    }
}
