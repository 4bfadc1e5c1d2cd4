//! What grows with the number of agents: adding them, starting a control-plane process, and what it
//! holds in memory.
//!
//!     cargo bench -p bulla-cli --features postgres --bench fleet -- 1000 10000 100000
//!
//! For each number a deployment of its own on a private PostgreSQL and RabbitMQ: a list of so many
//! ids is added by `bulla agent add --from` with join tokens, and one of at most 10,000 with keys; then
//! `bulla serve` is started three times.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement fails like a test"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bulla_services::{Postgres, RabbitMq};
use common::{Deployment, Process};

const STARTS: usize = 3;
/// So many are added with keys at the most, which takes longer.
const WITH_KEYS: usize = 10_000;

fn main() {
    let mut numbers: Vec<usize> =
        std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    if numbers.is_empty() {
        numbers = vec![1_000, 10_000, 100_000];
    }
    let rabbit = RabbitMq::start().unwrap();
    println!("agents  tokens/s  keys/s  start ms  resident KiB");
    let mut first = None;
    for number in numbers {
        let postgres = Postgres::start().unwrap();
        let env = vec![
            ("BULLA_KEYSTORE_URL", postgres.url()),
            ("BULLA_CLAIMS_STORE", "memory".to_owned()),
        ];
        let dir = tempfile::tempdir().unwrap();
        let deployment = Deployment { dir, bus: Some(rabbit.url()), env };
        deployment.ok(&["init"]);
        let tokens = add(&deployment, number, "t", &[]);
        let with_keys = number.min(WITH_KEYS);
        let keys = add(&deployment, with_keys, "k", &["--key"]);
        let (start, resident) = start(&deployment);
        println!(
            "{number:>6}  {tokens:>8.0}  {keys:>6.0}  {:>8.0}  {resident:>12}",
            start.as_secs_f64() * 1e3
        );
        match first {
            None => first = Some((number + with_keys, resident)),
            Some((few, before)) => println!(
                "        {:.1} bytes for each agent more",
                (resident as f64 - before as f64) * 1024.0 / (number + with_keys - few) as f64
            ),
        }
    }
}

/// Agents a second.
fn add(deployment: &Deployment, number: usize, prefix: &str, more: &[&str]) -> f64 {
    let mut list = String::new();
    for n in 0..number {
        writeln!(list, "{prefix}-{n:06}").unwrap();
    }
    let (file, to) = (deployment.path("ids.csv"), deployment.path(prefix));
    std::fs::write(&file, list).unwrap();
    let mut args = vec!["agent", "add", "--from", file.to_str().unwrap()];
    args.extend(["--out", to.to_str().unwrap(), "--json"]);
    args.extend(more);
    let begun = Instant::now();
    deployment.ok(&args);
    let took = begun.elapsed();
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), number);
    number as f64 / took.as_secs_f64()
}

/// The shortest of some starts, until it serves, and the least that it has in memory then.
fn start(deployment: &Deployment) -> (Duration, u64) {
    let started = (0..STARTS).map(|_| {
        let begun = Instant::now();
        let serve = deployment.command(&["serve", "--listen", "127.0.0.1:0"]);
        let serve = Process::start(serve, "API at");
        let took = begun.elapsed();
        std::thread::sleep(Duration::from_secs(2));
        let status = std::fs::read_to_string(format!("/proc/{}/status", serve.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = line.trim().trim_end_matches(" kB").parse().unwrap();
        serve.stop();
        (took, resident)
    });
    let all: Vec<(Duration, u64)> = started.collect();
    (all.iter().map(|one| one.0).min().unwrap(), all.iter().map(|one| one.1).min().unwrap())
}
