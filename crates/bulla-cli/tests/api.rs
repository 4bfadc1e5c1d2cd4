//! The HTTPS API of a real control plane: what commands do, over HTTP.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use bulla_http::certs::{self, Files};
use common::*;
use serde_json::{Value, json};

/// A control plane with its agent, and the way to its loopback door.
struct Api {
    deployment: Deployment,
    _process: Process,
    address: String,
    token: String,
}

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Api {
    fn start() -> Self {
        let deployment = Deployment::new(None);
        let process =
            deployment.start(&["up", "--plain", "--listen", "127.0.0.1:0"], "Stop with Ctrl-C");
        let url = fs::read_to_string(deployment.home().join("api.url")).unwrap();
        let address = url.trim().strip_prefix("http://").unwrap().to_owned();
        let token = fs::read_to_string(deployment.home().join("api.token")).unwrap();
        Self { deployment, _process: process, address, token: token.trim().to_owned() }
    }

    fn open(&self, method: &str, path: &str, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n{head}\
             content-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )
        .unwrap();
        stream
    }

    fn ask_with(&self, method: &str, path: &str, head: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut text = String::new();
        self.open(method, path, head, &body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: serde_json::from_str(body).unwrap_or_else(|e| panic!("{path}: {e}: {text}")),
        }
    }

    /// An answer with this status.
    fn ask(&self, method: &str, path: &str, body: &Value, status: u16) -> Value {
        let answer = self.ask_with(method, path, "", body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.body
    }

    fn get(&self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null, 200)
    }

    fn post(&self, path: &str, body: &Value, status: u16) -> Value {
        self.ask("POST", path, body, status)
    }

    fn delete(&self, path: &str, status: u16) -> Value {
        self.ask("DELETE", path, &Value::Null, status)
    }
}

const POLICY: &str = "@id(\"all\")\npermit (principal, action, resource);\n";

#[test]
fn what_commands_do_can_be_asked_for() {
    let api = Api::start();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let kept: Value = serde_json::from_str(&fs::read_to_string(kept).unwrap()).unwrap();
    assert_eq!(api.get("/v1/openapi.json"), kept);
    let printed: Value = serde_json::from_str(&api.deployment.ok(&["api", "openapi"])).unwrap();
    assert_eq!(printed, kept);

    agents(&api);
    components_and_groups(&api);
    policies(&api);
    access_keys(&api);
    let health = api.get("/v1/doctor");
    let what = |finding: &Value| finding["what"].as_str().unwrap().to_owned();
    let looked: Vec<_> = health["findings"].as_array().unwrap().iter().map(what).collect();
    assert!(looked.contains(&"control keys".to_owned()) && looked.contains(&"clock".to_owned()));
    // Commands see what was done over the API.
    let listed = api.deployment.json(&["access-key", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 0);
    journal(&api);
}

fn agents(api: &Api) {
    let request = json!({ "ids": ["db-1", "db-2"], "format": "cloud-init" });
    let added = api.post("/v1/agents", &request, 201);
    let file = &added["agents"][1]["files"][0];
    assert_eq!(file["name"], "db-2.join.cloud-init.yaml");
    assert!(file["content"].as_str().unwrap().starts_with("#cloud-config\n"));
    let taken = api.post("/v1/agents", &request, 409);
    assert_eq!(taken["type"], "urn:bulla:problem:conflict");
    assert_eq!(api.get("/v1/agents/db-1")["join"], "invited");
    assert_eq!(api.deployment.json(&["agent", "show", "db-1"])["join"], "invited");

    // A token that came twice would be two tokens: the first answer is given again.
    let (key, body) = ("idempotency-key: \"one\"\r\n", json!({ "ids": ["db-3"] }));
    let first = api.ask_with("POST", "/v1/agents", key, &body);
    let again = api.ask_with("POST", "/v1/agents", key, &body);
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert!(again.head.contains("idempotency-replayed: true"), "{}", again.head);
    let other = api.ask_with("POST", "/v1/agents", key, &json!({ "ids": ["db-4"] }));
    assert_eq!(
        (other.status, other.body["type"].as_str().unwrap()),
        (422, "urn:bulla:problem:key-reused")
    );
    // Who was told that nothing was done comes back with the same key, and may find it done.
    let (key, call) =
        ("idempotency-key: two\r\n", json!({ "target": "agent/db-2", "method": "x" }));
    for _ in 0..2 {
        let nobody = api.ask_with("POST", "/v1/calls", key, &call);
        assert_eq!(nobody.status, 404, "{}", nobody.body);
        assert!(!nobody.head.contains("idempotency-replayed"), "{}", nobody.head);
    }
    let token = |answer: &Value| answer["files"][0]["content"].as_str().unwrap().to_owned();
    let former = token(&first.body["agents"][0]);
    let rejoined = api.post("/v1/agents/db-3/rejoin", &json!({}), 201);
    assert_ne!(token(&rejoined), former);
    api.post("/v1/agents/local/rejoin", &json!({}), 409);
    api.post("/v1/agents/nobody/rejoin", &json!({}), 404);

    let rotated = api.post("/v1/agents/local/rotate", &json!({ "timeout_ms": 60_000 }), 200);
    assert_eq!(rotated["outcome"], "rotated", "{rotated}");
    let away = api.post("/v1/agents/db-1/rotate", &json!({ "timeout_ms": 1000 }), 200);
    assert_eq!(away["outcome"], "without-keys", "{away}");
    let revoked = api.delete("/v1/agents/db-1", 200);
    assert_eq!((&revoked["id"], &revoked["broker_user"]), (&json!("db-1"), &json!("unmanaged")));
    api.delete("/v1/agents/db-1", 404);
    api.get("/v1/agents?limit=2")["next"].as_str().unwrap();

    let call = json!({ "target": "agent/local", "namespace": "agent", "method": "ping" });
    assert!(api.post("/v1/calls", &call, 200).get("value").is_some());
}

fn components_and_groups(api: &Api) {
    let added = api.post("/v1/components", &json!({ "name": "conductor" }), 201);
    assert_eq!((&added["instance"], &added["new"]), (&json!("conductor-1"), &json!(true)));
    assert!(added["key_file"].as_str().unwrap().contains("component/conductor"));
    assert_eq!(api.post("/v1/components/conductor/rotate", &Value::Null, 200)["epoch"], 2);
    assert_eq!(api.get("/v1/components/conductor")["name"], "conductor");
    let revoked = api.delete("/v1/components/conductor/hosts/conductor-1", 200);
    assert_eq!(revoked["kids"].as_array().unwrap().len(), 1);
    api.delete("/v1/components/conductor/hosts/nobody", 404);
    api.post("/v1/components", &json!({ "name": "control" }), 400);

    let group = json!({ "name": "rack-7", "members": ["agent/db-2"] });
    assert_eq!(api.post("/v1/groups", &group, 201)["added"], json!(["agent/db-2"]));
    api.post("/v1/groups", &group, 409);
    let more = json!({ "members": ["agent/db-2", "agent/db-3"] });
    let extended = api.post("/v1/groups/rack-7/members", &more, 200);
    assert_eq!((&extended["new"], &extended["added"]), (&json!(false), &json!(["agent/db-3"])));
    api.post("/v1/groups/rack-7/members", &json!({ "members": ["agent/nobody"] }), 404);
    let members = api.get("/v1/groups/rack-7/members");
    assert_eq!(members["items"][1]["principal"], "agent/db-3");
    assert_eq!(api.get("/v1/groups/all")["every_agent"], true);
    api.ask("GET", "/v1/groups/nobody", &Value::Null, 404);
}

fn policies(api: &Api) {
    let (good, bad) = (json!({ "source": POLICY }), json!({ "source": "permit (nobody);" }));
    let checked = api.post("/v1/policy/check", &bad, 200);
    assert_eq!(checked["good"], false);
    assert!(checked["mistakes"][0]["line"].is_u64(), "{checked}");
    assert_eq!(api.post("/v1/policy/check", &good, 200)["reach"][0]["rule"], "all");
    let refused = api.post("/v1/policy/versions", &bad, 422);
    assert_eq!(refused["type"], "urn:bulla:problem:policy-refused");
    assert_eq!(api.post("/v1/policy/versions", &good, 201)["version"], 1);
    let asked = json!({ "from": "agent/a", "to": "component/conductor", "method": "x.y" });
    assert_eq!(api.post("/v1/policy/explain", &asked, 200)["allowed"], true);
    api.post("/v1/policy/explain", &json!({}), 400);
    assert_eq!(api.ask("PUT", "/v1/policy/shadow", &good, 200)["shadow"], true);
    assert_eq!(api.get("/v1/policy/shadow")["source"], POLICY);
    assert_eq!(api.get("/v1/policy/shadow/differences")["items"], json!([]));
    assert_eq!(api.delete("/v1/policy/shadow", 200)["shadow"], false);
    api.delete("/v1/policy/shadow", 409);
    assert_eq!(api.post("/v1/policy/rollback", &json!({}), 200)["again_of"], 0);
    assert_eq!(api.get("/v1/policy")["active"], 2);
    assert_eq!(api.get("/v1/policy/versions/1")["source"], POLICY);
    api.ask("GET", "/v1/policy/versions/9", &Value::Null, 404);
    assert_eq!(api.deployment.json(&["policy", "list"])["active"], 2);
}

fn access_keys(api: &Api) {
    let key = api.post("/v1/access-keys", &json!({ "user": "operator/ada" }), 201);
    let id = key["id"].as_str().unwrap();
    assert_eq!(key["secret_key"].as_str().unwrap().len(), 43);
    let listed = api.get("/v1/access-keys");
    assert!(listed["items"][0]["id"] == id && !listed.to_string().contains("secret"));
    let path = format!("/v1/access-keys/{id}");
    assert_eq!(api.ask("PATCH", &path, &json!({ "disabled": true }), 200)["disabled"], true);
    assert_eq!(api.delete(&path, 200)["removed"], true);
    api.delete(&path, 404);
    api.post("/v1/access-keys", &json!({ "user": "nobody" }), 400);
}

/// What was done is there with who asked for it, in parts that join, and comes as it happens.
fn journal(api: &Api) {
    let (mut path, mut all) = ("/v1/journal?limit=7".to_owned(), Vec::new());
    loop {
        let page = api.get(&path);
        all.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/journal?limit=7&after={next}");
    }
    let name = |entry: &Value| (entry["journal"].to_string(), entry["seq"].as_u64().unwrap());
    let mut names: Vec<_> = all.iter().map(name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len(), "no record comes twice");
    let of = |operation: &str| {
        let is = |entry: &&Value| {
            entry["event"] == "operator-changes" && entry["fields"]["operation"] == operation
        };
        all.iter().filter(is).count()
    };
    // Not those that were answered with what was answered before.
    assert_eq!((of("add-agents"), of("add-access-key"), of("activate-policy")), (3, 2, 2));
    let about = api.get("/v1/journal?principal=agent/db-1&kind=key");
    let events: Vec<_> = about["items"].as_array().unwrap().iter().map(|e| &e["event"]).collect();
    assert_eq!(events, ["agent-added", "agent-revoked"]);
    api.ask("GET", "/v1/journal?kind=nothing", &Value::Null, 400);
    let checkpoints = api.get("/v1/journal/checkpoints");
    assert!(checkpoints["public_key"].as_str().unwrap().contains('+'), "{checkpoints}");

    let first = follow(api, "", 1);
    let (id, entry) = &first[0];
    assert_eq!(entry["event"], "operator-changes");
    // Right behind that record: what came while nobody listened, the agent itself among it.
    let next = follow(api, &format!("last-event-id: {id}\r\n"), 3);
    assert!(next.iter().any(|(_, entry)| entry["event"] == "agent-added"), "{next:?}");
    for (n, (_, next)) in (1..).zip(&next) {
        assert_eq!(next["seq"].as_u64(), entry["seq"].as_u64().map(|seq| seq + n));
    }
}

/// The next events of the stream, while agents are added.
fn follow(api: &Api, head: &str, count: usize) -> Vec<(String, Value)> {
    let stream = api.open("GET", "/v1/journal/stream", head, "");
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("200"), "it streams");
    let id = format!("s-{}", head.len());
    // Once the stream answers it has its place.
    api.post("/v1/agents", &json!({ "ids": [id] }), 201);
    let (mut events, mut data) = (Vec::new(), Value::Null);
    let mut place = String::new();
    while events.len() < count {
        let line = lines.next().unwrap();
        if let Some(text) = line.strip_prefix("data: ") {
            data = serde_json::from_str(text).unwrap();
        } else if let Some(text) = line.strip_prefix("id: ") {
            place = text.to_owned();
        } else if line.is_empty() && !place.is_empty() {
            events.push((std::mem::take(&mut place), data.take()));
        }
    }
    events
}

/// Whether who has these certificates is answered.
fn answers(deployment: &Deployment, files: &Files) -> bool {
    let url = fs::read_to_string(deployment.home().join("api.url")).unwrap();
    let endpoint =
        bulla_api::Endpoint::Tls { url: url.trim().to_owned(), files: files.operator_tls() };
    let client = bulla_api::Client::new(&endpoint).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(client.status()).is_ok()
}

#[test]
fn certificates_are_by_settings_and_taken_over() {
    let mut deployment = Deployment::new(None);
    let make = |name: &str| {
        fs::create_dir(deployment.path(name)).unwrap();
        certs::make(&deployment.path(name), &[], "ada").unwrap()
    };
    let (first, second) = (make("first"), make("second"));
    let set = [
        ("BULLA_API_TLS_CERTIFICATE", &first.server),
        ("BULLA_API_TLS_KEY", &first.server_key),
        ("BULLA_API_TLS_CLIENT_CA", &first.ca),
    ];
    deployment.env.extend(set.map(|(name, path)| (name, path.to_str().unwrap().to_owned())));
    let process = deployment.start(&["up", "--listen", "127.0.0.1:0"], "Stop with Ctrl-C");
    assert!(answers(&deployment, &first) && !answers(&deployment, &second));
    for (from, to) in [
        (&second.server, &first.server),
        (&second.server_key, &first.server_key),
        (&second.ca, &first.ca),
    ] {
        fs::rename(from, to).unwrap();
    }
    let renewed = Files { ca: first.ca.clone(), ..second };
    process.hang_up();
    eventually("the new ones count", || answers(&deployment, &renewed).then_some(()));
    assert_eq!(process.stop(), 0);
}
