//! Sealed calls between Rust peers over the oslo carrier, and what oslo.messaging does on the same RabbitMQ in
//! the same run: as it is, and with Trove's serializer. One server process and one client process each, echo of
//! 1 KiB both ways with a request context, 64 callers, rounds in turn, medians.
//!
//! `cargo bench -p bulla-cli --bench peers`; `BULLA_BENCH_SECONDS`, `_ROUNDS`, `_CALLERS` and `_BYTES` change it.
//! Needs RabbitMQ and Debian's `python3-oslo.messaging` and `python3-trove`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a measurement ends when anything fails"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla::{Claims, Client, Connection, EndpointOptions, KeyFile, Router, ServeOptions, Target};
use bulla_guard::{Limits, MemoryClaims, StoreOptions};
use bulla_oslo::{Carriers, Queues};
use bulla_services::{RabbitMq, require};
use serde_json::{Value, json};

/// Debian's, whatever else is on the path.
const PYTHON: &str = "/usr/bin/python3";
/// In this variable, the key file of a server that this program is to be.
const SERVER: &str = "BULLA_BENCH_SERVER";
const TOPIC: &str = "peers-bulla";

fn set(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

/// What one round of one lane came to.
#[derive(Clone, Copy)]
struct Round {
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of client and server, a call.
    cpu_us: f64,
}

/// A process that ends with its owner.
struct Process(Child);

impl Process {
    /// Starts it, and waits until it says `ready`.
    fn start(mut command: Command, ready: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next().expect("it ended").unwrap().contains(ready) {}
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self(child)
    }

    /// The processor time that it used.
    fn cpu(&self) -> Duration {
        cpu_of(&format!("/proc/{}/stat", self.0.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Linux counts it in hundredths of a second.
fn cpu_of(stat: &str) -> Duration {
    let text = std::fs::read_to_string(stat).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Ok(key) = std::env::var(SERVER) {
        return runtime.block_on(serve(Path::new(&key)));
    }
    let found = Command::new(PYTHON)
        .args(["-c", "import oslo_messaging, trove.common.rpc.secure_serializer"])
        .stderr(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        println!(
            "not measured: Debian's python3-oslo.messaging and python3-trove are not installed"
        );
        return;
    }
    let Some(broker) = require(RabbitMq::start()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let deployment = Deployment { folder: folder.path(), url: broker.url() };
    let _control = deployment.start();
    let (server, client) = (deployment.component("peers"), deployment.component("api"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(SERVER, &server);
    let ours = Process::start(command, "READY");
    let theirs = ["plain", "trove"].map(|mode| (mode, oslo(&deployment.url, mode)));

    let callers = set("BULLA_BENCH_CALLERS", 64);
    let length = Duration::from_secs(set("BULLA_BENCH_SECONDS", 4));
    let (rounds, size) = (set("BULLA_BENCH_ROUNDS", 3), set("BULLA_BENCH_BYTES", 1024));
    let connection = runtime.block_on(open(&client));
    let caller = Carriers::client(connection.client()).unwrap();
    let mut lanes: [(&str, Vec<Round>); 3] = [
        ("oslo.messaging, plain", Vec::new()),
        ("oslo.messaging, Trove's serializer", Vec::new()),
        ("Bulla, sealed, oslo carrier", Vec::new()),
    ];
    for _ in 0..rounds {
        for (n, (mode, server)) in theirs.iter().enumerate() {
            lanes[n].1.push(load_oslo(&deployment.url, mode, server, (length, callers, size)));
        }
        let before = ours.cpu();
        let own = cpu_of("/proc/self/stat");
        let mut round = runtime.block_on(load(&caller, length, callers, size as usize));
        let used = (ours.cpu() - before) + (cpu_of("/proc/self/stat") - own);
        // The second of warming up is in it, on both sides of the division.
        round.cpu_us = used.as_secs_f64() * 1e6 / round.cpu_us;
        lanes[2].1.push(round);
    }
    told(&lanes, callers, size);
    runtime.block_on(connection.close());
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn told(lanes: &[(&str, Vec<Round>); 3], callers: u64, size: u64) {
    println!(
        "echo of {size} B, {callers} callers, medians of {} rounds in turn\n",
        lanes[0].1.len()
    );
    println!("| | calls/s | p50 ms | p99 ms | processor time a call, µs |");
    println!("|---|---|---|---|---|");
    for (name, rounds) in lanes {
        println!(
            "| {name} | {:.0} | {:.2} | {:.2} | {:.0} |",
            median(rounds, |r| r.per_s),
            median(rounds, |r| r.p50_ms),
            median(rounds, |r| r.p99_ms),
            median(rounds, |r| r.cpu_us),
        );
    }
    let (trove, ours) = (&lanes[1].1, &lanes[2].1);
    println!(
        "\nsealed against Trove's serializer: {:.1} times the calls/s, {:.2} of the p50",
        median(ours, |r| r.per_s) / median(trove, |r| r.per_s),
        median(ours, |r| r.p50_ms) / median(trove, |r| r.p50_ms),
    );
}

struct Deployment<'a> {
    folder: &'a Path,
    url: String,
}

impl Deployment<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulla"));
        command.args(args).env("BULLA_HOME", self.folder.join("home"));
        command.env("BULLA_BUS_URL", &self.url).env("NO_COLOR", "1");
        command
    }

    fn start(&self) -> Process {
        assert!(self.command(&["init"]).stdout(Stdio::null()).status().unwrap().success());
        Process::start(self.command(&["serve", "--listen", "127.0.0.1:0"]), "API at")
    }

    fn component(&self, name: &str) -> PathBuf {
        let key = self.folder.join(format!("{name}.key"));
        let args = ["component", "add", name, "--instance", name, "--out", key.to_str().unwrap()];
        assert!(self.command(&args).stdout(Stdio::null()).status().unwrap().success());
        key
    }
}

fn target() -> Target {
    Target::Named {
        principal: "component/peers".parse().unwrap(),
        exchange: "peers".into(),
        topic: TOPIC.into(),
        server: None,
    }
}

async fn open(key: &Path) -> Connection {
    let exchange = KeyFile::read(key).unwrap().bus.clone().unwrap().exchange;
    let both = |native| Arc::new(Carriers::new(native, Queues::default(), exchange)) as _;
    Connection::open_around(key, None, EndpointOptions::default(), both).await.unwrap()
}

async fn serve(key: &Path) {
    let connection = open(key).await;
    let echo =
        bulla::Method::new("echo", |_, args: Value| async move { Ok(args["value"].clone()) });
    let router = Router::new().with(echo.open_to_components());
    // The queue is as new as this process, and remembers nothing that could run twice.
    let limits = Limits { shared: 50_000_000, ..Limits::default() };
    let store = StoreOptions { limits, ..StoreOptions::default() };
    let claims = Claims::Store(Arc::new(MemoryClaims::for_new_bus(store)));
    let options = ServeOptions::new().only_host().claims(claims);
    let serving = connection.serve(router, options).await.unwrap();
    serving.server().consume(&target().inbox("peers").unwrap()).await.unwrap();
    println!("READY");
    std::future::pending::<()>().await;
}

/// `cpu_us` is how many calls there were, those of warming up too.
async fn load(client: &Client, length: Duration, callers: u64, size: usize) -> Round {
    let (warm, _) = calls(client, Duration::from_secs(1), callers, size).await;
    let (mut took, lasted) = calls(client, length, callers, size).await;
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    Round {
        per_s: took.len() as f64 / lasted.as_secs_f64(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        cpu_us: (took.len() + warm.len()) as f64,
    }
}

async fn calls(
    client: &Client,
    length: Duration,
    callers: u64,
    size: usize,
) -> (Vec<Duration>, Duration) {
    let (begun, value) = (Instant::now(), "v".repeat(size));
    let context = json!({"user_id": "0b3d".repeat(8), "project_id": "56cc".repeat(8),
        "roles": ["member", "reader"], "auth_token": "g".repeat(183),
        "request_id": format!("req-{}", "0".repeat(36))});
    let each = (0..callers).map(|_| {
        let (client, value, context) = (client.clone(), value.clone(), context.clone());
        tokio::spawn(async move {
            let (to, mut took) = (target(), Vec::new());
            while begun.elapsed() < length {
                let at = Instant::now();
                let request = client.request(&to, "echo").context(&context).unwrap();
                let echoed: String = request.call(&json!({"value": value})).await.unwrap();
                assert_eq!(echoed.len(), value.len());
                took.push(at.elapsed());
            }
            took
        })
    });
    let mut all = Vec::new();
    for caller in each.collect::<Vec<_>>() {
        all.extend(caller.await.unwrap());
    }
    (all, begun.elapsed())
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/peers/oslo.py")
}

fn python(what: &str, url: &str, mode: &str) -> Command {
    let url = url.replacen("amqp://", "rabbit://", 1).replace("%2f", "").replace("%2F", "");
    let mut command = Command::new(PYTHON);
    command.arg(script()).args([what, &url, mode, &format!("peers-{mode}")]);
    command
}

fn oslo(url: &str, mode: &str) -> Process {
    let mut command = python("serve", url, mode);
    // It warns of every connection beyond its pool.
    command.stderr(Stdio::null());
    Process::start(command, "READY")
}

fn load_oslo(
    url: &str,
    mode: &str,
    server: &Process,
    (length, callers, size): (Duration, u64, u64),
) -> Round {
    let before = server.cpu();
    let numbers = [length.as_secs(), callers, size].map(|number| number.to_string());
    let output = python("load", url, mode).args(numbers).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let figures: Value = serde_json::from_str(said.lines().last().expect("figures")).unwrap();
    let figure = |name: &str| figures[name].as_f64().unwrap();
    let (served, calls) = ((server.cpu() - before).as_secs_f64(), figure("calls"));
    // The server's share of warming up is a fifth at the most: it is taken off as the client's is.
    let seconds = length.as_secs_f64();
    let served = served * seconds / (seconds + 1.0);
    Round {
        per_s: figure("per_s"),
        p50_ms: figure("p50_ms"),
        p99_ms: figure("p99_ms"),
        cpu_us: (served + figure("cpu_s")) * 1e6 / calls,
    }
}
