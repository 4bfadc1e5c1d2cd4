//! Slices of load, and what they cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use tokio::task::JoinSet;

use super::BenchError;
use super::lane::{Echo, Lane};
use super::stats::percentile;
use super::threads::since_start;

/// How long what was cast may take to run once nothing more is cast.
const STRAGGLERS: Duration = Duration::from_secs(30);

/// Casts that were sent and have not run: more than that, and senders wait. A sender has no
/// other way to learn that it is too fast for its receiver.
const BEHIND: u64 = 4096;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Sort {
    Call,
    Cast,
}

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Load {
    pub(super) sort: Sort,
    /// Bytes of text in the arguments, and in a call's result.
    pub(super) size: usize,
    /// Calls, or casts that wait for the broker's confirmation, at one time.
    pub(super) concurrency: usize,
}

/// What one slice of time showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) per_second: f64,
    /// Microseconds until the result was there, or the broker had confirmed.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// This process's processor time for each, both ends together, in microseconds.
    pub(super) cpu: f64,
    /// That of the client's thread.
    pub(super) client_cpu: f64,
    /// That of the server's thread; what stores do on threads of their own is in neither.
    pub(super) server_cpu: f64,
}

/// What was used so far: by the process, by the client's thread, by the server's.
async fn used(lane: &Lane) -> Result<[Duration; 3], BenchError> {
    let process = since_start(ClockId::ProcessCPUTime);
    let threads = &lane.threads;
    Ok([process, threads.client.processor_time().await?, threads.server.processor_time().await?])
}

impl Load {
    /// Puts it on a lane for `length`.
    pub(super) async fn run(self, lane: &Arc<Lane>, length: Duration) -> Result<Slice, BenchError> {
        let (executed, before, start) = (lane.executed(), used(lane).await?, Instant::now());
        let mut workers = JoinSet::new();
        let worker = Worker {
            sort: self.sort,
            lane: lane.clone(),
            args: Arc::new(Echo::of_size(self.size)),
            sent: Arc::new(AtomicU64::new(executed)),
            end: start + length,
        };
        for _ in 0..self.concurrency {
            workers.spawn_on(worker.clone().run(), lane.threads.client.handle());
        }
        let mut took = Vec::new();
        while let Some(worker) = workers.join_next().await {
            took.extend(worker.map_err(|_| BenchError::Broken("a worker that panicked"))??);
        }
        if self.sort == Sort::Cast {
            all_executed(lane, executed + took.len() as u64).await?;
        }
        let elapsed = start.elapsed();
        let [cpu, client_cpu, server_cpu] = used(lane).await?;
        let [process, client, server] = before;
        let us = |ns: u64| ns as f64 / 1e3;
        let each = |after: Duration, before| {
            after.saturating_sub(before).as_secs_f64() * 1e6 / took.len() as f64
        };
        let cpu = [each(cpu, process), each(client_cpu, client), each(server_cpu, server)];
        let [cpu, client_cpu, server_cpu] = cpu;
        Ok(Slice {
            per_second: took.len() as f64 / elapsed.as_secs_f64(),
            p50: percentile(&mut took, 0.50).map_or(f64::NAN, us),
            p99: percentile(&mut took, 0.99).map_or(f64::NAN, us),
            cpu,
            client_cpu,
            server_cpu,
        })
    }
}

/// Sends one after another until `end`.
#[derive(Clone)]
struct Worker {
    sort: Sort,
    lane: Arc<Lane>,
    args: Arc<Echo>,
    /// All workers' casts.
    sent: Arc<AtomicU64>,
    end: Instant,
}

impl Worker {
    /// How long each took, in nanoseconds.
    async fn run(self) -> Result<Vec<u64>, BenchError> {
        let mut took = Vec::with_capacity(4096);
        let mut before = Instant::now();
        while before < self.end {
            match self.sort {
                Sort::Call => self.call().await?,
                Sort::Cast => self.lane.cast(&self.args).await?,
            }
            let now = Instant::now();
            took.push(u64::try_from((now - before).as_nanos()).unwrap_or(u64::MAX));
            before = now;
            if self.sort == Sort::Cast && self.is_behind() {
                while self.sent.load(Ordering::Relaxed) > self.lane.executed() + BEHIND {
                    tokio::task::yield_now().await;
                }
                before = Instant::now();
            }
        }
        Ok(took)
    }

    async fn call(&self) -> Result<(), BenchError> {
        let echo = self.lane.call(&self.args).await?;
        if echo.text.len() == self.args.text.len() {
            Ok(())
        } else {
            Err(BenchError::Broken("an echo that is not what was sent"))
        }
    }

    fn is_behind(&self) -> bool {
        self.sent.fetch_add(1, Ordering::Relaxed) + 1 > self.lane.executed() + BEHIND
    }
}

async fn all_executed(lane: &Lane, count: u64) -> Result<(), BenchError> {
    let begun = Instant::now();
    while lane.executed() < count {
        if begun.elapsed() > STRAGGLERS {
            return Err(BenchError::Broken("casts that did not run within 30 s"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_grows_with_work() {
        let before = since_start(ClockId::ProcessCPUTime);
        let mut sum = 0u64;
        for _ in 0..1_000_000 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let after = since_start(ClockId::ProcessCPUTime);
        assert!(after > before);
        std::thread::spawn(|| {
            std::hint::black_box((0..1_000_000u64).map(std::hint::black_box).sum::<u64>())
        })
        .join()
        .unwrap();
        assert!(
            since_start(ClockId::ProcessCPUTime) > after,
            "what a thread that ended has used counts on"
        );
    }
}
