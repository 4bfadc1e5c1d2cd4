//! What one call takes that no load changes: bytes on the bus, and allocations.

use std::sync::Arc;

use bulla_transport::memory::{MemoryBus, Tap};
use serde::Serialize;

use super::lane::{Bus, Echo, Lane};
use super::threads::Threads;
use super::{BenchError, Claims, KeyType, world};

/// What a call of one size takes on one lane.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    lane: &'static str,
    size: usize,
    /// Of the request, as the bus sees it, on a session that is established.
    request_bytes: usize,
    reply_bytes: usize,
    /// Of both ends and the bus in memory; only a build with the feature `count-allocations` counts them.
    allocations: Option<f64>,
}

pub(super) const HEAD: [&str; 5] = ["lane", "size", "request B", "reply B", "allocations"];

impl Cost {
    pub(super) fn row(&self) -> Vec<String> {
        let counted = self.allocations.map(|number| format!("{number:.1}"));
        vec![
            self.lane.to_owned(),
            super::report::size(self.size),
            self.request_bytes.to_string(),
            self.reply_bytes.to_string(),
            counted.unwrap_or_else(|| "not counted".to_owned()),
        ]
    }
}

/// Counts on a bus in memory, plain and sealed.
pub(super) async fn measure(sizes: &[usize], keys: KeyType) -> Result<Vec<Cost>, BenchError> {
    let threads = Arc::new(Threads::start()?);
    let mut costs = Vec::new();
    for name in ["plain", "sealed"] {
        let bus = MemoryBus::new();
        let mut tap = bus.tap();
        let (on, word) = (Bus::Memory(bus), world::unique()?);
        let lane = if name == "plain" {
            Lane::plain((&on, &threads), name, &word).await?
        } else {
            Lane::sealed((&on, &threads), name, &word, keys, Claims::Memory, false).await?
        };
        let lane = Arc::new(lane);
        // The first call carries the offer of the session.
        call(&lane, 1).await?;
        frames(&mut tap).await?;
        for &size in sizes {
            call(&lane, size).await?;
            let [request_bytes, reply_bytes] = frames(&mut tap).await?;
            let allocations = allocations(name == "sealed", keys, size)?;
            costs.push(Cost { lane: name, size, request_bytes, reply_bytes, allocations });
        }
        if let Some(lane) = Arc::into_inner(lane) {
            lane.close().await?;
        }
    }
    Ok(costs)
}

async fn call(lane: &Arc<Lane>, size: usize) -> Result<(), BenchError> {
    let (caller, args) = (lane.clone(), Echo::of_size(size));
    lane.threads.client.run(async move { caller.call(&args).await.map(drop) }).await
}

/// Sizes of the next two messages: a request and its reply.
async fn frames(tap: &mut Tap) -> Result<[usize; 2], BenchError> {
    let mut sizes = [0; 2];
    for size in &mut sizes {
        let tapped = tap.next().await.ok_or(BenchError::Broken("a bus that shows nothing"))?;
        *size = tapped.payload.len();
    }
    Ok(sizes)
}

#[cfg(not(feature = "count-allocations"))]
fn allocations(_: bool, _: KeyType, _: usize) -> Result<Option<f64>, BenchError> {
    Ok(None)
}

/// On one thread, whose allocations are counted: a runtime that is no part of the one that asks.
#[cfg(feature = "count-allocations")]
fn allocations(sealed: bool, keys: KeyType, size: usize) -> Result<Option<f64>, BenchError> {
    /// Sessions are opened, queues and tables have their size.
    const WARM: u32 = 2000;
    const CALLS: u32 = 1000;
    let counting = move || {
        let failed = |source| BenchError::Io { what: "a runtime".to_owned(), source };
        let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = builder.map_err(failed)?;
        let bus = Bus::Memory(MemoryBus::new());
        let threads = Arc::new(Threads::of_one(runtime.handle().clone()));
        let lane = runtime.block_on(async {
            let word = world::unique()?;
            if sealed {
                Lane::sealed((&bus, &threads), "sealed", &word, keys, Claims::Memory, false).await
            } else {
                Lane::plain((&bus, &threads), "plain", &word).await
            }
        })?;
        let args = Echo::of_size(size);
        let calls = |number: u32| {
            runtime.block_on(async {
                for _ in 0..number {
                    lane.call(&args).await?;
                }
                Ok::<_, BenchError>(())
            })
        };
        calls(WARM)?;
        let mut ended = Ok(());
        let counted = allocation_counter::measure(|| ended = calls(CALLS));
        ended?;
        runtime.block_on(lane.close())?;
        Ok(Some(counted.count_total as f64 / f64::from(CALLS)))
    };
    let counted = std::thread::spawn(counting).join();
    counted.map_err(|_| BenchError::Broken("a thread that panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_seal_adds_bytes_and_says_how_many() {
        let costs = measure(&[100, 1000], KeyType::Pair).await.unwrap();
        let [plain, _, sealed, larger] = &costs[..] else { panic!("{costs:?}") };
        assert!(sealed.request_bytes > plain.request_bytes + 100, "{costs:?}");
        // What the seal adds does not depend on the size, but for the lengths of lengths.
        let more = larger.request_bytes - sealed.request_bytes;
        assert!((900..910).contains(&more), "{costs:?}");
        assert_eq!(sealed.allocations.is_some(), cfg!(feature = "count-allocations"));
    }
}
