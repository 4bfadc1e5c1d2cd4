//! How quick the queue service is: `cargo bench -p bulla-queue --features redis,postgres --bench service`, with
//! the names of stores (`sqlite`, `redis`, `postgres`) after `--` for some alone. 1 KiB a message, plain HTTP on
//! loopback, the service in a process of its own; its processor time is counted, a server's beside it is not.
//! `NAME:PORT:PID` is another service, asked the same in the same run; that process and its children are counted.
//! `many` compares 10 queues of 100 messages with 10,000 of them; `polls` and `tls-polls` hold 10,000 requests
//! that wait, over plain HTTP and over TLS; `encrypted` compares stores with and without encryption at rest. With
//! `at-1` there is one connection at a time, and not 16 and 64, too.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measurement that fails says so and ends"
)]

mod client;
mod encrypted;
mod load;
mod polls;
mod served;

use load::{many, measure};
use served::Served;

/// Messages that are there to be claimed: of ours, and of another service.
const STOCK: [usize; 2] = [60_000, 8_000];
/// Queues that there are few and many of.
const QUEUES: [usize; 2] = [10, 10_000];

fn main() {
    if served::is_to_serve() {
        return served::serve();
    }
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-') && arg != load::ONE).collect();
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
        measure(name, &Served::other(port, pid), STOCK[1]);
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
        polls::plain(&Served::start(&dir.path().join("q.db").display().to_string()));
    }
    if wanted("tls-polls") {
        let dir = tempfile::tempdir().unwrap();
        polls::tls(dir.path());
    }
    if wanted("encrypted") {
        let dir = tempfile::tempdir().unwrap();
        let store = |name: &str| dir.path().join(name).display().to_string();
        encrypted::compare("sqlite", &store("plain.db"), &store("encrypted.db"));
        #[cfg(feature = "redis")]
        {
            let start = || bulla_services::Redis::builder().durable(false).start().unwrap();
            let (plain, encrypted) = (start(), start());
            encrypted::compare("redis", &plain.url(), &encrypted.url());
        }
    }
}
