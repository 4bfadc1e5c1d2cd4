//! The listener over real sockets and real TLS.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bulla_http::certs::{self, Files};
use bulla_http::{
    CertError, DialError, DialStream, Dialer, FileError, Identity, Json, Limits, ListenError,
    Listener, Options, Stopping, TlsFault, Token, no_such_route,
};
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Only stops a test that hangs.
const LONG: Duration = Duration::from_secs(60);

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
    started: Arc<Notify>,
    waiting: Arc<Notify>,
    release: Arc<Notify>,
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn serve(options: Options) -> Served {
    let listener = Listener::bind(options).await.unwrap();
    let address = listener.local_addr();
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let waits = Arc::new(Notify::new());
    let waiting = Arc::clone(&waits);
    let (entered, gate) = (Arc::clone(&started), Arc::clone(&release));
    let router = Router::new()
        .route(
            "/who",
            get(|who: Identity| async move { format!("{who} {:?}", who.authenticator()) }),
        )
        .route("/json", post(|Json(v): Json<u32>| async move { v.to_string() }))
        .route(
            "/slow",
            get(|| async move {
                entered.notify_one();
                gate.notified().await;
                "finished"
            }),
        )
        .route(
            "/endless",
            get(|stopping: Stopping| async move {
                waiting.notify_one();
                stopping.begun().await;
                "stopped"
            }),
        )
        .fallback(no_such_route);
    let stop = CancellationToken::new();
    let task = tokio::spawn(listener.serve(router, stop.clone()));
    Served { address, stop, task, started, waiting: waits, release }
}

fn files(dir: &Path, operator: &str) -> Files {
    certs::make(dir, &[], operator).unwrap()
}

async fn dial(files: &Files, address: SocketAddr) -> Result<DialStream, DialError> {
    Dialer::tls(&files.operator_tls()).unwrap().connect("localhost", address.port(), LONG).await
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    more: &str,
) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await?;
    read_all(stream).await
}

async fn read_all(mut stream: impl AsyncRead + Unpin) -> std::io::Result<String> {
    let mut answer = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("no answer")?;
    Ok(String::from_utf8(answer).unwrap())
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("the test hangs")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[tokio::test]
async fn the_certificate_names_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), "ada");
    let served = serve(Options::tls(loopback(), files.server_tls())).await;
    let answer = ask(dial(&files, served.address).await.unwrap(), "/who", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(body(&answer), "operator/ada Certificate");

    let (certificate, key) = (dir.path().join("eve.crt"), dir.path().join("eve.key"));
    certs::issue_operator(&files.ca_key, "eve", &certificate, &key).unwrap();
    let eve = Files { operator: certificate, operator_key: key, ..files.clone() };
    let answer = ask(dial(&eve, served.address).await.unwrap(), "/who", "").await.unwrap();
    assert_eq!(body(&answer), "operator/eve Certificate");

    let answer = ask(dial(&files, served.address).await.unwrap(), "/none", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("problem+json"), "{answer}");
}

#[tokio::test]
async fn no_certificate_or_another_ca_s_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = files(dir.path(), "ada");
    let theirs = files(other.path(), "ada");
    let served = serve(Options::tls(loopback(), ours.server_tls())).await;

    // Their certificate and our CA: the server is the one to refuse.
    let mixed = Files { ca: ours.ca.clone(), ..theirs.clone() };
    let refused = match dial(&mixed, served.address).await {
        Ok(stream) => TlsFault::find(&ask(stream, "/who", "").await.unwrap_err()),
        Err(DialError::Tls { fault, .. }) => Some(fault),
        Err(other) => panic!("{other}"),
    };
    assert!(matches!(refused, Some(TlsFault::ClientCertificateRefused { .. })), "{refused:?}");

    // The server's certificate is no operator's, though it is from the same CA.
    let posing = Files {
        operator: ours.server.clone(),
        operator_key: ours.server_key.clone(),
        ..ours.clone()
    };
    let stream = dial(&posing, served.address).await.unwrap();
    assert!(TlsFault::find(&ask(stream, "/who", "").await.unwrap_err()).is_some());

    // Their CA: the client is the one to refuse.
    let refused = dial(&theirs, served.address).await.unwrap_err();
    assert!(
        matches!(refused, DialError::Tls { fault: TlsFault::UnknownServerCa, .. }),
        "{refused}"
    );

    // No certificate at all.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(&ours.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let bare = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(served.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(bare)).connect(name, tcp).await.unwrap();
    let refused = TlsFault::find(&ask(stream, "/who", "").await.unwrap_err());
    assert!(matches!(refused, Some(TlsFault::ClientCertificateRefused { .. })), "{refused:?}");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), "ada");
    let served = serve(Options::tls(loopback(), files.server_tls())).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(served.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(old));
    let refused = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

#[tokio::test]
async fn plain_needs_loopback_and_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::create(&dir.path().join("token")).unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
        let refused = Options::plain_loopback(address.parse().unwrap(), token.clone());
        assert!(matches!(refused, Err(ListenError::NotLoopback { .. })), "{address}");
    }
    let served = serve(Options::plain_loopback(loopback(), token.clone()).unwrap()).await;
    let connect = || TcpStream::connect(served.address);
    let header = format!("authorization: {}\r\n", token.authorization().as_str());
    let answer = ask(connect().await.unwrap(), "/who", &header).await.unwrap();
    assert_eq!(body(&answer), "operator/bearer Bearer");
    for wrong in ["", "authorization: Bearer\r\n", "authorization: Bearer AAAA\r\n"] {
        let answer = ask(connect().await.unwrap(), "/who", wrong).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(body(&answer).contains("urn:bulla:problem:unauthorized"), "{answer}");
    }
    // Not even the absence of a route is told to strangers.
    let answer = ask(connect().await.unwrap(), "/none", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn slow_clients_are_dropped_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), "ada");
    let limits = Limits {
        handshake: Duration::from_millis(300),
        header: Duration::from_millis(300),
        max_connections: 8,
        ..Limits::default()
    };
    let served = serve(Options::tls(loopback(), files.server_tls()).limits(limits)).await;
    // More than the connections that are served at a time: the last ones wait for the first ones
    // to be dropped.
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    let mut slow = dial(&files, served.address).await.unwrap();
    slow.write_all(b"GET /who HTTP/1.1\r\nhost: ").await.unwrap();
    let mut idle = dial(&files, served.address).await.unwrap();
    idle.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = ask(dial(&files, served.address).await.unwrap(), "/who", "").await.unwrap();
    assert_eq!(body(&answer), "operator/ada Certificate");
    // Answered once, then idle: closed as well.
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LONG, idle.read_to_end(&mut answer)).await.expect("not dropped");
    assert_eq!(body(&String::from_utf8(answer).unwrap()), "operator/ada Certificate");
    for stream in silent {
        // A TLS alert or a bare close: the end, in any case.
        let mut rest = Vec::new();
        let mut stream = stream;
        let _ =
            tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.expect("not dropped");
    }
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LONG, slow.read_to_end(&mut rest)).await.expect("not dropped");
    assert!(!String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), "ada");
    let served = serve(Options::tls(loopback(), files.server_tls())).await;
    let idle = dial(&files, served.address).await.unwrap();
    let slow = dial(&files, served.address).await.unwrap();
    let slow = tokio::spawn(async move { ask(slow, "/slow", "").await });
    let endless = dial(&files, served.address).await.unwrap();
    let endless = tokio::spawn(async move { ask(endless, "/endless", "").await });
    soon(served.started.notified()).await;
    soon(served.waiting.notified()).await;
    served.stop.cancel();
    assert_eq!(body(&endless.await.unwrap().unwrap()), "stopped");
    // The port is closed for newcomers while the slow request goes on.
    while TcpStream::connect(served.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!served.task.is_finished());
    served.release.notify_one();
    assert_eq!(body(&slow.await.unwrap().unwrap()), "finished");
    tokio::time::timeout(LONG, served.task).await.expect("not drained").unwrap();
    drop(idle);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), "ada");
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let served = serve(Options::tls(loopback(), files.server_tls()).limits(limits)).await;
    let slow = dial(&files, served.address).await.unwrap();
    let slow = tokio::spawn(async move { ask(slow, "/slow", "").await });
    soon(served.started.notified()).await;
    served.stop.cancel();
    tokio::time::timeout(LONG, served.task).await.expect("waits for ever").unwrap();
    let cut = slow.await.unwrap();
    assert!(cut.as_ref().map_or(true, String::is_empty), "{cut:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_before_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), "ada");
    let limits = Limits { max_body: 1000, ..Limits::default() };
    let served = serve(Options::tls(loopback(), files.server_tls()).limits(limits)).await;
    let mut stream = dial(&files, served.address).await.unwrap();
    let head =
        "POST /json HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n";
    stream
        .write_all(format!("{head}content-length: 1001\r\n\r\n{}", "1".repeat(1001)).as_bytes())
        .await
        .unwrap();
    let answer = read_all(stream).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(body(&answer).contains("\"limit\":1000"), "{answer}");

    // Without an announced length the end never comes, the answer does.
    let mut stream = dial(&files, served.address).await.unwrap();
    stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = format!("400\r\n{}\r\n", "1".repeat(1024));
    for _ in 0..3 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    let answer = read_all(stream).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), "ada");
    let served = serve(Options::tls(loopback(), files.server_tls())).await;
    let in_use =
        Listener::bind(Options::tls(served.address, files.server_tls())).await.err().unwrap();
    assert!(matches!(in_use, ListenError::InUse { address } if address == served.address));
    assert!(in_use.to_string().contains(&served.address.port().to_string()), "{in_use}");

    let elsewhere = Options::tls("192.0.2.1:0".parse().unwrap(), files.server_tls());
    assert!(matches!(Listener::bind(elsewhere).await, Err(ListenError::Bind { .. })));

    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&files.server_key, std::fs::Permissions::from_mode(0o604)).unwrap();
    let refused = Listener::bind(Options::tls(loopback(), files.server_tls())).await;
    assert!(matches!(
        refused,
        Err(ListenError::Certificate(CertError::File(FileError::Exposed { mode: 0o604, .. })))
    ));
    assert!(matches!(
        Dialer::plain_loopback().connect("127.0.0.1", 1, LONG).await,
        Err(DialError::Refused { .. })
    ));
}
