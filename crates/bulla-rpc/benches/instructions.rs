//! How many instructions the steps of a call take, and a whole call over the bus in memory, both
//! ends on one thread: what a loaded machine can't blur. Needs valgrind, in which the ciphers run
//! without AVX-512.
//!
//!     cargo bench -p bulla-rpc --bench instructions
//!
//! Each operation runs under callgrind with a small and with a larger count; the difference is what
//! the operation itself takes. `-- OPERATION COUNT` just does it, for a profiler.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::process::Command;

use bulla_guard::{ClaimKey, ClaimOutcome, ClaimRequest, Completion, Scope, Worker};
use bulla_policy::Source;
use bulla_rpc::*;
use bulla_seal::*;
use common::World;
use serde::{Deserialize, Serialize};

const OPERATIONS: [&str; 3] = ["call", "authorize", "claim"];
const FEW: u64 = 200;
const MANY: u64 = 1200;
const POLICY: &str = r#"
// @argument instance_id: String
@id("agents-report-on-themselves")
permit (principal is Agent, action in [Action::"call", Action::"cast"], resource == Method::"conductor.report")
when { context.args has instance_id && context.args.instance_id == principal.id };
"#;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match &args[..] {
        [operation, count] => run(operation, count.parse().unwrap()),
        _ => OPERATIONS.iter().for_each(|operation| {
            println!("{operation:<16} {:>8.0} instructions", instructions(operation));
        }),
    }
}

fn instructions(operation: &str) -> f64 {
    let counted = |count: u64| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().unwrap())
            .args([operation, &count.to_string()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find_map(|line| line.split_once("Collected : ")).unwrap();
        line.1.trim().parse::<u64>().unwrap()
    };
    (counted(MANY) - counted(FEW)) as f64 / (MANY - FEW) as f64
}

fn run(operation: &str, count: u64) {
    match operation {
        "call" => call(count),
        "authorize" => authorize(count),
        "claim" => claim(count),
        other => {
            eprintln!("no operation {other:?}; there are {OPERATIONS:?}");
            std::process::exit(2);
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Echo {
    text: String,
}

/// 1 KiB there and back.
fn call(count: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new();
        let router = Router::new().method("echo", |_, echo: Echo| std::future::ready(Ok(echo)));
        let server = Server::start(world.agent("db-1"), router, common::options()).await.unwrap();
        let client = Client::new(world.component("control", "1"));
        let (target, echo) =
            ("agent/db-1".parse::<Target>().unwrap(), Echo { text: "x".repeat(1024) });
        for _ in 0..count {
            let answer: Echo = client.call(&target, "echo", &echo).await.unwrap();
            assert_eq!(answer.text.len(), 1024);
        }
        drop(server);
    });
}

/// One rule with an argument.
fn authorize(count: u64) {
    let rule = PolicyRule::new(Source::parse(POLICY).unwrap().compile().unwrap());
    let party = |principal: Principal| Party::new(principal, 1);
    let sender = party(Principal::agent("db-1").unwrap());
    let me = party(Principal::component("conductor").unwrap());
    let nothing = |_, (): ()| std::future::ready(Ok(()));
    let method = Method::new("report", nothing).namespace("conductor");
    let args = value::to_vec(&serde_json::json!({ "instance_id": "db-1" })).unwrap();
    for _ in 0..count {
        let decision = rule.decide(black_box(&Question {
            sender: &sender,
            roles: &[],
            groups: None,
            me: &me,
            method: &method,
            kind: MessageKind::Call,
            exchange: "bulla",
            topic: "component.conductor",
            version: Version::new(1, 0),
            args: &args,
            now: 0,
        }));
        assert_eq!(decision, Decision::Allow);
    }
}

/// A claim that is granted, and its end.
fn claim(count: u64) {
    let store = common::claims();
    let me = Party::new(Principal::agent("db-1").unwrap(), 1);
    let sender = Party::new(Principal::component("control").unwrap(), 1);
    let scope = Scope::shared(&me, "agent.db-1");
    let now_ms = common::now().ns / 1_000_000;
    for n in 0..u128::from(count) {
        let key = ClaimKey::new(scope.clone(), sender.clone(), MessageId(n.to_be_bytes()));
        let request = ClaimRequest {
            key: key.clone(),
            digest: Digest([7; Digest::LEN]),
            iat: now_ms / 1000,
            exp: now_ms / 1000 + 60,
            idempotent: false,
            worker: Worker(1),
            now_ms,
            lease_ms: 30_000,
            envelope: None,
        };
        let ClaimOutcome::Granted(grant) = store.try_claim(&request) else { panic!("not granted") };
        store.try_complete(&key, grant, Completion::Done { reply: None });
    }
}
