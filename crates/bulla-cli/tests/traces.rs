//! One trace over two processes and a broker that sees nothing of it, at a collector of our own.
#![cfg(feature = "otel")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;
mod openmetrics;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulla_services::{VirtualHost, require};
use bulla_transport::{RabbitOptions, RabbitTap};
use common::*;
use openmetrics::{Page, http};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

/// Takes OTLP over HTTP, and keeps each span with its service's name.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<(String, Span)>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let spans = Arc::<Mutex<Vec<_>>>::default();
        let into = spans.clone();
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let mut reader = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while reader.read_line(&mut head).unwrap() > 2 {}
                let header = |name: &str| {
                    let of = |line: &str| Some(line.strip_prefix(name)?.trim().to_owned());
                    head.to_ascii_lowercase().lines().find_map(of).unwrap()
                };
                assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
                assert_eq!(header("content-type:"), "application/x-protobuf");
                let mut body = vec![0; header("content-length:").parse().unwrap()];
                reader.read_exact(&mut body).unwrap();
                // The first is to come again.
                let answer = if n == 0 { "503 Service Unavailable" } else { "200 OK" };
                if n > 0 {
                    keep(&body, &mut into.lock().unwrap());
                }
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, spans }
    }
}

fn keep(body: &[u8], into: &mut Vec<(String, Span)>) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap();
        let service = attribute(&resource.attributes, "service.name").unwrap();
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        into.extend(spans.map(|span| (service.clone(), span)));
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_trace_spans_api_caller_agent_and_reply() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let collector = Collector::start();
    let mut deployment = Deployment::new(Some(rabbit.url()));
    deployment.env.push(("BULLA_TRACES_ENDPOINT", collector.url.clone()));
    let control = deployment.serve();
    let key = deployment.add_agent("db-1", &[]);
    let agent = deployment.agent(&key, &["--metrics", "127.0.0.1:0"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = RabbitOptions::new(&rabbit.url()).unwrap();
    let mut tap = runtime.block_on(RabbitTap::open(&options, "bulla", &[], &[])).unwrap();
    let secret = r#"{"password":"correct-horse-battery"}"#;
    deployment.call("agent/db-1", "agent.ping", secret);
    let said = deployment.fails(1, &["call", "agent/db-1", "agent.no-such"]);
    assert!(said.contains("NoSuchMethod"), "{said}");

    let trace_of = |name: &str, kind: SpanKind| {
        let spans = collector.spans.lock().unwrap();
        let found = spans.iter().find(|(_, s)| s.name == name && s.kind == kind as i32);
        found.map(|(_, span)| span.trace_id.clone())
    };
    let all = |trace: &[u8]| -> Vec<(String, Span)> {
        let spans = collector.spans.lock().unwrap();
        spans.iter().filter(|(_, span)| span.trace_id == trace).cloned().collect()
    };
    let trace = eventually("the call's trace", || trace_of("agent.ping", SpanKind::Client));
    let spans = eventually("all of it", || Some(all(&trace)).filter(|spans| spans.len() >= 5));
    let by_name: BTreeMap<_, _> = spans
        .iter()
        .map(|(service, span)| {
            ((service.as_str(), span.name.as_str(), SpanKind::try_from(span.kind).unwrap()), span)
        })
        .collect();
    let span = |service, name, kind| {
        *by_name.get(&(service, name, kind)).unwrap_or_else(|| panic!("{name}: {spans:#?}"))
    };
    let api = span("bulla-control", "POST /v1/calls", SpanKind::Server);
    let call = span("bulla-control", "agent.ping", SpanKind::Client);
    let served = span("bulla-agent", "agent.ping", SpanKind::Server);
    let ran = span("bulla-agent", "run agent.ping", SpanKind::Internal);
    let reply = span("bulla-agent", "reply", SpanKind::Producer);
    assert!(api.parent_span_id.is_empty());
    for (child, parent) in [(call, api), (served, call), (ran, served), (reply, served)] {
        assert_eq!(child.parent_span_id, parent.span_id, "{child:?}");
        assert!(child.start_time_unix_nano >= parent.start_time_unix_nano, "{child:?}");
        assert!(child.end_time_unix_nano >= child.start_time_unix_nano, "{child:?}");
        assert!(child.status.is_none(), "{child:?}");
    }
    assert_eq!(served.flags & 0x301, 0x301, "sampled, and its parent is another process's");
    assert_eq!(attribute(&call.attributes, "rpc.service").as_deref(), Some("agent/db-1"));
    assert_eq!(attribute(&served.attributes, "bulla.sender").as_deref(), Some("component/control"));
    // An error has its stable name on both sides.
    let failed = eventually("the other call", || trace_of("agent.no-such", SpanKind::Client));
    let failed = eventually("all of that", || {
        Some(all(&failed)).filter(|spans| spans.iter().any(|(_, span)| span.name == "reply"))
    });
    for (_, span) in failed.iter().filter(|(_, span)| span.name == "agent.no-such") {
        assert_eq!(span.status.as_ref().unwrap().message, "NoSuchMethod", "{span:?}");
    }
    let told = format!("{:?}", collector.spans.lock().unwrap());
    assert!(!told.contains("correct-horse") && !told.contains("password"), "nothing of arguments");

    // The broker sees neither the trace nor its name.
    let (raw, hex) = (&trace[..], hex(&trace));
    let mut seen = 0;
    while let Ok(Some(tapped)) = runtime
        .block_on(async { tokio::time::timeout(Duration::from_millis(300), tap.next()).await })
    {
        seen += 1;
        for part in [raw, hex.as_bytes(), b"traceparent"] {
            assert!(!tapped.payload.windows(part.len()).any(|window| window == part));
        }
    }
    assert!(seen >= 4, "{seen}");

    // The agent's own figures, and a connection that is lost.
    let line = agent.lines.iter().find_map(|line| line.strip_prefix("Metrics at http://"));
    let line = line.unwrap();
    let door = line.split('/').next().unwrap();
    let page = || Page::parse(&http(door, "GET", "/metrics", &[], "").1);
    let before = page();
    assert!(before.value("bulla_requests_total", &[("outcome", "value")]) >= 1.0);
    assert_eq!(before.value("bulla_queue_messages", &[]), 0.0);
    assert!(before.value("bulla_own_key_end_timestamp_seconds", &[("purpose", "sign")]) > 1.7e9);
    assert_eq!(before.value("bulla_bus_losses_total", &[]), 0.0);
    rabbit.rabbitmqctl("close_all_connections", &["test"]).unwrap();
    eventually("it came back", || {
        let page = page();
        let back = page.value("bulla_bus_reconnections_total", &[]) >= 1.0;
        (back && page.value("bulla_bus_losses_total", &[]) >= 1.0).then_some(())
    });
    eventually("it is ready again", || {
        (http(door, "GET", "/readyz", &[], "").0 == 200).then_some(())
    });
    assert_eq!(agent.stop(), 0);
    assert_eq!(control.stop(), 0);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
