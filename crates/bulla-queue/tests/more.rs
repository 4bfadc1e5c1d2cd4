//! What Zaqar's API does not have: messages as events, and posts that are done once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use bulla_queue::{RecordKind, Service, SqliteQueues, Store, router};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const CLIENT: &str = "30387f00-39a0-11ee-be56-0242ac120002";
const OTHER: &str = "30387f00-39a0-11ee-be56-0242ac120003";
const MESSAGES: &str = "/v2/queues/q/messages";

struct Api {
    router: Router,
    _dir: tempfile::TempDir,
}

impl Api {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteQueues::open(dir.path().join("q.db"), 0).await.unwrap();
        let service = Service::new(Arc::new(store)).dangerously_open();
        Self { router: router(Arc::new(service)), _dir: dir }
    }

    async fn send(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Response {
        let mut request = Request::builder().method(method).uri(path).header("X-Project-ID", "p");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn post(&self, body: &str, more: &[(&str, &str)]) -> (u16, bool, Value) {
        let body = json!({ "messages": [{ "ttl": 300, "body": body }] }).to_string();
        let response = self.send("POST", MESSAGES, more, &body).await;
        let (status, again) =
            (response.status().as_u16(), response.headers().contains_key("idempotency-replayed"));
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, again, serde_json::from_slice(&bytes).unwrap())
    }
}

#[tokio::test]
async fn a_post_that_comes_again_is_done_once() {
    let api = Api::new().await;
    let key = |key: &'static str| [("Client-ID", CLIENT), ("Idempotency-Key", key)];
    let (status, again, first) = api.post("it", &key("one")).await;
    assert_eq!((status, again), (201, false));
    let (status, again, second) = api.post("it", &key("one")).await;
    assert_eq!((status, again, &second), (201, true, &first));
    // The key is for that alone, and another client's is another.
    let (status, ..) = api.post("something else", &key("one")).await;
    assert_eq!(status, 409);
    let others = [("Client-ID", OTHER), ("Idempotency-Key", "one")];
    let (status, again, _) = api.post("something else", &others).await;
    assert_eq!((status, again), (201, false));
    let (status, ..) = api.post("it", &key("a b")).await;
    assert_eq!(status, 400);
    // Many at once are one.
    let posts =
        (0..16).map(|_| api.post("at once", &[("Client-ID", CLIENT), ("Idempotency-Key", "two")]));
    let answers = futures_util::future::join_all(posts).await;
    assert!(answers.iter().all(|(status, _, posted)| *status == 201 && *posted == answers[0].2));
    assert_eq!(answers.iter().filter(|(_, again, _)| !again).count(), 1);
    let stats = api.send("GET", "/v2/queues/q/stats", &[("Client-ID", CLIENT)], "").await;
    let bytes = stats.into_body().collect().await.unwrap().to_bytes();
    let stats: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(stats["messages"]["total"], 3);
}

#[tokio::test]
async fn messages_come_as_events() {
    let api = Api::new().await;
    let (_, _, posted) = api.post("first", &[("Client-ID", CLIENT)]).await;
    let first = posted["resources"][0].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let follow = async |more: &[(&str, &str)]| {
        let all = [&[("Client-ID", OTHER), ("Accept", "text/event-stream")][..], more].concat();
        let response = api.send("GET", MESSAGES, &all, "").await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response.into_body().into_data_stream()
    };
    let mut all = follow(&[]).await;
    let next = async |stream: &mut axum::body::BodyDataStream| {
        let event = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap();
        let text = String::from_utf8(event.unwrap().unwrap().to_vec()).unwrap();
        let line = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
            lines.next().map(|value| value.trim().to_owned()).unwrap()
        };
        let data: Value = serde_json::from_str(&line("data:")).unwrap();
        assert_eq!((line("event:").as_str(), &json!(line("id:"))), ("message", &data["id"]));
        data
    };
    assert_eq!(next(&mut all).await["body"], "first");
    // Whoever comes again goes on where it was.
    let mut rest = follow(&[("Last-Event-ID", &first)]).await;
    api.post("line\n\"end\"", &[("Client-ID", CLIENT)]).await;
    assert_eq!(next(&mut all).await["body"], "line\n\"end\"");
    assert_eq!(next(&mut rest).await["body"], "line\n\"end\"");
    let neither = api.send("GET", MESSAGES, &[("Client-ID", OTHER), ("Accept", "text/html")], "");
    assert_eq!(neither.await.status(), 406);
}

#[tokio::test]
async fn a_pools_password_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteQueues::open(dir.path().join("q.db"), 0).await.unwrap());
    let router = router(Arc::new(Service::new(store.clone()).dangerously_open()));
    let api = Api { router, _dir: dir };
    let headers = [("Client-ID", CLIENT)];
    for (method, uri) in [
        ("PUT", "postgres://ada:hush@db/queues"),
        ("PATCH", "redis://:hush@db"),
        ("PATCH", "postgres://ada@db/queues?password=hush"),
    ] {
        let body = json!({ "uri": uri, "weight": 1 }).to_string();
        assert!(api.send(method, "/v2/pools/p", &headers, &body).await.status().is_success());
        let kept = store.record(RecordKind::Pool, "", "p", 0).await.unwrap().unwrap();
        assert!(kept.value.contains("db") && !kept.value.contains("hush"), "{}", kept.value);
    }
}
