//! What a process shows of itself, and what it tells its service manager.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;
mod openmetrics;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use common::*;
use openmetrics::{Page, http};
use serde_json::{Value, json};

/// A service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    /// The next state that has a line that begins so.
    fn told(&self, what: &str) -> String {
        let begun = Instant::now();
        let mut other = Vec::new();
        while begun.elapsed() < LIMIT {
            let mut bytes = [0; 4096];
            let Ok(length) = self.0.recv(&mut bytes) else { break };
            let state = text(&bytes[..length]);
            if state.lines().any(|line| line.starts_with(what)) {
                return state;
            }
            other.push(state);
        }
        panic!("never told {what}: {other:#?}");
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn a_process_shows_how_it_does() {
    let mut deployment = Deployment::new(None);
    let socket = deployment.path("notify");
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    manager.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    deployment.env = vec![
        ("NOTIFY_SOCKET", socket.to_str().unwrap().to_owned()),
        ("WATCHDOG_USEC", "200000".to_owned()),
        ("BULLA_METRICS_LISTEN", "127.0.0.1:0".to_owned()),
        ("BULLA_LOG", "info".to_owned()),
        ("BULLA_LOG_FORMAT", "json".to_owned()),
    ];
    let log = deployment.path("log");
    let mut command = deployment.command(&["up", "--plain", "--listen", "127.0.0.1:0"]);
    command.stderr(fs::File::create(&log).unwrap());
    let up = Process::start_logged(command, "Running.");

    let ready = manager.told("READY=1");
    assert!(ready.contains("STATUS=ready\n"), "{ready}");
    assert!(ready.contains(&format!("MAINPID={}", up.id())), "{ready}");
    for _ in 0..3 {
        assert_eq!(manager.told("WATCHDOG"), "WATCHDOG=1");
    }

    let line = up.lines.iter().find_map(|line| line.strip_prefix("Metrics at http://")).unwrap();
    let door = line.split('/').next().unwrap().to_owned();
    let (status, body) = http(&door, "GET", "/readyz", &[], "");
    let readiness: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &readiness["ready"]), (200, &json!(true)), "{readiness}");
    let checks = readiness["checks"].as_array().unwrap();
    let looked_at: Vec<_> = checks.iter().map(|check| check["what"].as_str().unwrap()).collect();
    assert_eq!(looked_at, ["bus", "statement", "claims", "keystore", "journal"]);
    assert_eq!(http(&door, "GET", "/healthz", &[], ""), (200, "ok\n".to_owned()));
    assert_eq!(http(&door, "POST", "/metrics", &[], "x").0, 405);
    assert_eq!(http(&door, "GET", "/v1/agents", &[], "").0, 404, "no way into the API");

    // One call by the API, with a trace; one that nobody is there for.
    let api = fs::read_to_string(deployment.home().join("api.url")).unwrap();
    let api = api.trim().strip_prefix("http://").unwrap();
    let token = fs::read_to_string(deployment.home().join("api.token")).unwrap();
    let token = format!("Bearer {}", token.trim());
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [("authorization", token.as_str()), ("traceparent", traceparent.as_str())];
    let call = |target: &str| {
        let call = json!({"target": target, "namespace": "agent", "method": "ping", "args": {}});
        http(api, "POST", "/v1/calls", &headers, &call.to_string())
    };
    assert_eq!(call("agent/local").0, 200);
    assert_eq!(call("agent/nobody").0, 404);
    assert_eq!(http(api, "GET", "/metrics", &[], "").0, 401, "behind the API's authentication");
    assert_eq!(http(api, "GET", "/readyz", &headers, "").0, 200);

    for (address, headers) in [(door.as_str(), &[][..]), (api, &headers[..])] {
        let (status, body) = http(address, "GET", "/metrics", headers, "");
        assert_eq!(status, 200);
        let page = Page::parse(&body);
        assert!(page.value("bulla_calls_total", &[("outcome", "value")]) >= 2.0);
        assert!(page.value("bulla_call_duration_seconds_count", &[]) >= 2.0);
        assert!(page.value("bulla_requests_total", &[("outcome", "value")]) >= 1.0, "look-ups");
        assert!(page.value("bulla_claim_duration_seconds_count", &[]) >= 0.0);
        let answered = |status| [("method", "POST"), ("route", "/v1/calls"), ("status", status)];
        assert_eq!(page.value("bulla_api_requests_total", &answered("200")), 1.0);
        assert_eq!(page.value("bulla_api_requests_total", &answered("404")), 1.0);
        assert_eq!(page.value("bulla_operator_calls_total", &[("kind", "call")]), 2.0);
        assert_eq!(page.value("bulla_principals", &[("key_type", "pair"), ("kind", "agent")]), 1.0);
        assert_eq!(page.value("bulla_keys_over", &[("purpose", "agent")]), 0.0);
        let month = [("purpose", "agent"), ("within", "2592000")];
        assert_eq!(page.value("bulla_keys_ending", &month), 1.0);
        for up in ["bus", "keystore", "claims", "journal"] {
            assert_eq!(page.value(&format!("bulla_{up}_up"), &[]), 1.0, "{up}");
        }
        assert!(page.value("bulla_journal_records", &[]) >= 2.0);
        assert!(page.value("bulla_journal_disk_free_bytes", &[]) > 0.0);
        assert!(page.value("process_resident_memory_bytes", &[]) > 1e6);
        assert!(page.value("bulla_statement_end_timestamp_seconds", &[]) > 1.7e9);
        // Nothing is kept for each agent, and nothing of them is told.
        assert!(!body.contains("agent/local") && !body.contains("agent/nobody"), "{body}");
    }

    up.hang_up();
    let reloading = manager.told("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.told("READY=1");
    assert_eq!(up.stop(), 0);
    manager.told("STOPPING=1");

    let log = fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        for field in ["time", "level", "module", "message"] {
            assert!(line[field].is_string(), "{line}");
        }
    }
    let called = lines.iter().find(|line| line["event"] == "operator-called").unwrap();
    assert_eq!((&called["trace_id"], &called["target"]), (&json!(TRACE), &json!("agent/local")));
    assert!(!log.contains(token.trim_start_matches("Bearer ")));
}
