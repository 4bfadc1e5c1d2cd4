//! The API and its client over real sockets and real TLS. The control plane behind it is the
//! only thing that is made up.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod contract;
mod support;

use std::time::Duration;

use bulla_api::{
    CallEvent, CallFailure, CallRequest, CastRequest, Client, ClientError, DEFAULT_PAGE, Endpoint,
    ExemptRequest, MAX_LIFETIME, PageRequest, Peer, RaiseRequest, TapItem,
};
use bulla_http::{Limits, Token};
use futures_util::StreamExt;
use serde_json::{Value, json};

use support::{LONG, Setup, every_failure, peer, seen};

fn call(method: &str, args: Value) -> CallRequest {
    CallRequest { args, ..CallRequest::new("agent/db-1", method) }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("the test hangs")
}

#[tokio::test]
async fn a_call_goes_there_and_its_value_comes_back() {
    let setup = Setup::tls().await;
    let mut request = call("echo", json!({"n": 18_446_744_073_709_551_615_u64, "s": "é\u{2028}"}));
    request.namespace = Some("db".into());
    request.version = Some("1.2".into());
    request.context = Some(json!({"project": "x"}));
    request.timeout_ms = Some(5000);
    let value = soon(setup.client().call(&request)).await.unwrap();
    assert_eq!(value["request"], serde_json::to_value(&request).unwrap());
    assert_eq!(value["by"], "ada");
}

#[tokio::test]
async fn the_loopback_door_does_the_same() {
    let setup = Setup::loopback().await;
    let value = soon(setup.client().call(&call("echo", json!({})))).await.unwrap();
    assert_eq!(value["by"], "bearer");
}

#[tokio::test]
async fn casts_fanouts_and_lists() {
    let setup = Setup::tls().await;
    let client = setup.client();
    let cast = CastRequest { ttl_ms: Some(9), ..CastRequest::new("component/x", "m") };
    assert_eq!(
        soon(client.cast(&cast)).await.unwrap().message_id,
        "cast component/x by operator/ada"
    );
    let fanout = CastRequest::new("group/all", "m");
    assert_eq!(
        soon(client.fanout(&fanout)).await.unwrap().message_id,
        "fanout group/all by operator/ada"
    );

    let page = soon(client.agents(&PageRequest::default())).await.unwrap();
    assert_eq!(page.items.len(), DEFAULT_PAGE as usize);
    let next = PageRequest { after: page.next, limit: Some(3) };
    let ids: Vec<_> = soon(client.agents(&next)).await.unwrap().items;
    assert_eq!(
        ids.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(),
        ["a&0100", "a&0101", "a&0102"]
    );
    assert_eq!(soon(client.all_agents()).await.unwrap().len(), 2500);

    // An id is one segment, whatever stands in it.
    assert_eq!(soon(client.agent("a&0007")).await.unwrap().agent.id, "a&0007");
    let unknown = soon(client.agent("../é/x?y")).await.unwrap_err();
    assert!(matches!(unknown, ClientError::Failed(CallFailure::UnknownTarget { target })
        if target == "agent/../é/x?y"));

    assert_eq!(soon(client.components()).await.unwrap()[0].name, "conductor");
    assert_eq!(soon(client.groups()).await.unwrap()[4].name, "g/4");
    assert_eq!(soon(client.status()).await.unwrap().trust_domain, "example.org");
}

#[tokio::test]
async fn health_follows_the_bus() {
    let setup = Setup::tls().await;
    assert!(soon(setup.client().health()).await.unwrap().bus.connected);
    setup.plane.disconnect("refused");
    let down = soon(setup.client().health()).await.unwrap_err();
    assert!(
        matches!(down, ClientError::Failed(CallFailure::BusDown { why }) if why.contains("refused"))
    );
    assert!(!soon(setup.client().status()).await.unwrap().bus.connected);
}

#[tokio::test]
async fn every_failure_arrives_as_it_was() {
    let setup = Setup::tls().await;
    for failure in every_failure() {
        setup.plane.fail_with(failure.clone());
        let got = soon(setup.client().call(&call("fail", json!({})))).await.unwrap_err();
        assert!(matches!(&got, ClientError::Failed(f) if *f == failure), "{failure:?}: {got:?}");

        let mut events =
            soon(setup.client().call_with_progress(&call("fail", json!({})))).await.unwrap();
        let got = soon(events.next()).await.unwrap().unwrap_err();
        assert!(matches!(&got, ClientError::Failed(f) if *f == failure), "{failure:?}: {got:?}");
        assert!(soon(events.next()).await.is_none());
    }
}

#[tokio::test]
async fn each_failure_has_its_status() {
    let setup = Setup::loopback().await;
    let mut statuses = Vec::new();
    for failure in every_failure() {
        setup.plane.fail_with(failure);
        let body = r#"{"target":"agent/a","method":"fail"}"#;
        let answer = setup.raw("POST", "/v1/calls", body).await;
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["status"], answer.status);
        assert_eq!(answer.content_type, "application/problem+json");
        let name = problem["type"].as_str().unwrap().strip_prefix("urn:bulla:problem:").unwrap();
        statuses.push((name.to_owned(), answer.status));
    }
    let wanted = [
        ("remote", 422),
        ("timeout", 504),
        ("nobody-there", 503),
        ("unknown-target", 404),
        ("not-found", 404),
        ("conflict", 409),
        ("policy-refused", 422),
        ("key-reused", 422),
        ("key-in-use", 409),
        ("outcome-unknown", 409),
        ("too-large", 413),
        ("bad-request", 400),
        ("not-permitted", 403),
        ("busy", 429),
        ("bus-down", 503),
        ("interrupted", 502),
        ("stopping", 503),
        ("internal", 500),
    ];
    assert_eq!(statuses, wanted.map(|(name, status)| (name.to_owned(), status)));
}

#[tokio::test]
async fn progress_comes_in_order_and_before_the_value() {
    let setup = Setup::tls().await;
    let request = call("count", json!({"to": 200}));
    let events = soon(setup.client().call_with_progress(&request)).await.unwrap();
    let events: Vec<_> = soon(events.map(Result::unwrap).collect()).await;
    let mut wanted: Vec<_> = (0..200).map(|n| CallEvent::Progress(json!(n))).collect();
    wanted.push(CallEvent::Value(json!("counted")));
    assert_eq!(events, wanted);
    // Without the wish for events the same call is one value.
    assert_eq!(soon(setup.client().call(&request)).await.unwrap(), json!("counted"));
}

#[tokio::test]
async fn progress_arrives_while_the_call_runs() {
    let setup = Setup::tls().await;
    let request = call("progress-then-wait", json!({}));
    let mut events = soon(setup.client().call_with_progress(&request)).await.unwrap();
    assert_eq!(soon(events.next()).await.unwrap().unwrap(), CallEvent::Progress(json!("started")));
    setup.plane.release.notify_one();
    assert_eq!(soon(events.next()).await.unwrap().unwrap(), CallEvent::Value(json!("done")));
    assert!(soon(events.next()).await.is_none());
}

#[tokio::test]
async fn hanging_up_cancels_the_waiting() {
    let setup = Setup::tls().await;
    let client = setup.client();
    let request = call("wait", json!({}));
    tokio::select! {
        ended = client.call(&request) => panic!("{ended:?}"),
        () = setup.plane.entered.notified() => {}
    }
    soon(setup.plane.dropped.notified()).await;

    let request = call("progress-then-wait", json!({}));
    let mut events = soon(client.call_with_progress(&request)).await.unwrap();
    soon(events.next()).await.unwrap().unwrap();
    drop(events);
    soon(setup.plane.dropped.notified()).await;
}

#[tokio::test]
async fn a_call_in_flight_outlives_shutdown() {
    let setup = Setup::tls().await;
    let client = setup.client();
    let request = call("wait", json!({}));
    let mut calling = std::pin::pin!(client.call(&request));
    tokio::select! {
        ended = calling.as_mut() => panic!("{ended:?}"),
        () = setup.plane.entered.notified() => setup.stop.cancel(),
    }
    setup.plane.release.notify_one();
    assert_eq!(soon(calling).await.unwrap(), json!("done"));
    soon(setup.task).await.unwrap();
    let refused = soon(client.status()).await.unwrap_err();
    assert!(matches!(refused, ClientError::NotRunning { .. }), "{refused:?}");
    assert!(refused.to_string().contains("is `bulla up` or `bulla serve` running?"), "{refused}");
}

#[tokio::test]
async fn the_tap_shows_what_passes_and_ends_with_the_control_plane() {
    let setup = Setup::tls().await;
    let mut tap = soon(setup.client().tap()).await.unwrap();
    for n in 0..3 {
        setup.plane.pass(TapItem::Seen(seen(n)));
        assert_eq!(soon(tap.next()).await.unwrap().unwrap(), TapItem::Seen(seen(n)));
    }
    setup.plane.pass(TapItem::Missed(7));
    assert_eq!(soon(tap.next()).await.unwrap().unwrap(), TapItem::Missed(7));
    setup.stop.cancel();
    assert!(soon(tap.next()).await.is_none());
    soon(setup.task).await.unwrap();
}

#[tokio::test]
async fn bad_input_is_refused_with_its_place() {
    let setup = Setup::loopback().await;
    let post = async |path: &str, body: &str| {
        let answer = setup.raw("POST", path, body).await;
        (answer.status, serde_json::from_str::<Value>(&answer.body).unwrap())
    };
    let (status, problem) =
        post("/v1/calls", "{\"target\": \"agent/a\",\n \"method\" \"m\"}").await;
    assert_eq!((status, &problem["line"], &problem["column"]), (400, &json!(2), &json!(11)));

    let unknown = r#"{"target":"agent/a","method":"m","timeout":3}"#;
    let (status, problem) = post("/v1/calls", unknown).await;
    assert_eq!(status, 400);
    assert!(problem["detail"].as_str().unwrap().contains("unknown field `timeout`"), "{problem}");

    let (status, problem) = post("/v1/casts", r#"{"target":"agent/a","method":7}"#).await;
    assert_eq!((status, &problem["column"]), (400, &json!(30)), "{problem}");

    let too_long = MAX_LIFETIME.as_millis() + 1;
    for (path, body) in [
        ("/v1/calls", r#"{"target":"db-1","method":"m"}"#.to_owned()),
        ("/v1/calls", r#"{"target":"agent/","method":"m"}"#.to_owned()),
        ("/v1/calls", r#"{"target":"group/all","method":"m"}"#.to_owned()),
        ("/v1/fanouts", r#"{"target":"agent/a","method":"m"}"#.to_owned()),
        ("/v1/casts", r#"{"target":"agent/a","method":""}"#.to_owned()),
        ("/v1/calls", r#"{"target":"agent/a","method":"m","timeout_ms":0}"#.to_owned()),
        ("/v1/calls", format!(r#"{{"target":"agent/a","method":"m","timeout_ms":{too_long}}}"#)),
    ] {
        let (status, problem) = post(path, &body).await;
        assert_eq!(
            (status, &problem["type"]),
            (400, &json!("urn:bulla:problem:bad-request")),
            "{body}"
        );
    }
    for path in ["/v1/agents?limit=0", "/v1/agents?limit=x", "/v1/agents?offset=1"] {
        assert_eq!(setup.raw("GET", path, "").await.status, 400, "{path}");
    }
    assert_eq!(setup.raw("GET", "/v2/calls", "").await.status, 404);
    assert_eq!(setup.raw("DELETE", "/v1/calls", "").await.status, 405);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let setup = Setup::tls_with(Limits { max_body: 4096, ..Limits::default() }).await;
    let large = call("echo", json!("x".repeat(5000)));
    let refused = soon(setup.client().call(&large)).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(p) if p.status == 413), "{refused:?}");
    assert!(refused.to_string().contains("4096 bytes"), "{refused}");
}

#[tokio::test]
async fn sixteen_mebibytes_pass() {
    let setup = Setup::tls().await;
    let content = "x".repeat(16 << 20);
    let value = soon(setup.client().call(&call("echo", json!(content)))).await.unwrap();
    assert_eq!(value["request"]["args"].as_str().unwrap().len(), 16 << 20);
}

#[tokio::test]
async fn wrong_credentials_are_explained() {
    let setup = Setup::loopback().await;
    let path = setup.dir.path().join("other-token");
    Token::create(&path).unwrap();
    let endpoint = Endpoint::Loopback { url: setup.url.clone(), token: path };
    let refused = soon(Client::new(&endpoint).unwrap().status()).await.unwrap_err();
    assert!(matches!(refused, ClientError::Unauthorized { .. }), "{refused:?}");

    let (ours, theirs) = (Setup::tls().await, Setup::tls().await);
    let mut files = ours.files().operator_tls();
    files.certificate = theirs.files().operator;
    files.key = theirs.files().operator_key;
    let endpoint = Endpoint::Tls { url: ours.url.clone(), files };
    let refused = soon(Client::new(&endpoint).unwrap().status()).await.unwrap_err();
    assert!(matches!(refused, ClientError::CertificateRefused { .. }), "{refused:?}");

    let endpoint = Endpoint::Tls { url: ours.url.clone(), files: theirs.files().operator_tls() };
    let refused = soon(Client::new(&endpoint).unwrap().status()).await.unwrap_err();
    assert!(refused.to_string().contains("is the CA file the one"), "{refused}");
}

#[tokio::test]
async fn the_wrong_scheme_is_explained() {
    let (plain, tls) = (Setup::loopback().await, Setup::tls().await);
    let url = plain.url.replace("http://", "https://");
    let endpoint = Endpoint::Tls { url, files: tls.files().operator_tls() };
    let refused = soon(Client::new(&endpoint).unwrap().status()).await.unwrap_err();
    assert!(refused.to_string().contains("does not speak TLS"), "{refused}");

    let url = tls.url.replace("https://", "http://");
    let endpoint = Endpoint::Loopback { url, token: plain.dir.path().join("token") };
    let refused = soon(Client::new(&endpoint).unwrap().status()).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::Broken { .. } | ClientError::NotUs { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_silent_control_plane_does_not_hold_a_client_for_ever() {
    let setup = Setup::tls().await;
    let client = setup.client();
    let request = CallRequest { timeout_ms: Some(1), ..call("wait", json!({})) };
    let mut calling = std::pin::pin!(client.call(&request));
    tokio::select! {
        ended = calling.as_mut() => panic!("{ended:?}"),
        () = setup.plane.entered.notified() => {}
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(matches!(calling.await, Err(ClientError::Silent { .. })));
}

#[tokio::test]
async fn peers_are_shown_raised_and_exempted() {
    let setup = Setup::loopback().await;
    let client = setup.client();
    let peers: Vec<Peer> = client.peers().await.unwrap();
    assert_eq!(peers, [peer("agent/db-1", "sealed")]);
    let mut raise =
        RaiseRequest { principal: "agent/db-1".into(), level: "sealed".into(), shadow: true };
    let raised = client.raise(&raise).await.unwrap();
    assert_eq!((raised.accepts.as_str(), raised.target.as_deref()), ("signed", Some("sealed")));
    let exempt = ExemptRequest {
        principal: "agent/db-1".into(),
        method: "guest.resize".into(),
        level: "signed".into(),
        until_ms: 9,
    };
    let given = client.exempt(&exempt).await.unwrap();
    assert_eq!(client.take_back(&given.id).await.unwrap().id, given.id);
    let error = client.take_back("11").await.unwrap_err();
    assert!(error.to_string().contains("no exemption"), "{error}");
    raise.principal = "group/all".into();
    assert!(client.raise(&raise).await.is_err());
    let empty = ExemptRequest { method: String::new(), ..exempt };
    assert!(client.exempt(&empty).await.is_err());
}
