//! scratch
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "scratch")]
#[path = "../../bulla-rpc/tests/common/mod.rs"]
mod common;
use bulla_rpc::*;
use common::*;
#[derive(serde::Serialize, serde::Deserialize)]
struct Echo {
    text: String,
}
fn main() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let world = World::new();
        let control = Client::new(world.component("control", "h1"));
        let router = Router::new().method("echo", |_, args: Echo| async move { Ok(args) });
        let _server = Server::start(world.agent("db-1"), router, options()).await.unwrap();
        let to: Target = "agent/db-1".parse().unwrap();
        let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
        let c: usize = std::env::args().nth(2).unwrap().parse().unwrap();
        let t = std::time::Instant::now();
        let mut js = tokio::task::JoinSet::new();
        for _ in 0..c {
            let (control, to) = (control.clone(), to.clone());
            js.spawn(async move {
                let args = Echo { text: "x".repeat(1024) };
                for _ in 0..n / c {
                    let _: Echo = control.call(&to, "echo", &args).await.unwrap();
                }
            });
        }
        while js.join_next().await.is_some() {}
        println!("{} us/call", t.elapsed().as_micros() as f64 / n as f64);
    });
}
