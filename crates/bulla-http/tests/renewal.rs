//! Certificates that are renewed while the listener serves, older TLS where it is set, and clients
//! that cost nobody but themselves.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bulla_http::certs::{self, Files};
use bulla_http::{Certificates, Dialer, Identity, Json, Limits, Listener, Options, Token};
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Only stops a test that hangs.
const LONG: Duration = Duration::from_secs(60);

struct Served {
    address: SocketAddr,
    certificates: Option<Certificates>,
    _stop: tokio_util::sync::DropGuard,
}

async fn serve(options: Options) -> Served {
    let listener = Listener::bind(options).await.unwrap();
    let (address, certificates) = (listener.local_addr(), listener.certificates());
    let router = Router::new()
        .route("/who", get(|who: Identity| async move { who.to_string() }))
        .route("/json", post(|Json(v): Json<u32>| async move { v.to_string() }));
    let stop = CancellationToken::new();
    tokio::spawn(listener.serve(router, stop.clone()));
    Served { address, certificates, _stop: stop.drop_guard() }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("the test hangs")
}

/// Asks on a connection that stays open.
async fn who(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    stream.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") || !answer.ends_with(b"ada") {
        let mut chunk = [0; 1024];
        let n = soon(stream.read(&mut chunk)).await.unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8(answer).unwrap()
}

/// Puts other certificates in the place of those that are there, as a renewal does.
fn put_over(from: &Files, to: &Files) {
    for (from, to) in
        [(&from.server, &to.server), (&from.server_key, &to.server_key), (&from.ca, &to.ca)]
    {
        let new = to.with_extension("new");
        std::fs::copy(from, &new).unwrap();
        std::fs::rename(&new, to).unwrap();
    }
}

#[tokio::test]
async fn certificates_are_renewed_and_no_connection_is_lost() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = certs::make(dir.path(), &[], "ada").unwrap();
    let second = certs::make(other.path(), &[], "ada").unwrap();
    let old = Dialer::tls(&first.operator_tls()).unwrap();
    let new = Dialer::tls(&second.operator_tls()).unwrap();
    let served = serve(Options::tls(loopback(), first.server_tls())).await;
    let port = served.address.port();
    let mut before = old.connect("localhost", port, LONG).await.unwrap();
    who(&mut before).await;
    assert!(new.connect("localhost", port, LONG).await.is_err(), "not yet");

    // What does not fit changes nothing.
    std::fs::write(&first.server, "no certificate").unwrap();
    let certificates = served.certificates.as_ref().unwrap();
    assert!(certificates.reload().is_err());
    assert!(old.connect("localhost", port, LONG).await.is_ok());

    // It is seen without being told.
    put_over(&second, &first);
    soon(async {
        while new.connect("localhost", port, LONG).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    who(&mut new.connect("localhost", port, LONG).await.unwrap()).await;
    assert!(old.connect("localhost", port, LONG).await.is_err(), "another CA by now");
    who(&mut before).await;
}

#[tokio::test]
async fn tls_1_2_is_spoken_where_it_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let files = certs::make(dir.path(), &[], "ada").unwrap();
    let options = bulla_http::ServerTls { tls12: true, ..files.server_tls() };
    let served = serve(Options::tls(loopback(), options)).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = |path: &Path| rustls_pki_types::CertificateDer::from_pem_file(path).unwrap();
    roots.add(pem(&files.ca)).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::from_pem_file(&files.operator_key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![pem(&files.operator)], key)
        .unwrap();
    let tcp = TcpStream::connect(served.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(old));
    let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    who(&mut stream).await;
}

/// There are places for eight; many times that many come with half a header, a body without end
/// or a hand that they close at once. All that anybody else notices is nothing.
#[tokio::test]
async fn slow_and_broken_clients_cost_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::create(&dir.path().join("token")).unwrap();
    let authorization = token.authorization().as_str().to_owned();
    // No time limit helps: only making room does.
    let limits =
        Limits { max_connections: 8, header: LONG * 60, handshake: LONG * 60, ..Limits::default() };
    let options = Options::plain_loopback(loopback(), token).unwrap().limits(limits);
    let served = serve(options).await;
    let mut held = Vec::new();
    for round in 0..25 {
        for kind in 0..4 {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            let said = match kind {
                0 => "GET /who HTTP/1.1\r\nhost: x\r\nx-slow: ".to_owned(),
                1 => String::new(),
                // Without the token nobody's body is read.
                2 => "POST /json HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n["
                    .to_owned(),
                _ => "GET /who HTTP".to_owned(),
            };
            // It may have been pushed out already.
            let _ = stream.write_all(said.as_bytes()).await;
            if kind == 3 {
                let _ = stream.shutdown().await;
            }
            held.push(stream);
        }
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let body = if round % 2 == 0 { "7" } else { "4294967295" };
        let request = format!(
            "POST /json HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {authorization}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(body), "{round}: {answer}");
    }
    assert_eq!(held.len(), 100);
}
