//! How quick the queue service is: `cargo bench -p bulla-queue --features redis,postgres --bench service`, with
//! the names of stores (`sqlite`, `redis`, `postgres`) after `--` for some alone. 1 KiB a message, plain HTTP on
//! loopback, the service in a process of its own; its processor time is counted, a server's beside it is not.
//! `NAME:PORT:PID` is another service, asked the same in the same run; that process and its children are counted.
//! `many` compares 10 queues of 100 messages with 10,000 of them, `polls` holds 10,000 requests that wait.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measurement that fails says so and ends"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
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
/// Messages that are there to be claimed: of ours, and of another service.
const STOCK: [usize; 2] = [60_000, 8_000];
/// Queues that there are few and many of.
const QUEUES: [usize; 2] = [10, 10_000];
/// Messages in each of them.
const EACH: usize = 100;
/// Requests that wait.
const POLLS: usize = 10_000;

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
        let store = dir.path().join("q.db").display().to_string();
        measure("sqlite", &Served::start(&store), STOCK[0]);
    }
    #[cfg(feature = "redis")]
    if wanted("redis") {
        // As a Redis is that nobody set up otherwise, but for its snapshots.
        let redis = bulla_services::Redis::builder().durable(false).start().unwrap();
        measure("redis", &Served::start(&redis.url()), STOCK[0]);
    }
    #[cfg(feature = "redis")]
    if wanted("redis-durable") {
        let redis = bulla_services::Redis::start().unwrap();
        measure("redis-aof", &Served::start(&redis.url()), STOCK[0]);
    }
    #[cfg(feature = "postgres")]
    if wanted("postgres") {
        let postgres = bulla_services::Postgres::start().unwrap();
        measure("postgres", &Served::start(&postgres.url()), STOCK[0]);
    }
    for other in asked.iter().filter(|asked| asked.contains(':')) {
        let mut parts = other.split(':');
        let (name, port, pid) =
            (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let (port, pid) = (port.parse().unwrap(), pid.parse().unwrap());
        measure(name, &Served { child: None, port, pid }, STOCK[1]);
    }
    if wanted("many") {
        let dir = tempfile::tempdir().unwrap();
        for queues in QUEUES {
            let store = dir.path().join(format!("{queues}.db")).display().to_string();
            many(&store, queues);
        }
    }
    if wanted("polls") {
        let dir = tempfile::tempdir().unwrap();
        polls(&Served::start(&dir.path().join("q.db").display().to_string()));
    }
}

fn serve(store: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let address: StoreAddress = store.parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let store = address.open(now).await.unwrap();
        let service = Arc::new(Service::new(store).dangerously_open());
        let limits = Limits { max_connections: POLLS + 1000, ..Limits::default() };
        let options = Options::dangerously_open_loopback("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = Listener::bind(options.limits(limits)).await.unwrap();
        println!("{}", listener.url());
        listener.serve(router(service), CancellationToken::new()).await;
    });
}

struct Served {
    child: Option<Child>,
    port: u16,
    pid: u32,
}

impl Served {
    fn start(store: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.env(SERVE, store).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        let pid = child.id();
        Self { child: Some(child), port, pid }
    }

    /// Processor time so far, in milliseconds, with that of its children.
    fn cpu(&self) -> f64 {
        let children = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let own = self.pid.to_string();
        children.split_whitespace().chain([own.as_str()]).map(cpu_of).sum()
    }

    /// What it says of itself in `/proc`.
    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn cpu_of(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = rest[11].parse::<f64>().unwrap() + rest[12].parse::<f64>().unwrap();
    ticks * 10.0
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Client {
    stream: BufReader<TcpStream>,
    port: u16,
}

fn connect(port: u16) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: q\r\nX-Project-ID: p\r\nContent-Type: application/json\r\n\
         Client-ID: 30387f00-39a0-11ee-be56-0242ac120002\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Client {
    fn new(port: u16) -> Self {
        Self { stream: connect(port), port }
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        // Some services end a connection when they like.
        for _ in 0..3 {
            if let Ok(answer) = self.try_ask(method, path, body) {
                return answer;
            }
            self.stream = connect(self.port);
        }
        panic!("{method} {path}: no answer");
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, Vec<u8>)> {
        self.stream.get_mut().write_all(request(method, path, body).as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = status.parse().unwrap();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
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

fn measure(name: &str, served: &Served, stock: usize) {
    let mut client = Client::new(served.port);
    assert_eq!(client.ask("POST", "/v2/queues/listed/messages", &posted(10)).0, 201);
    let (one, bulk) = (posted(1), posted(20));
    for connections in CONNECTIONS {
        let one = one.clone();
        run((name, "post", connections), served, move |client| {
            assert_eq!(client.ask("POST", "/v2/queues/posted/messages", &one).0, 201);
            Some((1, 1))
        });
    }
    for connections in CONNECTIONS {
        run((name, "list of 10", connections), served, |client| {
            let path = "/v2/queues/listed/messages?limit=10&echo=true";
            assert_eq!(client.ask("GET", path, "").0, 200);
            Some((1, 10))
        });
    }
    for connections in CONNECTIONS {
        let queue = format!("claimed{connections}");
        let path = format!("/v2/queues/{queue}/messages");
        for _ in 0..stock / 20 {
            assert_eq!(client.ask("POST", &path, &bulk).0, 201);
        }
        let path = format!("/v2/queues/{queue}/claims?limit=10");
        run((name, "claim, delete", connections), served, move |client| {
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

/// So many queues with [`EACH`] messages, which are asked in turn.
fn many(store: &str, queues: usize) {
    let served = Served::start(store);
    let mut fill = Client::new(served.port);
    let text = format!("{{\"ttl\": 3600, \"body\": \"{}\"}}", "x".repeat(100));
    let bulk = format!("{{\"messages\": [{}]}}", vec![text; EACH].join(","));
    for queue in 0..queues {
        assert_eq!(fill.ask("POST", &format!("/v2/queues/q{queue}/messages"), &bulk).0, 201);
    }
    let name = format!("{queues} q");
    let next = Arc::new(AtomicU64::new(0));
    // A step that has no factor in common with either number of queues.
    let queue = move || next.fetch_add(1, Ordering::Relaxed) * 7919 % queues as u64;
    let (one, at) = (posted(1), queue.clone());
    run((&name, "list of 10", 16), &served, move |client| {
        let path = format!("/v2/queues/q{}/messages?limit=10&echo=true", at());
        assert_eq!(client.ask("GET", &path, "").0, 200);
        Some((1, 10))
    });
    let at = queue.clone();
    run((&name, "claim, release", 16), &served, move |client| {
        let path = format!("/v2/queues/q{}/claims", at());
        let claim = client.ask("POST", &format!("{path}?limit=1"), "{\"ttl\": 300, \"grace\": 60}");
        assert_eq!(claim.0, 201);
        let body: serde_json::Value = serde_json::from_slice(&claim.1).unwrap();
        let href = body["messages"][0]["href"].as_str().unwrap();
        let id = href.rsplit('=').next().unwrap();
        assert_eq!(client.ask("DELETE", &format!("{path}/{id}"), "").0, 204);
        Some((2, 1))
    });
    run((&name, "post", 16), &served, move |client| {
        assert_eq!(client.ask("POST", &format!("/v2/queues/q{}/messages", queue()), &one).0, 201);
        Some((1, 1))
    });
}

/// What requests cost that wait for something, each on a connection of its own and for a queue of its own.
fn polls(served: &Served) {
    let before = served.status("VmRSS:");
    let body = "{\"ttl\": 300, \"grace\": 60}";
    let mut waiting = Vec::new();
    for n in 0..POLLS {
        let mut stream = connect(served.port);
        let asked = request("POST", &format!("/v2/queues/w{n}/claims?wait=30"), body);
        stream.get_mut().write_all(asked.as_bytes()).unwrap();
        waiting.push(stream);
    }
    thread::sleep(Duration::from_secs(2));
    let (after, threads) = (served.status("VmRSS:"), served.status("Threads:"));
    let mut begun = Client::new(served.port);
    let path = format!("/v2/queues/w{}/messages", POLLS - 1);
    assert_eq!(begun.ask("POST", &path, &posted(1)).0, 201);
    let mut line = String::new();
    waiting.last_mut().unwrap().read_line(&mut line).unwrap();
    assert!(line.contains("201"), "{line}");
    println!(
        "{POLLS} requests that wait: {} MiB more than the {} MiB before, {threads} threads",
        (after - before) / 1024,
        before / 1024
    );
}
