//! The exporter: a bounded queue, batches, and one POST for each (OTLP/HTTP with protobuf bodies).

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulla_http::Dialer;
use bulla_rpc::trace::{Span, SpanKind, Tracer};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans, Status};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{DROPPED, EXPORTED, LOST, Service};
use crate::failure::{Failure, Result};

/// Spans that wait; more are dropped and counted, so that nobody can fill the memory.
const QUEUE: usize = 8192;
/// Spans in one request at the most.
const BATCH: usize = 512;
/// How long spans wait for company.
const EVERY: Duration = Duration::from_secs(2);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a request is tried.
const TRIES: u32 = 3;
/// How long the last spans are waited for at the end.
const LAST: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Flags of a span: those of its context, and that it is known whether its parent is remote.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Where spans go.
#[derive(Clone)]
pub(super) struct Collector {
    dialer: Dialer,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Collector {
    pub(super) fn new(endpoint: &str, ca: Option<&Path>) -> Result<Self> {
        let bad = |why: &str| Failure::usage(format!("[traces] endpoint: {why}"));
        let uri: Uri = endpoint.parse().map_err(|_| bad("it is no URL"))?;
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a login does not belong there"));
        }
        let (dialer, port) = match (uri.scheme_str(), ca) {
            (Some("http"), None) => (Dialer::plain_loopback(), 80),
            (Some("http"), Some(_)) => return Err(bad("with a `ca` it begins with https://")),
            (Some("https"), Some(ca)) => (Dialer::trusting(ca)?, 443),
            (Some("https"), None) => {
                return Err(bad("https:// needs `ca`, the authority of its certificate"));
            }
            _ => return Err(bad("it begins with https://, or on this machine http://")),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            dialer,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(port),
            authority: authority.to_string(),
            path: match uri.path() {
                "" | "/" => "/v1/traces".to_owned(),
                path => path.to_owned(),
            },
        })
    }

    /// One request. `Err(true)` if it may be tried again.
    async fn post(&self, body: Bytes) -> Result<(), (bool, String)> {
        let again = |error: &dyn std::fmt::Display| (true, error.to_string());
        let stream = self.dialer.connect(&self.host, self.port, PATIENCE).await;
        let stream = stream.map_err(|error| again(&error))?;
        let (mut sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| again(&error))?;
        let driver = tokio::spawn(async move { drop(driver.await) });
        let request = Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("bulla/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| (false, error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(|error| again(&error))?;
        let status = answer.status();
        // Read to its end, so that the connection ends well; what it says is for people there.
        let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        driver.abort();
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err((true, status.to_string())),
            status => Err((false, status.to_string())),
        }
    }

    async fn send(&self, body: &Bytes) -> Result<(), String> {
        let mut pause = Duration::from_secs(1);
        let mut tries = 1;
        loop {
            let sent = tokio::time::timeout(PATIENCE, self.post(body.clone())).await;
            match sent.unwrap_or_else(|_| Err((true, "it did not answer in time".to_owned()))) {
                Ok(()) => return Ok(()),
                Err((true, _)) if tries < TRIES => {}
                Err((_, why)) => return Err(why),
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

/// Takes spans, and sends them in batches.
pub(super) struct Exporter {
    sample: f64,
    queue: Mutex<Option<mpsc::Sender<Span>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Exporter {
    pub(super) fn start(collector: Collector, sample: f64, service: &Service<'_>) -> Self {
        let (queue, spans) = mpsc::channel(QUEUE);
        let resource = resource(service);
        let task = tokio::spawn(run(collector, resource, spans));
        Self { sample, queue: Mutex::new(Some(queue)), task: Mutex::new(Some(task)) }
    }

    /// Sends what waits, and ends.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().take());
        let task = self.task.lock().take();
        if let Some(task) = task
            && tokio::time::timeout(LAST, task).await.is_err()
        {
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exporter({})", self.sample)
    }
}

impl Tracer for Exporter {
    /// By the trace's id, so that all processes with the same share agree on a trace.
    fn samples(&self, trace_id: &[u8; 16]) -> bool {
        let low = trace_id.last_chunk::<8>().map_or(0, |low| u64::from_be_bytes(*low) >> 1);
        (low as f64) < self.sample * (1u64 << 63) as f64
    }

    fn record(&self, span: Span) {
        let queue = self.queue.lock();
        let taken = queue.as_ref().is_some_and(|queue| queue.try_send(span).is_ok());
        if !taken {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn run(collector: Collector, resource: Resource, mut spans: mpsc::Receiver<Span>) {
    let (mut batch, mut failing) = (Vec::with_capacity(BATCH), false);
    // The first is waited for, then those that come soon after.
    while spans.recv_many(&mut batch, BATCH).await > 0 {
        let more = async {
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                if spans.recv_many(&mut batch, room).await == 0 {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(EVERY, more).await;
        let count = batch.len() as u64;
        let body = Bytes::from(request(&resource, batch.drain(..)).encode_to_vec());
        match collector.send(&body).await {
            Ok(()) => {
                EXPORTED.fetch_add(count, Ordering::Relaxed);
                if failing {
                    tracing::info!("the collector takes spans again");
                }
                failing = false;
            }
            Err(why) => {
                LOST.fetch_add(count, Ordering::Relaxed);
                // Once, and not with every batch.
                if !failing {
                    tracing::warn!(collector = collector.authority, %why, "spans can't be exported");
                }
                failing = true;
            }
        }
    }
}

fn resource(service: &Service<'_>) -> Resource {
    let attributes = vec![
        text("service.name", service.name.to_owned()),
        text("service.instance.id", service.instance.to_owned()),
        text("service.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    Resource { attributes, ..Resource::default() }
}

fn text(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn request(resource: &Resource, spans: impl Iterator<Item = Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "bulla".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = spans.map(span).collect();
    let of_scope = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![of_scope],
            ..ResourceSpans::default()
        }],
    }
}

fn span(span: Span) -> otlp::Span {
    let kind = match span.kind {
        SpanKind::Client => otlp::span::SpanKind::Client,
        SpanKind::Server => otlp::span::SpanKind::Server,
        SpanKind::Producer => otlp::span::SpanKind::Producer,
        SpanKind::Consumer => otlp::span::SpanKind::Consumer,
        SpanKind::Internal => otlp::span::SpanKind::Internal,
    };
    let remote = if span.remote_parent { IS_REMOTE } else { 0 };
    let status = span
        .error
        .map(|error| Status { message: error, code: otlp::status::StatusCode::Error.into() });
    otlp::Span {
        trace_id: span.context.trace_id.to_vec(),
        span_id: span.context.span_id.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        flags: u32::from(span.context.sampled) | HAS_IS_REMOTE | remote,
        name: span.name,
        kind: kind.into(),
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes: span.attributes.into_iter().map(|(key, value)| text(key, value)).collect(),
        status,
        ..otlp::Span::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_traces_is_sampled_by_their_ids() {
        let exporter =
            |sample| Exporter { sample, queue: Mutex::new(None), task: Mutex::new(None) };
        let id = |n: u64| {
            let mut id = [7; 16];
            id[8..].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            id
        };
        let sampled = |sample| (0..10_000).filter(|n| exporter(sample).samples(&id(*n))).count();
        assert_eq!(sampled(0.0), 0);
        assert_eq!(sampled(1.0), 10_000);
        assert!((800..1200).contains(&sampled(0.1)), "{}", sampled(0.1));
    }

    #[test]
    fn a_collector_is_on_this_machine_or_behind_tls() {
        let good = Collector::new("http://127.0.0.1:4318", None).unwrap();
        assert_eq!((good.port, good.path.as_str()), (4318, "/v1/traces"));
        let v6 = Collector::new("http://[::1]:4318/otlp", None).unwrap();
        assert_eq!((v6.host.as_str(), v6.path.as_str()), ("::1", "/otlp"));
        for bad in ["", "collector", "ftp://h", "https://h", "http://u:secret@h"] {
            let Err(error) = Collector::new(bad, None) else { panic!("{bad}") };
            assert!(!error.to_string().contains("secret"));
        }
    }
}
