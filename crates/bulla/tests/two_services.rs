//! The example `two_services` as it is meant: three processes, each with its own key file.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bulla_services::{RabbitMq, require};
use common::{keystore, write_agent_file, write_key_file};
use serde_json::{Value, json};

/// Cargo builds the examples before it runs the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/two_services")
}

/// Stopped when dropped.
struct Service(Child);

impl Service {
    fn start(role: &str, key: &Path) -> Self {
        let mut child = Command::new(example())
            .arg(role)
            .arg(key)
            .env_remove("BULLA_BUS_URL")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let service = Self(child);
        assert_eq!(line, format!("component/{role} is ready\n"));
        service
    }

    /// Asks it to stop; whether it did so in good order.
    fn stop(mut self) -> bool {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.0.wait().unwrap().success()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn order(key: &Path, item: &str) -> Result<Value, String> {
    let output = Command::new(example())
        .args(["agent".as_ref(), key.as_os_str(), item.as_ref()])
        .env_remove("BULLA_BUS_URL")
        .output()
        .unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_and_an_agent() {
    let Some(rabbit) = require(RabbitMq::start()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore = keystore(&folder, &["control", "orders", "billing"]).await;
    let peers = ["component/control", "component/orders", "component/billing"];
    let bus = || Some(json!({ "url": rabbit.url(), "exchange": "bulla" }));
    let orders = write_key_file(&keystore, "orders", &peers, bus(), folder.path()).await;
    let billing = write_key_file(&keystore, "billing", &peers, bus(), folder.path()).await;
    let till = write_agent_file(&keystore, "till-1", &peers, bus(), folder.path()).await;

    let services = [Service::start("orders", &orders), Service::start("billing", &billing)];
    let receipt = order(&till, "tea").unwrap();
    let expected = json!({
        "customer": "agent/till-1",
        "item": "tea",
        "cents": 500,
        "charged_by": "component/orders",
    });
    assert_eq!(receipt, expected);
    // What one service says to another comes through to the agent.
    let error = order(&till, "coffee").unwrap_err();
    assert!(error.contains("NoSuchItem"), "{error}");
    for service in services {
        assert!(service.stop());
    }
}
