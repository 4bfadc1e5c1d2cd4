//! A flood of forged messages with unknown key ids: what each costs, how often the keystore is
//! asked, and what a legitimate caller notices of it.
//!
//! `cargo bench -p bulla-attack --bench flood`. Seconds and messages per second can be given:
//! `… -- 10 20000`. Times are of the CPU (`/proc/self/stat`), with what the flood's own sender
//! costs taken off: it is measured alone, at a bus where nobody listens. The p50 and p99 of calls
//! are taken of each second, and of those the median: a machine that stands still for a moment
//! spoils one second, and not the figure.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a benchmark")]

use std::time::{Duration, Instant};

use bulla_attack::wire::Parts;
use bulla_attack::world::{Stage, World, intruder_body};
use bulla_attack::{Bus, Cell, KeyType, Kind, Settings};
use bulla_rpc::{Clock, EndpointOptions, Target};
use bulla_seal::{MessageKind, OsRandom, Random};
use bulla_transport::{Address, MemoryBus, Outbound, Transport};
use bytes::Bytes;
use serde_json::Value;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u64>().ok());
    let seconds = numbers.next().unwrap_or(10);
    let rate = numbers.next().unwrap_or(20_000);
    let settings = Settings::like(EndpointOptions::default()).unwrap();
    let cell = Cell { key: KeyType::Shared, kind: Kind::Call };
    let world = World::new(&Bus::memory(), cell, &settings).await.unwrap();
    let forged = forged(&world, (seconds * rate) as usize);
    let to = world.address_of(&world.control.keys);
    let elsewhere = MemoryBus::new().transport();

    let idle = cpu();
    flood(&elsewhere, &to, &forged, seconds, rate).await;
    let sender = cpu() - idle;

    let before = callers(&world, seconds).await;
    let (asked, cost) = (world.control.directory.lookups(), cpu());
    flood(&*world.intruder, &to, &forged, seconds, rate).await;
    let each = (cpu() - cost).saturating_sub(sender).as_secs_f64() * 1e6 / forged.len() as f64;
    let lookups = world.control.directory.lookups() - asked;

    let during = {
        let calls = callers(&world, seconds);
        tokio::join!(calls, flood(&*world.intruder, &to, &forged, seconds, rate)).0
    };
    println!("{} forged messages at {rate}/s for {seconds} s", forged.len());
    println!("look-ups      {lookups}");
    println!("CPU each      {each:.2} µs (the sender's own share taken off)");
    println!("p50 of a call {:?} before, {:?} during", before[0], during[0]);
    println!(
        "p99 of a call {:?} before, {:?} during: {:.1} times",
        before[1],
        during[1],
        during[1].as_secs_f64() / before[1].as_secs_f64()
    );
    world.end().await;
}

fn forged(world: &Stage, count: usize) -> Vec<Bytes> {
    let now = world.clock.now();
    let own = world.mallory.session(&world.control, world, now).unwrap();
    let args = bulla_rpc::value::to_vec(&World::args(1)).unwrap();
    let body = intruder_body("work", &args);
    let frame = world.seal(&own, MessageKind::Cast, &body, now, 600).unwrap();
    let parts = Parts::of(frame.bytes()).unwrap();
    let mut head = parts.head().unwrap();
    (0..count)
        .map(|_| {
            let mut kid = [0; 8];
            OsRandom::default().fill(&mut kid).unwrap();
            head.handle = kid.to_vec();
            parts.with_head(&head).frame()
        })
        .collect()
}

async fn flood(bus: &dyn Transport, to: &Address, forged: &[Bytes], seconds: u64, rate: u64) {
    let begun = Instant::now();
    let mut sent = 0;
    for payload in forged {
        let outbound = Outbound::new(payload.clone());
        bus.publish(to, outbound).await.unwrap();
        sent += 1;
        let due = Duration::from_secs_f64(sent as f64 / rate as f64);
        if sent % 20 == 0
            && let Some(early) = due.checked_sub(begun.elapsed())
            && early > Duration::from_millis(1)
        {
            tokio::time::sleep(early).await;
        }
    }
    let whole = Duration::from_secs(seconds);
    tokio::time::sleep(whole.saturating_sub(begun.elapsed())).await;
}

/// p50 and p99 of honest calls, one after the other, at most two hundred a second: of each second,
/// and of the seconds the median.
async fn callers(world: &Stage, seconds: u64) -> [Duration; 2] {
    let target = Target::Principal(world.control.keys.party.principal.clone());
    let [mut halves, mut slowest] = [Vec::new(), Vec::new()];
    for _ in 0..seconds {
        let (begun, mut times) = (Instant::now(), Vec::new());
        while begun.elapsed() < Duration::from_secs(1) {
            let call = Instant::now();
            let args = serde_json::json!({ "n": 7 });
            let _: Value = world.agent.client.call(&target, "health", &args).await.unwrap();
            times.push(call.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        halves.push(at(&mut times, 0.5));
        slowest.push(at(&mut times, 0.99));
    }
    [at(&mut halves, 0.5), at(&mut slowest, 0.5)]
}

fn at(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
