//! A deployment on the oslo carrier, and real peers of oslo.messaging.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared by several test binaries"
)]

#[path = "../../../bulla-rpc/tests/common/mod.rs"]
pub mod rpc;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use bulla_guard::floor::{FloorStore, MemoryFloors};
use bulla_oslo::{OsloTransport, Queues, wire};
use bulla_rpc::*;
use bulla_seal::*;
use bulla_transport::{RabbitOptions, RabbitTransport, Transport};
use rpc::World;
use serde_json::{Value, json};

/// Debian's, whatever else is on the path.
const PYTHON: &str = "/usr/bin/python3";

/// Whether Debian's Python has these modules; fails where tests have to run.
pub fn installed(modules: &[&str]) -> bool {
    let script = modules.iter().map(|m| format!("import {m}\n")).collect::<String>();
    let found = Command::new(PYTHON)
        .args(["-c", &script])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let must = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let must = must("CI", "true") || must("BULLA_TEST_REQUIRE", "1");
    assert!(found || !must, "{modules:?} are not installed: cargo xtask test installs them");
    if !found {
        eprintln!("\n*** SKIPPED, NOT TESTED: {modules:?} are not installed ***\n");
    }
    found
}

/// A real peer, in a process of its own.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start(url: &str, options: &Value) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peer.py");
        let url = url.replacen("amqp://", "rabbit://", 1).replace("%2f", "").replace("%2F", "");
        let mut child = Command::new(PYTHON)
            .args([script, &url, &options.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut peer = Self { child, input, output: BufReader::new(output) };
        assert_eq!(peer.line().trim(), "READY");
        peer
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        tokio::task::block_in_place(|| self.output.read_line(&mut line)).unwrap();
        line
    }

    pub fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.input, "{request}").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The carrier over a real broker.
pub async fn carrier(url: &str, queues: Queues) -> Arc<OsloTransport> {
    let options = RabbitOptions::new(url).unwrap().max_message(wire::max_body(DEFAULT_MAX_FRAME));
    let rabbit = Arc::new(RabbitTransport::connect(options).await.unwrap());
    Arc::new(OsloTransport::new(rabbit, queues, DEFAULT_MAX_FRAME))
}

/// An endpoint on it, with these exemptions.
pub async fn endpoint(
    world: &World,
    identity: Identity,
    transport: Arc<dyn Transport>,
    exemptions: &[SignedExemption],
) -> Endpoint {
    let floors = Arc::new(MemoryFloors::new());
    for exemption in exemptions {
        floors.add_exemption(exemption).await.unwrap();
    }
    let options = EndpointOptions {
        exchange: "trove".to_owned(),
        floors: Some(floors),
        ..EndpointOptions::default()
    };
    let endpoint = Endpoint::new(identity, world.directory.clone(), transport, options).unwrap();
    endpoint.refresh_floors().await.unwrap();
    endpoint
}

/// What the Python peers have too.
pub fn methods() -> Router {
    let open = |method: Method| method.open_to_agents().open_to_components();
    Router::new()
        .with(open(Method::new("echo", |_, args: Value| async move { Ok(args["value"].clone()) })))
        .with(open(Method::new("who", |context: Context, _: Value| async move {
            let context: Option<Value> = context.context().ok().flatten();
            Ok(context.map_or(Value::Null, |context| context["user_id"].clone()))
        })))
        .with(open(Method::new("sender", |context: Context, _: Value| async move {
            Ok(context.sender().principal.to_string())
        })))
        .with(open(Method::new("slow", |_, args: Value| async move {
            let seconds = args["seconds"].as_f64().unwrap_or_default();
            tokio::time::sleep(std::time::Duration::from_secs_f64(seconds)).await;
            Ok("done")
        })))
        .with(open(Method::new("fail", |_, args: Value| async move {
            let text = args["text"].as_str().unwrap_or_default().to_owned();
            let details =
                json!({"module": "__main__", "message": text, "args": [text], "kwargs": {}});
            Err::<Value, _>(RemoteError::new("Broken", text).with_details(details))
        })))
        .with(open(
            Method::new("ping", |_, args: Value| async move { Ok(json!({"pong": args["arg"]})) })
                .namespace("baseapi")
                .version(2, 1),
        ))
}
