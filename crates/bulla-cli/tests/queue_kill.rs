//! The queue service is killed under load, and what it answered counts: no acknowledged message is lost,
//! none that was deleted comes again, and no message is in two hands within a claim's life. `BULLA_KILLS`
//! says how often it is killed for each store.
#![cfg(all(feature = "redis", feature = "postgres"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bulla_services::{Postgres, Redis, require};
use parking_lot::Mutex;
use serde_json::Value;

/// Unless said otherwise.
const KILLS: u64 = 5;
/// A claim's life here: long beside a request, short beside the test.
const CLAIM: Duration = Duration::from_secs(3);
/// How long there is load before the next kill.
const LOAD: Duration = Duration::from_millis(700);
/// Nothing here takes longer; it only ends what hangs.
const LIMIT: Duration = Duration::from_secs(120);
const POSTERS: u64 = 4;
const CONSUMERS: usize = 4;

/// A queue service in a folder, always at the same port.
struct Service {
    home: tempfile::TempDir,
    store: String,
    password: Option<&'static str>,
    port: u16,
    child: Option<Child>,
}

impl Service {
    fn new(store: &str, password: Option<&'static str>) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("bulla.toml"), "[queue]\nmin-claim-s = 1\n").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { home, store: store.to_owned(), password, port, child: None }
    }

    fn start(&mut self) {
        let address = format!("127.0.0.1:{}", self.port);
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulla"));
        command.args(["--json", "queue", "serve", "--noauth", "--listen", &address]);
        command.env("BULLA_HOME", self.home.path()).env("BULLA_QUEUE_STORE", &self.store);
        if let Some(password) = self.password {
            command.env("BULLA_QUEUE_STORE_PASSWORD", password);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("queue"), "the queue service did not begin: {line}");
        self.child = Some(child);
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// One connection, made anew when it is lost.
struct Client {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Status and body; `None` if the service was killed meanwhile.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let answer = self.try_ask(method, path, body);
        if answer.is_none() {
            self.stream = None;
            thread::sleep(Duration::from_millis(5));
        }
        answer
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_nodelay(true).ok()?;
            stream.set_read_timeout(Some(LIMIT)).ok()?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut()?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: q\r\nX-Project-ID: p\r\n\
             Client-ID: 30387f0039a011eebe560242ac120002\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes()).ok()?;
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some((status, String::from_utf8(body).ok()?))
    }
}

/// What happened to messages, by their numbers.
#[derive(Default)]
struct Seen {
    acknowledged: HashSet<u64>,
    received: HashSet<u64>,
    deleted: HashSet<u64>,
    /// Until when the last claim holds at the least.
    held: HashMap<u64, Instant>,
    wrong: Vec<String>,
}

fn post(client: &mut Client, n: u64, seen: &Mutex<Seen>) {
    let body = format!("{{\"messages\": [{{\"ttl\": 3600, \"body\": {n}}}]}}");
    if let Some((201, _)) = client.ask("POST", "/v2/queues/q/messages", &body) {
        seen.lock().acknowledged.insert(n);
    }
}

/// Claims what there is, and deletes most of it; how many there were.
fn consume(client: &mut Client, seen: &Mutex<Seen>) -> usize {
    let body = format!("{{\"ttl\": {}, \"grace\": 1}}", CLAIM.as_secs());
    let asked = Instant::now();
    let Some((201, text)) = client.ask("POST", "/v2/queues/q/claims?limit=5", &body) else {
        return 0;
    };
    let claim: Value = serde_json::from_str(&text).unwrap();
    let messages = claim["messages"].as_array().unwrap();
    let mut took = Vec::new();
    {
        let (answered, mut seen) = (Instant::now(), seen.lock());
        for message in messages {
            let n = message["body"].as_u64().unwrap();
            if seen.deleted.contains(&n) {
                seen.wrong.push(format!("{n} was deleted, and is there again"));
            }
            if seen.held.get(&n).is_some_and(|until| answered < *until) {
                seen.wrong.push(format!("{n} is in two hands"));
            }
            seen.received.insert(n);
            seen.held.insert(n, asked + CLAIM);
            // Some are left to come again.
            if n % 7 != 0 || seen.acknowledged.len() < 100 {
                took.push((n, message["href"].as_str().unwrap().to_owned()));
            }
        }
    }
    for (n, href) in took {
        if let Some((204, _)) = client.ask("DELETE", &href, "") {
            seen.lock().deleted.insert(n);
        }
    }
    messages.len()
}

fn kills() -> u64 {
    std::env::var("BULLA_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

fn killed_under_load(mut service: Service) {
    service.start();
    let (seen, next) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicU64::new(1)));
    let (stop_posts, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let client = || Client { port: service.port, stream: None };
    let posters: Vec<_> = (0..POSTERS)
        .map(|_| {
            let (mut client, seen) = (client(), seen.clone());
            let (next, stop) = (next.clone(), stop_posts.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    post(&mut client, next.fetch_add(1, Ordering::Relaxed), &seen);
                }
            })
        })
        .collect();
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|_| {
            let (mut client, seen, stop) = (client(), seen.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if consume(&mut client, &seen) == 0 {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            })
        })
        .collect();
    for _ in 0..kills() {
        thread::sleep(LOAD);
        service.kill();
        service.start();
    }
    stop_posts.store(true, Ordering::Relaxed);
    posters.into_iter().for_each(|poster| poster.join().unwrap());
    // What was in hands that died comes again.
    let begun = Instant::now();
    while lost(&seen.lock()) > 0 && begun.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    consumers.into_iter().for_each(|consumer| consumer.join().unwrap());
    let seen = seen.lock();
    assert_eq!(lost(&seen), 0, "acknowledged messages are lost");
    assert!(seen.wrong.is_empty(), "{:?}", &seen.wrong[..seen.wrong.len().min(10)]);
    assert!(seen.acknowledged.len() > 100, "hardly anything was posted");
    println!(
        "{} kills: {} posted, {} received, {} deleted",
        kills(),
        seen.acknowledged.len(),
        seen.received.len(),
        seen.deleted.len()
    );
}

fn lost(seen: &Seen) -> usize {
    seen.acknowledged.difference(&seen.received).count()
}

#[test]
fn on_sqlite() {
    let home = tempfile::tempdir().unwrap();
    killed_under_load(Service::new(&home.path().join("q.db").display().to_string(), None));
}

#[test]
fn on_redis() {
    let Some(redis) = require(Redis::start()) else { return };
    killed_under_load(Service::new(&redis.url(), None));
}

#[test]
fn on_postgres() {
    let Some(postgres) = require(Postgres::start()) else { return };
    let url = postgres.url();
    // By itself, as an operator gives it.
    let address = url.replace(":test-only@", "@");
    assert_ne!(address, url);
    killed_under_load(Service::new(&address, Some("test-only")));
}
