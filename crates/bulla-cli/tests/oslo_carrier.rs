//! A whole deployment on the oslo carrier: processes that join, call, cast and fan out in oslo.messaging's
//! bodies, on its exchanges and queues.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use bulla_services::{VirtualHost, require};
use common::*;

#[test]
fn a_deployment_runs_on_oslo_messagings_queues() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let mut deployment = Deployment::new(Some(rabbit.url()));
    deployment.env.push(("BULLA_BUS_CARRIER", "oslo".to_owned()));
    let _control = deployment.serve();
    let key = deployment.add_agent("db-1", &[]);
    let _agent = deployment.agent(&key, &[]);
    let facts = deployment.call("agent/db-1", "host.facts", "{}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(facts.to_string().contains(host.trim()), "{facts}");
    deployment.ok(&["cast", "agent/db-1", "agent.ping", "{}"]);
    // One control exchange for all, as oslo.messaging has it, and replies through the default one.
    let exchanges =
        rabbit.rabbitmqctl("list_exchanges", &["-q", "name", "type", "durable"]).unwrap();
    assert!(exchanges.contains("bulla\ttopic\tfalse"), "{exchanges}");
    assert!(!exchanges.contains("bulla.agent"), "{exchanges}");
    let queues = rabbit.rabbitmqctl("list_queues", &["-q", "name", "durable"]).unwrap();
    assert!(queues.contains("agent.db-1\tfalse"), "{queues}");
    assert!(queues.lines().any(|queue| queue.starts_with("reply_")), "{queues}");
    let doctor = deployment.run(&["doctor"]).stdout;
    let doctor = String::from_utf8_lossy(&doctor);
    assert!(doctor.contains("takes our login; carrier: oslo"), "{doctor}");
    // Who is not on that carrier reaches nobody.
    deployment.env.clear();
    let said = deployment.fails(1, &["agent", "run", "--key", key.to_str().unwrap()]);
    assert!(said.contains("exists with other properties"), "{said}");
}

#[test]
fn up_and_bench_run_on_it_too() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let (mut deployment, url) = (Deployment::new(None), rabbit.url());
    deployment.env.push(("BULLA_BUS_CARRIER", "oslo".to_owned()));
    let up = deployment.ok(&["up", "--once", "--bus", &url, "--listen", "127.0.0.1:0"]);
    assert!(up.contains("in oslo.messaging's bodies"), "{up}");
    deployment.env.clear();
    let small = ["--sizes=100", "--concurrency=4", "--rounds=1", "--slice=20"];
    let bench = [&["bench", "--bus", &url, "--carrier", "oslo"], &small[..]].concat();
    let report = deployment.json(&bench);
    assert!(report["bus"].as_str().unwrap().ends_with("oslo carrier"), "{report}");
    assert_eq!(report["refused"], 0, "{report}");
}
