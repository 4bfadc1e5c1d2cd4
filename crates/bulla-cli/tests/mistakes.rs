//! Bad input: each with a clear error, the right exit code, and nothing lost.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use common::*;

fn up(deployment: &Deployment) -> Process {
    deployment.start(&["up", "--listen", "127.0.0.1:0"], "Running.")
}

#[test]
fn what_a_caller_does_wrong_is_told_to_it() {
    let deployment = Deployment::new(None);
    let _up = up(&deployment);
    let said = deployment.fails(2, &["call", "agent/local", "agent.ping", "{not json"]);
    assert!(said.contains("not JSON") && said.contains("column"), "{said}");
    let said = deployment.fails(1, &["call", "agent/nobody", "agent.ping"]);
    assert!(said.contains("there is no agent/nobody"), "{said}");
    let said = deployment.fails(1, &["call", "db-1", "agent.ping"]);
    assert!(said.contains("not of the form `agent/NAME`"), "{said}");
    let said = deployment.fails(1, &["call", "agent/local", "agent.nothing"]);
    assert!(said.contains("NoSuchMethod"), "{said}");
    let said = deployment.fails(1, &["call", "agent/local", "agent.ping", "--version", "7.0"]);
    assert!(said.contains("UnsupportedVersion"), "{said}");
    let said = deployment.fails(2, &["call", "agent/local", "agent.ping", "--timeout", "0"]);
    assert!(said.contains("--timeout"), "{said}");
    let said = deployment.fails(1, &["call", "group/all", "agent.ping"]);
    assert!(said.contains("group"), "{said}");
    let said = deployment.fails(1, &["fanout", "group/none", "agent.ping"]);
    assert!(said.contains("there is no group/none"), "{said}");
    let said = deployment.fails(1, &["agent", "show", "nobody"]);
    assert!(said.contains("nobody"), "{said}");
    let said = deployment.fails(1, &["agent", "add", "a/b"]);
    assert!(said.contains("only letters"), "{said}");
    // Nothing of that hurt anyone.
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
}

#[test]
fn messages_over_the_limit_are_refused_before_they_are_sent() {
    let deployment = Deployment::new(None);
    let _up = up(&deployment);
    let file = deployment.path("big.json");
    fs::write(&file, format!("{{\"data\":\"{}\"}}", "x".repeat(2 << 20))).unwrap();
    let mut command = deployment.command(&["call", "agent/local", "agent.ping", "-"]);
    let output = command.stdin(fs::File::open(&file).unwrap()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("1048576 is the limit"), "{said}");
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
}

#[test]
fn key_files_are_looked_at_before_they_are_used() {
    let deployment = Deployment::new(None);
    let other = Deployment::new(None);
    let key = deployment.add_agent("db-1", &[]);
    let run = |key: &std::path::Path| {
        deployment.fails(
            1,
            &["agent", "run", "--key", key.to_str().unwrap(), "--bus", "amqp://127.0.0.1:1"],
        )
    };
    let said = run(&deployment.path("none.key"));
    assert!(said.contains("none.key") && said.contains("No such file"), "{said}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let said = run(&key);
    assert!(said.contains("chmod 600"), "{said}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(&key).unwrap();
    let seed = text.lines().find(|line| line.starts_with("signing-key")).unwrap().to_owned();
    // A damaged file is told by its line, and the line is not repeated.
    let damaged = deployment.path("damaged.key");
    fs::write(&damaged, text.replace("signing-key", "signing-kex")).unwrap();
    fs::set_permissions(&damaged, fs::Permissions::from_mode(0o600)).unwrap();
    let said = run(&damaged);
    assert!(said.contains("is not a key file"), "{said}");
    assert!(!said.contains(seed.split('"').nth(1).unwrap()), "{said}");
    // Another deployment's root under this agent's credentials.
    let foreign = other.add_agent("db-1", &[]);
    let root = |text: &str| text.lines().find(|l| l.starts_with("root")).unwrap().to_owned();
    let foreign = fs::read_to_string(foreign).unwrap();
    fs::write(&damaged, text.replace(&root(&text), &root(&foreign))).unwrap();
    let said = run(&damaged);
    assert!(said.contains("refused") && said.contains("another deployment"), "{said}");
    // An existing key file is never overwritten.
    let said = deployment.fails(1, &["agent", "add", "db-2", "--out", key.to_str().unwrap()]);
    assert!(said.contains("not overwritten"), "{said}");
    assert_eq!(fs::read_to_string(&key).unwrap(), text);
    let said = deployment.fails(1, &["agent", "add", "db-1"]);
    assert!(said.contains("db-1"), "{said}");
}

#[test]
fn a_broker_that_is_not_there_is_named_without_its_password() {
    let deployment = Deployment::new(None);
    let url = "amqp://user:hunter2@127.0.0.1:1";
    let said = deployment.fails(1, &["serve", "--bus", url, "--listen", "127.0.0.1:0"]);
    assert!(said.contains("127.0.0.1:1") && !said.contains("hunter2"), "{said}");
    let key = deployment.add_agent("db-1", &[]);
    let said = deployment.fails(1, &["agent", "run", "--key", key.to_str().unwrap(), "--bus", url]);
    assert!(said.contains("127.0.0.1:1") && !said.contains("hunter2"), "{said}");
    let said = deployment.fails(2, &["serve"]);
    assert!(said.contains("--bus"), "{said}");
}

#[test]
fn a_port_in_use_is_named() {
    let deployment = Deployment::new(None);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = deployment.fails(1, &["up", "--once", "--listen", &address.to_string()]);
    assert!(said.contains(&format!("port {}", address.port())), "{said}");
}

#[test]
fn a_folder_that_can_not_be_written_to_is_named() {
    let dir = tempfile::tempdir().unwrap();
    // Even root can't make a folder here.
    let home = std::path::Path::new("/proc/bulla");
    let output = bulla(home).current_dir(dir.path()).arg("init").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/proc/bulla"), "{}", text(&output.stderr));
}

#[test]
fn exposed_and_default_kek_files_are_refused() {
    let deployment = Deployment::new(None);
    let kek = deployment.home().join("kek");
    fs::set_permissions(&kek, fs::Permissions::from_mode(0o644)).unwrap();
    let said = deployment.fails(1, &["agent", "list"]);
    assert!(said.contains("kek"), "{said}");
    fs::set_permissions(&kek, fs::Permissions::from_mode(0o600)).unwrap();
    deployment.ok(&["agent", "list"]);
    let said = deployment.fails(1, &["init"]);
    assert!(said.contains("already"), "{said}");
}

#[test]
fn without_a_control_plane_the_command_line_says_how_to_start_one() {
    let deployment = Deployment::new(None);
    let said =
        deployment.fails(1, &["call", "agent/local", "agent.ping", "--api", "https://127.0.0.1:1"]);
    assert!(said.contains("bulla up"), "{said}");
    let empty = tempfile::tempdir().unwrap();
    let output = bulla(&empty.path().join("none")).args(["agent", "list"]).output().unwrap();
    assert!(text(&output.stderr).contains("bulla init"), "{}", text(&output.stderr));
}

#[test]
fn every_request_needs_the_operator() {
    let deployment = Deployment::new(None);
    let _up = up(&deployment);
    let url = fs::read_to_string(deployment.home().join("api.url")).unwrap();
    // Another deployment's operator has a certificate of another CA.
    let other = Deployment::new(None);
    let said = other.fails(1, &["call", "agent/local", "agent.ping", "--api", &url]);
    assert!(!said.is_empty() && !said.contains("pong"), "{said}");
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
}

#[test]
fn up_once_shows_both_sides_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let output = bulla(&home).args(["up", "--once", "--listen", "127.0.0.1:0"]).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("What the agent answered") && said.contains("What the bus"), "{said}");
    assert!(said.contains("agent.local"), "{said}");
    // Once more, on what is there.
    let json =
        bulla(&home).args(["up", "--once", "--json", "--listen", "127.0.0.1:0"]).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(value["bus_saw"].as_array().unwrap().len() >= 2, "{value}");
    assert!(value["call"]["value"].is_object(), "{value}");
}
