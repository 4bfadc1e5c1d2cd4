//! `bulla attack`: on a deployment of its own, and on one that is in use.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::fs;

use bulla_services::{RabbitMq, require};
use common::*;

#[test]
fn shows_rows_and_attacks_a_deployment_of_its_own() {
    let deployment = Deployment::new(None);
    let listed = deployment.json(&["attack", "--list"]);
    assert!(listed.as_array().unwrap().len() >= 45);
    let said = deployment.ok(&["attack", "--only", "A01", "--only", "E02"]);
    assert!(said.contains("A01-plaintext-injection") && said.contains("trials held"), "{said}");
    let report = deployment.json(&["attack", "--only", "P01"]);
    assert_eq!(report["good"], true);
    assert_eq!(report["own"]["rows"][0]["cells"].as_array().unwrap().len(), 8);
    assert!(deployment.fails(2, &["attack", "--only", "Z99"]).contains("--list"));
}

#[test]
fn attacks_a_deployment_that_is_in_use_and_leaves_nothing_behind() {
    let Some(rabbit) = require(RabbitMq::start()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let (pair, stolen) = (deployment.add_agent("db-1", &[]), deployment.add_agent("db-2", &[]));
    let log = deployment.path("agent.log");
    let run = ["agent", "run", "--key", pair.to_str().unwrap(), "--json"];
    let mut agent = deployment.command(&run);
    agent.env("BULLA_LOG", "warn").stderr(fs::File::create(&log).unwrap());
    let _agent = Process::start_logged(agent, "db-1");
    deployment.call("agent/db-1", "agent.ping", "{}");
    let list = |what: &str| rabbit.rabbitmqctl(&[what, "-q", "name"]).unwrap();
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.retain(|name| !name.starts_with("reply.") && !name.starts_with("amq."));
        lines.sort();
        lines
    };
    let before = (sorted(list("list_queues")), sorted(list("list_exchanges")));
    let url = rabbit.url();
    let attack = ["attack", "--bus", &url, "--only", "A01", "--only", "live"];

    // Not without being told to.
    let alone = deployment.json(&attack);
    assert_eq!((alone["good"].as_bool(), alone["live"].as_array().unwrap().len()), (Some(true), 0));

    let key = stolen.to_str().unwrap();
    let more = [&attack[..], &["--yes", "--agent", "db-1", "--key", key]].concat();
    let report = deployment.json(&more);
    assert_eq!(report["good"], true, "{report:#}");
    assert_eq!(report["live"].as_array().unwrap().len(), 12, "{report:#}");
    assert_eq!((sorted(list("list_queues")), sorted(list("list_exchanges"))), before);
    deployment.call("agent/db-1", "agent.ping", "{}");
    // Each kind of refusal is told by its name, as a field of its own.
    let told: BTreeSet<String> = fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter_map(|line| Some(line["refusal"].as_str()?.to_owned()))
        .collect();
    for refusal in ["malformed", "not-authentic", "session-unknown"] {
        assert!(told.contains(refusal), "{told:?}");
    }
}
