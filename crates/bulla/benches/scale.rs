//! What a caller's cost grows with: agents on the bus in memory, real connections to a RabbitMQ, members of a
//! group.
//!
//!     cargo bench -p bulla --bench scale                          # small
//!     cargo bench -p bulla --bench scale -- full                  # 100,000 agents, 2,000 connections, 20,000 members
//!     cargo bench -p bulla --bench scale -- agents 1 5000         # one part, with numbers of your own
//!
//! The caller has a thread of its own, and so have the agents all together: the caller's processor time is its
//! own. Memory is what the allocator gets back when the caller drops its sessions, after calls to each agent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement fails like a test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bulla::memory::{Deployment, server_options};
use bulla::{Client, Endpoint, HandlerResult, Router, Server, Target};
use bulla_services::VirtualHost;
use bulla_transport::{RabbitOptions, RabbitTransport, Transport};
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Calls on their way at once.
const AT_ONCE: usize = 64;
/// Calls that are timed, at the least.
const CALLS: usize = 40_000;
/// Fanouts that are timed.
const FANOUTS: u32 = 20;

#[derive(Serialize, Deserialize)]
struct Echo {
    text: String,
}

/// A part's name, the part, and its numbers: few and many.
type Part = (&'static str, fn(&[usize]), &'static [usize], &'static [usize]);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let full = args.iter().any(|arg| arg == "full");
    let own: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let parts: [Part; 3] = [
        ("agents", agents, &[1, 100, 2_000], &[1, 100, 10_000, 100_000]),
        ("connections", connections, &[1, 50], &[1, 100, 2_000]),
        ("members", members, &[1, 100, 1_000], &[1, 100, 1_000, 20_000]),
    ];
    let one = parts.iter().any(|(name, ..)| args.iter().any(|arg| arg == name));
    for (name, part, few, many) in parts {
        if one && !args.iter().any(|arg| arg == name) {
            continue;
        }
        part(if own.is_empty() { if full { many } else { few } } else { &own });
    }
}

fn agents(numbers: &[usize]) {
    println!("Agents on the bus in memory, calls of 1 KiB, {AT_ONCE} at once");
    println!("   agents   first calls/s   calls/s   caller us   bytes an agent at the caller");
    for &number in numbers {
        let deployment = Arc::new(Deployment::new().unwrap());
        let served = Agents::start(number, {
            let deployment = deployment.clone();
            move |id| {
                Box::pin(std::future::ready(
                    deployment.agent(&id).unwrap_or_else(|e| panic!("{id}: {e}")),
                ))
            }
        });
        let caller = Caller::new(deployment.component("control", "1").unwrap());
        let targets = targets(number);
        let begun = Instant::now();
        caller.call_each(&targets);
        let first_rate = number as f64 / begun.elapsed().as_secs_f64();
        let (rate, spent) = caller.timed(&targets);
        let dropped = measure(|| caller.client.endpoint().forget_sessions()).bytes_current;
        let state = -dropped as f64 / number as f64;
        println!("{number:>9}   {first_rate:>13.0}   {rate:>7.0}   {spent:>9.2}   {state:>29.0}");
        drop(served);
    }
}

fn connections(numbers: &[usize]) {
    println!("Agents with a connection each to one RabbitMQ, calls of 1 KiB, {AT_ONCE} at once");
    println!("connections   opened/s   first calls/s   calls/s   caller us");
    for &number in numbers {
        let host = VirtualHost::new().unwrap();
        let url = host.url();
        let deployment = Arc::new(Deployment::new().unwrap());
        let begun = Instant::now();
        let served = Agents::start(number, {
            let (deployment, url) = (deployment.clone(), url.clone());
            move |id| {
                let (deployment, url) = (deployment.clone(), url.clone());
                Box::pin(async move { deployment.agent_over(&id, connect(&url).await).unwrap() })
            }
        });
        let opened = number as f64 / begun.elapsed().as_secs_f64();
        let caller = Caller::over(async || {
            deployment.component_over("control", "1", connect(&url).await).unwrap()
        });
        let targets = targets(number);
        let begun = Instant::now();
        caller.call_each(&targets);
        let first_rate = number as f64 / begun.elapsed().as_secs_f64();
        let (rate, spent) = caller.timed(&targets);
        println!("{number:>11}   {opened:>8.0}   {first_rate:>13.0}   {rate:>7.0}   {spent:>9.2}");
        drop(served);
    }
}

fn members(numbers: &[usize]) {
    println!("Fanouts of 1 KiB to a group's members on the bus in memory");
    println!("  members   sender ms   until the last ran ms");
    for &number in numbers {
        let deployment = Arc::new(Deployment::new().unwrap());
        let served = Agents::start(number, {
            let deployment = deployment.clone();
            move |id| {
                Box::pin(std::future::ready(
                    deployment.agent(&id).unwrap_or_else(|e| panic!("{id}: {e}")),
                ))
            }
        });
        let caller = Caller::new(deployment.component("control", "1").unwrap());
        let (spent, last) = caller.fanned_out(&served);
        println!("{number:>9}   {:>9.3}   {:>21.1}", ms(spent), ms(last));
        drop(served);
    }
}

fn targets(number: usize) -> Arc<[Target]> {
    (0..number).map(|n| format!("agent/{}", id(n)).parse().unwrap()).collect()
}

fn id(n: usize) -> String {
    format!("a-{n}")
}

async fn connect(url: &str) -> Arc<dyn Transport> {
    Arc::new(RabbitTransport::connect(RabbitOptions::new(url).unwrap()).await.unwrap())
}

/// All agents, on one thread.
struct Agents {
    servers: Arc<[Server]>,
    _running: oneshot::Sender<()>,
}

type Making = std::pin::Pin<Box<dyn Future<Output = Endpoint>>>;

impl Agents {
    fn start(number: usize, make: impl Fn(String) -> Making + Send + 'static) -> Self {
        let (running, ended) = oneshot::channel::<()>();
        let (ready, servers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = current_thread();
            runtime.block_on(async {
                let mut servers = Vec::with_capacity(number);
                for n in 0..number {
                    let agent = make(id(n)).await;
                    let echo = |_, args: Echo| std::future::ready(Ok(args) as HandlerResult<Echo>);
                    let router = Router::new().method("echo", echo);
                    let server = Server::start(agent, router, server_options()).await.unwrap();
                    server.join_groups().await.unwrap();
                    servers.push(server);
                }
                ready.send(servers).unwrap();
                let _ = ended.await;
            });
            runtime.shutdown_background();
        });
        Self { servers: servers.recv().unwrap().into(), _running: running }
    }

    fn ran(&self) -> u64 {
        self.servers.iter().map(|server| server.endpoint().counters().executed.get()).sum()
    }
}

struct Caller {
    runtime: Runtime,
    client: Client,
}

impl Caller {
    fn new(endpoint: Endpoint) -> Self {
        let runtime = current_thread();
        let client = runtime.block_on(async { Client::new(endpoint) });
        Self { runtime, client }
    }

    fn over(make: impl AsyncFnOnce() -> Endpoint) -> Self {
        let runtime = current_thread();
        let client = runtime.block_on(async { Client::new(make().await) });
        Self { runtime, client }
    }

    /// Calls `count` times, of `targets` one after another.
    fn call(&self, targets: &Arc<[Target]>, count: usize) {
        let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        self.runtime.block_on(async {
            let mut workers = tokio::task::JoinSet::new();
            for _ in 0..AT_ONCE.min(count) {
                let (client, targets, next) = (self.client.clone(), targets.clone(), next.clone());
                workers.spawn(async move {
                    let echo = Echo { text: "x".repeat(1024) };
                    loop {
                        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if n >= count {
                            return;
                        }
                        let target = targets.get(n % targets.len()).unwrap();
                        let _: Echo = client.call(target, "echo", &echo).await.unwrap();
                    }
                });
            }
            while let Some(ended) = workers.join_next().await {
                ended.unwrap();
            }
        });
    }

    fn call_each(&self, targets: &Arc<[Target]>) {
        self.call(targets, targets.len());
    }

    /// Calls a second, and microseconds of this thread for each.
    fn timed(&self, targets: &Arc<[Target]>) -> (f64, f64) {
        let count = targets.len().max(CALLS);
        let (begun, before) = (Instant::now(), thread_time());
        self.call(targets, count);
        let (took, spent) = (begun.elapsed(), thread_time() - before);
        (count as f64 / took.as_secs_f64(), spent.as_secs_f64() * 1e6 / count as f64)
    }

    /// Medians of this thread's processor time for a fanout, and of how long it takes until all ran it.
    fn fanned_out(&self, agents: &Agents) -> (Duration, Duration) {
        let all: Target = "group/all".parse().unwrap();
        let echo = Echo { text: "x".repeat(1024) };
        let (mut spent, mut last) = (Vec::new(), Vec::new());
        // The first opens sessions, and is not counted.
        for n in 0..=FANOUTS {
            let ran = agents.ran() + agents.servers.len() as u64;
            let (begun, before) = (Instant::now(), thread_time());
            self.runtime.block_on(self.client.fanout(&all, "echo", &echo)).unwrap();
            let used = thread_time() - before;
            while agents.ran() < ran {
                assert!(begun.elapsed() < Duration::from_secs(60), "a fanout was lost");
                std::thread::sleep(Duration::from_micros(200));
            }
            if n > 0 {
                spent.push(used);
                last.push(begun.elapsed());
            }
        }
        (median(spent), median(last))
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn thread_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.try_into().unwrap(), tv_nsec.try_into().unwrap())
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
