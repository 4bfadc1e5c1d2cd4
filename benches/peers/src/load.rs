//! Closed loops of callers, and the words in which a peer is told to run them.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

use crate::Failure;

/// Bytes of the text that goes there and comes back.
pub(crate) const SIZE: usize = 1024;
/// What a peer says when it can be told to run.
pub(crate) const READY: &str = "ready";

/// Something that can be called.
pub(crate) trait Call: Send + Sync + 'static {
    /// Sends `text` and returns what came back.
    fn call(&self, text: &str) -> impl Future<Output = Result<String, Failure>> + Send;
}

/// What a slice gave.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// Calls that were answered.
    pub(crate) calls: u64,
    /// How long the slice was.
    pub(crate) seconds: f64,
    /// Median latency, in microseconds.
    pub(crate) p50_us: f64,
    /// The slowest of a hundred.
    pub(crate) p99_us: f64,
}

/// Obeys lines of `CONCURRENCY MILLISECONDS` and answers each with a [`Slice`] as JSON.
pub(crate) async fn obey<C: Call>(client: C) -> Result<(), Failure> {
    let client = Arc::new(client);
    println!("{READY}");
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (callers, ms) = line.split_once(' ').ok_or("use: CONCURRENCY MILLISECONDS")?;
        let length = Duration::from_millis(ms.parse()?);
        let slice = slice(&client, callers.parse()?, length).await?;
        println!("{}", serde_json::to_string(&slice)?);
    }
    Ok(())
}

async fn slice<C: Call>(client: &Arc<C>, callers: u16, length: Duration) -> Result<Slice, Failure> {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { caller(&*client, begun + length).await })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| {
        let rank = (latencies.len() as f64 * share).ceil() as usize;
        let found = latencies.get(rank.max(1) - 1);
        found.map_or(f64::NAN, |latency| latency.as_nanos() as f64 / 1e3)
    };
    Ok(Slice { calls: latencies.len() as u64, seconds, p50_us: at(0.5), p99_us: at(0.99) })
}

async fn caller<C: Call>(client: &C, until: Instant) -> Result<Vec<Duration>, Failure> {
    let text = "x".repeat(SIZE);
    let mut latencies = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok(latencies);
        }
        if client.call(&text).await? != text {
            return Err("the answer is not what was sent".into());
        }
        latencies.push(begun.elapsed());
    }
}
