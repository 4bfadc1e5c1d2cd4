//! The API under an open loop: 1,000 connections with TLS and client certificates, 64 of them active,
//! and 3,000 sealed calls a second through `POST /v1/calls` to the agent in the same process, whether
//! or not the ones before have been answered.
//!
//! `cargo bench -p bulla-cli --bench api`; `BULLA_BENCH_RATE` and `BULLA_BENCH_SECONDS` change it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a measurement ends when anything fails"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bulla_http::certs::Files;
use bulla_http::{DialStream, Dialer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

const OPEN: usize = 1000;
const ACTIVE: usize = 64;
/// What is left out at the beginning.
const WARM_UP: Duration = Duration::from_secs(3);
/// How often a connection that is not active shows that it is there.
const TOUCH: Duration = Duration::from_secs(8);
const CALL: &str = r#"{"target":"agent/local","namespace":"agent","method":"ping"}"#;

fn set(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

fn main() {
    let (rate, seconds) = (set("BULLA_BENCH_RATE", 3000), set("BULLA_BENCH_SECONDS", 20));
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let mut server = Command::new(env!("CARGO_BIN_EXE_bulla"))
        .args(["up", "--listen", "127.0.0.1:0"])
        .env("BULLA_HOME", &home)
        .env("NO_COLOR", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    while !lines.next().expect("it ended").unwrap().contains("Stop with Ctrl-C") {}
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(run(&home, rate, Duration::from_secs(seconds)));
    server.kill().unwrap();
    server.wait().unwrap();
    let (mut took, failed) = ended;
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{OPEN} connections, {ACTIVE} active, {rate} calls/s asked for, {:.0}/s answered; \
         p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, most {:.2} ms; {failed} failed",
        took.len() as f64 / seconds as f64,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    assert_eq!(failed, 0);
}

async fn run(home: &Path, rate: u64, length: Duration) -> (Vec<Duration>, u64) {
    let url = std::fs::read_to_string(home.join("api.url")).unwrap();
    let port: u16 = url.trim().rsplit_once(':').unwrap().1.parse().unwrap();
    let dialer = Dialer::tls(&Files::in_dir(&home.join("tls")).operator_tls()).unwrap();
    for _ in ACTIVE..OPEN {
        let stream = connect(&dialer, port).await;
        tokio::spawn(idle(stream));
    }
    let mut active = Vec::new();
    for _ in 0..ACTIVE {
        active.push(connect(&dialer, port).await);
    }
    let (next, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let took = Arc::new(Mutex::new(Vec::new()));
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut stream in active {
        let (next, failed, took) = (next.clone(), failed.clone(), took.clone());
        tasks.spawn(async move {
            let mut own = Vec::new();
            loop {
                // Its time does not depend on when the ones before were answered.
                let number = next.fetch_add(1, Ordering::Relaxed);
                let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
                if due > begin + WARM_UP + length {
                    break;
                }
                sleep_until(due).await;
                let good = ask(&mut stream, "POST", "/v1/calls", CALL).await;
                if !good {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                if due >= begin + WARM_UP {
                    own.push(due.elapsed());
                }
            }
            took.lock().await.extend(own);
        });
    }
    tasks.join_all().await;
    let took = std::mem::take(&mut *took.lock().await);
    (took, failed.load(Ordering::Relaxed))
}

async fn connect(dialer: &Dialer, port: u16) -> DialStream {
    dialer.connect("localhost", port, Duration::from_secs(30)).await.unwrap()
}

async fn idle(mut stream: DialStream) {
    loop {
        assert!(ask(&mut stream, "GET", "/v1/status", "").await, "an idle connection was lost");
        sleep(TOUCH).await;
    }
}

/// One request on a connection that stays; whether it was answered with 200.
async fn ask(stream: &mut DialStream, method: &str, path: &str, body: &str) -> bool {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut chunk).await.unwrap();
        assert!(n > 0, "the connection was lost");
        answer.extend_from_slice(&chunk[..n]);
        let text = std::str::from_utf8(&answer).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap().parse::<usize>().unwrap() {
            return head.starts_with("HTTP/1.1 200");
        }
    }
}
