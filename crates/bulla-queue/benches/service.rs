//! How quick the queue service is: `cargo bench -p bulla-queue --features redis,postgres --bench service`, with
//! the names of stores (`sqlite`, `redis`, `postgres`) after `--` for some alone. 1 KiB a message, plain HTTP on
//! loopback, the service in a process of its own; its processor time is counted, a server's beside it is not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measurement that fails says so and ends"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulla_http::{Limits, Listener, Options};
use bulla_queue::{Service, StoreAddress, router};
use tokio_util::sync::CancellationToken;

/// Where the process is told that it is the service.
const SERVE: &str = "BULLA_BENCH_STORE";
const LONG: Duration = Duration::from_secs(3);
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Messages that are there to be claimed.
const STOCK: usize = 60_000;

fn main() {
    if let Ok(store) = std::env::var(SERVE) {
        return serve(&store);
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    println!(
        "store     what          conn   requests/s  messages/s   p50 ms   p99 ms   cpu ms/req"
    );
    if wanted("sqlite") {
        let dir = tempfile::tempdir().unwrap();
        measure("sqlite", &dir.path().join("q.db").display().to_string());
    }
    #[cfg(feature = "redis")]
    if wanted("redis") {
        // As a Redis is that nobody set up otherwise, but for its snapshots.
        let redis = bulla_services::Redis::builder().durable(false).start().unwrap();
        measure("redis", &redis.url());
    }
    #[cfg(feature = "redis")]
    if wanted("redis-durable") {
        let redis = bulla_services::Redis::start().unwrap();
        measure("redis-aof", &redis.url());
    }
    #[cfg(feature = "postgres")]
    if wanted("postgres") {
        let postgres = bulla_services::Postgres::start().unwrap();
        measure("postgres", &postgres.url());
    }
}

fn serve(store: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let address: StoreAddress = store.parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let store = address.open(now).await.unwrap();
        let service = Arc::new(Service::new(store).dangerously_open());
        let limits = Limits { max_connections: 1000, ..Limits::default() };
        let options = Options::dangerously_open_loopback("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = Listener::bind(options.limits(limits)).await.unwrap();
        println!("{}", listener.url());
        listener.serve(router(service), CancellationToken::new()).await;
    });
}

struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn start(store: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.env(SERVE, store).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        Self { child, port }
    }

    /// Processor time so far, in milliseconds.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let rest: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = rest[11].parse::<f64>().unwrap() + rest[12].parse::<f64>().unwrap();
        ticks * 10.0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn new(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: q\r\nX-Project-ID: p\r\n\
             Client-ID: 30387f0039a011eebe560242ac120002\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, body)
    }
}

fn message() -> String {
    format!("{{\"ttl\": 3600, \"body\": \"{}\"}}", "x".repeat(1024))
}

fn posted(count: usize) -> String {
    format!("{{\"messages\": [{}]}}", vec![message(); count].join(","))
}

/// Asks by so many connections for a while; `ask` says how many requests it made, and messages it got.
fn run(
    (store, what, connections): (&str, &str, usize),
    served: &Served,
    ask: impl Fn(&mut Client) -> Option<(u64, u64)> + Send + Sync + 'static,
) {
    let (ask, requests, messages) = (Arc::new(ask), AtomicU64::new(0), AtomicU64::new(0));
    let (requests, messages) = (Arc::new(requests), Arc::new(messages));
    let (begun, cpu) = (Instant::now(), served.cpu());
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (mut client, ask) = (Client::new(served.port), ask.clone());
            let (requests, messages) = (requests.clone(), messages.clone());
            thread::spawn(move || {
                let mut times = Vec::new();
                while begun.elapsed() < LONG {
                    let asked = Instant::now();
                    let Some((made, got)) = ask(&mut client) else { break };
                    times.push(asked.elapsed() / u32::try_from(made).unwrap());
                    requests.fetch_add(made, Ordering::Relaxed);
                    messages.fetch_add(got, Ordering::Relaxed);
                }
                times
            })
        })
        .collect();
    let mut times: Vec<_> = workers.into_iter().flat_map(|it| it.join().unwrap()).collect();
    let (long, cpu) = (begun.elapsed().as_secs_f64(), served.cpu() - cpu);
    times.sort_unstable();
    let part = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let requests = requests.load(Ordering::Relaxed) as f64;
    println!(
        "{store:<9} {what:<13} {connections:>4} {:>12.0} {:>11.0} {:>8.2} {:>8.2} {:>12.3}",
        requests / long,
        messages.load(Ordering::Relaxed) as f64 / long,
        part(0.5),
        part(0.99),
        cpu / requests
    );
}

fn measure(name: &str, store: &str) {
    let served = Served::start(store);
    let mut client = Client::new(served.port);
    assert_eq!(client.ask("POST", "/v2/queues/listed/messages", &posted(10)).0, 201);
    let (one, bulk) = (posted(1), posted(20));
    for connections in CONNECTIONS {
        let one = one.clone();
        run((name, "post", connections), &served, move |client| {
            assert_eq!(client.ask("POST", "/v2/queues/posted/messages", &one).0, 201);
            Some((1, 1))
        });
    }
    for connections in CONNECTIONS {
        run((name, "list of 10", connections), &served, |client| {
            let path = "/v2/queues/listed/messages?limit=10&echo=true";
            assert_eq!(client.ask("GET", path, "").0, 200);
            Some((1, 10))
        });
    }
    for connections in CONNECTIONS {
        let queue = format!("claimed{connections}");
        let path = format!("/v2/queues/{queue}/messages");
        for _ in 0..STOCK / 20 {
            assert_eq!(client.ask("POST", &path, &bulk).0, 201);
        }
        let path = format!("/v2/queues/{queue}/claims?limit=10");
        run((name, "claim, delete", connections), &served, move |client| {
            let (status, body) = client.ask("POST", &path, "{\"ttl\": 300, \"grace\": 60}");
            if status != 201 {
                return None;
            }
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let messages = body["messages"].as_array().unwrap();
            for message in messages {
                let href = message["href"].as_str().unwrap();
                assert_eq!(client.ask("DELETE", href, "").0, 204);
            }
            let count = messages.len() as u64;
            Some((1 + count, count))
        });
    }
}
