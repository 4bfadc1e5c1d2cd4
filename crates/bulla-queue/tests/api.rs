//! The API as requests see it: whose queue it is, grants, and waiting. Shapes are compared with real
//! Zaqar's in `tests/queue`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::{Router, response::Response};
use bulla_queue::{Grants, Service, SqliteQueues, router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const CLIENT: &str = "30387f00-39a0-11ee-be56-0242ac120002";
const OTHER: &str = "30387f00-39a0-11ee-be56-0242ac120003";

struct Api {
    router: Router,
    _dir: tempfile::TempDir,
}

impl Api {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteQueues::open(dir.path().join("q.db"), 0).await.unwrap();
        let service = Service::new(Arc::new(store)).dangerously_open();
        let service = service.grants(Grants::new(&[7; 32]).unwrap());
        Self { router: router(Arc::new(service)), _dir: dir }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value, Response<()>) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let value =
            if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        (parts.status, value, Response::from_parts(parts, ()))
    }

    async fn ask(
        &self,
        project: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let client = if method == Method::GET { OTHER } else { CLIENT };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Client-ID", client)
            .header("X-Project-ID", project)
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap();
        let (status, value, _) = self.send(request).await;
        (status, value)
    }
}

fn messages(body: &str) -> Option<Value> {
    Some(json!({ "messages": [{ "ttl": 300, "body": body }] }))
}

#[tokio::test]
async fn what_is_somebody_elses_is_not_found() {
    let api = Api::new().await;
    let path = "/v2/queues/q/messages";
    let (status, posted) = api.ask("alice", Method::POST, path, messages("hers")).await;
    assert_eq!(status, StatusCode::CREATED);
    let href = posted["resources"][0].as_str().unwrap().to_owned();
    assert_eq!(api.ask("alice", Method::GET, &href, None).await.0, StatusCode::OK);
    assert_eq!(api.ask("bob", Method::GET, &href, None).await.0, StatusCode::NOT_FOUND);
    let other = href.replace("/q/", "/r/");
    assert_eq!(api.ask("alice", Method::GET, &other, None).await.0, StatusCode::NOT_FOUND);
    // Deleting says nothing, and does nothing.
    assert_eq!(api.ask("bob", Method::DELETE, &href, None).await.0, StatusCode::NO_CONTENT);
    let ids = href.replace("messages/", "messages?ids=");
    assert_eq!(api.ask("bob", Method::DELETE, &ids, None).await.0, StatusCode::NO_CONTENT);
    let (status, _) = api.ask("bob", Method::POST, "/v2/queues/q/claims", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (_, claim) = api.ask("alice", Method::POST, "/v2/queues/q/claims", None).await;
    let held = claim["messages"][0]["href"].as_str().unwrap();
    assert!(held.contains("?claim_id="), "{held}");
    assert_eq!(api.ask("alice", Method::DELETE, held, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(api.ask("alice", Method::GET, &href, None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn whoever_waits_gets_what_comes() {
    let api = Arc::new(Api::new().await);
    let waiting = tokio::spawn({
        let api = api.clone();
        async move { api.ask("p", Method::POST, "/v2/queues/q/claims?wait=30", None).await }
    });
    let listing = tokio::spawn({
        let api = api.clone();
        async move { api.ask("p", Method::GET, "/v2/queues/other/messages?wait=30", None).await }
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    for queue in ["q", "other"] {
        let path = format!("/v2/queues/{queue}/messages");
        api.ask("p", Method::POST, &path, messages("it")).await;
    }
    let within = |task| tokio::time::timeout(Duration::from_secs(20), task);
    let (status, claim) = within(waiting).await.unwrap().unwrap();
    assert_eq!((status, &claim["messages"][0]["body"]), (StatusCode::CREATED, &json!("it")));
    let (_, listed) = within(listing).await.unwrap().unwrap();
    assert_eq!(listed["messages"][0]["body"], "it");
    let (status, _) = api.ask("p", Method::POST, "/v2/queues/q/claims?wait=31", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

/// The four headers of a grant.
fn granted(method: Method, path: &str, shared: &Value) -> axum::http::request::Builder {
    let list = |name: &str| {
        let texts = shared[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        texts.collect::<Vec<_>>().join(",")
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header("Client-ID", OTHER)
        .header("X-Project-ID", shared["project"].as_str().unwrap())
        .header("URL-Signature", shared["signature"].as_str().unwrap())
        .header("URL-Expires", shared["expires"].as_str().unwrap())
        .header("URL-Methods", list("methods"))
        .header("URL-Paths", list("paths"))
}

#[tokio::test]
async fn a_grant_opens_what_it_says_until_it_is_revoked() {
    let api = Api::new().await;
    let path = "/v2/queues/q/messages";
    let (_, posted) = api.ask("p", Method::POST, path, messages("it")).await;
    let href = posted["resources"][0].as_str().unwrap();
    let asked = json!({ "paths": ["messages", "claims"], "methods": ["GET", "POST:claims"] });
    let (status, shared) = api.ask("p", Method::POST, "/v2/queues/q/share", Some(asked)).await;
    assert_eq!(status, StatusCode::OK);
    let send = async |request: axum::http::request::Builder| {
        let (status, _, _) = api.send(request.body(Body::empty()).unwrap()).await;
        status.as_u16()
    };
    let ask = |method: Method, path: &str| granted(method, path, &shared);
    assert_eq!(send(ask(Method::GET, path)).await, 200);
    assert_eq!(send(ask(Method::GET, href)).await, 200);
    assert_eq!(send(ask(Method::POST, "/v2/queues/q/claims")).await, 201);
    // What is refused is not found.
    for (method, path) in [
        (Method::POST, "/v2/queues/q/messages"),
        (Method::DELETE, href),
        (Method::GET, "/v2/queues/q"),
        (Method::GET, "/v2/queues/q/stats"),
        (Method::GET, "/v2/queues/r/messages"),
        (Method::GET, "/v2/queues"),
        (Method::POST, "/v2/queues/q/share"),
        (Method::DELETE, "/v2/queues/q/share"),
        (Method::GET, "/v2/ping"),
    ] {
        assert_eq!(send(ask(method.clone(), path)).await, 404, "{method} {path}");
    }
    let mut other = shared.clone();
    other["project"] = json!("q");
    assert_eq!(send(granted(Method::GET, path, &other)).await, 404);
    let mut longer = shared.clone();
    longer["expires"] = json!("2099-01-01T00:00:00");
    assert_eq!(send(granted(Method::GET, path, &longer)).await, 404);
    let mut more = shared.clone();
    more["methods"] = json!(["GET", "DELETE"]);
    assert_eq!(send(granted(Method::DELETE, href, &more)).await, 404);
    // No signature is not the same as none shown, though the service is open.
    let mut empty = shared.clone();
    empty["signature"] = json!("");
    assert_eq!(send(granted(Method::GET, path, &empty)).await, 404);
    let bare = Request::builder().uri(path).header("Client-ID", OTHER);
    let bare = bare.header("X-Project-ID", "p").header("URL-Expires", "2099-01-01T00:00:00");
    assert_eq!(send(bare).await, 404);

    let (status, _) = api.ask("p", Method::DELETE, "/v2/queues/q/share", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(send(ask(Method::GET, path)).await, 404);
    let far = json!({ "expires": "2099-01-01T00:00:00" });
    let (status, _) = api.ask("p", Method::POST, "/v2/queues/q/share", Some(far)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn nobody_is_believed_without_the_listener() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteQueues::open(dir.path().join("q.db"), 0).await.unwrap();
    let router = router(Arc::new(Service::new(Arc::new(store))));
    let request = Request::builder()
        .uri("/v2/queues")
        .header("Client-ID", CLIENT)
        .header("X-Project-ID", "p")
        .header("X-Roles", "admin");
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}
