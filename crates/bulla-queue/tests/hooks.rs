//! Subscriptions: who is told, when, and who can't be made to be.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::routing::post;
use bulla_http::{Outward, Reach};
use bulla_queue::{Grants, Service, SqliteQueues, Webhooks, router};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt;

const CLIENT: &str = "30387f00-39a0-11ee-be56-0242ac120002";

/// A subscriber, which answers as it is told to.
struct Subscriber {
    url: String,
    got: mpsc::UnboundedReceiver<(HeaderMap, Value)>,
    answers: Arc<Mutex<Vec<StatusCode>>>,
}

type Told = (mpsc::UnboundedSender<(HeaderMap, Value)>, Arc<Mutex<Vec<StatusCode>>>);

async fn hear(State((to, answers)): State<Told>, headers: HeaderMap, body: Bytes) -> StatusCode {
    to.send((headers, serde_json::from_slice(&body).unwrap())).unwrap();
    answers.lock().pop().unwrap_or(StatusCode::OK)
}

impl Subscriber {
    async fn new() -> Self {
        let (to, got) = mpsc::unbounded_channel();
        let answers: Arc<Mutex<Vec<StatusCode>>> = Arc::default();
        let router = Router::new().route("/hook", post(hear)).with_state((to, answers.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, got, answers }
    }

    async fn next(&mut self) -> (HeaderMap, Value) {
        tokio::time::timeout(Duration::from_secs(60), self.got.recv()).await.unwrap().unwrap()
    }
}

struct Api {
    router: Router,
    _dir: tempfile::TempDir,
}

impl Api {
    async fn new(reach: Reach) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteQueues::open(dir.path().join("q.db"), 0).await.unwrap();
        let webhooks = Webhooks::new(Outward::new(reach, None).unwrap());
        let webhooks = webhooks.url(Some("https://queues.example:8888".to_owned()));
        let service = Service::new(Arc::new(store)).dangerously_open().webhooks(webhooks);
        let service = service.grants(Grants::new(&[7; 32]).unwrap());
        Self { router: router(Arc::new(service)), _dir: dir }
    }

    async fn send(&self, request: axum::http::request::Builder, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.header("Client-ID", CLIENT).body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("X-Project-ID", "p");
        self.send(request, &body).await
    }

    async fn subscribe(&self, of: &str, subscriber: &str, options: Value) -> (u16, Value) {
        let body = json!({ "subscriber": subscriber, "ttl": 600, "options": options });
        self.ask(Method::POST, &format!("{of}/subscriptions"), body).await
    }

    async fn post(&self, of: &str, body: &str) -> u16 {
        let body = json!({ "messages": [{ "ttl": 300, "body": body }] });
        self.ask(Method::POST, &format!("{of}/messages"), body).await.0
    }

    /// With what a subscriber was sent.
    async fn answer(&self, question: &Value, path: &str, body: &Value) -> u16 {
        let text = |name: &str| question[name].as_str().unwrap().to_owned();
        let request = Request::builder()
            .method(Method::PUT)
            .uri(path)
            .header("X-Project-ID", text("X-Project-ID"))
            .header("URL-Signature", text("URL-Signature"))
            .header("URL-Expires", text("URL-Expires"))
            .header("URL-Methods", text("URL-Methods"))
            .header("URL-Paths", text("URL-Paths"));
        self.send(request, body).await.0
    }
}

#[tokio::test]
async fn a_subscriber_is_told_once_it_said_that_it_wants_to_be() {
    let (api, mut hook) = (Api::new(Reach::Everything).await, Subscriber::new().await);
    for of in ["/v2/queues/q", "/v2/topics/q"] {
        let options = json!({ "post_headers": { "X-Mine": "yes" } });
        let (status, made) = api.subscribe(of, &hook.url, options).await;
        assert_eq!(status, 201, "{made}");
        let (_, question) = hook.next().await;
        assert_eq!(question["Message_Type"], "SubscriptionConfirmation");
        // Nothing until it has.
        assert_eq!(api.post(of, "before").await, 201);
        let path = question["URL-Paths"].as_str().unwrap();
        let wanted =
            format!("{of}/subscriptions/{}/confirm", made["subscription_id"].as_str().unwrap());
        assert_eq!(path, wanted);
        let url = question["WSGISubscribeURL"].as_str().unwrap();
        assert_eq!(url, format!("https://queues.example:8888{path}"));
        // What was sent is for this alone.
        let other = path.replacen("-7", "-8", 1);
        assert_eq!(api.answer(&question, &other, &question["SubscribeBody"]).await, 404);
        assert_eq!(api.answer(&question, path, &question["SubscribeBody"]).await, 204);
        assert_eq!(api.post(of, "after").await, 201);
        let (headers, told) = hook.next().await;
        let wanted = json!({
            "ttl": 300, "body": "after", "queue_name": "q", "Message_Type": "Notification",
        });
        assert_eq!(told, wanted);
        assert_eq!(headers["x-mine"], "yes");
        assert!(headers.contains_key("idempotency-key"));

        assert_eq!(api.answer(&question, path, &question["UnsubscribeBody"]).await, 204);
        let (_, said) = hook.next().await;
        assert_eq!(said["Message_Type"], "UnsubscribeConfirmation");
        assert_eq!(api.post(of, "too late").await, 201);
        let purge = json!({ "resource_types": ["subscriptions"] });
        assert_eq!(api.ask(Method::POST, &format!("{of}/purge"), purge).await.0, 204);
        let (_, left) = api.ask(Method::GET, &format!("{of}/subscriptions"), Value::Null).await;
        assert_eq!(left["subscriptions"], json!([]));
        assert!(hook.got.try_recv().is_err());
    }
}

#[tokio::test]
async fn what_did_not_arrive_is_sent_again_with_the_same_key() {
    let (api, mut hook) = (Api::new(Reach::Everything).await, Subscriber::new().await);
    let of = "/v2/queues/q";
    api.subscribe(of, &hook.url, json!({})).await;
    let (_, question) = hook.next().await;
    let path = question["URL-Paths"].as_str().unwrap();
    assert_eq!(api.answer(&question, path, &question["SubscribeBody"]).await, 204);
    // The last is the first.
    *hook.answers.lock() =
        vec![StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY];
    api.post(of, "again").await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        let (headers, told) = hook.next().await;
        assert_eq!(told["body"], "again");
        keys.push(headers["idempotency-key"].clone());
    }
    assert!(keys.iter().all(|key| *key == keys[0]));
    // What is refused for good, or leads elsewhere, is not; what comes after it arrives.
    *hook.answers.lock() = vec![StatusCode::OK, StatusCode::FOUND, StatusCode::BAD_REQUEST];
    for body in ["refused", "moved", "last"] {
        api.post(of, body).await;
        assert_eq!(hook.next().await.1["body"], body);
    }
    assert!(hook.answers.lock().is_empty() && hook.got.try_recv().is_err());
}

#[tokio::test]
async fn nobody_is_subscribed_who_can_t_be_asked() {
    let api = Api::new(Reach::Public).await;
    let subscribe =
        async |subscriber: &str| api.subscribe("/v2/queues/q", subscriber, json!({})).await.0;
    for bad in [
        "http://127.0.0.1/",
        "http://[::1]:8080/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://ada:hush@hook.invalid/",
        "https://hook.invalid/",
        "mailto:ada@hook.invalid",
        "trust+http://hook.invalid/",
    ] {
        assert_eq!(subscribe(bad).await, 400, "{bad}");
    }
    assert_eq!(subscribe("http://hook.invalid/").await, 201);
    let headers = json!({ "post_headers": { "Host": "elsewhere" } });
    assert_eq!(api.subscribe("/v2/queues/q", "http://x.invalid/", headers).await.0, 400);
}

/// Whoever may share a queue can't make what a subscriber alone should have.
#[tokio::test]
async fn a_shared_queue_confirms_nothing() {
    let (api, mut hook) = (Api::new(Reach::Everything).await, Subscriber::new().await);
    api.subscribe("/v2/queues/q", &hook.url, json!({})).await;
    let (_, question) = hook.next().await;
    let path = question["URL-Paths"].as_str().unwrap();
    let asked = json!({ "paths": ["subscriptions"], "methods": ["PUT"] });
    let (_, shared) = api.ask(Method::POST, "/v2/queues/q/share", asked).await;
    let forged = json!({
        "X-Project-ID": "p",
        "URL-Signature": shared["signature"],
        "URL-Expires": shared["expires"],
        "URL-Methods": "PUT",
        "URL-Paths": shared["paths"][0],
    });
    assert_eq!(api.answer(&forged, path, &json!({ "confirmed": true })).await, 403);
    assert_eq!(api.answer(&forged, path, &json!({ "confirmed": false })).await, 204);
}

/// Another address has to be asked anew.
#[tokio::test]
async fn a_changed_subscriber_confirms_again() {
    let (api, mut hook) = (Api::new(Reach::Everything).await, Subscriber::new().await);
    let of = "/v2/queues/q";
    let (_, made) = api.subscribe(of, &hook.url, json!({})).await;
    let (_, question) = hook.next().await;
    let path = question["URL-Paths"].as_str().unwrap();
    assert_eq!(api.answer(&question, path, &question["SubscribeBody"]).await, 204);
    let mut other = Subscriber::new().await;
    let one = format!("{of}/subscriptions/{}", made["subscription_id"].as_str().unwrap());
    let change = json!({ "subscriber": other.url });
    assert_eq!(api.ask(Method::PATCH, &one, change).await.0, 204);
    assert_eq!(other.next().await.1["Message_Type"], "SubscriptionConfirmation");
    let (_, shown) = api.ask(Method::GET, &one, Value::Null).await;
    assert_eq!(shown["confirmed"], false);
    // The former one is free for another subscription.
    assert_eq!(api.subscribe(of, &hook.url, json!({})).await.0, 201);
    assert_eq!(api.subscribe(of, &other.url, json!({})).await.0, 201);
    let (_, listed) = api.ask(Method::GET, &format!("{of}/subscriptions"), Value::Null).await;
    assert_eq!(listed["subscriptions"].as_array().unwrap().len(), 2);
}
