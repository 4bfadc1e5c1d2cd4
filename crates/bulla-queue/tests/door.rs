//! The service behind a listener of ours: by which one thing a request counts, and that nothing else is
//! believed. The three advisories of 2026 about Zaqar's own front are here (OSSA-2026-029, a header that
//! skipped Keystone; 042, an empty signature that skipped both checks; 043, a request that named
//! another's project).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_http::{
    AccessKeys, AccessSecret, AgentKey, AgentKeys, Authenticators, KeyOwner, Listener, Options,
    Token,
};
use bulla_queue::{
    AgentMay, GRANT_HEADERS, Grants, Limits, PUBLIC, Place, Quota, Service, SqliteQueues, Store,
    router,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SEED: [u8; 32] = [5; 32];
const MESSAGE: &str = r#"{"messages":[{"ttl":300,"body":"x"}]}"#;

/// What a shared-key agent's requests carry a MAC under.
const SHARED: [u8; 32] = [6; 32];
/// The secret of all access keys.
const SECRET: [u8; 32] = *b"a-secret-key-that-has-32-bytes-!";

fn public() -> [u8; 32] {
    key().public_key().as_ref().try_into().unwrap()
}

/// How a request is signed: the algorithm that it names, and what makes the signature.
enum By {
    Key,
    Mac([u8; 32]),
}

impl By {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Key => "ed25519",
            Self::Mac(_) => "hmac-sha256",
        }
    }

    fn sign(&self, base: &str) -> Vec<u8> {
        match self {
            Self::Key => key().sign(base.as_bytes()).as_ref().to_vec(),
            Self::Mac(secret) => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&secret, base.as_bytes()).as_ref().to_vec()
            }
        }
    }
}

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap()
}

struct Keys;

#[async_trait]
impl AgentKeys for Keys {
    async fn find(&self, agent: &str, id: &str) -> Result<Result<AgentKey, &'static str>, String> {
        match (agent, id) {
            ("db-1", "k1") => Ok(Ok(AgentKey::Ed25519(public()))),
            ("db-3", "2") => Ok(Ok(AgentKey::Hmac(SHARED.into()))),
            ("db-1", "down") => Err("the database is away".to_owned()),
            _ => Ok(Err("agent-key-unknown")),
        }
    }
}

/// Access keys of the API's users.
struct Users;

#[async_trait]
impl AccessKeys for Users {
    async fn find(&self, id: &str) -> Result<Result<KeyOwner, &'static str>, String> {
        let user = match id {
            "BULLOP" => "operator/ada",
            "BULLONE" => "program/one",
            "BULLTWO" => "program/two",
            "BULLADM" => "program/admin",
            "BULLOFF" => return Ok(Err("access-key-disabled")),
            "BULLDOWN" => return Err("the database is away".to_owned()),
            _ => return Ok(Err("access-key-unknown")),
        };
        let secret = AccessSecret::new(std::str::from_utf8(&SECRET).unwrap()).unwrap();
        Ok(Ok(KeyOwner { user: user.to_owned(), secret }))
    }

    fn used(&self, _: &str) {}
}

fn rule(queue: &str, agent: &str) -> AgentMay {
    match queue {
        "own" if agent == "agent/db-1" => AgentMay::Take,
        "shared" if agent == "agent/db-3" => AgentMay::Take,
        "control" => AgentMay::Post,
        _ if queue.starts_with("parts-") => AgentMay::Share,
        _ => AgentMay::Nothing,
    }
}

struct Served {
    address: SocketAddr,
    token: String,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    store: Arc<SqliteQueues>,
    service: Arc<Service>,
    _dir: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Served {
    async fn new() -> Self {
        Self::at(([127, 0, 0, 1], 0).into()).await
    }

    async fn at(address: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteQueues::open(dir.path().join("q.db"), 0).await.unwrap();
        let store = Arc::new(store);
        let service = Service::new(store.clone()).agents("bulla", rule);
        let service = service.quota(Quota { queues: 2, bytes: 1000 });
        let service = Arc::new(service.grants(Grants::new(&[7; 32]).unwrap()));
        let path = dir.path().join("token");
        let token = Token::load_or_create(&path).unwrap();
        let by = Authenticators::default().access_keys(Arc::new(Users), None);
        let by = by.agent_keys(Arc::new(Keys));
        let by = by.roles(vec![("program/admin".to_owned(), vec!["queue-admin".to_owned()])]);
        let by = by.grants(GRANT_HEADERS).public(PUBLIC);
        let options = Options::plain_loopback(address, token).unwrap();
        let listener = Listener::bind(options.authenticators(by)).await.unwrap();
        let (address, stop) = (listener.local_addr(), CancellationToken::new());
        let serving = tokio::spawn(listener.serve(router(service.clone()), stop.clone()));
        let token = std::fs::read_to_string(path).unwrap().trim().to_owned();
        Self { address, token, stop, serving, store, service, _dir: dir }
    }

    /// The status and the body of an answer.
    async fn ask(&self, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut text =
            format!("{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        text += "Client-ID: 30387f00-39a0-11ee-be56-0242ac120002\r\n";
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    async fn status(&self, line: &str, headers: &[(&str, &str)]) -> u16 {
        self.ask(line, headers, "").await.0
    }

    /// The same, signed by an agent.
    async fn signed(&self, line: &str, key_id: &str, body: &str, nonce: &str) -> u16 {
        self.signed_by(&By::Key, line, (key_id, nonce), body).await
    }

    async fn signed_by(&self, by: &By, line: &str, named: (&str, &str), body: &str) -> u16 {
        self.signed_with(by, line, (named, body), &[]).await.0
    }

    /// With header fields that are not signed.
    async fn signed_with(
        &self,
        by: &By,
        line: &str,
        (named, body): ((&str, &str), &str),
        more: &[(&str, &str)],
    ) -> (u16, String) {
        let fields = sign_by(by, &self.address.to_string(), line, named, body);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.ask(line, &[&fields[..], more].concat(), body).await
    }
}

fn sign(
    authority: &str,
    line: &str,
    named: (&str, &str),
    body: &str,
) -> Vec<(&'static str, String)> {
    sign_by(&By::Key, authority, line, named, body)
}

fn sign_by(
    by: &By,
    authority: &str,
    line: &str,
    named: (&str, &str),
    body: &str,
) -> Vec<(&'static str, String)> {
    sign_at(unix_time(), by, (authority, line), named, body)
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sign_at(
    created: u64,
    by: &By,
    (authority, line): (&str, &str),
    (key_id, nonce): (&str, &str),
    body: &str,
) -> Vec<(&'static str, String)> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut base = format!("\"@method\": {method}\n\"@target-uri\": http://{authority}{path}\n");
    let (mut fields, mut list) = (Vec::new(), "\"@method\" \"@target-uri\"".to_owned());
    if !body.is_empty() {
        let sum = BASE64.encode(digest(&SHA256, body.as_bytes()).as_ref());
        base += &format!("\"content-digest\": sha-256=:{sum}:\n");
        list += " \"content-digest\"";
        fields.push(("Content-Digest", format!("sha-256=:{sum}:")));
    }
    let parameters = format!(
        "({list});created={created};keyid=\"{key_id}\";nonce=\"{nonce}\";alg=\"{}\"",
        by.algorithm()
    );
    base += &format!("\"@signature-params\": {parameters}");
    let signature = BASE64.encode(by.sign(&base));
    fields.push(("Signature-Input", format!("a={parameters}")));
    fields.push(("Signature", format!("a=:{signature}:")));
    fields
}

#[tokio::test]
async fn nothing_but_the_one_credential_lets_anybody_in() {
    let served = Served::new().await;
    let bearer = format!("Bearer {}", served.token);
    let (bearer, project) = (("Authorization", bearer.as_str()), ("X-Project-ID", "p"));
    let list = "GET /v2/queues";
    assert_eq!(served.status(list, &[bearer, project]).await, 200);
    assert_eq!(served.status("GET /", &[]).await, 300, "discovery");
    assert_eq!(served.status("POST /", &[]).await, 401);
    // What another service would take for the word of its front.
    for claim in [
        ("X-Identity-Status", "Confirmed"),
        ("X-Roles", "admin"),
        ("X-Auth-Token", "forged"),
        ("OpenStack-Auth-Receipt", "x"),
    ] {
        assert_eq!(served.status(list, &[claim, project]).await, 401, "{claim:?}");
    }
    // A grant's header, empty or whole, is a credential of its own: it opens nothing by being there,
    // and does not go together with another.
    for name in ["URL-Signature", "URL-Expires", "URL-Methods", "URL-Paths"] {
        for value in ["", "x"] {
            for line in [list, "GET /v2/queues/q", "POST /v2/queues/q/share", "GET /v2/ping"] {
                assert_eq!(
                    served.status(line, &[(name, value), project]).await,
                    404,
                    "{name} {line}"
                );
            }
            assert_eq!(served.status(list, &[(name, value), bearer, project]).await, 400, "{name}");
        }
    }
}

#[tokio::test]
async fn an_agent_is_known_by_its_key_and_confined() {
    let served = Served::new().await;
    let key = "agent/db-1#k1";
    for (n, (line, body, wanted)) in [
        ("PUT /v2/queues/own", "", 201),
        ("POST /v2/queues/own/claims", "{}", 204),
        ("GET /v2/queues/own/stats", "", 200),
        ("POST /v2/queues/control/messages", MESSAGE, 201),
        // What it may not.
        ("PUT /v2/queues/own", r#"{"_dead_letter_queue":"other","_max_claim_count":1}"#, 403),
        ("POST /v2/queues/own/messages", MESSAGE, 403),
        ("POST /v2/queues/own/share", "{}", 403),
        ("POST /v2/queues/control/claims", "{}", 403),
        ("GET /v2/queues/control/messages?echo=true", "", 403),
        ("DELETE /v2/queues/control", "", 403),
        ("GET /v2/queues/other", "", 403),
        ("GET /v2/queues", "", 403),
        ("GET /v2/health", "", 403),
        ("GET /v2/ping", "", 403),
        ("POST /v2/queues/own/subscriptions", r#"{"subscriber":"http://x.invalid/"}"#, 403),
        // A topic of the same name is another thing.
        ("POST /v2/topics/control/messages", MESSAGE, 403),
        ("GET /v2/topics/own/messages", "", 403),
        ("GET /v2/pools", "", 403),
        ("GET /v2/flavors", "", 403),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(served.signed(line, key, body, &format!("n{n}")).await, wanted, "{line}");
    }
    // A name that is not the key's, a key that is not there, one that can't be looked up.
    for (id, wanted) in [
        ("agent/db-2#k1", 401),
        ("agent/db-1#k2", 401),
        ("agent/db-1", 401),
        ("operator/db-1#k1", 401),
        ("agent/db-1#down", 503),
    ] {
        assert_eq!(served.signed("GET /v2/queues/own", id, "", "m").await, wanted, "{id}");
    }
    // Once is enough.
    assert_eq!(served.signed("GET /v2/queues/own/stats", key, "", "once").await, 200);
    assert_eq!(served.signed("GET /v2/queues/own/stats", key, "", "once").await, 401);
    // What is signed is what counts: another path, another body, another algorithm.
    let authority = served.address.to_string();
    let fields = sign(&authority, "GET /v2/queues/own", (key, "p1"), "");
    let shown: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(served.status("GET /v2/queues/own/stats", &shown).await, 401);
    let line = "POST /v2/queues/control/messages";
    let fields = sign(&authority, line, (key, "p2"), MESSAGE);
    let shown: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(served.ask(line, &shown, &MESSAGE.replace('x', "y")).await.0, 401);
    let hmac: Vec<_> =
        fields.iter().map(|(n, v)| (*n, v.replace("ed25519", "hmac-sha256"))).collect();
    let shown: Vec<_> = hmac.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(served.ask(line, &shown, MESSAGE).await.0, 401);
    // Its project is the agents', whatever it says; another's header changes nothing.
    let bearer = format!("Bearer {}", served.token);
    let of = |project| [("Authorization", bearer.as_str()), ("X-Project-ID", project)];
    let (_, mine) = served.ask("GET /v2/queues", &of("bulla"), "").await;
    assert!(mine.contains("\"own\"") && mine.contains("\"control\""), "{mine}");
    let mut forged = sign(&authority, "PUT /v2/queues/own", (key, "p3"), "");
    forged.push(("X-Project-ID", "elsewhere".to_owned()));
    let shown: Vec<_> = forged.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(served.status("PUT /v2/queues/own", &shown).await, 204);
    let (_, others) = served.ask("GET /v2/queues", &of("elsewhere"), "").await;
    assert!(others.contains("\"queues\":[]"), "{others}");
}

#[tokio::test]
async fn a_signature_from_before_a_restart_is_not_taken_and_none_before_its_time() {
    let mut before = Served::new().await;
    let (address, authority) = (before.address, before.address.to_string());
    let line = "GET /v2/queues/own/stats";
    let signers =
        [(By::Key, "agent/db-1#k1"), (By::Mac(SECRET), "BULLONE")].map(|(by, id)| (by, (id, "r")));
    let used = signers.each_ref().map(|(by, named)| sign_by(by, &authority, line, *named, ""));
    for fields in &used {
        let shown: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(before.status(line, &shown).await, 200);
        assert_eq!(before.status(line, &shown).await, 401);
    }
    before.stop.cancel();
    (&mut before.serving).await.unwrap();
    // Nobody here remembers them, and they are good for another minute.
    let after = Served::at(address).await;
    for (fields, (by, (id, _))) in used.iter().zip(&signers) {
        let shown: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, why) = after.ask(line, &shown, "").await;
        assert!(status == 503 && why.contains("sign it again"), "{status} {why}");
        assert_eq!(after.signed_by(by, line, (id, "new"), "").await, 200);
        // By a clock that is ahead: it would be good after a restart if it were used now.
        let ahead = unix_time() + 2;
        let fields = sign_at(ahead, by, (&authority, line), (id, "ahead"), "");
        let shown: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(after.status(line, &shown).await, 200);
        assert!(unix_time() >= ahead);
    }
}

#[tokio::test]
async fn an_agent_has_a_quota_of_queues_for_anybody() {
    let served = Served::new().await;
    let n = std::cell::Cell::new(0);
    let ask = async |by: &By, id: &str, line: &str, body: &str| {
        n.set(n.get() + 1);
        let nonce = format!("q{}", n.get());
        served.signed_with(by, line, ((id, &nonce), body), &[]).await
    };
    let (one, other) = ((By::Key, "agent/db-1#k1"), (By::Mac(SHARED), "agent/db-3#2"));
    let post = async |(by, id): &(By, &str), queue: &str, body: &str| {
        ask(by, id, &format!("POST /v2/queues/{queue}/messages"), body).await
    };
    let large = MESSAGE.replace("\"x\"", &format!("\"{}\"", "x".repeat(990)));
    assert_eq!(post(&one, "parts-1", MESSAGE).await.0, 201);
    assert_eq!(post(&one, "parts-2", MESSAGE).await.0, 201);
    assert_eq!(post(&one, "parts-2", MESSAGE).await.0, 201);
    for (queue, body) in [("parts-3", MESSAGE), ("parts-2", large.as_str())] {
        let (status, why) = post(&one, queue, body).await;
        assert!(status == 503 && why.contains("agent/db-1 has as much"), "{status} {why}");
    }
    // Messages to others are no parts, and another agent has a quota of its own.
    assert_eq!(post(&one, "control", MESSAGE).await.0, 201);
    assert_eq!(post(&other, "parts-3", MESSAGE).await.0, 201);
    // Whoever took the parts removes the queue, here or by another process.
    assert_eq!(ask(&other.0, other.1, "DELETE /v2/queues/parts-1", "").await.0, 204);
    assert_eq!(post(&one, "parts-4", MESSAGE).await.0, 201);
    assert_eq!(post(&one, "parts-5", MESSAGE).await.0, 503);
    let at = |name: &str| Place::new("bulla".into(), name, &Limits::default()).unwrap();
    served.store.remove(&at("parts-2")).await.unwrap();
    assert_eq!(post(&one, "parts-5", MESSAGE).await.0, 201);
    let bearer = format!("Bearer {}", served.token);
    let operator = [("Authorization", bearer.as_str()), ("X-Project-ID", "bulla")];
    let (_, health) = served.ask("GET /v2/health", &operator, "").await;
    assert!(health.contains("\"agent_quota\":3"), "{health}");
    // What is empty is removed; what somebody has still to take, and others' queues, are not.
    served.store.purge(&at("parts-4")).await.unwrap();
    served.store.purge(&at("control")).await.unwrap();
    assert_eq!(served.service.tidy().await.unwrap(), 1);
    for (name, there) in
        [("parts-3", true), ("parts-4", false), ("parts-5", true), ("control", true)]
    {
        assert_eq!(served.store.metadata(&at(name)).await.unwrap().is_some(), there, "{name}");
    }
}

#[tokio::test]
async fn an_agent_with_a_shared_key_is_known_by_its_mac() {
    let served = Served::new().await;
    let (key, mac) = ("agent/db-3#2", By::Mac(SHARED));
    let post = "POST /v2/queues/control/messages";
    for (n, (line, body, wanted)) in [
        ("PUT /v2/queues/shared", "", 201),
        ("POST /v2/queues/shared/claims", "{}", 204),
        (post, MESSAGE, 201),
        ("POST /v2/queues/own/claims", "{}", 403),
        ("POST /v2/queues/shared/messages", MESSAGE, 403),
        ("GET /v2/queues", "", 403),
    ]
    .into_iter()
    .enumerate()
    {
        let status = served.signed_by(&mac, line, (key, &format!("n{n}")), body).await;
        assert_eq!(status, wanted, "{line}");
    }
    // Another key, another's name, another incarnation, no key at all; and each key is good for its own
    // algorithm alone: what is public of one is no secret of another.
    for (by, id) in [
        (By::Mac([7; 32]), key),
        (By::Mac([0; 32]), key),
        (By::Mac(SHARED), "agent/db-1#2"),
        (By::Mac(SHARED), "agent/db-1#k1"),
        (By::Mac(SHARED), "agent/db-3#1"),
        (By::Mac(SHARED), "agent/db-3"),
        (By::Mac(SHARED), "db-3#2"),
        (By::Mac(SHARED), "operator/db-3#2"),
        (By::Mac(public()), "agent/db-1#k1"),
        (By::Key, key),
    ] {
        let status = served.signed_by(&by, "GET /v2/queues/shared/stats", (id, "x"), "").await;
        assert_eq!(status, 401, "{id} {}", by.algorithm());
    }
    // Once is enough, and what is signed is what counts.
    for wanted in [200, 401] {
        let line = "GET /v2/queues/shared/stats";
        assert_eq!(served.signed_by(&mac, line, (key, "once"), "").await, wanted);
    }
    let fields = sign_by(&mac, &served.address.to_string(), post, (key, "p"), MESSAGE);
    let shown: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(served.ask(post, &shown, &MESSAGE.replace('x', "y")).await.0, 401);
    let with_token = [&shown[..], &[("X-Auth-Token", "x")]].concat();
    assert_eq!(served.ask(post, &with_token, MESSAGE).await.0, 400);
}

#[tokio::test]
async fn an_access_key_opens_its_own_project_and_nothing_by_another_name() {
    let served = Served::new().await;
    let secret = By::Mac(SECRET);
    let mut n = 0;
    let mut ask = async |key: &str, line: &str, body: &str, more: &[(&str, &str)]| {
        n += 1;
        served.signed_with(&secret, line, ((key, &format!("n{n}")), body), more).await
    };
    let of = |project: &'static str| [("X-Project-ID", project)];
    // A program has a project of its own, whatever it says.
    let (post, list) = ("POST /v2/queues/q/messages", "GET /v2/queues/q/messages?echo=true");
    assert_eq!(ask("BULLONE", post, MESSAGE, &of("program/two")).await.0, 201);
    assert!(ask("BULLONE", list, "", &[]).await.1.contains("\"x\""));
    for project in ["program/one", "bulla", "p"] {
        let (status, seen) = ask("BULLTWO", list, "", &of(project)).await;
        assert!(status == 200 && !seen.contains("\"x\""), "{project}: {seen}");
    }
    // An operator says whose queues are meant; agents' queues are no program's.
    assert!(ask("BULLOP", list, "", &of("program/one")).await.1.contains("\"x\""));
    assert_eq!(ask("BULLOP", "PUT /v2/queues/control", "", &of("bulla")).await.0, 201);
    let (_, seen) = ask("BULLONE", "GET /v2/queues", "", &of("bulla")).await;
    assert!(seen.contains("\"q\"") && !seen.contains("control"), "{seen}");
    // What is everybody's is for operators, and for whom the settings name.
    for (key, wanted) in [("BULLOP", 200), ("BULLADM", 200), ("BULLONE", 403)] {
        assert_eq!(ask(key, "GET /v2/pools", "", &of("p")).await.0, wanted, "{key}");
    }
    // A signed queue takes what an enrolled principal signs; an access key is as good in any hands.
    let sealed = r#"{"_require":"signed"}"#;
    assert_eq!(ask("BULLONE", "PUT /v2/queues/signed", sealed, &[]).await.0, 201);
    assert_eq!(ask("BULLONE", "POST /v2/queues/signed/messages", MESSAGE, &[]).await.0, 403);
    // Keys that are not taken, or can't be looked up; an agent's name is none, nor its algorithm.
    for (key, wanted) in
        [("BULLOFF", 401), ("BULLNONE", 401), ("BULLDOWN", 503), ("agent/db-1#k1", 401)]
    {
        assert_eq!(ask(key, list, "", &of("p")).await.0, wanted, "{key}");
    }
    for by in [By::Mac([1; 32]), By::Key] {
        let wrong = served.signed_with(&by, list, (("BULLONE", "w"), ""), &[]).await;
        assert_eq!(wrong.0, 401, "{}", by.algorithm());
    }
    // One credential a request, and each signature once.
    let bearer = format!("Bearer {}", served.token);
    for other in [
        ("X-Auth-Token", "x"),
        ("X-Auth-Token", ""),
        ("URL-Signature", ""),
        ("URL-Paths", "/v2/queues/q/messages"),
        ("Authorization", bearer.as_str()),
    ] {
        assert_eq!(ask("BULLOP", list, "", &[other, of("p")[0]]).await.0, 400, "{other:?}");
    }
    // The word of a front says nothing beside it.
    let claims = [("X-Identity-Status", "Confirmed"), ("X-Roles", "admin"), of("p")[0]];
    assert_eq!(ask("BULLONE", "GET /v2/pools", "", &claims).await.0, 403);
    for wanted in [200, 401] {
        let once = served.signed_with(&secret, list, (("BULLONE", "once"), ""), &[]).await;
        assert_eq!(once.0, wanted);
    }
}

#[tokio::test]
async fn a_queue_takes_what_it_requires_and_from_whom() {
    let served = Served::new().await;
    let bearer = format!("Bearer {}", served.token);
    let owner = [("Authorization", bearer.as_str()), ("X-Project-ID", "bulla")];
    let (queue, key) = ("PUT /v2/queues/control", "agent/db-1#k1");
    let line = "POST /v2/queues/control/messages";
    assert_eq!(served.ask(queue, &owner, r#"{"_require":"none"}"#).await.0, 400);
    assert_eq!(served.ask(queue, &owner, r#"{"_require":"signed"}"#).await.0, 201);
    // A token is as good in anybody's hands; the agent's own key is not.
    assert_eq!(served.ask(line, &owner, MESSAGE).await.0, 403);
    assert_eq!(served.signed(line, key, MESSAGE, "s1").await, 201);
    let patch = r#"[{"op":"replace","path":"/metadata/_require","value":"sealed"}]"#;
    let kind = ("Content-Type", "application/openstack-messaging-v2.0-json-patch");
    let change = [&owner[..], &[kind]].concat();
    assert_eq!(served.ask("PATCH /v2/queues/control", &change, patch).await.0, 200);
    assert_eq!(served.signed(line, key, MESSAGE, "s2").await, 403);
    assert_eq!(
        served
            .signed(line, key, r#"{"messages":[{"ttl":300,"body":{"bulla":"AAAA"}}]}"#, "s3")
            .await,
        403
    );
    let (_, stats) = served.ask("GET /v2/queues/control/stats", &owner, "").await;
    assert!(stats.contains("\"total\": 1"), "{stats}");
}
