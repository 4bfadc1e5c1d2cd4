//! What holds for every operation: the description fits the routes, lists come in parts, a request
//! with an idempotency key is served once, whatever fails is a problem.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::support::{Setup, journal_item};

fn document() -> Value {
    serde_json::from_str(&bulla_api::openapi()).unwrap()
}

/// Path, method, operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut out = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            out.push((path.clone(), method.to_uppercase(), operation.clone()));
        }
    }
    out
}

#[test]
fn the_document_in_docs_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("BULLA_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, bulla_api::openapi()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == bulla_api::openapi(),
        "docs/openapi.json is another: BULLA_WRITE_OPENAPI=1 cargo test -p bulla-api --test api"
    );
}

#[test]
fn every_operation_is_described_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let id = |operation: &Value| operation["operationId"].as_str().unwrap().to_owned();
    let described: BTreeSet<_> = operations(&document).iter().map(|(_, _, o)| id(o)).collect();
    let routed: BTreeSet<_> =
        bulla_api::operations().iter().map(|operation| operation.id.to_string()).collect();
    assert_eq!(described, routed);
    assert_eq!(described.len(), bulla_api::operations().len(), "no two share a name");
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{what}");
        for status in ["401", "403", "429", "500", "503"] {
            let named = responses[status]["$ref"].as_str().unwrap();
            let named = named.strip_prefix("#/components/responses/").unwrap();
            let response = &document["components"]["responses"][named];
            let content = &response["content"]["application/problem+json"];
            let schema = &content["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{what} {status}");
        }
        if operation.get("requestBody").is_some() {
            for status in ["400", "408", "413", "415"] {
                assert!(responses.contains_key(status), "{what} {status}");
            }
        }
        let is = |name: &str, parameter: &Value| parameter["name"] == name;
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let changes = bulla_api::operations()
            .into_iter()
            .any(|known| operation["operationId"] == *known.id && known.changes);
        assert_eq!(parameters.iter().any(|p| is("Idempotency-Key", p)), changes, "{what}");
        let pages = operation["operationId"].as_str().unwrap().starts_with("list-")
            && operation["operationId"] != "list-checkpoints";
        assert!(!pages || parameters.iter().any(|p| is("after", p)), "{what} comes in parts");
    }
    // Whatever is referred to is there.
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn every_described_operation_has_its_route() {
    let setup = Setup::loopback().await;
    for (path, method, _) in operations(&document()) {
        if path.ends_with("/stream") || path.ends_with("/tap") {
            continue;
        }
        let asked = path.replace("{version}", "1").replace(['{', '}'], "");
        let answer = setup.raw(&method, &asked, "").await;
        let name = problem_name(&answer.body);
        assert!(!matches!(answer.status, 405 | 404) || name == "unknown-target", "{method} {path}");
    }
}

fn problem_name(body: &str) -> String {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    let kind = problem["type"].as_str().unwrap_or_default();
    kind.strip_prefix("urn:bulla:problem:").unwrap_or_default().to_owned()
}

#[tokio::test]
async fn whatever_is_wrong_with_a_request_is_a_problem() {
    let setup = Setup::loopback().await;
    let json = "content-type: application/json";
    for (method, path, head, body, status, name) in [
        ("GET", "/nowhere", json, "", 404, "no-such-route"),
        ("PATCH", "/v1/calls", json, "", 405, "method-not-allowed"),
        ("POST", "/v1/calls", "content-type: text/plain", "{}", 415, "unsupported-media-type"),
        ("POST", "/v1/calls", json, "{", 400, "malformed-json"),
        ("POST", "/v1/calls", json, "{}", 400, "wrong-shape"),
        ("GET", "/v1/agents?limit=x", json, "", 400, "bad-query"),
        ("GET", "/v1/agents?limit=0", json, "", 400, "bad-request"),
        ("GET", "/v1/agents?after=%25", json, "", 400, "bad-request"),
        ("GET", "/v1/agents/%ff", json, "", 400, "bad-path"),
        ("GET", "/v1/policy/versions/x", json, "", 400, "bad-path"),
        ("DELETE", "/v1/agents/a", "idempotency-key: a b", "", 400, "bad-request"),
    ] {
        let answer = setup.raw_with(method, path, head, body).await;
        let got = (answer.status, problem_name(&answer.body));
        assert_eq!(got, (status, name.to_owned()), "{method} {path} {body}");
        assert_eq!(answer.content_type, "application/problem+json", "{method} {path}");
        if status == 405 {
            assert!(answer.head.to_lowercase().contains("\r\nallow: post"), "{}", answer.head);
        }
    }
}

#[tokio::test]
async fn lists_name_their_next_part() {
    let setup = Setup::loopback().await;
    let (mut path, mut names) = ("/v1/groups?limit=2".to_owned(), Vec::new());
    loop {
        let answer = setup.raw("GET", &path, "").await;
        let page: Value = serde_json::from_str(&answer.body).unwrap();
        names.extend(page["items"].as_array().unwrap().iter().map(|g| g["name"].clone()));
        let link = answer.head.lines().find_map(|line| line.strip_prefix("link: "));
        let Some(link) = link else {
            assert!(page.get("next").is_none());
            break;
        };
        let target = link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap().0;
        assert!(target.ends_with(page["next"].as_str().unwrap()), "{link}");
        path = target.to_owned();
    }
    assert_eq!(names, ["g/0", "g/1", "g/2", "g/3", "g/4"]);
}

#[tokio::test]
async fn a_request_with_a_key_is_served_once() {
    let setup = Setup::loopback().await;
    let head = "content-type: application/json\r\nidempotency-key: \"k-1\"";
    let body = r#"{"target":"agent/a","method":"m"}"#;
    let first = setup.raw_with("POST", "/v1/casts", head, body).await;
    let again = setup.raw_with("POST", "/v1/casts", head, body).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.body, again.body);
    assert_eq!(first.content_type, again.content_type);
    assert!(again.head.contains("idempotency-replayed: true"), "{}", again.head);
    assert!(!first.head.contains("idempotency-replayed"));
    assert_eq!(setup.plane.casts.load(Ordering::SeqCst), 1);

    let other = body.replace("agent/a", "agent/b");
    let reused = setup.raw_with("POST", "/v1/casts", head, &other).await;
    assert_eq!((reused.status, problem_name(&reused.body)), (422, "key-reused".to_owned()));
    let elsewhere = setup.raw_with("POST", "/v1/fanouts", head, body).await;
    assert_eq!(elsewhere.status, 422, "{}", elsewhere.body);
    assert_eq!(setup.plane.casts.load(Ordering::SeqCst), 1);

    let events = format!("{head}\r\naccept: text/event-stream");
    let refused = setup.raw_with("POST", "/v1/calls", &events, body).await;
    assert_eq!(refused.status, 400, "an answer in events can't be kept");
}

#[tokio::test]
async fn a_second_request_hears_that_the_first_is_under_way() {
    let setup = std::sync::Arc::new(Setup::loopback().await);
    let head = "content-type: application/json\r\nidempotency-key: k-2";
    let body = r#"{"target":"agent/a","method":"wait"}"#;
    let first = tokio::spawn({
        let setup = setup.clone();
        async move { setup.raw_with("POST", "/v1/calls", head, body).await }
    });
    setup.plane.entered.notified().await;
    let second = setup.raw_with("POST", "/v1/calls", head, body).await;
    assert_eq!((second.status, problem_name(&second.body)), (409, "key-in-use".to_owned()));
    // The client that waited goes away; the call goes on, and its answer is there for the next.
    first.abort();
    setup.plane.release.notify_one();
    let third = loop {
        let third = setup.raw_with("POST", "/v1/calls", head, body).await;
        if third.status != 409 {
            break third;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((third.status, third.body.as_str()), (200, r#"{"value":"done"}"#));
}

#[tokio::test]
async fn a_journal_is_followed_and_gone_on_with() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let setup = Setup::loopback().await;
    let token = bulla_http::Token::load(&setup.dir.path().join("token")).unwrap();
    let place = "Y29udHJvbDo2"; // control:6
    let address = setup.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /v1/journal/stream HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\
         last-event-id: {place}\r\n\r\n",
        token.authorization().as_str()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut ids = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(id) = line.strip_prefix("id: ") {
            ids.push(id.to_owned());
            match ids.len() {
                1 => drop(setup.plane.journal.send(journal_item("control:8")).unwrap()),
                _ => setup.stop.cancel(),
            }
        }
    }
    // It went on behind the place that was named, and ended when the control plane stopped.
    assert_eq!(ids, [place, "Y29udHJvbDo4"]);
}
