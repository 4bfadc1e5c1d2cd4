//! Who is let in by what, over real sockets and real TLS.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::{HeaderMap, Request};
use axum::routing::{get, post};
use bulla_http::certs::{self, Files};
use bulla_http::{
    AccessKey, AccessKeys, AccessSecret, Authenticators, ClientCertificates, DialStream, Dialer,
    Identity, Json, KeyOwner, Listener, Options, Rate, Token, Watch,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Only stops a test that hangs.
const LONG: Duration = Duration::from_secs(60);
const SECRET: &str = "the-secret-of-the-access-key";

struct Keys(Mutex<Vec<String>>);

#[async_trait]
impl AccessKeys for Keys {
    async fn find(&self, id: &str) -> Result<Result<KeyOwner, &'static str>, String> {
        let secret = AccessSecret::new(SECRET).unwrap();
        match id {
            "BULLADA" => Ok(Ok(KeyOwner { user: "operator/ada".into(), secret })),
            "BULLPROG" => Ok(Ok(KeyOwner { user: "program/backup".into(), secret })),
            "BULLOFF" => Ok(Err("access-key-disabled")),
            "BULLDOWN" => Err("the database is away".into()),
            _ => Ok(Err("access-key-unknown")),
        }
    }

    fn used(&self, id: &str) {
        self.0.lock().unwrap().push(id.to_owned());
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Watch for Heard {
    fn refused(&self, credential: &'static str, why: &'static str, _: IpAddr) {
        self.0.lock().unwrap().push(format!("{credential} {why}"));
    }

    fn limited(&self, identity: &Identity) {
        self.0.lock().unwrap().push(format!("limited {identity}"));
    }

    fn shut_out(&self, from: IpAddr) {
        self.0.lock().unwrap().push(format!("shut out {from}"));
    }
}

struct Served {
    address: SocketAddr,
    files: Files,
    heard: Arc<Heard>,
    keys: Arc<Keys>,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Served {
    async fn start(dir: &Path, with: impl FnOnce(Authenticators) -> Authenticators) -> Self {
        let files = certs::make(dir, &[], "ada").unwrap();
        let tls = files.server_tls().client_certificates(ClientCertificates::Optional);
        Self::serve(files, with, |address| Options::tls(address, tls)).await
    }

    async fn serve(
        files: Files,
        with: impl FnOnce(Authenticators) -> Authenticators,
        options: impl FnOnce(SocketAddr) -> Options,
    ) -> Self {
        let heard = Arc::new(Heard::default());
        let keys = Arc::new(Keys(Mutex::default()));
        let by = Authenticators::default().access_keys(keys.clone(), None).watch(heard.clone());
        let options = options("127.0.0.1:0".parse().unwrap()).authenticators(with(by));
        let listener = Listener::bind(options).await.unwrap();
        let address = listener.local_addr();
        let who = |who: Identity, headers: HeaderMap| async move {
            for secret in ["authorization", "x-auth-token", "signature", "signature-input"] {
                assert!(!headers.contains_key(secret), "a handler sees {secret}");
            }
            format!("{who} {:?} {:?}", who.authenticator(), who.roles())
        };
        let router = Router::new()
            .route("/who", get(who))
            .route("/json", post(|Json(v): Json<u32>| async move { v.to_string() }));
        let stop = CancellationToken::new();
        tokio::spawn(listener.serve(router, stop.clone()));
        Self { address, files, heard, keys, stop }
    }

    async fn dial(&self, certificate: bool) -> DialStream {
        let dialer = match certificate {
            true => Dialer::tls(&self.files.operator_tls()).unwrap(),
            false => Dialer::trusting(&self.files.ca).unwrap(),
        };
        dialer.connect("localhost", self.address.port(), LONG).await.unwrap()
    }

    async fn ask(&self, certificate: bool, request: &Request<String>) -> String {
        send(self.dial(certificate).await, request).await
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.0.lock().unwrap())
    }
}

async fn send(mut stream: DialStream, request: &Request<String>) -> String {
    let mut text =
        format!("{} {} HTTP/1.1\r\nconnection: close\r\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    if !request.body().is_empty() {
        text += &format!("content-length: {}\r\n", request.body().len());
    }
    stream.write_all(format!("{text}\r\n{}", request.body()).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("no answer").unwrap();
    String::from_utf8(answer).unwrap()
}

fn who() -> Request<String> {
    Request::get("/who").header("host", "localhost").body(String::new()).unwrap()
}

fn json(body: &str) -> Request<String> {
    let request = Request::post("/json").header("host", "localhost");
    request.header("content-type", "application/json").body(body.to_owned()).unwrap()
}

fn sign(id: &str, secret: &str, mut request: Request<String>) -> Request<String> {
    let body = request.body().clone();
    AccessKey::new(id, secret).unwrap().sign("https", &mut request, body.as_bytes()).unwrap();
    request
}

fn with(mut request: Request<String>, name: &'static str, value: &str) -> Request<String> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn a_signature_is_enough_and_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let roles = vec![("program/backup".to_owned(), vec!["backup".to_owned()])];
    let served = Served::start(dir.path(), |by| by.roles(roles)).await;

    let request = sign("BULLPROG", SECRET, who());
    let answer = served.ask(false, &request).await;
    assert!(answer.contains("program/backup AccessKey [\"backup\"]"), "{answer}");
    let again = served.ask(false, &request).await;
    assert!(again.starts_with("HTTP/1.1 401") && again.contains("used before"), "{again}");

    let answer = served.ask(false, &sign("BULLADA", SECRET, json("17"))).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("17"), "{answer}");
    let mut other = sign("BULLADA", SECRET, json("17"));
    *other.body_mut() = "18".to_owned();
    let answer = served.ask(false, &other).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("was signed"), "{answer}");
    // A body that nobody signed.
    let mut slipped_in = sign("BULLADA", SECRET, who());
    *slipped_in.body_mut() = "18".to_owned();
    let answer = served.ask(false, &slipped_in).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("content-digest"), "{answer}");

    let heard = ["signature-again", "content-digest", "signature-leaves-out"];
    assert_eq!(served.heard(), heard.map(|why| format!("access-key {why}")));
    assert_eq!(*served.keys.0.lock().unwrap(), ["BULLPROG", "BULLADA"]);
}

#[tokio::test]
async fn whoever_holds_no_key_hears_no_more_than_that() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), |by| by).await;
    let mut answers = Vec::new();
    for (id, secret) in [("BULLADA", "a-guess"), ("BULLNONE", SECRET), ("BULLOFF", SECRET)] {
        let answer = served.ask(false, &sign(id, secret, who())).await;
        answers.push(answer.split_once("\r\n\r\n").unwrap().1.to_owned());
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    let heard = ["signature-wrong", "access-key-unknown", "access-key-disabled"];
    assert_eq!(served.heard(), heard.map(|why| format!("access-key {why}")));
    // What can't be told is not allowed.
    let answer = served.ask(false, &sign("BULLDOWN", SECRET, who())).await;
    assert!(answer.starts_with("HTTP/1.1 503") && !answer.contains("database"), "{answer}");
}

#[tokio::test]
async fn one_credential_and_no_other_way_in() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), |by| by).await;
    let refused = |answer: &str, status: &str| {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    };
    let answer = served.ask(true, &who()).await;
    assert!(answer.contains("operator/ada Certificate []"), "{answer}");

    refused(&served.ask(true, &sign("BULLADA", SECRET, who())).await, "400");
    refused(&served.ask(true, &with(who(), "x-auth-token", "gAAAA")).await, "400");
    refused(&served.ask(true, &with(who(), "authorization", "Bearer x")).await, "400");
    let both = with(sign("BULLADA", SECRET, who()), "x-auth-token", "gAAAA");
    refused(&served.ask(false, &both).await, "400");
    let twice = with(with(who(), "x-auth-token", "a"), "x-auth-token", "b");
    refused(&served.ask(false, &twice).await, "400");

    // None, one that is not taken here, and what others believe.
    for request in [
        who(),
        with(who(), "authorization", "Bearer x"),
        with(who(), "authorization", "Basic YWRhOmFkYQ=="),
        with(who(), "x-auth-token", "gAAAA"),
        with(who(), "x-forwarded-user", "ada"),
        with(who(), "x-ssl-client-cn", "ada"),
        with(with(who(), "x-roles", "admin"), "x-identity-status", "Confirmed"),
    ] {
        let answer = served.ask(false, &request).await;
        refused(&answer, "401");
        assert!(answer.contains("www-authenticate: Signature"), "{answer}");
    }
    let heard = served.heard();
    assert_eq!(heard[..5], ["several several-credentials"; 5].map(str::to_owned));
    assert_eq!(
        heard[5..9],
        [
            "none no-credential",
            "none credential-not-taken",
            "none credential-not-taken",
            "keystone credential-not-taken",
        ]
    );
}

#[tokio::test]
async fn the_loopback_door_takes_signatures_too() {
    let dir = tempfile::tempdir().unwrap();
    let files = certs::make(dir.path(), &[], "ada").unwrap();
    let token = Token::create(&dir.path().join("token")).unwrap();
    let door = token.clone();
    let served =
        Served::serve(files, |by| by, |at| Options::plain_loopback(at, door).unwrap()).await;
    let plain = || async {
        Dialer::plain_loopback().connect("127.0.0.1", served.address.port(), LONG).await.unwrap()
    };
    let bearer = with(who(), "authorization", &token.authorization());
    let answer = send(plain().await, &bearer).await;
    assert!(answer.contains("operator/bearer Bearer"), "{answer}");
    let mut signed = who();
    AccessKey::new("BULLADA", SECRET).unwrap().sign("http", &mut signed, b"").unwrap();
    let both = with(signed.clone(), "authorization", &token.authorization());
    assert!(send(plain().await, &both).await.starts_with("HTTP/1.1 400"));
    let answer = send(plain().await, &signed).await;
    assert!(answer.contains("operator/ada AccessKey"), "{answer}");
    // Signed for another scheme.
    let answer = send(plain().await, &sign("BULLADA", SECRET, who())).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn each_identity_has_a_rate_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let rate = Rate { rate: 0.001, burst: 2 };
    let served = Served::start(dir.path(), |by| by.rate(rate)).await;
    for left in [1, 0] {
        let answer = served.ask(true, &who()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(&format!("ratelimit: \"identity\";r={left};t=")), "{answer}");
        assert!(answer.contains("ratelimit-policy: \"identity\";q=2;w=2000"), "{answer}");
    }
    let answer = served.ask(true, &who()).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: "), "{answer}");
    // The same operator by another credential, and another one.
    let answer = served.ask(false, &sign("BULLADA", SECRET, who())).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    let answer = served.ask(false, &sign("BULLPROG", SECRET, who())).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(served.heard(), ["limited operator/ada", "limited operator/ada"]);
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_shut_out() {
    let dir = tempfile::tempdir().unwrap();
    let rate = Rate { rate: 0.001, burst: 3 };
    let served = Served::start(dir.path(), |by| by.failures(rate)).await;
    for _ in 0..3 {
        let answer = served.ask(false, &sign("BULLADA", "a-guess", who())).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    // The right one is not even looked at.
    let answer = served.ask(false, &sign("BULLADA", SECRET, who())).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: "), "{answer}");
    let answer = served.ask(true, &who()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(served.heard()[2..], ["shut out 127.0.0.1", "access-key signature-wrong"]);
}
