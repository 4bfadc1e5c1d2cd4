//! The commands on a deployment in one process.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::*;
use serde_json::json;

fn up(deployment: &Deployment, more: &[&str]) -> Process {
    deployment.start(&[&["up", "--listen", "127.0.0.1:0"], more].concat(), "Running.")
}

#[test]
fn init_makes_files_for_the_owner_alone() {
    let deployment = Deployment::new(None);
    let home = deployment.home();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    for file in [
        "kek",
        "root.key",
        "keystore.db",
        "bulla.toml",
        "tls/ca.key",
        "tls/server.key",
        "tls/operator.key",
    ] {
        assert_eq!(mode(&home.join(file)), 0o600, "{file}");
    }
    // Nothing of the root key is needed to go on.
    fs::remove_file(home.join("root.key")).unwrap();
    deployment.add_agent("db-1", &[]);
    let _up = up(&deployment, &[]);
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
}

#[test]
fn lists_show_what_was_added() {
    let deployment = Deployment::new(None);
    let key = deployment.add_agent("db-1", &[]);
    deployment.add_agent("db-2", &["--key-type", "shared"]);
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    deployment.ok(&["component", "add", "conductor"]);
    deployment.ok(&["component", "add", "conductor", "--instance", "conductor-2"]);
    let hosts = deployment.home().join("components");
    assert!(hosts.join("conductor-1.key").exists() && hosts.join("conductor-2.key").exists());
    deployment.ok(&["group", "add", "databases", "--member", "agent/db-1"]);
    deployment.ok(&["group", "add", "databases", "--member", "agent/db-2"]);

    let agents = deployment.json(&["agent", "list"]);
    let names: Vec<_> = agents.as_array().unwrap().iter().map(|a| a["id"].clone()).collect();
    assert_eq!(names, ["db-1", "db-2"]);
    let shown = deployment.json(&["agent", "show", "db-1"]);
    assert_eq!(shown["principal"], "spiffe://bulla.local/agent/db-1");
    assert_eq!(shown["groups"], json!(["group/all", "group/databases"]));
    assert!(shown["credential"]["kid"].as_str().unwrap().len() == 16);
    let components = deployment.json(&["component", "list"]);
    let names: Vec<_> = components.as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["conductor", "control"]);
    let groups = deployment.json(&["group", "list"]);
    let databases = groups.as_array().unwrap().iter().find(|g| g["name"] == "databases").unwrap();
    assert_eq!(databases["members"], 2);
    // For people too, and without a secret.
    let seed = fs::read_to_string(&key).unwrap();
    let seed =
        seed.lines().find(|l| l.starts_with("signing-key")).unwrap().split('"').nth(1).unwrap();
    for command in [
        &["agent", "list"][..],
        &["agent", "show", "db-1"],
        &["component", "list"],
        &["group", "list"],
    ] {
        let said = deployment.ok(command);
        assert!(
            said.contains("db-1") || said.contains("control") || said.contains("databases"),
            "{said}"
        );
        assert!(!said.contains(seed));
    }
}

#[test]
fn agents_and_hosts_are_revoked_and_types_rotated() {
    let deployment = Deployment::new(None);
    deployment.add_agent("db-1", &[]);
    for host in ["conductor-1", "conductor-2"] {
        deployment.ok(&["component", "add", "conductor", "--instance", host]);
    }
    deployment.ok(&["group", "add", "databases", "--member", "component/conductor"]);
    assert_eq!(deployment.json(&["component", "rotate", "conductor"])["epoch"], 2);
    let revoke = ["component", "revoke", "conductor", "--instance", "conductor-1"];
    let revoked = deployment.json(&revoke);
    assert_eq!((&revoked["epoch"], &revoked["pair_epoch"]), (&json!(3), &json!(2)));
    assert_eq!(revoked["groups_rekeyed"], json!(["group/databases"]));
    assert_eq!(revoked["kids"].as_array().unwrap().len(), 1);
    let said = deployment.fails(1, &["component", "revoke", "conductor", "--instance", "x"]);
    assert!(said.contains("has no host `x`"), "{said}");
    let said = deployment.ok(&["component", "revoke", "conductor", "--instance", "conductor-2"]);
    assert!(said.contains("fetch what is new"), "{said}");

    assert_eq!(deployment.json(&["agent", "revoke", "db-1"])["incarnation"], 1);
    let said = deployment.fails(1, &["agent", "revoke", "db-1"]);
    assert!(said.contains("db-1"), "{said}");
    assert_eq!(deployment.json(&["agent", "list"]), json!([]));
}

#[test]
fn access_keys_are_shown_once_and_removed() {
    let deployment = Deployment::new(None);
    let shown = deployment.json(&["access-key", "add", "operator/alice", "--expires", "90d"]);
    let (id, secret) = (shown["access_key_id"].clone(), shown["secret_key"].clone());
    assert_eq!(secret.as_str().unwrap().len(), 43);
    let file = deployment.path("backup.access");
    let add = ["access-key", "add", "program/backup", "--out", file.to_str().unwrap()];
    let said = deployment.ok(&add);
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let in_file = written.lines().nth(1).unwrap().split('"').nth(1).unwrap();
    assert!(in_file.len() == 43 && !said.contains(in_file), "{said}");
    assert!(deployment.fails(1, &add).contains("not overwritten"));
    assert!(deployment.fails(2, &["access-key", "add", "alice"]).contains("operator/NAME"));
    for (end, code) in [("never", 2), ("1999-01-01T00:00:00Z", 1)] {
        deployment.fails(code, &["access-key", "add", "operator/alice", "--expires", end]);
    }
    let listed = deployment.json(&["access-key", "list"]);
    let users: Vec<_> = listed.as_array().unwrap().iter().map(|k| k["user"].clone()).collect();
    assert_eq!(users, ["operator/alice", "program/backup"]);
    let id = id.as_str().unwrap();
    deployment.ok(&["access-key", "disable", id]);
    let said = deployment.ok(&["access-key", "list"]);
    assert!(said.contains("disabled") && !said.contains(secret.as_str().unwrap()), "{said}");
    deployment.ok(&["access-key", "enable", id]);
    deployment.ok(&["access-key", "remove", id]);
    assert!(deployment.fails(1, &["access-key", "remove", id]).contains("no access key"));
    assert_eq!(deployment.json(&["access-key", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn plain_http_needs_the_token() {
    let deployment = Deployment::new(None);
    let _up = up(&deployment, &["--plain"]);
    let url = fs::read_to_string(deployment.home().join("api.url")).unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
    let token = deployment.home().join("api.token");
    assert_eq!(token.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&token).unwrap();
    let other = if text.starts_with('A') { 'B' } else { 'A' };
    fs::write(&token, format!("{other}{}", &text[1..])).unwrap();
    let said = deployment.fails(1, &["call", "agent/local", "agent.ping"]);
    assert!(!said.contains("pong"), "{said}");
    let said = deployment.fails(1, &["up", "--once", "--plain", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("loopback"), "{said}");
}

#[test]
fn tap_shows_what_the_bus_sees() {
    let deployment = Deployment::new(None);
    let _up = up(&deployment, &[]);
    let mut tap = deployment
        .command(&["tap", "--json", "--count", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(tap.stdout.take().unwrap()).lines();
    // The tap is on when it shows something; calls until then.
    let caller = std::thread::scope(|scope| {
        let calling = scope.spawn(|| {
            for _ in 0..200 {
                deployment.call("agent/local", "agent.ping", r#"{"secret":"hunter2"}"#);
                if tap.try_wait().unwrap().is_some() {
                    return;
                }
            }
        });
        let shown: Vec<_> = lines.map_while(Result::ok).collect();
        calling.join().unwrap();
        shown
    });
    assert_eq!(caller.len(), 2, "{caller:?}");
    let hunter = "68756e746572";
    for line in &caller {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["size"].as_u64().unwrap() > 100, "{line}");
        assert_eq!(event["key_id"].as_str().unwrap().len(), 32, "{line}");
        assert!(!line.contains(hunter), "{line}");
    }
    assert!(caller.iter().any(|line| line.contains("agent.local")), "{caller:?}");
}

#[test]
fn doctor_says_what_is_wrong() {
    let deployment = Deployment::new(None);
    let said = deployment.ok(&["doctor"]);
    assert!(said.contains("root key") && said.contains("not running"), "{said}");
    let _up = up(&deployment, &[]);
    let said = deployment.ok(&["doctor"]);
    assert!(said.contains("answers, version"), "{said}");
    fs::set_permissions(deployment.home().join("kek"), fs::Permissions::from_mode(0o644)).unwrap();
    let said = deployment.run(&["doctor"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stdout).contains("bad"), "{}", text(&said.stdout));
}

#[test]
fn a_fanout_and_a_cast_reach_the_local_agent() {
    let deployment = Deployment::new(None);
    let _up = up(&deployment, &[]);
    let sent = deployment.json(&["cast", "agent/local", "agent.ping"]);
    assert_eq!(sent["message_id"].as_str().unwrap().len(), 32);
    let sent = deployment.json(&["fanout", "group/all", "agent.ping"]);
    assert_eq!(sent["message_id"].as_str().unwrap().len(), 32);
}

#[test]
fn bench_prints_the_overhead() {
    let dir = tempfile::tempdir().unwrap();
    let output = bulla(dir.path()).args(["bench", "--overhead", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value.as_array().is_some_and(|rows| rows.len() >= 5), "{value}");
}

#[test]
fn peers_shows_floors_and_gives_exemptions() {
    let deployment = Deployment::new(None);
    deployment.add_agent("db-1", &[]);
    let _up = up(&deployment, &[]);
    // The local agent asked for something at its start, sealed.
    let local = eventually("the local agent is in the census", || {
        let peers = deployment.json(&["peers"]);
        let found = peers.as_array().unwrap().iter().find(|p| p["principal"] == "agent/local");
        found.filter(|peer| !peer["seen"].as_array().unwrap().is_empty()).cloned()
    });
    assert_eq!((&local["accepts"], &local["sends"]), (&json!("sealed"), &json!("sealed")));
    let seen = &local["seen"][0];
    assert_eq!((&seen["level"], &seen["below"]), (&json!("sealed"), &json!(0)));

    let given =
        deployment.json(&["peers", "exempt", "agent/db-1", "guest.resize", "--until", "2h"]);
    assert_eq!((&given["level"], &given["live"]), (&json!("signed"), &json!(true)));
    let id = given["id"].as_str().unwrap();
    let listed = deployment.json(&["peers", "exempt"]);
    assert_eq!(listed, json!([given]));
    let said = deployment.ok(&["peers"]);
    assert!(said.contains("guest.resize signed until"), "{said}");
    assert!(deployment.ok(&["peers", "exempt", "--revoke", id]).contains("taken back"));
    assert_eq!(deployment.json(&["peers", "exempt"]), json!([]));
    assert!(deployment.fails(1, &["peers", "exempt", "--revoke", id]).contains("no exemption"));
    for until in ["1970-01-01T00:00:00Z", "91d"] {
        let said = deployment.fails(1, &["peers", "exempt", "agent/db-1", "x", "--until", until]);
        assert!(said.contains("90 days"), "{said}");
    }

    let rehearsed = deployment.json(&["peers", "raise", "agent/db-1", "sealed", "--shadow"]);
    assert_eq!(
        (&rehearsed["accepts"], &rehearsed["target"]),
        (&json!("plaintext"), &json!("sealed"))
    );
    let raised = deployment.json(&["peers", "raise", "agent/db-1", "sealed"]);
    assert_eq!((&raised["accepts"], &raised.get("target")), (&json!("sealed"), &None));
    let still = deployment.json(&["peers", "raise", "agent/db-1", "signed"]);
    assert_eq!(still["accepts"], "sealed", "nothing lowers it");
    assert!(
        deployment
            .fails(1, &["peers", "raise", "agent/nobody", "sealed"])
            .contains("no agent/nobody")
    );
}

#[test]
fn an_agent_serves_only_with_the_deployments_statements() {
    let deployment = Deployment::new(None);
    let key = deployment.add_agent("db-1", &[]);
    let text = fs::read_to_string(&key).unwrap();
    assert!(text.contains("statements = true"), "{text}");
    let _up = up(&deployment, &[]);
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
    // Removing an agent revokes its keys: a new statement, which everybody takes.
    deployment.ok(&["peers"]);
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
}
