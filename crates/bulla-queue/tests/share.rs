//! Grants, when many ask for them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like the tests themselves")]

use std::collections::HashSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use bulla_queue::{Grants, Service, SqliteQueues, router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn share(router: Router, queue: &str, body: Value) -> Value {
    let request = Request::post(format!("/v2/queues/{queue}/share"))
        .header("Client-ID", "30387f00-39a0-11ee-be56-0242ac120002")
        .header("X-Project-ID", "p")
        .body(Body::from(body.to_string()));
    let response = router.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

/// Of many who share a queue for the first time, nobody gets a grant under a key that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn all_who_share_at_once_have_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteQueues::open(dir.path().join("q.db"), 0).await.unwrap();
    let service = Service::new(Arc::new(store)).dangerously_open();
    let router = router(Arc::new(service.grants(Grants::new(&[7; 32]).unwrap())));
    let other = share(router.clone(), "other", json!({})).await;
    let mut shared = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let ends = json!({ "expires": other["expires"] });
        let router = router.clone();
        shared.spawn(async move { share(router, "new", ends).await });
    }
    let shared = shared.join_all().await;
    let signatures: HashSet<_> = shared.iter().map(|it| it["signature"].to_string()).collect();
    assert_eq!(signatures.len(), 1);
}
