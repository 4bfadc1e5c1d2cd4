//! scratch
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "scratch")]
use clap::Parser;
#[path = "../src/bench/mod.rs"]
mod bench;
#[derive(Parser)]
struct Cmd {
    #[command(flatten)]
    args: bench::BenchArgs,
    #[arg(long)]
    json: bool,
}
fn main() {
    let cmd = Cmd::parse();
    let bus = cmd.args.bus.as_deref().map(|u| bulla_transport::RabbitOptions::new(u).unwrap());
    let rt = match std::env::var("THREADS").as_deref() {
        Ok("1") => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
    };
    rt.block_on(bench::run(cmd.args, bus, cmd.json)).unwrap();
}
