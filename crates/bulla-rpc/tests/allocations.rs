//! What a whole call allocates: both ends and the bus in memory, on one thread.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use allocation_counter::measure;
use bulla_rpc::*;
use common::World;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Echo {
    text: String,
}

/// Of the call itself; the method's arguments and its result are the caller's and the handler's own.
const MOST: u64 = 12;

#[test]
fn a_call_allocates_little() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = World::new();
    let (client, server) = runtime.block_on(async {
        let router = Router::new().method("echo", |_, echo: Echo| std::future::ready(Ok(echo)));
        let server = Server::start(world.agent("db-1"), router, common::options()).await.unwrap();
        (Client::new(world.component("control", "1")), server)
    });
    let target = "agent/db-1".parse::<Target>().unwrap();
    let echo = Echo { text: "x".repeat(1024) };
    let call = || {
        let answer: Echo = runtime.block_on(client.call(&target, "echo", &echo)).unwrap();
        assert_eq!(answer.text.len(), 1024);
    };
    // Sessions are opened, queues and tables have their size.
    (0..2000).for_each(|_| call());
    const CALLS: u64 = 1000;
    let info = measure(|| (0..CALLS).for_each(|_| call()));
    let own = info.count_total as f64 / CALLS as f64;
    println!("{own} allocations, {} bytes", info.bytes_total / CALLS);
    assert!(own <= (MOST + 2) as f64, "{own} allocations");
    drop(server);
}
